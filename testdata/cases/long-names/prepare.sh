n=$(printf 'n%.0s' $(seq 120))
mkdir -p $n/$n
echo 1 > $n/$n/$n
ln -s $n/$n/$n l
ln $n/$n/$n hard
