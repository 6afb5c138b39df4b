mkdir sub
echo ctx > sub/f
