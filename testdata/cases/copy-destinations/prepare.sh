echo a > a
echo x > x
chmod 755 x
mkdir -p dir/in
echo c > dir/in/c
echo d > dir/d
ln -s d dir/link
chmod 711 dir/in
chmod 700 dir

mkdir -p B/d/sub B/dd B/sg B/tmp B/etc
echo x > B/d/x
echo f > B/f
ln -s f B/lf
ln -s d B/ld
ln -s /d B/la
ln -s missing/deep B/lx
ln -s ../../d B/ldd
ln -s ../dd B/d/ln
printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/h:/bin/sh\n' > B/etc/passwd
printf 'root:x:0:\napp:x:1001:\nextra:x:2000:app\n' > B/etc/group
chmod 700 B/dd
chmod 2775 B/sg
chmod 1777 B/tmp
chmod 750 B/d/sub
chown 5:6 B/dd
chown 7:8 B/sg
chown 9:9 B/d/sub B/f
tar --mtime=@1000 --numeric-owner --sort=name -C B -cf base.tar .
rm -r B
