mkdir dir1 dir2 dir3
for f in dir1/1.png dir1/2.txt dir1/3.jpeg dir2/1.pdf dir2/2.jpeg dir2/3.png dir3/1.mp3 dir3/2.mpeg; do echo $f > $f; done
