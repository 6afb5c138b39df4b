use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::snapshot::{CopySnapshotter, OverlaySnapshotter, Snapshot, SnapshotStore, Snapshotter, stubs};
use crate::sys::mount::{Attributes, Overlay, Upper, overlay};
use crate::tree::Time;

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("clean")
}

/// Old enough for every change to be seen.
fn age(root: &Path) {
    for entry in fs::read_dir(root).expect("listed") {
        let entry = entry.expect("listed");
        if entry.file_type().expect("typed").is_dir() {
            age(&entry.path());
        }
        let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000));
        if let Ok(file) = fs::File::open(entry.path()) {
            file.set_times(times).expect("set");
        }
    }
}

fn layer(store: &SnapshotStore, stack: &mut Stack, make: impl Fn(&Path)) -> Snapshot {
    let active = store.begin().expect("begun");
    make(&active.path());
    age(&active.path());
    let tree = capture(&active, &Stack::default()).expect("captured");
    stack.push(tree.clone());
    store.commit(active, &tree).expect("committed")
}

/// `-gone`, `directory/`, `opaque//`, `link>target`, `file=content`, with `*` after what is a hard link.
fn describe(tree: &Tree, root: &Path) -> Vec<String> {
    let describe = |entry: Entry| match &entry.node {
        Node::Whiteout => format!("-{}", entry.path.as_relative().display()),
        Node::Directory { opaque } => {
            format!("{}{}", entry.path.as_relative().display(), if *opaque { "//" } else { "/" })
        }
        Node::Symlink { target } => {
            format!("{}>{}", entry.path.as_relative().display(), String::from_utf8_lossy(target))
        }
        Node::File { link, .. } => {
            let content = fs::read_to_string(root.join(entry.path.as_relative())).expect("on disk");
            let star = if *link == 0 { "" } else { "*" };
            format!("{}={content}{star}", entry.path.as_relative().display())
        }
        other => format!("{} {other:?}", entry.path.as_relative().display()),
    };
    tree.iter().map(describe).collect()
}

/// Every path below with what it is, as a user of the file system sees it.
fn shown(root: &Path) -> Vec<String> {
    let (mut all, mut pending) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory)).expect("listed") {
            let entry = entry.expect("listed");
            let (below, meta) = (directory.join(entry.file_name()), entry.metadata().expect("stat"));
            let modified = meta.modified().expect("time");
            let content = if meta.is_file() { fs::read_to_string(entry.path()).expect("read") } else { String::new() };
            all.push(format!("{} {:o} {modified:?} {content}", below.display(), meta.permissions().mode()));
            if meta.is_dir() {
                pending.push(below);
            }
        }
    }
    all.sort();
    all
}

fn at(mount: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", mount.as_fd().as_raw_fd()))
}

/// Makes a change on top of two layers, in every way to mount them, and compares the tree that is captured.
fn check(change: impl Fn(&Path), expected: &[&str]) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let state = tempfile::tempdir().expect("temporary directory");
    let store = SnapshotStore::new(state.path());
    let mut stack = Stack::default();
    let low = layer(&store, &mut stack, |root| {
        for directory in ["etc", "var/lib/list", "usr/bin", "usr/share/doc"] {
            fs::create_dir_all(root.join(directory)).expect("made");
        }
        for file in ["etc/a", "etc/b", "var/lib/list/x", "var/lib/list/y", "usr/bin/tool", "usr/share/doc/t"] {
            fs::write(root.join(file), "low").expect("written");
        }
        fs::hard_link(root.join("etc/a"), root.join("etc/a2")).expect("linked");
        symlink("a", root.join("etc/link")).expect("linked");
    });
    let high = layer(&store, &mut stack, |root| {
        fs::create_dir_all(root.join("etc")).expect("made");
        fs::write(root.join("etc/b"), "high").expect("written");
    });
    let mut trees: Vec<Tree> = Vec::new();
    for mode in ["overlay", "userxattr", "copy"] {
        let upper = store.begin().expect("begun");
        let copy = CopySnapshotter::new(store.clone());
        let trusted = OverlaySnapshotter::new(store.clone());
        let before = {
            let stub = stubs(&upper, &stack, &[(path("etc/hosts"), false), (path("proc"), true)]).expect("made");
            let run = |mount: PathBuf| {
                change(&mount);
                shown(&mount)
            };
            match mode {
                "overlay" => run(at(&trusted.mount(&[&low, &high], stub.as_ref(), &upper).expect("mounted"))),
                "copy" => run(at(&copy.mount(&[&low, &high], stub.as_ref(), &upper).expect("mounted"))),
                _ => {
                    let work = state.path().join("work");
                    fs::create_dir(&work).expect("made");
                    let work = fs::File::open(work).expect("opened");
                    let directories = Upper { directory: upper.root().as_fd(), work: work.as_fd(), volatile: true };
                    let lowers = [high.root().as_fd(), low.root().as_fd()];
                    let attributes = Attributes::empty();
                    let options = Overlay { lowers: &lowers, upper: Some(directories), userxattr: true, attributes };
                    run(at(&overlay(&options).expect("mounted")))
                }
            }
        };
        let tree = capture(&upper, &stack).expect("captured");
        assert_eq!(describe(&tree, &upper.path()), expected, "{mode}");
        if upper.baseline().is_none() {
            let again = capture(&upper, &stack).expect("captured");
            assert_eq!(again.id(), tree.id(), "{mode}: the directory holds what the tree says");
        }
        let snapshot = store.commit(upper, &tree).expect("committed");
        let mount = trusted.mount_read_only(&[&low, &high, &snapshot]).expect("mounted");
        let mut before = before;
        before.retain(|line| !line.starts_with("etc/hosts ") && !line.starts_with("usr/socket "));
        if !tree.is_empty() {
            let meta = snapshot.path().parent().expect("inside").join("meta");
            fs::write(meta, "boot another\nroot 0\n").expect("written");
            assert!(store.get_verified(&tree).expect("asked").is_some(), "{mode}: {tree:?}");
        }
        let shown = shown(&at(&mount));
        let without_stub = |line: &&String| !line.starts_with("proc ");
        assert_eq!(
            shown.iter().filter(without_stub).collect::<Vec<_>>(),
            before.iter().filter(without_stub).collect::<Vec<_>>(),
            "{mode}"
        );
        store.remove(&tree.id()).expect("removed");
        trees.push(tree);
    }
    // Times are those of the moment; nothing else differs.
    assert!(trees.iter().all(|tree| tree.len() == trees[0].len()));
}

/// Gives a path the time that it has below.
fn restore_time(path: &Path) {
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000));
    fs::File::open(path).and_then(|file| file.set_times(times)).expect("set");
}

#[test]
fn nothing_changed() {
    check(|_| {}, &[]);
}

#[test]
fn new_changed_and_deleted_files() {
    check(
        |root| {
            fs::write(root.join("etc/new"), "1").expect("written");
            fs::write(root.join("etc/b"), "changed").expect("written");
            fs::remove_file(root.join("usr/bin/tool")).expect("removed");
            symlink("x", root.join("usr/link")).expect("linked");
        },
        &["etc/", "etc/b=changed", "etc/new=1", "usr/", "usr/bin//", "usr/link>x"],
    );
}

#[test]
fn what_is_the_same_again_is_dropped() {
    check(
        |root| {
            fs::rename(root.join("etc/b"), root.join("etc/c")).expect("moved");
            fs::rename(root.join("etc/c"), root.join("etc/b")).expect("moved");
            fs::write(root.join("usr/bin/tool"), "low").expect("written");
            restore_time(&root.join("usr/bin/tool"));
            fs::write(root.join("usr/gone"), "x").expect("written");
            fs::remove_file(root.join("usr/gone")).expect("removed");
            restore_time(&root.join("etc"));
            restore_time(&root.join("usr"));
        },
        &[],
    );
}

#[test]
fn a_whiteout_beside_what_stays() {
    check(|root| fs::remove_file(root.join("etc/link")).expect("removed"), &["etc/", "-etc/link"]);
    check(|root| fs::remove_dir_all(root.join("usr/share")).expect("removed"), &["usr/", "-usr/share"]);
}

#[test]
fn a_directory_that_lost_everything_is_opaque_however_it_came_about() {
    let expected = &["var/lib/list//", "var/lib/list/z=new"];
    let full = ["var/", "var/lib/"].iter().chain(expected).copied().collect::<Vec<_>>();
    check(
        |root| {
            fs::remove_dir_all(root.join("var/lib/list")).expect("removed");
            fs::create_dir(root.join("var/lib/list")).expect("made");
            fs::write(root.join("var/lib/list/z"), "new").expect("written");
        },
        &full,
    );
    check(
        |root| {
            fs::remove_file(root.join("var/lib/list/x")).expect("removed");
            fs::remove_file(root.join("var/lib/list/y")).expect("removed");
            fs::write(root.join("var/lib/list/z"), "new").expect("written");
        },
        &full,
    );
}

#[test]
fn a_directory_made_again_with_some_of_it_is_a_diff() {
    check(
        |root| {
            fs::remove_dir_all(root.join("usr")).expect("removed");
            fs::create_dir_all(root.join("usr/bin")).expect("made");
            fs::write(root.join("usr/bin/tool"), "low").expect("written");
            restore_time(&root.join("usr/bin/tool"));
            restore_time(&root.join("usr/bin"));
        },
        &["usr/", "-usr/share"],
    );
}

#[test]
fn kinds_change_into_each_other() {
    check(
        |root| {
            fs::remove_file(root.join("etc/b")).expect("removed");
            fs::create_dir(root.join("etc/b")).expect("made");
            fs::write(root.join("etc/b/in"), "x").expect("written");
            fs::remove_dir_all(root.join("usr/share")).expect("removed");
            fs::write(root.join("usr/share"), "file").expect("written");
        },
        &["etc/", "etc/b/", "etc/b/in=x", "usr/", "usr/share=file"],
    );
}

#[test]
fn hard_links_to_lower_files_stay_links() {
    check(
        |root| fs::hard_link(root.join("etc/b"), root.join("usr/b2")).expect("linked"),
        &["etc/", "etc/b=high*", "usr/", "usr/b2=high*"],
    );
}

#[test]
fn sockets_are_left_out_and_modes_count() {
    check(
        |root| {
            drop(std::os::unix::net::UnixListener::bind(root.join("usr/socket")).expect("bound"));
            restore_time(&root.join("usr"));
            fs::set_permissions(root.join("etc/b"), fs::Permissions::from_mode(0o600)).expect("set");
        },
        &["etc/", "etc/b=high"],
    );
}

#[test]
fn names_of_whiteouts_are_refused() {
    let state = tempfile::tempdir().expect("temporary directory");
    let active = SnapshotStore::new(state.path()).begin().expect("begun");
    fs::write(active.path().join(".wh.x"), "").expect("written");
    let error = capture(&active, &Stack::default()).expect_err("refused");
    assert!(matches!(error, CaptureError::ReservedName(found) if found == path(".wh.x")));
}

#[test]
fn many_files_are_hashed_on_all_cores_to_the_same_tree() {
    let state = tempfile::tempdir().expect("temporary directory");
    let active = SnapshotStore::new(state.path()).begin().expect("begun");
    for number in 0..PARALLEL_FILES * 2 {
        fs::write(active.path().join(number.to_string()), format!("content {number}")).expect("written");
    }
    let tree = capture(&active, &Stack::default()).expect("captured");
    for number in 0..PARALLEL_FILES * 2 {
        let entry = tree.get(&path(&number.to_string())).expect("there");
        let content = ContentDigest::of(format!("content {number}").as_bytes());
        assert!(matches!(entry.node, Node::File { content: found, .. } if found == content));
        assert_ne!(entry.mtime, Time::default());
    }
}
