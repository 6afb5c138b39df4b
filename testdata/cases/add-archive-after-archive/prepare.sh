mkdir -p 1/d/e 2/d/e
echo 1 > 1/d/f; echo 2 > 2/d/e/g; chmod 1777 1/d; chmod 2750 1/d/e; touch -d @1000 1/d/f 2/d/e/g 1/d/e 1/d
tar --owner=3 --group=4 --sort=name -C 1 -cf 1.tar d; tar --owner=5 --group=6 -C 2 -cf 2.tar d/e/g
rm -r 1 2
