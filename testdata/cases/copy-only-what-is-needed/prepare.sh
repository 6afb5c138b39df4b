echo w > wanted && mkdir -p dir other/deep && echo f > dir/f && echo g > dir/g && echo o > other/deep/o
