mkdir in
echo f > in/f
tar --mtime=@1 --owner=0 --group=0 -C in -cf a.tar f
rm -r in
