mkdir -p in/closed in/t
echo f > in/closed/f
echo g > in/t/g
tar --mtime=@1 --owner=5 --group=6 --numeric-owner -C in -cf bare.tar closed/f t/g
rm -r in
