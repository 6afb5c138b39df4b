mkdir -p d t && echo f > f && echo d > d/in && echo t > t/t && tar --owner=0 --group=0 --mtime=@1 -C t -cf a.tar t && rm -r t
