echo 1 > 1.txt
echo 2 > 'a b.txt'
echo x > '[x]'
mkdir d1 d2
for i in 0 1 2; do echo $i > d1/f$i; done
echo other > d2/f0
mkdir d2/n
echo n > d2/n/n
