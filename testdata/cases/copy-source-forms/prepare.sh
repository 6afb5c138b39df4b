mkdir d 'with space' && echo f > d/f && echo g > 'with space/g h' && ln -s d l
