mkdir -p in/d in/l
echo f > in/f
echo g > in/d/g
echo z > in/f2
echo inl > in/l/inl
chmod 711 in/d
chmod 750 in
tar --mtime=@1 --owner=5 --group=6 --numeric-owner --sort=name -C in -cf a.tar .
rm -r in
