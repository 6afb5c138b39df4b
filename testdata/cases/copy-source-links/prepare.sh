echo a > a
echo x > x
chmod 755 x
mkdir -p dir/in
echo c > dir/in/c
echo d > dir/d
ln -s d dir/link
chmod 711 dir/in
chmod 700 dir

mkdir deep
ln -s ../../../a out
ln -s /x abs
ln -s deep/ld/link chain
ln -s dir ld
ln -s ../dir deep/ld
ln -s ../a dir/up
ln -s a la
