echo f > f
mkdir dir
echo d > dir/d
chmod 700 dir
chmod 600 dir/d
ln -s d dir/l
echo x > dir/x
chmod 711 dir/x
