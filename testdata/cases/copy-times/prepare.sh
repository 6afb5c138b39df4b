mkdir -p d/sub && echo f > d/f && touch -d @1234567890.5 d/f && ln -s f d/l && touch -hd @77 d/l && echo h > d/h && ln d/h d/sub/h && touch -d @9 d/sub d
