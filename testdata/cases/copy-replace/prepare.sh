mkdir -p tree/d
echo new > tree/f
echo y > tree/d/y
chmod 750 tree/d
