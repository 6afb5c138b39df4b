echo a > a
mkdir t
ln -s loop t/loop
