mkdir -p tree/s B/d/e
echo a > a; echo b > tree/s/b; echo f > B/d/f
tar --mtime=@1000 --owner=0 --group=0 --sort=name -C B -cf base.tar d
rm -r B
