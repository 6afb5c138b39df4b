echo a > .dockerignore
printf 'b\n*ignore\nDockerfile*' > Dockerfile.dockerignore
echo a > a
echo b > b
