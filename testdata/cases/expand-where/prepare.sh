mkdir 'a b' && echo x > 'a b/x'
