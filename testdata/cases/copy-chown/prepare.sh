echo f > f
mkdir dir
echo d > dir/d
ln -s d dir/l
