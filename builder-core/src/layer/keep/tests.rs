//! Each kind of change, as a derived snapshot beside the tree that it stands for, alone and on top of another layer.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::rootfs::{Directory, Kind, RootDir};
use crate::snapshot::{CopySnapshotter, OverlaySnapshotter, Snapshotter, hash_file, read_entry};
use crate::tree::{Node, Stack};

/// Everything below a directory as a tree, as a user of the file system sees it.
fn scan(root: &RootDir) -> Tree {
    let (mut builder, mut links) = (TreeBuilder::new(), HashMap::new());
    let mut pending = vec![RootPath::root()];
    while let Some(path) = pending.pop() {
        let directory = root.open_dir_exact(&path).expect("opened");
        for name in directory.names().expect("listed") {
            let (below, stat) = (path.child(&name), directory.stat(&name).expect("stat"));
            let mut entry = read_entry(&directory, &name, below.clone(), &stat).expect("read").expect("no socket");
            if let Node::File { content, link, .. } = &mut entry.node {
                *content = hash_file(&directory.open_file(&name).expect("opened")).expect("hashed").1;
                let next = u32::try_from(links.len()).expect("few") + 1;
                *link = if stat.links > 1 { *links.entry(stat.identity).or_insert(next) } else { 0 };
            }
            if stat.kind == Kind::Directory {
                pending.push(below);
            }
            builder.push(entry);
        }
    }
    builder.finish()
}

struct Context(RootDir);

impl Files for Context {
    fn open(&self, entry: &Entry) -> std::io::Result<File> {
        self.0.open_file_exact(&entry.path)
    }
}

/// A store, and a directory that is copied into it again and again.
struct Place {
    directory: tempfile::TempDir,
    content: ContentStore,
    snapshots: SnapshotStore,
    trees: TreeStore,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let state = directory.path().join("state");
        let content = ContentStore::open(&state).expect("opened");
        let place = Self { directory, content, snapshots: SnapshotStore::new(&state), trees: TreeStore::new(&state) };
        place.fill();
        place
    }

    /// Makes the context as it is at first.
    fn fill(&self) {
        let root = self.root();
        let _ = fs::remove_dir_all(&root);
        for number in 0..60 {
            let file = root.join(format!("d{}/f{number}", number % 10));
            fs::create_dir_all(file.parent().expect("inside")).expect("made");
            fs::write(&file, format!("{number:07}\n").repeat(4096)).expect("written");
        }
        for group in ["d0/link", "d1/link"] {
            fs::hard_link(root.join("d0/f0"), root.join(group)).expect("linked");
            fs::hard_link(root.join("d5/f5"), root.join(group.to_owned() + "5")).expect("linked");
        }
        symlink("f3", root.join("d3/symlink")).expect("linked");
        fs::create_dir_all(root.join("deep/er/est")).expect("made");
        fs::write(root.join("deep/er/est/file"), "deep").expect("written");
        fs::write(root.join("d4/.wh.name"), "only a name").expect("written");
        age(&root);
    }

    fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("context")
    }

    fn keep(&self) -> (Tree, Snapshot) {
        let context = Context(RootDir::open(&self.root()).expect("opened"));
        let mut builder = TreeBuilder::new();
        let root =
            Entry { mode: 0o711, ..Entry::directory(RootPath::root(), 0, 0, 0, crate::tree::Time::from_seconds(7)) };
        scan(&context.0).iter().chain([root]).for_each(|entry| builder.push(entry));
        let tree = builder.finish();
        self.trees.put(&tree).expect("stored");
        let keep = Keep { content: &self.content, snapshots: &self.snapshots, trees: &self.trees };
        let snapshot = keep.snapshot(&tree, &context).expect("kept");
        assert!(self.snapshots.is_sound(&tree).expect("read"));
        (tree, snapshot)
    }

    fn snapshotters(&self) -> [Box<dyn Snapshotter>; 2] {
        let store = || self.snapshots.clone();
        [Box::new(OverlaySnapshotter::new(store())), Box::new(CopySnapshotter::new(store()))]
    }
}

fn age(root: &Path) {
    let directory = RootDir::open(root).expect("opened");
    for name in directory.directory().names().expect("listed") {
        if directory.directory().stat(&name).expect("stat").kind == Kind::Directory {
            age(&root.join(OsStr::from_bytes(&name)));
        }
        let time = rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
        directory.directory().set_mtime(&name, time).expect("set");
    }
}

fn below_root(tree: &Tree) -> Tree {
    let mut builder = TreeBuilder::new();
    tree.iter().filter(|entry| !entry.path.is_root()).for_each(|entry| builder.push(entry));
    builder.finish()
}

/// What a mount shows, and the mode of its root.
fn shown(mount: impl AsFd) -> (Tree, u32) {
    let root = RootDir::from_fd(mount.as_fd().try_clone_to_owned().expect("duplicated"));
    let root = RootDir::from_fd(root.open_path(&RootPath::root()).expect("opened"));
    let mode = root.directory().stat_self().expect("stat").mode;
    let readable: Directory = root.open_dir_exact(&RootPath::root()).expect("opened");
    (scan(&RootDir::from_fd(readable.try_clone_fd().expect("duplicated"))), mode)
}

fn can_mount() -> bool {
    let able = rustix::process::geteuid().is_root();
    if !able {
        eprintln!("skipped: mounting needs root");
    }
    able
}

/// Copies, changes, copies again; the second snapshot has to show its tree in every way to mount it. `hides` says whether a
/// layer below has to make it whole.
fn check(place: &Place, name: &str, hides: bool, change: impl Fn(&Path)) {
    place.fill();
    let (first_tree, first) = place.keep();
    assert!(first.base().is_none());
    // What an earlier check made whole may be a base too.
    place.snapshots.note_base(&first.id(), first_tree.len());
    change(&place.root());
    let (tree, snapshot) = place.keep();
    assert_ne!(tree, first_tree, "{name}");
    assert_eq!(snapshot.base().map(Snapshot::id), Some(first.id()), "{name}");
    for entry in tree.iter().filter(|entry| entry.node.is_file()) {
        let (_, content) = hash_file(&snapshot.open(&entry).expect(name)).expect("read");
        assert!(matches!(entry.node, Node::File { content: expected, .. } if expected == content), "{name}");
    }
    let [overlay, _] = place.snapshotters();
    let alone = overlay.mount_read_only(&[&snapshot]).expect(name);
    assert_eq!(shown(&alone).0, below_root(&tree), "{name}");
    // A layer that has everything that the copies ever had, and more beside it, with other content.
    let below = place.snapshots.begin().expect("begun");
    for entry in first_tree.iter().chain(tree.iter()).filter(|entry| !entry.path.is_root()) {
        let path = below.path().join(entry.path.as_relative());
        fs::create_dir_all(path.parent().expect("inside")).expect("made");
        if path.symlink_metadata().is_err() {
            fs::create_dir(&path).expect("made");
            fs::write(path.join("below"), "below").expect("written");
        }
    }
    let below_tree = scan(below.root());
    let below = place.snapshots.commit(below, &below_tree).expect("committed");
    let expected = below_root(&Stack::new(vec![below_tree, tree.clone()]).flatten());
    for snapshotter in place.snapshotters() {
        let upper = place.snapshots.begin().expect("begun");
        let mount = snapshotter.mount(&[&below, &snapshot], None, &upper).expect(name);
        assert_eq!(shown(&mount), (expected.clone(), 0o711), "{name} {snapshotter:?}");
    }
    let now = place.snapshots.get(&tree.id()).expect("read").expect("there");
    assert_eq!(now.base().is_none(), hides, "{name}: made whole only where it has to be");
    assert!(place.snapshots.is_sound(&tree).expect("read"), "{name}");
}

#[test]
fn every_kind_of_change_can_be_derived() {
    if !can_mount() {
        return;
    }
    let place = &Place::new();
    let write = |root: &Path, name: &str| fs::write(root.join(name), "changed").expect("written");
    let remove = |root: &Path, name: &str| fs::remove_file(root.join(name)).expect("removed");
    let mode = |root: &Path, name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("set");
    };
    check(place, "edited", false, |root| write(root, "d1/f1"));
    check(place, "emptied", false, |root| fs::write(root.join("d1/f1"), "").expect("written"));
    check(place, "added", false, |root| write(root, "d1/new"));
    check(place, "removed", true, |root| remove(root, "d1/f1"));
    check(place, "renamed", true, |root| fs::rename(root.join("d1/f1"), root.join("d2/f1-now")).expect("renamed"));
    check(place, "mode", false, |root| mode(root, "d1/f1", 0o4755));
    check(place, "mode of a directory", false, |root| mode(root, "d1", 0o1700));
    check(place, "time of a directory", false, |root| {
        let times = fs::FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(5));
        File::open(root.join("deep/er")).expect("opened").set_times(times).expect("set");
    });
    check(place, "file to directory", true, |root| {
        remove(root, "d1/f1");
        fs::create_dir(root.join("d1/f1")).expect("made");
        write(root, "d1/f1/inside");
    });
    check(place, "file to link", false, |root| {
        remove(root, "d1/f1");
        symlink("f11", root.join("d1/f1")).expect("linked");
    });
    check(place, "link to another", false, |root| {
        remove(root, "d3/symlink");
        symlink("f13", root.join("d3/symlink")).expect("linked");
    });
    check(place, "directory to file", false, |root| {
        fs::remove_dir_all(root.join("deep/er")).expect("removed");
        write(root, "deep/er");
    });
    check(place, "directory to link", false, |root| {
        fs::remove_dir_all(root.join("deep")).expect("removed");
        symlink("d1", root.join("deep")).expect("linked");
    });
    check(place, "directory removed", true, |root| fs::remove_dir_all(root.join("deep")).expect("removed"));
    check(place, "directory replaced", true, |root| {
        fs::remove_dir_all(root.join("deep")).expect("removed");
        fs::create_dir_all(root.join("deep/other")).expect("made");
    });
    check(place, "one of hard links removed", true, |root| remove(root, "d1/link"));
    check(place, "one of hard links for itself", false, |root| {
        remove(root, "d1/link");
        fs::copy(root.join("d0/f0"), root.join("d1/link")).expect("copied");
    });
    check(place, "one more hard link", false, |root| {
        fs::hard_link(root.join("d5/f5"), root.join("a-first")).expect("linked");
    });
    check(place, "hard links edited", false, |root| write(root, "d0/f0"));
    check(place, "new hard links", false, |root| {
        write(root, "d1/new");
        fs::hard_link(root.join("d1/new"), root.join("a-new")).expect("linked");
    });
    check(place, "attributes", false, |root| {
        let file = File::open(root.join("d1/f1")).expect("opened");
        crate::rootfs::set_xattr(&file, b"user.color", b"blue").expect("set");
    });
    check(place, "a name like a whiteout", false, |root| write(root, "d4/.wh.name"));
    check(place, "a pipe", false, |root| {
        let directory = RootDir::open(&root.join("d1")).expect("opened");
        directory.directory().make_node(b"pipe", Kind::Fifo, (0, 0)).expect("made");
    });
    check(place, "an owner", false, |root| {
        std::os::unix::fs::chown(root.join("d1/f1"), Some(1), Some(2)).expect("set");
    });
}

#[test]
fn what_differs_too_much_is_written_whole_and_is_the_next_base() {
    let place = Place::new();
    let (_, first) = place.keep();
    let version = || fs::read_to_string(place.content.state().join("version")).expect("there");
    assert_eq!(version(), "3\n", "an older program can still use the store");
    let mut bases = Vec::new();
    for number in 6..26 {
        fs::write(place.root().join(format!("d{}/f{number}", number % 10)), "changed").expect("written");
        let (tree, snapshot) = place.keep();
        let files = fs::read_dir(place.snapshots.path(&tree.id())).expect("there").count();
        assert!(files >= 2, "meta and one directory");
        bases.push(snapshot.base().map(Snapshot::id));
    }
    assert_eq!(version(), "4\n");
    let whole = bases.iter().filter(|base| base.is_none()).count();
    assert!((1..=4).contains(&whole), "{whole} of 20 were written whole");
    assert_eq!(bases[..5].iter().flatten().filter(|base| **base == first.id()).count(), 5);
    assert_ne!(bases.last(), bases.first());
    // One base each, and no chain.
    for base in bases.into_iter().flatten() {
        assert_eq!(place.snapshots.base_of(&base), None);
    }
}

#[test]
fn small_or_other_trees_are_written_whole() {
    let place = Place::new();
    let (first, _) = place.keep();
    let keep = Keep { content: &place.content, snapshots: &place.snapshots, trees: &place.trees };
    let context = Context(RootDir::open(&place.root()).expect("opened"));
    let whole = |entries: &mut dyn Iterator<Item = Entry>| {
        let mut builder = TreeBuilder::new();
        entries.for_each(|entry| builder.push(entry));
        let tree = builder.finish();
        place.trees.put(&tree).expect("stored");
        assert!(keep.snapshot(&tree, &context).expect("kept").base().is_none());
        assert!(place.snapshots.is_sound(&tree).expect("read"));
    };
    whole(&mut first.iter().take(5));
    // What takes something away from lower layers is not told by two directories.
    whole(&mut first.iter().chain([Entry::whiteout(RootPath::clean("etc").expect("clean"))]));
}

#[test]
fn a_derived_snapshot_is_not_there_without_its_base_and_is_made_again() {
    let place = Place::new();
    let (first_tree, first) = place.keep();
    fs::write(place.root().join("d1/f1"), "changed").expect("written");
    let (tree, derived) = place.keep();
    assert!(derived.base().is_some());
    let usage = place.snapshots.usage(&tree.id()).expect("measured");
    assert!(usage * 10 < place.snapshots.usage(&first.id()).expect("measured"), "{usage} bytes for one file");

    // Without its base it is as good as gone, and the next one takes its place.
    place.snapshots.remove(&first.id()).expect("removed");
    assert!(place.snapshots.get(&tree.id()).expect("asked").is_none());
    assert!(!place.snapshots.is_sound(&tree).expect("asked"));
    let (_, again) = place.keep();
    assert!(again.base().is_none());

    // Detached, it needs its base no longer.
    fs::write(place.root().join("d1/f1"), "changed once more").expect("written");
    let (second_tree, second) = place.keep();
    assert_eq!(second.base().map(Snapshot::id), Some(tree.id()));
    place.snapshots.detach(&tree.id()).expect("made whole");
    place.snapshots.remove(&tree.id()).expect("removed");
    assert!(place.snapshots.is_sound(&second_tree).expect("asked"));
    assert_eq!(place.snapshots.sweep().expect("swept"), 1, "what was in its place");
    assert!(!place.trees.list().expect("listed").is_empty() && !first_tree.is_empty());
}

#[test]
fn damage_in_base_and_delta_is_noticed() {
    let place = Place::new();
    let (_, first) = place.keep();
    fs::write(place.root().join("d1/f1"), "changed").expect("written");
    fs::remove_file(place.root().join("d2/f2")).expect("removed");
    let (tree, derived) = place.keep();
    let (base, delta) = (first.path().to_owned(), derived.path().to_owned());
    let sound = || place.snapshots.is_sound(&tree).expect("read");
    let damage = |path: &Path, damaged: bool| {
        let good = fs::read(path).expect("read");
        let meta = fs::metadata(path).expect("stat");
        fs::write(path, "damaged").expect("written");
        assert_eq!(sound(), !damaged, "{}", path.display());
        fs::write(path, good).expect("written");
        let time = fs::FileTimes::new().set_modified(meta.modified().expect("time"));
        File::options().write(true).open(path).expect("opened").set_times(time).expect("set");
        assert_eq!(fs::metadata(path).expect("stat").mode(), meta.mode());
        assert!(sound());
    };
    damage(&delta.join("d1/f1"), true);
    damage(&base.join("d3/f3"), true);
    // It is not in the tree any more.
    damage(&base.join("d1/f1"), false);
    damage(&delta.with_file_name("base"), true);
    fs::remove_file(delta.join("d2/f2")).expect("removed");
    assert!(!sound(), "a lost whiteout shows a file that is gone");
}
