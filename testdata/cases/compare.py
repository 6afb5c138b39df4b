"""What compare-buildkit and compare-buildah share: builds cases with rbuild and with another builder, and prints where the images differ.

Compared are the flattened tree (type, mode, owner, size, time, content, link target, link groups, extended attributes, devices), config
and history; with --layers also each layer alone. Times of files that were made during the build are `now`.
"""

import difflib
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor

CASES = os.path.dirname(os.path.abspath(__file__))
APPLETS = "sh pwd ls cat echo id env true false sleep mkdir rm touch ln chmod chown cp mv grep head wc stat dd test sync sha256sum find sort printf".split()
# What every file of a context gets, unless it is older than RECENT.
CONTEXT_TIME = 1_600_000_000
RECENT = 1_735_689_600
BLOCK, CHARACTER = tarfile.BLKTYPE, tarfile.CHRTYPE


def run(*words, **more):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, **more)


def must(*words, **more):
    ended = run(*words, **more)
    if ended.returncode:
        sys.exit(f"{words}\n{ended.stdout}")
    return ended.stdout


def image(path):
    """The config, the flattened tree and each layer of the image in an OCI or Docker archive."""
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
        load = lambda name: json.load(archive.extractfile(name))
        if "index.json" in names:
            blob = lambda descriptor: "blobs/" + descriptor["digest"].replace(":", "/")
            manifest = load(blob(load("index.json")["manifests"][0]))
            while "manifests" in manifest:
                manifest = load(blob(manifest["manifests"][0]))
            config, layers = load(blob(manifest["config"])), [blob(layer) for layer in manifest["layers"] or []]
        else:
            manifest = load("manifest.json")[0]
            config, layers = load(manifest["Config"]), manifest["Layers"]
        tree, alone = {}, []
        for layer in layers:
            member = archive.getmember(layer)
            if member.issym():
                member = archive.getmember(os.path.normpath(os.path.join(os.path.dirname(layer), member.linkname)))
            data = archive.extractfile(member).read()
            apply(tree, data)
            alone.append(members(data))
    return config, tree, alone


class Entry:
    """One path: what it is as text, and an object that hard links share."""

    def __init__(self, text, directory=False):
        self.text = text
        self.directory = directory


def apply(tree, data):
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf8") as layer:
        members = layer.getmembers()
        for member in members:
            folder, name = os.path.split("/" + member.name.strip("/"))
            if name == ".wh..wh..opq":
                clear(tree, folder, False)
            elif name.startswith(".wh."):
                clear(tree, os.path.join(folder, name[4:]), True)
        for member in members:
            path = os.path.normpath("/" + member.name)
            if os.path.basename(path).startswith(".wh."):
                continue
            if member.islnk():
                tree[path] = tree[os.path.normpath("/" + member.linkname)]
                continue
            there = tree.get(path)
            if there and not (member.isdir() and there.directory):
                clear(tree, path, True)
            tree[path] = Entry(text_of(member, layer), member.isdir())


def members(data):
    """The entries of a layer, sorted."""
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf8") as layer:
        link = lambda member: f"hard link to {member.linkname.strip('/')}"
        return sorted(f"/{member.name.strip('/')} {link(member) if member.islnk() else text_of(member, layer)}" for member in layer)


def text_of(member, layer):
    owner = f"{member.mode & 0o7777:04o} {member.uid}:{member.gid}"
    time = int(member.mtime)
    # The times that directories of a context have in BuildKit are those of the transfer, or not.
    end = f" @{time}" if time != CONTEXT_TIME else ""
    if time > RECENT:
        end = "" if member.isdir() else " now"
    for key, value in sorted(member.pax_headers.items()):
        if key.startswith("SCHILY.xattr."):
            end += f" {key[13:]}={value.encode('utf8', 'surrogateescape').hex()}"
    if member.isreg():
        content = layer.extractfile(member).read()
        short = repr(content) if len(content) < 4000 else hashlib.sha256(content).hexdigest()[:16]
        return f"f {owner} {member.size} {short}{end}"
    if member.issym():
        return f"l {member.uid}:{member.gid} -> {member.linkname}{end}"
    if member.type in (BLOCK, CHARACTER):
        return f"{'b' if member.type == BLOCK else 'c'} {owner} {member.devmajor},{member.devminor}{end}"
    return f"{'d' if member.isdir() else 'p' if member.isfifo() else member.type} {owner}{end}"


def clear(tree, path, itself):
    for other in [other for other in tree if other.startswith(path.rstrip("/") + "/") or (itself and other == path)]:
        del tree[other]


def lines(config, tree, layers, separate):
    groups = {}
    for path, entry in sorted(tree.items()):
        groups.setdefault(id(entry), []).append(path)
    for path, entry in sorted(tree.items()):
        group = groups[id(entry)]
        yield f"{path} {entry.text}{' linked with ' + group[0] if len(group) > 1 else ''}".encode("utf8", "backslashreplace").decode()
    for number, layer in enumerate(layers if separate else []):
        yield from (f"layer {number} {line}".encode("utf8", "backslashreplace").decode() for line in layer)
    for key, value in sorted((config.get("config") or {}).items()):
        if value:
            yield f"config {key} {json.dumps(value, sort_keys=True)}"
    for key in ["author", "os", "architecture", "variant", "os.version"]:
        if config.get(key):
            yield f"{key} {config[key]}"
    for step in config.get("history") or []:
        yield f"history {step.get('created_by', '')!r} {step.get('comment', '')!r} {step.get('author', '')!r}{' (empty)' if step.get('empty_layer') else ''}"


def make_base(scratch, rbuild):
    """An image `base` with a shell, as a Docker archive."""
    root = f"{scratch}/base"
    os.makedirs(f"{root}/rootfs/bin")
    # The last six so that no builder has to make them for a RUN.
    for name in ["etc", "tmp", "root", "dev", "proc", "sys"]:
        os.mkdir(f"{root}/rootfs/{name}")
    for name in ["hosts", "hostname", "resolv.conf"]:
        open(f"{root}/rootfs/etc/{name}", "w").close()
    shutil.copy("/bin/busybox", f"{root}/rootfs/bin/busybox")
    for applet in APPLETS:
        os.symlink("busybox", f"{root}/rootfs/bin/{applet}")
    with open(f"{root}/rootfs/etc/passwd", "w", encoding="utf8") as file:
        file.write("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    with open(f"{root}/rootfs/etc/group", "w", encoding="utf8") as file:
        file.write("root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    must("tar", "--owner=0", "--group=0", "--sort=name", "--mtime=@1700000000", "-C", f"{root}/rootfs", "-cf", f"{root}/rootfs.tar", ".")
    with open(f"{root}/Dockerfile", "w", encoding="utf8") as file:
        file.write('FROM scratch\nADD rootfs.tar /\nCMD ["sh"]\n')
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    must(*rbuild, "build", "-q", "-t", "base", "-o", f"type=docker,name=base:latest,dest={scratch}/base.tar", "--load", root, env=environment)
    return f"{scratch}/base.tar"


def make_context(case, work, scratch):
    """The context of a case as a fresh directory; its flags, and more options of the output."""
    shutil.copytree(case, work, symlinks=True)
    texts = {"flags": "", "output": "", "rows": ""}
    for extra in os.listdir(work):
        path = f"{work}/{extra}"
        if extra in texts:
            with open(path, encoding="utf8") as file:
                texts[extra] = file.read()
        if extra == "prepare.sh":
            shutil.move(path, f"{scratch}/prepare.sh")
        elif extra in texts or extra.startswith("expect."):
            os.remove(path)
    if os.path.exists(f"{scratch}/prepare.sh"):
        must("sh", "-e", f"{scratch}/prepare.sh", cwd=work)
        os.remove(f"{scratch}/prepare.sh")
    for folder, folders, files in os.walk(os.fsencode(work), topdown=False):
        for path in [os.path.join(folder, name) for name in files + folders] + [folder]:
            if os.lstat(path).st_mtime > RECENT:
                os.utime(path, (CONTEXT_TIME, CONTEXT_TIME), follow_symlinks=False)
    # What the builders have built in is compared.
    dockerfile = f"{work}/Dockerfile"
    if os.path.isfile(dockerfile) and not os.path.islink(dockerfile):
        rewrite(dockerfile, lambda text: re.sub(r"(?i)\A((?:#.*\n)*?)#( *)syntax *= *docker/dockerfile", r"\1# \2frontend: docker/dockerfile", text))
    return shlex.split(texts["flags"]), "".join("," + word for word in texts["output"].split())


def rewrite(path, change):
    with open(path, encoding="utf8", errors="surrogateescape", newline="") as file:
        text = file.read()
    changed = change(text)
    if changed != text:
        times = os.stat(path)
        with open(path, "w", encoding="utf8", errors="surrogateescape", newline="") as file:
            file.write(changed)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def make_removable(work):
    for folder, folders, _ in os.walk(work):
        for name in folders:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700 | stat.S_IMODE(os.stat(path).st_mode))


def compare(arguments, usage, builder):
    """Builds each case twice. `builder(scratch, base)` gives a function: `(context, flags, output, archive) → (image or None, what was said)`.

    A third answer, `(False, reason)`, means that the builder can't be asked this.
    """
    options = {argument for argument in arguments if argument.startswith("--")}
    arguments = [argument for argument in arguments if argument not in options]
    if not arguments or options - {"--show", "--layers"}:
        sys.exit(usage)
    chosen = []
    for name in arguments[1:] or [CASES]:
        path = name if os.path.isdir(name) else f"{CASES}/{name}"
        holds = os.path.exists(f"{path}/Dockerfile") or os.path.exists(f"{path}/prepare.sh")
        chosen += [path] if holds else sorted(entry.path for entry in os.scandir(path) if entry.is_dir() and entry.name != "__pycache__")
    counts = {"equal": 0, "different": 0, "not known to this engine": 0}
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch, ThreadPoolExecutor(4) as threads:
        rbuild = os.path.abspath(arguments[0])
        theirs = builder(scratch, make_base(scratch, [rbuild, "--root", f"{scratch}/rbuild"]))
        one = lambda number, case: judge(number, case, scratch, rbuild, theirs, options)
        for case, (verdict, text) in zip(chosen, threads.map(one, *zip(*enumerate(chosen)))):
            counts[verdict] += 1
            print(f"== {os.path.basename(os.path.normpath(case))}: {verdict}")
            if text:
                print(text)
            sys.stdout.flush()
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


def judge(number, case, scratch, rbuild, theirs, options):
    """The verdict about one case, and what there is to say."""
    # Engines take a file for unchanged that has path, size and time of one that they have seen.
    own = f"{scratch}/{os.getpid()}-{number}"
    os.mkdir(own)
    work, ours = f"{own}/{os.path.basename(own)}", f"{own}/ours.tar"
    flags, output = make_context(case, work, own)
    shown = lambda image: list(lines(*image, "--layers" in options))
    destination = f"type=oci,compression=uncompressed,dest={ours}{output}"
    # A store of its own: a layer that is equal to one of another case but for its times would be that one.
    must("cp", "-a", f"{scratch}/rbuild", f"{own}/store")
    ended = run(rbuild, "--root", f"{own}/store", "build", "-q", "--no-cache", "--pull=never", *flags, "-o", destination, ".", cwd=work)
    left = shown(image(ours)) if ended.returncode == 0 else ["error"]
    if "panicked" in ended.stdout:
        left = ["panic"]
    right, said = theirs(work, flags, output, f"{own}/theirs.tar")
    make_removable(own)
    if right is False:
        shutil.rmtree(own)
        return "not known to this engine", f"other:  {said.strip()[-200:]}"
    right = shown(right) if right else ["error"]
    shutil.rmtree(own)
    if left == right:
        return "equal", ("\n".join(left) if left != ["error"] else f"{ended.stdout.strip()}\nother:  {said.strip()[-300:]}") if "--show" in options else ""
    text = []
    if ended.returncode:
        text.append("rbuild: " + ended.stdout.strip()[:600])
    if right == ["error"]:
        text.append("other:  " + said.strip()[-600:])
    if left != ["error"] and right != ["error"]:
        text += [line for line in difflib.ndiff(left, right) if line[0] in "-+"]
    return "different", "\n".join(text)


def file_of(flags):
    named = [flags[at + 1] for at, flag in enumerate(flags[:-1]) if flag in ("-f", "--file")]
    return named or ["Dockerfile"]
