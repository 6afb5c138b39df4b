echo f > f
echo f2 > f2
mkdir dir
echo d > dir/d
