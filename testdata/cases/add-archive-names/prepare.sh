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
mk('dot.tar', ('.', '5', '', 448), ('./f', '0', '1', 420))
mk('abs.tar', ('/f', '0', '1', 420), ('/d/g', '0', '1', 420))
mk('inside.tar', ('a/../f', '0', '1', 420))
mk('dup.tar', ('f', '0', '1', 420), ('f', '0', '22', 384))
mk('dupdir.tar', ('d', '5', '', 448), ('d/f', '0', '1', 420), ('d', '5', '', 457))
mk('dirfile.tar', ('d', '5', '', 493), ('d/f', '0', '1', 420), ('d', '0', '2', 420))
mk('slash.tar', ('d//e/', '5', '', 493), ('d///e/f', '0', '1', 420), ('./g/.', '5', '', 493))
mk('long.tar', ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '0', '1', 420), ('l', '2', 'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 511), ('é', '0', '1', 420))
mk('implied.tar', ('q/w/e', '0', '1', 420))
E
python3 make.py
rm make.py
