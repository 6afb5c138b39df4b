printf secret > k
echo k > .dockerignore
