mkfifo p && mknod c c 1 3 && mkdir d && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("k")' && touch "$(printf 'n\303\244me')" A a "d/$(head -c 255 /dev/zero | tr '\0' l)"
