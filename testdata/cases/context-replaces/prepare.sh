mkdir dir
echo d > dir/d
echo top > top
