mkdir dir; echo f > file
