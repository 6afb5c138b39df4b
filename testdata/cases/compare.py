"""What compare-buildkit and compare-buildah share: builds cases with rbuild and with another builder, and prints where the images differ.

Compared are the flattened tree (type, mode, owner, size, time, content, link target, link groups, extended attributes, devices), config
and history. Times of files that were made during the build are `now`.
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
    """The config and the flattened tree of the image in an OCI or Docker archive."""
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
        load = lambda name: json.load(archive.extractfile(name))
        if "index.json" in names:
            blob = lambda descriptor: "blobs/" + descriptor["digest"].replace(":", "/")
            manifest = load(blob(load("index.json")["manifests"][0]))
            while "manifests" in manifest:
                manifest = load(blob(manifest["manifests"][0]))
            config, layers = load(blob(manifest["config"])), [blob(layer) for layer in manifest["layers"]]
        else:
            manifest = load("manifest.json")[0]
            config, layers = load(manifest["Config"]), manifest["Layers"]
        tree = {}
        for layer in layers:
            member = archive.getmember(layer)
            if member.issym():
                member = archive.getmember(os.path.normpath(os.path.join(os.path.dirname(layer), member.linkname)))
            apply(tree, archive.extractfile(member).read())
    return config, tree


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


def text_of(member, layer):
    owner = f"{member.mode & 0o7777:04o} {member.uid}:{member.gid}"
    time = int(member.mtime)
    end = " now" if time > RECENT else f" @{time}" if time != CONTEXT_TIME else ""
    for key, value in sorted(member.pax_headers.items()):
        if key.startswith("SCHILY.xattr."):
            end += f" {key[13:]}={value.encode('utf8', 'surrogateescape').hex()}"
    if member.isreg():
        content = layer.extractfile(member).read()
        short = repr(content) if len(content) < 40 else hashlib.sha256(content).hexdigest()[:16]
        return f"f {owner} {member.size} {short}{end}"
    if member.issym():
        return f"l {member.uid}:{member.gid} -> {member.linkname}{end}"
    if member.type in (BLOCK, CHARACTER):
        return f"{'b' if member.type == BLOCK else 'c'} {owner} {member.devmajor},{member.devminor}{end}"
    return f"{'d' if member.isdir() else 'p' if member.isfifo() else member.type} {owner}{end}"


def clear(tree, path, itself):
    for other in [other for other in tree if other.startswith(path.rstrip("/") + "/") or (itself and other == path)]:
        del tree[other]


def lines(config, tree):
    groups = {}
    for path, entry in sorted(tree.items()):
        groups.setdefault(id(entry), []).append(path)
    for path, entry in sorted(tree.items()):
        group = groups[id(entry)]
        yield f"{path} {entry.text}{' linked with ' + group[0] if len(group) > 1 else ''}".encode("utf8", "backslashreplace").decode()
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
    """The context of a case as a fresh directory; its flags."""
    shutil.copytree(case, work, symlinks=True)
    flags = ""
    for extra in os.listdir(work):
        path = f"{work}/{extra}"
        if extra == "flags":
            with open(path, encoding="utf8") as file:
                flags = file.read()
        if extra == "prepare.sh":
            shutil.move(path, f"{scratch}/prepare.sh")
        elif extra in ("flags", "notes") or extra.startswith("expect."):
            os.remove(path)
    if os.path.exists(f"{scratch}/prepare.sh"):
        must("sh", "-e", f"{scratch}/prepare.sh", cwd=work)
        os.remove(f"{scratch}/prepare.sh")
    for folder, folders, files in os.walk(os.fsencode(work), topdown=False):
        for path in [os.path.join(folder, name) for name in files + folders] + [folder]:
            if os.lstat(path).st_mtime > RECENT:
                os.utime(path, (CONTEXT_TIME, CONTEXT_TIME), follow_symlinks=False)
    return shlex.split(flags)


def make_removable(work):
    for folder, folders, _ in os.walk(work):
        for name in folders:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700 | stat.S_IMODE(os.stat(path).st_mode))


def compare(arguments, usage, builder):
    """Builds each case twice. `builder(scratch, base)` gives two functions: `(context, flags) → (image or None, output)`, and one that takes
    from a line about an image what the builder can't have.

    A third answer, `(False, reason)`, means that the builder does not know the language of the case.
    """
    show = "--show" in arguments
    arguments = [argument for argument in arguments if argument != "--show"]
    if not arguments:
        sys.exit(usage)
    chosen = []
    for name in arguments[1:] or [CASES]:
        path = name if os.path.isdir(name) else f"{CASES}/{name}"
        holds = os.path.exists(f"{path}/Dockerfile") or os.path.exists(f"{path}/prepare.sh")
        chosen += [path] if holds else sorted(entry.path for entry in os.scandir(path) if entry.is_dir())
    counts = {"equal": 0, "different": 0, "not known to this engine": 0}
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        rbuild = [os.path.abspath(arguments[0]), "--root", f"{scratch}/rbuild"]
        theirs, normal = builder(scratch, make_base(scratch, rbuild))
        for number, case in enumerate(chosen):
            name = os.path.basename(os.path.normpath(case))
            # Engines take a file for unchanged that has path, size and time of one that they have seen.
            work = f"{scratch}/{os.getpid()}-{number}"
            flags = make_context(case, work, scratch)
            ours = f"{scratch}/ours.tar"
            ended = run(*rbuild, "build", "-q", "--no-cache", "--pull=never", *flags, "-o", f"type=oci,compression=uncompressed,dest={ours}", ".", cwd=work)
            left = list(map(normal, lines(*image(ours)))) if ended.returncode == 0 else ["error"]
            if "panicked" in ended.stdout:
                left = ["panic"]
            right, said = theirs(work, flags)
            verdict = "not known to this engine" if right is False else "equal"
            if right is not False:
                right = list(map(normal, lines(*right))) if right else ["error"]
                differences = [line for line in difflib.ndiff(left, right) if line[0] in "-+"] if left != right else []
                if differences:
                    verdict = "different"
            counts[verdict] += 1
            print(f"== {name}: {verdict}")
            if verdict == "different":
                if ended.returncode:
                    print("rbuild: " + ended.stdout.strip()[:600])
                if right == ["error"]:
                    print("other:  " + said.strip()[-600:])
                if left != ["error"] and right != ["error"]:
                    print("\n".join(differences))
            elif verdict != "equal":
                print(f"other:  {said.strip()[-200:]}")
            elif show:
                print("\n".join(left) if ended.returncode == 0 else ended.stdout.strip() + "\nother:  " + said.strip()[-300:])
            sys.stdout.flush()
            make_removable(work)
            shutil.rmtree(work)
            if os.path.exists(ours):
                os.remove(ours)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


# What the Dockerfile frontend of BuildKit 0.8 does not have.
NEWER = re.compile(r"<<-?[\"']?\w|--(link|parents|exclude|checksum|keep-git-dir|unpack|security|device|start-interval)\b|--chmod=[^0-9\s]|\$\{\w+(#|%|/|-|\+|\?)|\.zst\b", re.M)


def file_of(flags):
    named = [flags[at + 1] for at, flag in enumerate(flags[:-1]) if flag in ("-f", "--file")]
    return named or ["Dockerfile"]


def newer_syntax(work, flags):
    """The first thing in a Dockerfile that BuildKit 0.8 does not know."""
    path = os.path.join(work, *file_of(flags))
    try:
        with open(path, encoding="utf8", errors="replace") as file:
            found = NEWER.search(file.read())
    except OSError:
        return None
    return found and found.group()
