mkdir -p 1/d/e 2/d/e 3/l B/sg
echo 1 > 1/d/f; echo 2 > 2/d/e/g; echo 3 > 3/l/h; chmod 1777 1/d; chmod 2750 1/d/e; ln -s d 2/l; chmod 2775 B/sg
touch -hd @1000 1/d/f 2/d/e/g 1/d/e 1/d 2/l 3/l/h B/sg
tar --owner=3 --group=4 --sort=name -C 1 -cf 1.tar d; tar --owner=5 --group=6 -C 2 -cf 2.tar d/e/g l; tar --owner=5 --group=6 -C 3 -cf 3.tar l/h
tar --owner=7 --group=8 -C B -cf base.tar sg
rm -r 1 2 3 B
