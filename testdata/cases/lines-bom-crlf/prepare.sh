printf '\357\273\277FROM base\r\nRUN echo a \\\r\n  b \\\r\n# comment\r\n\r\n  c > /o\r\n   ENV A=1 \\\r\n  B=2\r\nCOPY <<E /h\r\none\r\n\ttwo\nE\r\nCOPY <<-E /t\r\n\tone\r\n\tE\r\n' > Dockerfile
