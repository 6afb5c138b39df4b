mkdir -p 1/d/s 2/d 2/f 3 5/d 5/l
echo 1 > 1/d/s/f
echo 1 > 1/f
ln -s f 1/l
chmod 750 1/d
echo 2 > 2/d/t
echo 3 > 3/l
ln -s /elsewhere 3/f
echo 5 > 5/d/n
chmod 701 5/d
