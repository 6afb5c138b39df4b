mkdir -p dir/sub/deep
for f in a.log keep.log f1 g sub/b.log sub/h sub/deep/c.log; do echo $f > dir/$f; done
echo top > top
