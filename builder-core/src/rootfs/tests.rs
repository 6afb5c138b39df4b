use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// Whether this process is root and knows every owner, which root of a user namespace does not; says so if not.
pub(crate) fn is_first_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    let able = all && rustix::process::geteuid().is_root();
    if !able {
        eprintln!("skipped: it needs root outside of a user namespace");
    }
    able
}

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("clean")
}

/// A root directory in a folder that also holds a file outside of it.
fn root() -> (tempfile::TempDir, RootDir) {
    let folder = tempfile::tempdir().expect("temporary directory");
    fs::write(folder.path().join("outside"), "secret").expect("written");
    fs::create_dir(folder.path().join("root")).expect("made");
    let root = RootDir::open(&folder.path().join("root")).expect("opens");
    (folder, root)
}

#[test]
fn links_and_dots_stay_inside() {
    let (folder, root) = root();
    let inside = folder.path().join("root");
    fs::create_dir(inside.join("d")).expect("made");
    fs::write(inside.join("d/f"), "inner").expect("written");
    symlink("../../../outside", inside.join("up")).expect("linked");
    symlink("/d", inside.join("absolute")).expect("linked");
    symlink(folder.path().join("outside"), inside.join("host")).expect("linked");
    assert!(root.open_file(&path("up")).is_err());
    assert!(root.open_file(&path("host")).is_err());
    assert!(root.open_file(&path("d/../../outside")).is_err());
    let text = io::read_to_string(root.open_file(&path("absolute/f")).expect("opens")).expect("reads");
    assert_eq!(text, "inner");
    assert!(root.open_dir_exact(&path("absolute")).is_err());
    assert!(root.open_file_exact(&path("absolute/f")).is_err());
    assert!(root.open_file_exact(&path("d/f")).is_ok());
    assert!(root.open_file(&path("d")).is_err(), "not a file");
    let error = root.create_file(&path("up")).expect_err("a link is there");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    root.create_dir_all(&path("absolute/x/y"), 0o711).expect("made");
    assert_eq!(fs::metadata(inside.join("d/x/y")).expect("there").permissions().mode() & 0o777, 0o711);
}

#[test]
fn metadata_is_set_on_the_link_and_never_through_it() {
    let (folder, root) = root();
    let inside = folder.path().join("root");
    symlink("../outside", inside.join("link")).expect("linked");
    let before = fs::metadata(folder.path().join("outside")).expect("there");
    let directory = root.directory();
    assert!(directory.set_mode(b"link", 0o777).is_err());
    directory.set_mtime(b"link", rustix::fs::Timespec { tv_sec: 5, tv_nsec: 6 }).expect("set");
    if is_first_root() {
        directory.set_owner(b"link", 12, 34).expect("set");
        assert_eq!(directory.stat(b"link").expect("there").uid, 12);
    }
    let stat = directory.stat(b"link").expect("there");
    assert_eq!((stat.kind, stat.mtime.tv_sec, stat.mtime.tv_nsec), (Kind::Symlink, 5, 6));
    let after = fs::metadata(folder.path().join("outside")).expect("there");
    assert_eq!((after.mode(), after.uid(), after.mtime()), (before.mode(), before.uid(), before.mtime()));
    assert_eq!(directory.read_link(b"link").expect("a link"), b"../outside");
}

#[test]
fn whole_trees_go_away_and_links_in_them_are_not_followed() {
    let (folder, root) = root();
    let inside = folder.path().join("root");
    let deep = path(&"d/".repeat(1500));
    let mut directory = root.directory().create_dir(b"d").expect("made");
    for _ in 1..deep.components().count() {
        directory = directory.create_dir(b"d").expect("made");
    }
    directory.symlink(b"/", b"link").expect("linked");
    symlink(folder.path(), inside.join("d/host")).expect("linked");
    fs::create_dir(inside.join("d/locked")).expect("made");
    fs::write(inside.join("d/locked/f"), "x").expect("written");
    fs::set_permissions(inside.join("d/locked"), fs::Permissions::from_mode(0o000)).expect("set");
    root.remove_tree(&path("d")).expect("removed");
    root.remove_tree(&path("d")).expect("nothing to remove");
    root.remove_tree(&path("x/y")).expect("nothing to remove");
    assert_eq!(fs::read_dir(&inside).expect("reads").count(), 0);
    assert!(folder.path().join("outside").exists());
}

#[test]
fn attributes_are_listed_for_every_kind() {
    let (_folder, root) = root();
    let directory = root.directory();
    let file = directory.create_file(b"f").expect("made");
    directory.symlink(b"f", b"l").expect("linked");
    directory.make_node(b"p", Kind::Fifo, (0, 0)).expect("made");
    let large = vec![b'v'; 3000];
    if let Err(error) = set_xattr(&file, b"user.large", &large) {
        eprintln!("skipped: the temporary directory has no extended attributes: {error}");
        return;
    }
    directory.set_xattr(b"f", b"user.small", b"1").expect("set");
    let all = directory.xattrs(b"f", |name| name.starts_with(b"user.")).expect("listed");
    assert_eq!(all, [(b"user.large".to_vec(), large), (b"user.small".to_vec(), b"1".to_vec())]);
    assert_eq!(directory.xattrs(b"f", |name| name == b"user.small").expect("listed").len(), 1);
    assert_eq!(directory.xattr(b"f", b"user.none").expect("asked"), None);
    assert_eq!(directory.xattrs(b"l", |_| true).expect("listed"), []);
    assert_eq!(directory.xattrs(b"p", |name| name.starts_with(b"user.")).expect("listed"), []);
    assert_eq!(directory.names().expect("listed"), [b"f", b"l", b"p"]);
}
