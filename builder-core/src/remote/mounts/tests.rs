use std::fs;

use super::*;

fn identity() -> MountIdentity {
    MountIdentity { id: "/c".to_owned(), mode: 0o755, uid: 0, gid: 0 }
}

/// Bytes that neither repeat nor compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[derive(Debug, Default)]
struct Memory(Mutex<HashMap<String, Vec<u8>>>);

impl Backend for Memory {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn manifest(&self, _: &CancelToken) -> Result<Option<Vec<u8>>, RemoteError> {
        Ok(None)
    }

    fn open(&self, blob: &Descriptor, _: &CancelToken) -> Result<Box<dyn Read + Send>, RemoteError> {
        let found = self.0.lock().expect("not poisoned").get(blob.digest.as_str()).cloned();
        let bytes = found.ok_or_else(|| RemoteError::Gone { digest: blob.digest.clone() })?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn has(&self, blob: &Descriptor, _: &CancelToken) -> Result<bool, RemoteError> {
        Ok(self.0.lock().expect("not poisoned").contains_key(blob.digest.as_str()))
    }

    fn put(&self, blob: &backend::BlobToPut<'_>, _: &CancelToken) -> Result<(), RemoteError> {
        let mut bytes = Vec::new();
        (blob.source)().expect("a source").read_to_end(&mut bytes).expect("readable");
        self.0.lock().expect("not poisoned").insert(blob.descriptor.digest.to_string(), bytes);
        Ok(())
    }

    fn put_manifest(&self, _: &crate::oci::Manifest, _: &[u8], _: &CancelToken) -> Result<(), RemoteError> {
        Ok(())
    }
}

impl Memory {
    /// Takes what is new; returns how many bytes of packs that are.
    fn take(&self, packed: &PackedMount) -> u64 {
        let mut known = self.0.lock().expect("not poisoned");
        known.insert(packed.list.0.digest.to_string(), packed.list.1.clone());
        for (descriptor, writer) in &packed.packs {
            let mut bytes = Vec::new();
            writer.lock().expect("whole").reopen().expect("open").read_to_end(&mut bytes).expect("readable");
            known.insert(descriptor.digest.to_string(), bytes);
        }
        packed.packs.iter().map(|(descriptor, _)| descriptor.size).sum()
    }
}

#[test]
fn a_mount_comes_back_and_a_change_sends_only_what_is_new() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("a store");
    let snapshots = SnapshotStore::new(state.path());
    let (cancel, memory) = (CancelToken::new(), Memory::default());
    let mount = state.path().join("mounts/x");
    fs::create_dir_all(mount.join("d")).expect("made");
    let mut large = noise(1, 3 << 20);
    fs::write(mount.join("d/large"), &large).expect("written");
    for number in 0..50 {
        fs::write(mount.join(format!("d/{number}")), noise(number, 1000)).expect("written");
    }
    fs::hard_link(mount.join("d/1"), mount.join("link")).expect("linked");
    std::os::unix::fs::symlink("d/1", mount.join("symlink")).expect("linked");
    fs::write(mount.join("empty"), "").expect("written");

    let first = pack(&identity(), &mount, None, &content, &cancel).expect("packed").expect("new");
    assert!(memory.take(&first) > 3 << 20);
    let restored = restore(&memory, &first.fact, &first.tree, &content, &snapshots, &cancel).expect("restored");
    assert_eq!(tree_of(restored.root()).expect("readable"), first.tree);
    assert_eq!(fs::read(restored.path().join("d/large")).expect("there"), large);

    let known = |fact: &MountFact| chunks(&memory, fact, &cancel).expect("a list");
    let same = pack(&identity(), &mount, Some((&first.fact, known(&first.fact))), &content, &cancel);
    assert!(same.expect("packed").is_none(), "nothing changed");
    large.splice(1_000_000..1_000_000, *b"something in the middle");
    fs::write(mount.join("d/large"), &large).expect("written");
    fs::write(mount.join("d/more"), "new").expect("written");
    let second = pack(&identity(), &mount, Some((&first.fact, known(&first.fact))), &content, &cancel);
    let second = second.expect("packed").expect("changed");
    let sent = memory.take(&second);
    assert!(sent < 1 << 20, "{sent} bytes for a small change");
    let restored = restore(&memory, &second.fact, &second.tree, &content, &snapshots, &cancel).expect("restored");
    assert_eq!(tree_of(restored.root()).expect("readable"), second.tree);

    // Most of the old pack is not needed any more: the rest moves into a new one.
    fs::remove_file(mount.join("d/large")).expect("removed");
    let third = pack(&identity(), &mount, Some((&second.fact, known(&second.fact))), &content, &cancel);
    let third = third.expect("packed").expect("changed");
    memory.take(&third);
    let fourth_known = known(&third.fact);
    fs::write(mount.join("d/more"), "newer").expect("written");
    let fourth = pack(&identity(), &mount, Some((&third.fact, fourth_known)), &content, &cancel);
    let fourth = fourth.expect("packed").expect("changed");
    assert!(fourth.fact.packs.iter().all(|pack| !first.fact.packs.contains(pack)), "{:?}", fourth.fact.packs);
}

type Lie = fn(&mut Vec<ChunkRef>);

#[test]
fn lies_about_chunks_are_noticed() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("a store");
    let snapshots = SnapshotStore::new(state.path());
    let (cancel, memory) = (CancelToken::new(), Memory::default());
    let mount = state.path().join("mounts/x");
    fs::create_dir_all(&mount).expect("made");
    fs::write(mount.join("file"), noise(1, 300_000)).expect("written");
    let packed = pack(&identity(), &mount, None, &content, &cancel).expect("packed").expect("new");
    memory.take(&packed);
    let good = chunks(&memory, &packed.fact, &cancel).expect("a list");
    let lies: [Lie; 6] = [
        |list| list[0].pack = 9,
        |list| list[0].offset = u64::MAX,
        |list| list[0].stored = u64::MAX,
        |list| list[0].length += 1,
        |list| list[0].id = ContentDigest::of(b""),
        |list| list.truncate(0),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut list = good.clone();
        lie(&mut list);
        let mut documents = Vec::new();
        let json = serde_json::to_vec(&list).expect("plain data");
        let chunk = format::compressed(LIST, &json, &mut documents);
        let (descriptor, bytes) = documents.remove(0);
        memory.0.lock().expect("not poisoned").insert(descriptor.digest.to_string(), bytes);
        let fact = MountFact { list: chunk, ..packed.fact.clone() };
        let restored = restore(&memory, &fact, &packed.tree, &content, &snapshots, &cancel);
        assert!(restored.is_err(), "lie {number}");
    }
    assert!(restore(&memory, &packed.fact, &packed.tree, &content, &snapshots, &cancel).is_ok());
}
