printf '*\n!src\nsrc/skip\n!src/skip/me\n!**/*.md\n' > .dockerignore
mkdir -p src/skip other
for f in src/a src/skip/me src/skip/not other/x.md other/y r.md; do echo $f > $f; done
