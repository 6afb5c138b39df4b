mkdir real tree
echo f > real/f
ln -s real/f link
ln -s real dirlink
ln -s ../real tree/l
ln -s /nowhere tree/dangling
ln -s /real/f abs
