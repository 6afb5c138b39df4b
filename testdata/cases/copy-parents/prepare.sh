mkdir -p x/y/z y
echo 1 > x/a
echo 2 > y/a
echo f > x/y/f
echo t > x/y/z/t.txt
echo r > r.txt
chmod 700 x/y
mkdir x/w
echo wf > x/w/f
