long=$(head -c 100000 /dev/zero | tr '\0' x)
printf '# %s\nFROM base\nRUN echo a \\\n# %s\n > /a\nCOPY <<E /long\n%s\nE\n' "$long" "$long" "$long" > Dockerfile
