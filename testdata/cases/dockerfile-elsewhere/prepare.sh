mkdir sub && printf "FROM scratch\nCOPY . /o/\n" > sub/Other && printf "sub\nskipped\n" > sub/Other.dockerignore && touch skipped kept && echo kept > .dockerignore
