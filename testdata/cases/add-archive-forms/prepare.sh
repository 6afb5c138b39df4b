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

cp g.tgz gz
cat p.tar p.tar > twice.tar
(cat p.tar; echo garbage) > trail.tar
echo text > text
head -c 400 p.tar > short.tar
cp p.tar crc.tar
printf XX | dd of=crc.tar bs=1 seek=3 conv=notrunc 2>/dev/null
: > empty
head -c 1024 /dev/zero > zeros
echo text | gzip -n > notar.gz
