mkdir -p sub/d1/d2 files
echo f > sub/d1/d2/f
echo foo > files/foo
chmod 700 sub/d1
