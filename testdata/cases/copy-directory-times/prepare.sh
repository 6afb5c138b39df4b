mkdir -p B/a/sub B/b/in B/c B/empty
echo f > B/a/f; echo x > B/b/x; echo y > B/b/in/y; echo z > B/b/in/z
find B -exec touch -d @1000 {} +
touch -d @2000 B/b B/b/in; touch -d @3000 B/empty B/b/x
tar --owner=0 --group=0 --sort=name -C B -cf old.tar a b c empty
rm -r B
