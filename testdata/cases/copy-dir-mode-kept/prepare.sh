mkdir -p dir/s
chmod 2755 dir/s
chmod 700 dir
echo f > dir/s/f
