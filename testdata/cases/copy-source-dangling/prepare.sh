ln -s nothing l
