echo f > file
chmod 600 file
