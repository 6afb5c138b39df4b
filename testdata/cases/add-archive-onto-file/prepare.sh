mkdir -p in/d
echo f > in/f
echo g > in/d/g
t() { tar --mtime=@1 --owner=5 --group=6 --numeric-owner --sort=name -C in "$@" .; }
t -cf p.tar
t -czf g.tgz
truncate -s 70000 in/sparse
printf x >> in/sparse
t -S -cf sparse.tar
rm -r in
