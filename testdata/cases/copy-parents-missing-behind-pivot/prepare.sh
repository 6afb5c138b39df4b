mkdir -p t/a/b/c/d/e t/a/b2/c/d/e t/a/b/c2/d/e t/a/b/c2/d/e2
for f in b/c/d/foo b/c/d/e/bay b2/c/d/e/bar b/c2/d/e/baz b/c2/d/e2/baz; do echo $f > t/a/$f; done
chmod 700 t/a/b
