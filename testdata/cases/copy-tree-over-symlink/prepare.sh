mkdir -p tree
echo f > tree/file
