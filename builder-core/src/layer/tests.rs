//! Packing and writing of whole layers, and the two snapshotters beside each other.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::oci::{Compression, Digest};
use crate::rootfs::RootPath;
use crate::snapshot::{CopySnapshotter, OverlaySnapshotter, SnapshotStore, Snapshotter};
use crate::tree::{ContentDigest, Entry, Node, Stack, Time, Tree, TreeBuilder};

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("clean")
}

/// Files in a directory on the host, by path.
struct Folder(PathBuf);

impl Files for Folder {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        File::open(self.0.join(entry.path.as_relative()))
    }
}

fn file(name: &str, content: &[u8]) -> Entry {
    let node = Node::File { size: content.len() as u64, content: ContentDigest::of(content), link: 0 };
    let mtime = Time { seconds: 1_700_000_000, nanoseconds: 5 };
    Entry { node, mode: 0o644, mtime, ..Entry::directory(path(name), 0, 0, 0, Time::default()) }
}

fn tree(entries: impl IntoIterator<Item = Entry>) -> Tree {
    let mut builder = TreeBuilder::new();
    entries.into_iter().for_each(|entry| builder.push(entry));
    builder.finish()
}

fn pack_to_vec(tree: &Tree, files: &dyn Files, options: &PackOptions) -> Result<Vec<u8>, PackError> {
    let mut bytes = Vec::new();
    pack(tree, files, &mut bytes, options).map(|()| bytes)
}

/// Files in a directory that are kept once they were opened, and how often one was.
struct Keeping {
    folder: Folder,
    kept: Mutex<HashMap<RootPath, Vec<u8>>>,
    opened: AtomicUsize,
}

impl Files for Keeping {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.folder.open(entry)
    }

    fn kept(&self, entry: &Entry, out: &mut Vec<u8>) -> bool {
        let kept = self.kept.lock().expect("no panic");
        kept.get(&entry.path).inspect(|bytes| out.extend_from_slice(bytes)).is_some()
    }

    fn keep(&self, entry: &Entry, bytes: &[u8]) {
        self.kept.lock().expect("no panic").insert(entry.path.clone(), bytes.to_vec());
    }
}

#[test]
fn small_files_that_are_kept_are_not_opened_again() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let contents = [("empty", 0), ("one", 1), ("block", 512), ("large", 70_000), ("more", 513)];
    let tree = tree(contents.map(|(name, length)| {
        let content = vec![b'x'; length];
        fs::write(folder.path().join(name), &content).expect("written");
        file(name, &content)
    }));
    let plain = pack_to_vec(&tree, &Folder(folder.path().into()), &PackOptions::default()).expect("packed");
    let (kept, opened) = (Mutex::default(), AtomicUsize::new(0));
    let files = Keeping { folder: Folder(folder.path().into()), kept, opened };
    for expected in [4, 5] {
        assert_eq!(pack_to_vec(&tree, &files, &PackOptions::default()).expect("packed"), plain);
        assert_eq!(files.opened.load(Ordering::Relaxed), expected, "the large one is opened each time");
    }
}

#[test]
fn entries_are_sorted_and_say_nothing_of_the_machine() {
    let folder = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(folder.path().join("d")).expect("made");
    fs::write(folder.path().join("d/f"), "content").expect("written");
    let hard = |name: &str| Entry {
        node: Node::File { size: 7, content: ContentDigest::of(b"content"), link: 3 },
        ..file(name, b"")
    };
    let directory = Entry::directory(path("d"), 0o755, 0, 0, Time::from_seconds(2_000_000_000));
    let tree = tree([
        Entry { node: Node::Directory { opaque: true }, ..directory },
        hard("d/f"),
        hard("g"),
        Entry::whiteout(path("d-gone")),
    ]);
    let options = PackOptions { source_date_epoch: Some(1_600_000_000) };
    let bytes = pack_to_vec(&tree, &Folder(folder.path().into()), &options).expect("packed");
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    let seen: Vec<String> = archive
        .entries()
        .expect("an archive")
        .map(|entry| {
            let entry = entry.expect("well formed");
            let header = entry.header();
            assert!(header.username().expect("a name").is_none_or(str::is_empty));
            let link = entry.link_name().expect("a link").map_or(String::new(), |link| link.display().to_string());
            let (mode, time) = (header.mode().expect("mode"), header.mtime().expect("time"));
            format!("{} {:?} {mode:o} {time} {link}", entry.path().expect("path").display(), header.entry_type())
        })
        .collect();
    assert_eq!(
        seen,
        [
            "d/ Directory 755 1600000000 ",
            "d/.wh..wh..opq Regular 0 0 ",
            "d/f Regular 644 1600000000 ",
            ".wh.d-gone Regular 0 0 ",
            "g Link 644 1600000000 d/f",
        ]
    );
    assert_eq!(bytes.len(), 512 * 8, "no pax header, no padding of records");
}

#[test]
fn a_file_that_changed_is_named() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let files = Folder(folder.path().into());
    let tree = tree([file("f", b"content")]);
    for changed in ["", "content and more", "contemt", "cont"] {
        fs::write(folder.path().join("f"), changed).expect("written");
        let error = pack_to_vec(&tree, &files, &PackOptions::default()).expect_err("changed");
        assert!(matches!(&error, PackError::Changed { path: found } if *found == path("f")), "{changed}: {error}");
        let state = SnapshotStore::new(&folder.path().join("state"));
        let active = state.begin().expect("begun");
        assert!(matches!(materialise(&tree, &files, &active), Err(PackError::Changed { .. })), "{changed}");
    }
    let reserved = pack_to_vec(&super::tests::tree([file("d/.wh.x", b"")]), &files, &PackOptions::default());
    assert!(matches!(reserved, Err(PackError::ReservedName(_))));
    fs::remove_file(folder.path().join("f")).expect("removed");
    let error = pack_to_vec(&tree, &files, &PackOptions::default()).expect_err("gone");
    assert!(matches!(error, PackError::Read { .. }));
}

#[test]
fn a_layer_is_described_by_what_was_written() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let content = b"some words ".repeat(300_000);
    fs::write(folder.path().join("f"), &content).expect("written");
    let (files, tree) = (Folder(folder.path().into()), tree([file("f", &content)]));
    let options = PackOptions::default();
    let archive = pack_to_vec(&tree, &files, &options).expect("packed");
    let diff = diff_id(&tree, &files, &options).expect("hashed");
    assert_eq!(diff.digest(), &Digest::sha256(&archive));
    for (compression, docker, media_type) in [
        (Compression::Gzip, false, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (Compression::Zstd, false, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (Compression::Uncompressed, true, "application/vnd.docker.image.rootfs.diff.tar"),
    ] {
        let format = LayerFormat { compression, level: None, docker_media_types: docker };
        let mut blob = Vec::new();
        let layer = write_layer(&tree, &files, &format, &options, &mut blob).expect("written");
        assert_eq!(layer.diff_id, diff);
        assert_eq!(layer.descriptor.digest, Digest::sha256(&blob));
        assert_eq!(layer.descriptor.size, blob.len() as u64);
        assert_eq!(layer.descriptor.media_type.as_str(), media_type);
        assert_eq!(layer.uncompressed_size, archive.len() as u64);
        let mut back = Vec::new();
        Decompressor::new(blob.as_slice()).and_then(|mut stream| stream.read_to_end(&mut back)).expect("read");
        assert!(back == archive);
    }
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let files = Folder(PathBuf::new());
    let written = write_layer(&Tree::empty(), &files, &LayerFormat::default(), &PackOptions::default(), Full);
    let error = written.expect_err("full");
    assert!(crate::diagnostic::Diagnostic::hint(&error).expect("a hint").contains("prune"));
}

/// Runs the same changes on top of the same layer with one snapshotter.
fn build(folder: &Path, copy: bool) -> (Tree, Vec<u8>) {
    let store = SnapshotStore::new(&folder.join(if copy { "copy" } else { "overlay" }));
    let content = folder.join("content");
    let low = tree([
        Entry::directory(path("d"), 0o755, 0, 0, Time::from_seconds(10)),
        file("d/a", b"a"),
        file("d/b", b"b"),
        file("top", b"top"),
    ]);
    let active = store.begin().expect("begun");
    materialise(&low, &Folder(content), &active).expect("written");
    let low_snapshot = store.commit(active, &low).expect("committed");
    let upper = store.begin().expect("begun");
    let snapshotter: Box<dyn Snapshotter> = if copy {
        Box::new(CopySnapshotter::new(store.clone()))
    } else {
        Box::new(OverlaySnapshotter::new(store.clone()))
    };
    let mount = snapshotter.mount(&[&low_snapshot], None, &upper).expect("mounted");
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_fd().as_raw_fd()));
    fs::remove_file(root.join("d/a")).expect("removed");
    fs::write(root.join("d/b"), "other").expect("written");
    fs::hard_link(root.join("d/b"), root.join("b2")).expect("linked");
    fs::write(root.join("top"), "changed").expect("written");
    for changed in ["d/b", "top", "d"] {
        let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(77));
        File::open(root.join(changed)).and_then(|file| file.set_times(times)).expect("set");
    }
    drop(mount);
    let changes = capture(&upper, &Stack::new(vec![low])).expect("captured");
    let snapshot = store.commit(upper, &changes).expect("committed");
    let bytes = pack_to_vec(&changes, &snapshot, &PackOptions::default()).expect("packed");
    (changes, bytes)
}

#[test]
fn both_snapshotters_give_the_same_tree_and_the_same_bytes() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("temporary directory");
    let content = folder.path().join("content");
    fs::create_dir_all(content.join("d")).expect("made");
    for (name, text) in [("d/a", "a"), ("d/b", "b"), ("top", "top")] {
        fs::write(content.join(name), text).expect("written");
    }
    let (overlay, overlay_bytes) = build(folder.path(), false);
    let (copy, copy_bytes) = build(folder.path(), true);
    assert_eq!(overlay, copy);
    assert!(overlay_bytes == copy_bytes);
    let paths: HashMap<String, Node> = overlay.iter().map(|entry| (entry.path.to_string(), entry.node)).collect();
    assert_eq!(paths["/d/a"], Node::Whiteout);
    assert_eq!(paths.len(), 5);
}

#[test]
fn materialised_trees_keep_every_fact() {
    if !crate::rootfs::tests::is_first_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary directory");
    fs::write(folder.path().join("setuid"), "x").expect("written");
    let store = SnapshotStore::new(&folder.path().join("state"));
    let setuid = Entry { mode: 0o4755, uid: 5, gid: 6, ..file("setuid", b"x") };
    let opaque = Entry::directory(path("o"), 0o1777, 1, 2, Time { seconds: -5, nanoseconds: 9 });
    let opaque = Entry { node: Node::Directory { opaque: true }, ..opaque };
    let tree = tree([setuid, opaque, Entry::whiteout(path("gone"))]);
    let active = store.begin().expect("begun");
    materialise(&tree, &Folder(folder.path().into()), &active).expect("written");
    let again = capture(&active, &Stack::default()).expect("captured");
    let facts = |tree: &Tree, name: &str| {
        let entry = tree.get(&path(name)).expect("there");
        (entry.mode, entry.uid, entry.gid, entry.mtime)
    };
    for name in ["setuid", "o"] {
        assert_eq!(facts(&again, name), facts(&tree, name), "{name}");
    }
}
