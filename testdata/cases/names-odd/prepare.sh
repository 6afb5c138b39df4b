mkdir -- '-d' 'sp ace' ünï
echo 1 > ./-d/-f
echo 2 > 'sp ace/q"uote'
echo 3 > 'ünï/é'
echo b > 'back\slash'
echo s > 'st*r' 
