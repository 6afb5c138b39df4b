cat > make.py <<'E'
import tarfile, io, sys
def mk(name, *entries):
    t = tarfile.open(name, "w", format=tarfile.PAX_FORMAT)
    for name, kind, more, mode in entries:
        i = tarfile.TarInfo(name)
        i.mtime, i.uid, i.gid, i.mode = 5, 3, 4, mode
        data = more.encode() if kind == "0" else None
        i.size = len(data or b"")
        i.type = kind.encode()
        i.linkname = more if kind in "12" else ""
        i.devmajor, i.devminor = (1, 3) if kind in "34" else (0, 0)
        t.addfile(i, io.BytesIO(data) if data is not None else None)
    t.close()
mk('x.tar', ('x/inside', '0', '1', 420))
E
python3 make.py
rm make.py
mkdir -p base/sub base/target
echo x > base/x
ln -s target base/ln
ln -s /target base/la
chmod 750 base/sub
