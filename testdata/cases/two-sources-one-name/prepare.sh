mkdir a b
echo a > a/f
echo b > b/f
chmod 600 b/f
echo o > a/only
