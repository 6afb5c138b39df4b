mkdir -p files/sub
for f in kept skipped sub/a sub/b sub/skipped; do echo $f > files/$f; done
printf "skipped\n**/skipped\n.dockerignore\n" > files/.dockerignore
echo files/kept > .dockerignore
chmod 600 files/sub/a
ln -s kept files/link
