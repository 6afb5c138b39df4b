ln -s l l
