//! The store under `kill -9`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use builder_core::cancel::CancelToken;
use builder_core::content::{ContentStore, ImageRecord};
use builder_core::oci::{Digest, ImageId, Platform, Reference};

/// Names the store for the child process; without it the child's test does nothing.
const STATE: &str = "RBUILD_TEST_CONTENT_STATE";

fn image(number: u64) -> ImageRecord {
    ImageRecord {
        id: ImageId::new(Digest::sha256(&number.to_le_bytes())),
        created: 0,
        size: number,
        platform: Platform::host(),
        layers: Vec::new(),
        manifest: None,
    }
}

/// Not a test by itself: what the killed processes do.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads its own variable, not the library")]
fn a_child_writes_until_it_is_killed() {
    let Some(state) = std::env::var_os(STATE) else { return };
    let store = ContentStore::open(Path::new(&state)).expect("opens");
    let _lease = store.lease(&CancelToken::new()).expect("lease");
    let tag: Reference = "app".parse().expect("a reference");
    for number in 0_u64.. {
        let mut writer = store.writer().expect("writer");
        for piece in 0..64_u64 {
            writer.write_all(&(number ^ piece).to_le_bytes().repeat(512)).expect("written");
        }
        writer.commit().expect("committed");
        store.put(&number.to_le_bytes()).expect("stored");
        store.database().put_image(&image(number)).expect("image");
        store.database().tag(&tag, &image(number).id).expect("tag");
    }
}

/// C-2: whenever a writer dies, what has a name is whole, and what has none goes away.
#[test]
fn a_store_survives_kill_9_at_any_moment() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let state = directory.path().join("state");
    for round in 0..15 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "a_child_writes_until_it_is_killed"])
            .env(STATE, &state)
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        // From before the store exists to the middle of its work.
        std::thread::sleep(Duration::from_millis(2 + round * round));
        child.kill().expect("killed");
        child.wait().expect("ended");

        let store = ContentStore::open(&state).expect("the next process uses the store as it is");
        for (digest, size) in store.blobs().expect("listed") {
            assert_eq!(store.read(&digest, size).expect("whole").len() as u64, size);
        }
        let images = store.database().images().expect("readable");
        for image in &images {
            assert!(store.has(image.id.digest()).expect("asks").is_some(), "a record names what is there");
        }
        for (_, image) in store.database().tags().expect("readable") {
            assert!(images.iter().any(|known| known.id == image));
        }
        assert_eq!(store.database().warning(), None);
        store.try_exclusive().expect("asks").expect("the lease died with its process");
    }
    let store = ContentStore::open(&state).expect("opens");
    assert!(!store.blobs().expect("listed").is_empty(), "the children did some work");
    let strays = state.join("content/tmp");
    for stray in std::fs::read_dir(&strays).expect("listed").map(|entry| entry.expect("listed").path()) {
        let file = std::fs::File::open(stray).expect("opens");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("an old file");
    }
    let alone = store.try_exclusive().expect("asks").expect("nobody builds");
    store.collect(&alone, &std::collections::HashSet::new()).expect("collected");
    assert_eq!(std::fs::read_dir(&strays).expect("listed").count(), 0);
    assert!(store.blobs().expect("listed").is_empty());
}
