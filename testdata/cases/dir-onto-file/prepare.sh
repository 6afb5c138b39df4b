mkdir d
echo y > d/y
