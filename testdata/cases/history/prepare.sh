echo f > f
echo g > g
