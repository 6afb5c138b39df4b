use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use super::*;
use crate::rootfs::{Directory, RootPath};
use crate::tree::{ContentDigest, Entry, Node, Stack, Time, Tree, TreeBuilder};

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("clean")
}

/// Whether this process may mount; says so if not.
fn can_mount() -> bool {
    let able = rustix::process::geteuid().is_root();
    if !able {
        eprintln!("skipped: mounting needs root");
    }
    able
}

fn entry(name: &str, node: Node, mode: u32, seconds: i64) -> Entry {
    Entry { node, ..Entry::directory(path(name), mode, 0, 0, Time::from_seconds(seconds)) }
}

fn file(name: &str, content: &str) -> Entry {
    let content = ContentDigest::of(content.as_bytes());
    entry(name, Node::File { size: name.len() as u64, content, link: 0 }, 0o644, 7)
}

fn tree(entries: impl IntoIterator<Item = Entry>) -> Tree {
    let mut builder = TreeBuilder::new();
    entries.into_iter().for_each(|entry| builder.push(entry));
    builder.finish()
}

/// Commits a snapshot whose files hold their own names.
fn commit(store: &SnapshotStore, names: &[&str]) -> (Snapshot, Tree) {
    let active = store.begin().expect("begun");
    let mut builder = TreeBuilder::new();
    for name in names {
        let parent = active.root().create_dir_all(&path(name).parent().expect("a name"), 0o755).expect("made");
        let last = path(name).file_name().expect("a name").to_vec();
        let entry = if let Some(gone) = name.strip_prefix('-') {
            let entry = Entry::whiteout(path(gone));
            make_whiteout(&parent, entry.path.file_name().expect("a name")).expect("made");
            entry
        } else {
            let entry = file(name, name);
            let written = parent.create_file(&last).expect("made");
            fs::write(active.path().join(name), name).expect("written");
            set_metadata_of(&written, &entry).expect("set");
            entry
        };
        builder.push(entry);
    }
    let tree = builder.finish();
    (store.commit(active, &tree).expect("committed"), tree)
}

fn read(mount: &Mount, name: &str) -> io::Result<String> {
    io::read_to_string(fs::File::from(openat(mount, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
}

fn directory(mount: &Mount) -> Directory {
    Directory::from_fd(openat(mount, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("opens"))
}

#[test]
fn a_dropped_snapshot_leaves_nothing_and_a_committed_one_stays() {
    let state = tempfile::tempdir().expect("temporary directory");
    let store = SnapshotStore::new(state.path());
    assert_eq!(store.list().expect("listed"), []);
    assert!(!state.path().join("snapshots").exists(), "nothing is touched before it is needed");
    let active = store.begin().expect("begun");
    active.root().create_file(&path("f")).expect("made");
    drop(active);
    assert_eq!(fs::read_dir(state.path().join("snapshots")).expect("there").count(), 0);
    let (snapshot, tree) = commit(&store, &["f"]);
    let (again, _) = commit(&store, &["f"]);
    assert_eq!(again.path(), snapshot.path());
    assert_eq!(store.list().expect("listed"), [tree.id()]);
    assert!(store.usage(&tree.id()).expect("counted") > 0);
    assert_eq!(fs::read_dir(state.path().join("snapshots")).expect("there").count(), 1, "the second one went away");
    store.remove(&tree.id()).expect("removed");
    store.remove(&tree.id()).expect("nothing to remove");
    assert!(store.get(&tree.id()).expect("asked").is_none());
    assert_eq!(fs::read_dir(state.path().join("snapshots")).expect("there").count(), 0);
}

#[test]
fn leftovers_are_swept_and_what_is_in_use_is_not() {
    let state = tempfile::tempdir().expect("temporary directory");
    let store = SnapshotStore::new(state.path());
    let used = store.begin().expect("begun");
    let left = state.path().join("snapshots/tmp-left");
    fs::create_dir_all(left.join("work-0/work")).expect("made");
    assert_eq!(store.sweep().expect("swept"), 1);
    assert!(!left.exists());
    assert!(used.path().exists());
}

/// Puts the snapshot into an earlier boot.
fn reboot(state: &Path, tree: &Tree) {
    fs::write(state.join(format!("snapshots/{}/meta", tree.id())), "boot another\nroot 0\n").expect("written");
}

#[test]
fn after_a_reboot_a_snapshot_is_verified_unless_it_was_synced() {
    let state = tempfile::tempdir().expect("temporary directory");
    let store = SnapshotStore::new(state.path());
    let check = |damage: &dyn Fn(&Snapshot), expected: bool| {
        let (snapshot, tree) = commit(&store, &["a", "b", "-c"]);
        reboot(state.path(), &tree);
        damage(&snapshot);
        let found = store.get_verified(&tree).expect("asked");
        assert_eq!(found.is_some(), expected);
        let durable = state.path().join(format!("snapshots/{}/durable", tree.id()));
        assert_eq!(durable.exists(), expected);
        store.remove(&tree.id()).expect("removed");
    };
    check(&|_| {}, true);
    check(&|snapshot| fs::write(snapshot.path().join("a"), "A").expect("written"), false);
    check(&|snapshot| fs::write(snapshot.path().join("a"), "").expect("written"), false);
    check(&|snapshot| fs::remove_file(snapshot.path().join("b")).expect("removed"), false);
    check(&|snapshot| fs::remove_file(snapshot.path().join("c")).expect("removed"), false);
    check(&|snapshot| snapshot.root().directory().set_mode(b"a", 0o600).expect("set"), false);

    let (snapshot, tree) = commit(&store, &["a"]);
    assert_eq!(store.mark_durable().expect("synced"), 1);
    assert_eq!(store.mark_durable().expect("nothing to sync"), 0);
    reboot(state.path(), &tree);
    fs::write(snapshot.path().join("a"), "not looked at").expect("written");
    assert!(store.get_verified(&tree).expect("asked").is_some());
}

fn snapshotters(store: &SnapshotStore) -> Vec<Box<dyn Snapshotter>> {
    vec![Box::new(OverlaySnapshotter::new(store.clone())), Box::new(CopySnapshotter::new(store.clone()))]
}

#[test]
fn layers_are_stacked_wherever_the_store_is() {
    if !can_mount() {
        return;
    }
    let state = tempfile::tempdir().expect("temporary directory");
    for name in ["plain", "with:colon", "a,comma b", "back\\slash \"quote'"] {
        let store = SnapshotStore::new(&state.path().join(name));
        let (low, _) = commit(&store, &["etc/a", "etc/b", "c"]);
        let (high, _) = commit(&store, &["etc/new", "-c"]);
        for snapshotter in snapshotters(&store) {
            let before = fs::read_to_string("/proc/self/mountinfo").expect("readable");
            let upper = store.begin().expect("begun");
            let mount = snapshotter.mount(&[&low, &high], None, &upper).expect(name);
            assert_eq!(read(&mount, "etc/a").expect("read"), "etc/a");
            assert_eq!(read(&mount, "etc/new").expect("read"), "etc/new");
            assert!(read(&mount, "c").is_err(), "{snapshotter:?}: the whiteout hides it");
            directory(&mount).create_file(b"written").expect("writable");
            drop(mount);
            assert!(upper.path().join("written").exists());
            let mount = snapshotter.mount_read_only(&[&low, &high]).expect(name);
            assert_eq!(directory(&mount).names().expect("listed"), [b"etc"]);
            assert!(directory(&mount).create_file(b"x").is_err(), "read-only");
            let one = snapshotter.mount_read_only(&[&high]).expect(name);
            assert!(read(&one, "c").is_err());
            assert_eq!(read(&one, "etc/new").expect("read"), "etc/new");
            let none = snapshotter.mount_read_only(&[]).expect(name);
            assert_eq!(directory(&none).names().expect("listed").len(), 0);
            let scratch = store.begin().expect("begun");
            let mount = snapshotter.mount(&[], None, &scratch).expect("from scratch");
            directory(&mount).create_file(b"x").expect("writable");
            assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("readable"), before, "no mount is visible");
        }
        assert!(format!("{:?}", probe(store).expect("probed")).starts_with("Overlay"));
    }
}

#[test]
fn the_root_shows_the_metadata_of_the_layer_that_has_them() {
    if !crate::rootfs::tests::is_first_root() {
        return;
    }
    let state = tempfile::tempdir().expect("temporary directory");
    let store = SnapshotStore::new(state.path());
    let active = store.begin().expect("begun");
    let root = Entry { uid: 3, ..entry("/", Node::Directory { opaque: false }, 0o1777, 9) };
    set_metadata_of(active.root(), &root).expect("set");
    let low = store.commit(active, &tree([root])).expect("committed");
    let (high, _) = commit(&store, &["f"]);
    for snapshotter in snapshotters(&store) {
        let upper = store.begin().expect("begun");
        let mount = snapshotter.mount(&[&low, &high], None, &upper).expect("mounted");
        let stat = directory(&mount).stat_self().expect("there");
        assert_eq!((stat.mode, stat.uid, stat.mtime.tv_sec), (0o1777, 3, 9), "{snapshotter:?}");
    }
}

#[test]
fn an_opaque_root_hides_every_layer_below() {
    if !can_mount() {
        return;
    }
    let state = tempfile::tempdir().expect("temporary directory");
    let store = SnapshotStore::new(state.path());
    let (low, _) = commit(&store, &["hidden"]);
    let active = store.begin().expect("begun");
    set_opaque(active.root(), active.dialect()).expect("set");
    let opaque = tree([entry("/", Node::Directory { opaque: true }, 0o755, 0)]);
    let high = store.commit(active, &opaque).expect("committed");
    for snapshotter in snapshotters(&store) {
        let mount = snapshotter.mount_read_only(&[&low, &high]).expect("mounted");
        assert_eq!(directory(&mount).names().expect("listed").len(), 0, "{snapshotter:?}");
    }
}

#[test]
fn stubs_carry_the_metadata_of_the_directories_around_them_and_stay_out_of_the_upper_layer() {
    if !crate::rootfs::tests::is_first_root() {
        return;
    }
    let state = tempfile::tempdir().expect("temporary directory");
    let store = SnapshotStore::new(state.path());
    let etc = Entry { uid: 5, ..entry("etc", Node::Directory { opaque: false }, 0o711, 99) };
    let active = store.begin().expect("begun");
    set_metadata_of(active.root().directory().create_dir(b"etc").expect("made"), &etc).expect("set");
    active.root().directory().symlink(b"/run/elsewhere", b"link").expect("made");
    let link = entry("link", Node::Symlink { target: b"/run/elsewhere".to_vec() }, 0o777, 0);
    set_metadata(active.root().directory(), b"link", &link).expect("set");
    let tree = tree([etc, link]);
    let low = store.commit(active, &tree).expect("committed");
    let stack = Stack::new(vec![tree]);

    let upper = store.begin().expect("begun");
    let targets = [(path("etc/hosts"), false), (path("proc"), true), (path("link"), false), (path("etc"), true)];
    let layer = stubs(&upper, &stack, &targets).expect("made").expect("some are missing");
    let mount = OverlaySnapshotter::new(store.clone()).mount(&[&low], Some(&layer), &upper).expect("mounted");
    assert_eq!(read(&mount, "etc/hosts").expect("there"), "");
    assert_eq!(read(&mount, "run/elsewhere").expect("the link leads to it"), "");
    let stat = directory(&mount).stat(b"etc").expect("there");
    assert_eq!((stat.mode, stat.uid, stat.mtime.tv_sec), (0o711, 5, 99));
    assert_eq!(directory(&mount).open_dir(b"proc").expect("there").names().expect("listed").len(), 0);
    drop(mount);
    assert_eq!(upper.root().directory().names().expect("listed").len(), 0, "nothing entered the upper layer");
    assert!(stubs(&upper, &stack, &[(path("etc"), true)]).expect("nothing to do").is_none());
}

#[test]
fn nothing_is_mounted_on_links_or_on_something_else() {
    let state = tempfile::tempdir().expect("temporary directory");
    let active = SnapshotStore::new(state.path()).begin().expect("begun");
    let link = |name: &str| entry(name, Node::Symlink { target: b"/etc".to_vec() }, 0o777, 0);
    let stack = Stack::new(vec![tree([link("proc"), link("sys"), link("dev"), file("etc", "x")])]);
    for (target, is_directory) in [("proc", true), ("dev", true), ("sys", true), ("etc", true), ("etc/hosts", false)] {
        assert!(stubs(&active, &stack, &[(path(target), is_directory)]).is_err(), "{target}");
    }
}
