mkdir d && echo a > a && echo y > d/y && touch d/f
