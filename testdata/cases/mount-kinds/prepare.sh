printf secret > s.txt
echo s.txt > .dockerignore
