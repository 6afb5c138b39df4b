mkdir -p node_modules/q d/s g/d f
for file in node_modules/x.md node_modules/q/y.md node_modules/no a.md d/f d/s/f g/d/f f/in f/out; do echo $file > $file; done
