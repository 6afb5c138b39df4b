echo f > f
chmod 600 f
echo x > x
chmod 4755 x
mkdir dir
echo z > dir/z
chmod 444 dir/z
chmod 500 dir
echo s > s
chmod 6711 s
