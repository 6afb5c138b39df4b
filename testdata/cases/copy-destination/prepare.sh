echo a > a
echo b > b
chmod 640 b
mkdir -p dir/in
echo c > dir/in/c
chmod 700 dir
chmod 711 dir/in
echo d > dir/d
