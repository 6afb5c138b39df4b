mkdir -p in/d; echo f > in/f; chmod 4711 in/f; ln in/f in/h; ln -s f in/l; chmod 700 in/d; echo g > in/d/g; mkfifo in/p; chmod 755 in
t() { tar --mtime=@1 --owner=5 --group=6 --numeric-owner --sort=name -C in "$@" .; }
t -cf p.tar; t -czf g.tgz; t -cJf x.tar.xz; t -cjf b.tar.bz2; t --zstd -cf z.tar.zst
echo notatar > fake.tar; echo notatar | gzip -n > notar.gz; rm -r in
