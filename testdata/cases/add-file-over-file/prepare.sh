echo a > a
echo x > x
chmod 755 x
mkdir -p dir/in
echo c > dir/in/c
echo d > dir/d
ln -s d dir/link
chmod 711 dir/in
chmod 700 dir
