mkdir -p d/q/deep d/r a/b/c e 'sp ace'
for f in a.log keep.log d/a.log d/x d/q/y d/q/deep/z d/r/y a/f a/b/f a/b/c/f e/f '#h' '!b' 'sp ace/f' r.md d/r.md .h 'st*r'; do echo $f > "$f"; done
cat > .dockerignore <<'E'
Dockerfile
.dockerignore
prepare*
E
