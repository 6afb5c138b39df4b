use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Barrier};

use super::*;
use crate::cancel::CancelToken;
use crate::oci::{Algorithm, Compression, Descriptor, DiffId, Digest, ImageId, MediaType, Platform, Reference};

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = ContentStore::open(&dir.path().join("state, with: odd\\ \"name\"")).expect("opens");
    (dir, store)
}

fn blob_file(store: &ContentStore, digest: &Digest) -> std::path::PathBuf {
    store.state().join("content/blobs").join(digest.algorithm().name()).join(digest.hex())
}

fn files_in(path: &Path) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

fn image(name: &str) -> ImageRecord {
    ImageRecord {
        id: ImageId::new(Digest::sha256(name.as_bytes())),
        created: 7,
        size: 1 << 40,
        platform: Platform::new("linux", "arm", Some("v6")),
        layers: vec![LayerRecord {
            diff_id: DiffId::new(Digest::sha256(b"layer")),
            descriptor: Some(Descriptor::of(MediaType::OCI_LAYER_GZIP, b"blob")),
            size: 1 << 40,
        }],
        manifest: Some(Descriptor::of(MediaType::OCI_MANIFEST, b"manifest")),
    }
}

fn reference(text: &str) -> Reference {
    text.parse().expect(text)
}

#[test]
fn blobs_come_back_and_a_new_store_is_private() {
    let (_dir, store) = store();
    assert_eq!(files_in(&store.state().join("content")), 0, "nothing is made before it is needed");
    let digest = store.put(b"hello").expect("stored");
    assert_eq!(store.put(b"hello").expect("again"), digest);
    assert_eq!(store.has(&digest).expect("asks"), Some(5));
    assert_eq!(store.has(&Digest::sha256(b"other")).expect("asks"), None);
    assert_eq!(store.read(&digest, 5).expect("read"), b"hello");
    assert!(matches!(store.read(&digest, 4), Err(ContentError::TooLarge { size: 5, limit: 4, .. })));
    let other = ContentStore::open(store.state()).expect("opens again");
    assert_eq!(other.read(&digest, 5).expect("read by another process"), b"hello");
    assert_eq!(other.blobs().expect("listed"), [(digest.clone(), 5)]);
    assert_eq!(files_in(&store.state().join("content/tmp")), 0);
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(store.state()), 0o700, "E-11");
    assert_eq!(mode(&blob_file(&store, &digest)), 0o600);
    assert!(store.remove(&digest).expect("removed"));
    assert!(!store.remove(&digest).expect("gone"));
    assert!(matches!(store.open_blob(&digest), Err(ContentError::Missing { .. })));
}

#[test]
fn a_writer_takes_only_what_was_expected_and_leaves_nothing() {
    let (_dir, store) = store();
    let write = |bytes: &[u8]| {
        let mut writer = store.writer().expect("writer");
        writer.write_all(bytes).expect("written");
        writer
    };
    let digest = Digest::sha256(b"right");
    assert!(matches!(write(b"wrong").commit_as(&digest, 5), Err(ContentError::DigestMismatch { .. })));
    assert!(matches!(write(b"right").commit_as(&digest, 6), Err(ContentError::SizeMismatch { actual: 5, .. })));
    drop(write(b"dropped"));
    assert_eq!(files_in(&store.state().join("content/tmp")), 0);
    assert_eq!(store.has(&digest).expect("asks"), None);
    write(b"right").commit_as(&digest, 5).expect("the right bytes");
    let mut long = store.writer_with(Algorithm::Sha512).expect("writer");
    long.write_all(b"x").expect("written");
    let (digest, size) = long.commit().expect("committed");
    assert_eq!((digest.algorithm(), size), (Algorithm::Sha512, 1));
    assert_eq!(store.read(&digest, 1).expect("read"), b"x");
}

#[test]
fn a_damaged_blob_is_reported_once_and_taken_away() {
    let (_dir, store) = store();
    let digest = store.put(b"original").expect("stored");
    std::fs::write(blob_file(&store, &digest), b"modified").expect("damaged");
    let store = ContentStore::open(store.state()).expect("a process that has not seen it");
    let mut reader = store.open_blob(&digest).expect("opens");
    let error = reader.read_to_end(&mut Vec::new()).expect_err("damaged");
    assert!(matches!(ContentError::from_io(error), Ok(ContentError::DigestMismatch { .. })), "C-8");
    assert_eq!(store.has(&digest).expect("asks"), None);
    assert_eq!(files_in(&store.state().join("content/damaged")), 1);
    assert_eq!(store.put(b"original").expect("heals"), digest);
    // Damage that `put` meets is healed, too.
    std::fs::write(blob_file(&store, &digest), b"modified").expect("damaged");
    let store = ContentStore::open(store.state()).expect("opens");
    store.put(b"original").expect("heals");
    assert_eq!(store.read(&digest, 99).expect("healed"), b"original");
}

#[test]
fn links_inside_the_store_are_not_followed() {
    let outside = tempfile::tempdir().expect("temporary directory");
    let (_dir, store) = store();
    let digest = store.put(b"x").expect("stored");
    std::fs::write(outside.path().join("secret"), b"x").expect("written");
    std::fs::remove_file(blob_file(&store, &digest)).expect("removed");
    symlink(outside.path().join("secret"), blob_file(&store, &digest)).expect("link");
    assert_eq!(store.has(&digest).expect("asks"), None, "C-14");
    assert!(store.open_blob(&digest).is_err());
    let state = outside.path().join("state");
    drop(ContentStore::open(&state).expect("opens"));
    std::fs::create_dir(outside.path().join("elsewhere")).expect("made");
    symlink(outside.path().join("elsewhere"), state.join("content")).expect("link");
    assert!(ContentStore::open(&state).expect("opens").put(b"x").is_err());
    assert_eq!(files_in(&outside.path().join("elsewhere")), 0);
}

#[test]
fn other_formats_and_other_directories_are_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let open = || ContentStore::open(dir.path());
    std::fs::write(dir.path().join("thesis.txt"), b"").expect("written");
    assert!(matches!(open(), Err(ContentError::NotAStore { found, .. }) if found == "thesis.txt"));
    std::fs::remove_file(dir.path().join("thesis.txt")).expect("removed");
    drop(open().expect("an empty directory becomes a store"));
    std::fs::write(dir.path().join("version"), b"5\n").expect("written");
    assert!(matches!(open(), Err(ContentError::NewerFormat { found: 5, known: 4, .. })));
    std::fs::write(dir.path().join("version"), b"2\n").expect("written");
    assert!(matches!(open(), Err(ContentError::OlderFormat { found: 2, known: 3, .. })));
    for damaged in ["", "0", "x", "\0\0\0\0"] {
        std::fs::write(dir.path().join("version"), damaged).expect("written");
        assert!(matches!(open(), Err(ContentError::Version { .. })), "{damaged:?}");
    }
}

#[test]
fn the_format_is_raised_when_something_newer_is_written() {
    let (_dir, store) = store();
    let version = || std::fs::read_to_string(store.state().join("version")).expect("there");
    assert_eq!(version(), "3\n");
    store.need_format(3).expect("nothing to do");
    assert_eq!(version(), "3\n");
    let other = ContentStore::open(store.state()).expect("opens");
    other.need_format(crate::content::FORMAT_DERIVED).expect("written");
    store.need_format(crate::content::FORMAT_DERIVED).expect("written");
    assert_eq!(version(), "4\n");
    drop(ContentStore::open(store.state()).expect("this program knows it"));
}

#[test]
fn a_running_build_keeps_the_collector_out() {
    let (_dir, store) = store();
    let cancel = CancelToken::new();
    let other = ContentStore::open(store.state()).expect("opens");
    let lease = store.lease(&cancel).expect("lease");
    let second = other.lease(&cancel).expect("builds share");
    assert!(other.try_exclusive().expect("asks").is_none());
    drop((lease, second));
    let alone = other.try_exclusive().expect("asks").expect("nobody builds");
    assert!(store.try_exclusive().expect("asks").is_none());
    cancel.cancel();
    assert!(matches!(store.lease(&cancel), Err(ContentError::Cancelled(_))));
    drop(alone);
}

#[test]
fn collecting_keeps_what_is_named_and_what_is_being_written() {
    let (_dir, store) = store();
    let kept = store.put(b"kept").expect("stored");
    let lost = store.put(b"lost!").expect("stored");
    let mut writer = store.writer().expect("writer");
    writer.write_all(b"live").expect("written");
    let stray = store.state().join("content/tmp/0123");
    let stray_file = std::fs::File::create(&stray).expect("made");
    stray_file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("an old file");
    drop(stray_file);
    let alone = store.try_exclusive().expect("asks").expect("nobody builds");
    let collected = store.collect(&alone, &HashSet::from([kept.clone()])).expect("collected");
    assert_eq!(collected, Collected { files: 2, bytes: 5 });
    assert_eq!(store.has(&lost).expect("asks"), None);
    assert_eq!(store.has(&kept).expect("asks"), Some(4));
    assert!(!stray.exists());
    writer.commit_as(&Digest::sha256(b"live"), 4).expect("the writer is untouched");
}

#[test]
fn images_and_tags_come_back() {
    let (_dir, store) = store();
    let database = store.database();
    let (one, two) = (image("one"), image("two"));
    assert!(matches!(database.tag(&reference("app"), &one.id), Err(ContentError::NoSuchImage(_))));
    database.put_image(&one).expect("written");
    database.put_image(&two).expect("written");
    assert_eq!(database.image(&one.id).expect("asks").as_ref(), Some(&one));
    assert_eq!(database.images().expect("asks").len(), 2);
    assert_eq!(database.tag(&reference("app:1"), &one.id).expect("tagged"), None);
    assert_eq!(database.tag(&reference("app:1"), &two.id).expect("moved"), Some(one.id.clone()));
    database.tag(&reference("r.io/b"), &one.id).expect("tagged");
    assert_eq!(database.resolve(&reference("docker.io/library/app:1")).expect("asks"), Some(two.id.clone()));
    let tags = [(reference("app:1"), two.id.clone()), (reference("r.io/b:latest"), one.id.clone())];
    assert_eq!(database.tags().expect("asks"), tags);
    assert_eq!(database.tags_of(&one.id).expect("asks"), [reference("r.io/b")]);
    assert_eq!(database.untag(&reference("app:1")).expect("untagged"), Some(two.id.clone()));
    assert_eq!(database.untag(&reference("app:1")).expect("not there"), None);
    assert!(database.remove_image(&one.id).expect("removed"));
    assert!(database.tags().expect("asks").is_empty());
    assert!(!database.remove_image(&one.id).expect("not there"));
}

#[test]
fn images_are_found_as_people_type_them() {
    let (_dir, store) = store();
    let database = store.database();
    let ids: Vec<ImageId> =
        (0..40).map(|n| image(&n.to_string())).inspect(|i| database.put_image(i).expect("put")).map(|i| i.id).collect();
    let hex = ids[3].digest().hex();
    for text in [hex, &hex[..12], &hex[..12].to_uppercase(), ids[3].digest().as_str()] {
        assert_eq!(database.find_image(text).expect(text).as_ref(), Some(&ids[3]));
    }
    // Forty ids and sixteen digits.
    let crowded = (0..16).any(|digit| {
        matches!(database.find_image(&format!("{digit:x}")), Err(ContentError::Ambiguous { count, .. }) if count > 1)
    });
    assert!(crowded);
    for nothing in ["", "sha256:", "zz", "none:1", &"0".repeat(65)] {
        assert_eq!(database.find_image(nothing).expect(nothing), None, "{nothing}");
    }
    // A name made of hexadecimal digits wins.
    database.tag(&reference(&hex[..4]), &ids[5]).expect("tagged");
    assert_eq!(database.find_image(&hex[..4]).expect("asks").as_ref(), Some(&ids[5]));
    let manifest = Digest::sha256(b"manifest");
    let known = RepoDigest { repository: "r.io/a".to_owned(), digest: manifest.clone(), image: ids[1].clone() };
    database.put_repo_digest(&known).expect("written");
    database.put_repo_digest(&known).expect("again");
    assert_eq!(database.find_image(&format!("r.io/a@{manifest}")).expect("asks").as_ref(), Some(&ids[1]));
    assert_eq!(database.repo_digests(&ids[1]).expect("asks"), [known]);
    assert!(database.remove_repo_digests("r.io/a", &ids[1]).expect("removed"));
    assert!(database.all_repo_digests().expect("asks").is_empty());
}

#[test]
fn facts_come_back() {
    let (_dir, store) = store();
    let database = store.database();
    let (a, b) = (DiffId::new(Digest::sha256(b"a")), DiffId::new(Digest::sha256(b"b")));
    database.put_layer_tree(&a, &[1; 32]).expect("written");
    database.put_layer_tree(&b, &[1; 32]).expect("written");
    assert_eq!(database.layer_tree(&a).expect("asks"), Some([1; 32]));
    assert_eq!(database.diff_id_of_tree(&[1; 32]).expect("asks"), Some(a.clone().min(b.clone())));
    assert_eq!(database.diff_id_of_tree(&[2; 32]).expect("asks"), None);
    database.remove_layer_tree(&a).expect("removed");
    assert_eq!(database.layer_tree(&a).expect("asks"), None);

    database.put_packed_tree(&[1; 32], "1", &a).expect("written");
    assert_eq!(database.packed_tree(&[1; 32], "1").expect("asks").as_ref(), Some(&a));
    assert_eq!(database.packed_tree(&[1; 32], "2").expect("asks"), None);

    let blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"blob");
    database.put_layer_blob(&a, Compression::Gzip, "level=6", &blob).expect("written");
    assert_eq!(database.layer_blob(&a, Compression::Gzip, "level=6").expect("asks").as_ref(), Some(&blob));
    assert_eq!(database.layer_blob(&a, Compression::Gzip, "level=9").expect("asks"), None);
    assert_eq!(database.layer_blob(&a, Compression::Zstd, "level=6").expect("asks"), None);
    assert_eq!(database.diff_id_of_blob(&blob.digest).expect("asks").as_ref(), Some(&a));
    assert_eq!(database.layer_blobs().expect("asks"), [(a.clone(), blob.clone())]);
    database.remove_layer_blobs(&a).expect("removed");
    assert!(database.layer_blobs().expect("asks").is_empty());

    database.put_blob_source(&blob.digest, "r.io/b").expect("written");
    database.put_blob_source(&blob.digest, "r.io/a").expect("written");
    assert_eq!(database.blob_sources(&blob.digest).expect("asks"), ["r.io/a", "r.io/b"]);

    let platform = Platform::new("linux", "arm64", None);
    let resolved = ResolvedTag { descriptor: blob, at: -5 };
    database.put_resolved_tag(&reference("app"), &platform, &resolved).expect("written");
    assert_eq!(database.resolved_tag(&reference("app"), &platform).expect("asks"), Some(resolved));
    assert_eq!(database.resolved_tag(&reference("app"), &Platform::new("linux", "amd64", None)).expect("asks"), None);
    assert_eq!(database.resolved_platforms(&reference("app")).expect("asks"), std::slice::from_ref(&platform));
    assert_eq!(database.resolved_platforms(&reference("other")).expect("asks"), []);
    database.forget_resolved_tags().expect("forgotten");
    assert_eq!(database.resolved_tag(&reference("app"), &platform).expect("asks"), None);
}

#[test]
fn writing_what_is_known_writes_nothing() {
    let (_dir, store) = store();
    let database = store.database();
    let repeat = || {
        database.put_image(&ImageRecord { created: 99, ..image("x") }).expect("image");
        database.tag(&reference("app"), &image("x").id).expect("tag");
        database.put_layer_tree(&DiffId::new(Digest::sha256(b"a")), &[1; 32]).expect("tree");
        database.put_blob_source(&Digest::sha256(b"a"), "r.io/a").expect("source");
        store.put(b"config").expect("blob");
    };
    repeat();
    let changes =
        || database.with(|connection| connection.query_row("SELECT total_changes()", [], |row| row.get::<_, i64>(0)));
    let before = changes().expect("asks");
    repeat();
    assert_eq!(changes().expect("asks"), before);
}

/// C-9: whatever is in the file, the next use works and says so in one line.
#[test]
fn a_damaged_database_is_set_aside() {
    let (_dir, store) = store();
    let file = store.state().join("db.sqlite");
    let fill = |state: &Path| {
        let store = ContentStore::open(state).expect("opens");
        for n in 0..200 {
            let image = image(&n.to_string());
            store.database().put_image(&image).expect("put");
        }
        store.database().with(|connection| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")).expect("moved");
    };
    fill(store.state());
    let whole = std::fs::read(&file).expect("read");
    let mut inside = whole.clone();
    let middle = inside.len() / 2;
    inside[4096..middle].fill(0xff);
    let mut row = whole.clone();
    for at in 0..row.len() {
        if row[at..].starts_with(b"\"architecture\"") {
            row[at] = b'!';
        }
    }
    for (name, bytes, damaged) in [
        ("empty", Vec::new(), false),
        ("half", whole[..whole.len() / 2].to_vec(), true),
        ("zeros", vec![0; whole.len()], true),
        ("text", b"not a database, but a text that is long enough to be one".repeat(9), true),
        ("inside", inside, true),
        ("row", row, true),
    ] {
        std::fs::write(&file, bytes).expect("written");
        for suffix in ["db.sqlite-wal", "db.sqlite-shm"] {
            let _ = std::fs::remove_file(store.state().join(suffix));
        }
        let fresh = ContentStore::open(store.state()).expect("opens");
        let images = fresh.database().images().expect(name);
        let warning = fresh.database().warning();
        assert_eq!(warning.is_some(), damaged, "{name}: {warning:?}");
        assert!(images.is_empty(), "{name}");
        fresh.database().put_image(&image("after")).expect(name);
        assert_eq!(fresh.database().images().expect(name).len(), 1);
        assert_eq!(fresh.database().warning(), None);
    }
    let newer = ContentStore::open(store.state()).expect("opens");
    newer.database().with(|connection| connection.execute_batch("PRAGMA user_version = 3")).expect("set");
    let newer = ContentStore::open(store.state()).expect("opens");
    assert!(matches!(newer.database().images(), Err(ContentError::NewerFormat { found: 3, .. })));
}

#[test]
fn directories_with_the_names_of_the_files_of_the_database_are_replaced() {
    let (_dir, store) = store();
    store.database().put_image(&image("1")).expect("put");
    let state = store.state().to_owned();
    drop(store);
    // Only what is in the file itself is lost with it.
    for (name, images) in [("db.lock", 1), ("db.sqlite-shm", 1), ("db.sqlite", 0), ("db.sqlite-wal", 0)] {
        let _ = std::fs::remove_file(state.join(name));
        std::fs::create_dir_all(state.join(name).join("inner")).expect("made");
        let fresh = ContentStore::open(&state).expect("opens");
        assert_eq!(fresh.database().images().expect(name).len(), images, "{name}");
        if images == 0 {
            fresh.database().put_image(&image("after")).expect(name);
        }
        drop(fresh);
        let again = ContentStore::open(&state).expect("opens");
        assert_eq!(again.database().images().expect(name).len(), 1, "{name}");
        assert_eq!(again.database().damaged(true).expect(name), None, "{name}");
    }
}

#[test]
fn many_processes_start_a_store_together() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let barrier = Arc::new(Barrier::new(8));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (barrier, path) = (Arc::clone(&barrier), dir.path().join("a/b/state"));
            scope.spawn(move || {
                barrier.wait();
                let store = ContentStore::open(&path).expect("opens");
                store.put(b"the same").expect("put");
                store.database().put_image(&image(&n.to_string())).expect("image");
                store.database().tag(&reference("app"), &image(&n.to_string()).id).expect("tag");
            });
        }
    });
    let store = ContentStore::open(&dir.path().join("a/b/state")).expect("opens");
    assert_eq!(store.database().images().expect("asks").len(), 8);
    assert_eq!(store.database().warning(), None);
    assert_eq!(store.blobs().expect("listed").len(), 1);
}

#[test]
fn a_name_can_stand_for_several_platforms() {
    let (_dir, store) = store();
    let database = store.database();
    let name = reference("app:1");
    let ids: Vec<ImageId> = ["a", "b", "c"].map(|name| image(name).id).to_vec();
    for name in ["a", "b", "c"] {
        database.put_image(&image(name)).expect("put");
    }
    let missing = [ids[0].clone(), image("d").id];
    assert!(matches!(database.tag_all(&name, &missing), Err(ContentError::NoSuchImage(_))));
    assert_eq!(database.images_of(&name).expect("asked"), [], "nothing of a failed tag stays");
    database.tag_all(&name, &ids).expect("tagged");
    assert_eq!(database.images_of(&name).expect("asked"), ids);
    assert_eq!(database.resolve(&name).expect("asked").as_ref(), Some(&ids[0]));
    assert_eq!(database.tags_of(&ids[2]).expect("asked"), [reference("app:1")]);
    assert_eq!(database.tags().expect("asked").len(), 3);
    // The first one goes: the next one is what the name means.
    assert!(database.remove_image(&ids[0]).expect("removed"));
    assert_eq!(database.images_of(&name).expect("asked"), ids[1..]);
    assert_eq!(database.tag(&name, &ids[2]).expect("tagged").as_ref(), Some(&ids[1]));
    assert_eq!(database.images_of(&name).expect("asked"), ids[2..]);
    database.tag_all(&name, &ids[1..]).expect("tagged");
    database.untag(&name).expect("untagged");
    assert_eq!(database.images_of(&name).expect("asked"), []);
    assert_eq!(database.tags().expect("asked"), []);
}
