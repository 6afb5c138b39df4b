printf '# c\n*.log\n!keep.log\n/d/x\n  sp  \n**/tmp\nd/*/y\n!d/q/y\nDockerfile\n.dockerignore\nempty/\nonly/**\n!only/this\n#no\n\\#hash\n' > .dockerignore
mkdir -p d/q d/r d/tmp tmp empty only/deep a/tmp
for f in a.log keep.log d/a.log d/x sp d/q/y d/r/y d/tmp/f tmp/f a/tmp/f a/f empty/f only/this only/that only/deep/f '#hash'; do echo $f > "$f"; done
