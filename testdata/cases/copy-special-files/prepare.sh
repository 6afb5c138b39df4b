mkdir -p s/sticky s/empty
mkfifo s/p
chmod 620 s/p
echo h > s/h1
ln s/h1 s/h2
ln s/h1 h3
ln -s h1 s/l
python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('s/k')"
chmod 711 s/k
mknod s/null c 1 3
mknod s/disk b 7 5
truncate -s 300000 s/sparse
printf end >> s/sparse
touch -d @123.5 s/old
touch -hd @77 s/l
touch -d @55 s/sticky
chmod 1777 s/sticky
chmod 0 s/empty
chown 3:4 s/h1
setfattr -n user.colour -v blue s/old
