//! [`CacheStore`]: records on disk, one small file each.
//!
//! ```text
//! STATE/cache/records/ab/cdef…   digest of the rest (64 hex digits) newline, then the record as JSON
//! STATE/cache/results/ab/cdef…   the same for the record that first gave this result on this root
//! STATE/cache/similar/ab/cdef…   the last keys of a command, newest first, one a line; only for explanations
//! STATE/cache/locks/abcdef…      held while a step with this key runs
//! STATE/cache/reads/ab/cdef….…    what one run of a command looked at, with its record: see `reads`
//! STATE/cache/files/ab/cdef…     small files of layers that are not here, by content: keys are computed from them
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::{CacheKey, Preimage};
use crate::cancel::{CancelToken, Cancelled};
use crate::small_file;
use crate::tree::{ContentDigest, SemanticDigest, StateDigest, TreeId};

/// Fewest characters of a key that are taken for its beginning.
const FEWEST: usize = 4;

/// What a step gave when it ran.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// What the key was made of.
    pub preimage: Preimage,
    /// The layer.
    pub tree: TreeId,
    /// The layer without times.
    pub semantic: SemanticDigest,
    /// When the layer was made, in seconds since 1970.
    pub created: i64,
    /// How long it took, in milliseconds; unset if nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
    /// When the step ran last, in seconds since 1970, if it gave a layer again that was there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<i64>,
}

impl Record {
    /// Whether its key, or the id of its tree, begins with this; fewer than four characters name nothing.
    pub fn is_called(&self, beginning: &str) -> bool {
        let names = || [self.preimage.key().to_string(), self.tree.to_string()];
        beginning.len() >= FEWEST && names().iter().any(|name| name.starts_with(beginning))
    }

    /// Whether the step is known to have begun to run less than `ttl` ago.
    pub fn is_fresh(&self, ttl: Duration, now: i64) -> bool {
        let since_end = now.saturating_sub(self.ran.unwrap_or(self.created));
        // A time to come is that of another clock, and says nothing. What a step saw may be as old as its beginning.
        let took = self.milliseconds.unwrap_or_default() / 1000;
        u64::try_from(since_end).is_ok_and(|seconds| seconds.saturating_add(took) < ttl.as_secs())
    }
}

/// Keys of one command that are remembered.
const MAX_SIMILAR: usize = 8;

/// What [`CacheStore::look`] found under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// A record.
    Found(Box<Record>),
    /// None.
    Nothing,
    /// A damaged one.
    Damaged,
}

/// The directory of records.
#[derive(Debug)]
pub struct CacheStore {
    directory: PathBuf,
}

/// A record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system fails.
    #[error("cannot access {}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The build was cancelled while it waited for another one.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Held while a step runs, so that no two processes run it at the same time. The kernel lets go of it when the process
/// ends, however it ends.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Removed while it is held: whoever waits on the old file finds it gone and opens a new one.
        let _ = fs::remove_file(&self.path);
    }
}

impl CacheStore {
    /// Names the store of a state directory; nothing is touched yet.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("cache") }
    }

    /// Looks a key up. A damaged record is removed and counts as none.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn get(&self, key: &CacheKey) -> Result<Option<Record>, CacheError> {
        Ok(match self.look(key)? {
            Looked::Found(record) => Some(*record),
            Looked::Nothing | Looked::Damaged => None,
        })
    }

    /// The same, telling a damaged record from none.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn look(&self, key: &CacheKey) -> Result<Looked, CacheError> {
        let found = self.peek(key)?;
        let path = self.record_path(key);
        match &found {
            Looked::Found(_) => small_file::mark_used(&path),
            // The record can be made again; it is removed so that the next build does not trip over it.
            Looked::Damaged => drop(fs::remove_file(&path)),
            Looked::Nothing => {}
        }
        Ok(found)
    }

    /// The same for who only wants to know: a damaged record stays, and a sound one does not count as used.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn peek(&self, key: &CacheKey) -> Result<Looked, CacheError> {
        let Some(bytes) = read(&self.record_path(key))? else { return Ok(Looked::Nothing) };
        let record = unseal(&bytes).filter(|record| record.preimage.key() == *key);
        Ok(record.map_or(Looked::Damaged, |record| Looked::Found(Box::new(record))))
    }

    /// Remembers that a command was tried with this key, for [`CacheStore::similar`]. That this cannot be written is
    /// no error: it only helps to explain.
    pub fn remember_similar(&self, preimage: &Preimage) {
        let Some(path) = self.similar_path(preimage) else { return };
        let known = read(&path).ok().flatten().unwrap_or_default();
        let own = preimage.key().to_string();
        let others =
            String::from_utf8_lossy(&known).lines().filter(|line| *line != own).map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<String> = std::iter::once(own).chain(others).take(MAX_SIMILAR).collect();
        let _ = write(&path, (lines.join("\n") + "\n").as_bytes());
    }

    /// The records that the same command has left with other inputs, newest first; at most a few.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn similar(&self, preimage: &Preimage) -> Result<Vec<Record>, CacheError> {
        let Some(path) = self.similar_path(preimage) else { return Ok(Vec::new()) };
        let Some(bytes) = read(&path)? else { return Ok(Vec::new()) };
        let mut records = Vec::new();
        for key in String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse::<CacheKey>().ok()) {
            if let Looked::Found(record) = self.peek(&key)?
                && record.preimage.op == preimage.op
            {
                records.push(*record);
            }
        }
        Ok(records)
    }

    /// Only commands say in their preimage what they are; copies say what they result in.
    fn similar_path(&self, preimage: &Preimage) -> Option<PathBuf> {
        let mut hasher = blake3::Hasher::new();
        let mut any = false;
        for field in &preimage.fields {
            if field.name.starts_with("argument ") || field.name == "script" {
                any = true;
                hasher.update(&(field.value.len() as u64).to_le_bytes()).update(field.value.as_bytes());
            }
        }
        any.then(|| self.shard("similar", &hasher.finalize().to_hex()))
    }

    /// Stores what a key led to. An older record of the key is replaced.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn put(&self, record: &Record) -> Result<CacheKey, CacheError> {
        let key = record.preimage.key();
        write(&self.record_path(&key), &seal(record))?;
        Ok(key)
    }

    /// The record that first gave this result on this root filesystem.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn first_result(&self, root: &StateDigest, result: &SemanticDigest) -> Result<Option<Record>, CacheError> {
        let Some(bytes) = read(&self.result_path(root, result))? else { return Ok(None) };
        Ok(unseal(&bytes).filter(|record| record.semantic == *result))
    }

    /// Remembers that `record` gave its result on this root filesystem, unless one is known already.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn put_first_result(&self, root: &StateDigest, record: &Record) -> Result<(), CacheError> {
        let path = self.result_path(root, &record.semantic);
        if self.first_result(root, &record.semantic)?.is_some() {
            return Ok(());
        }
        write(&path, &seal(record))
    }

    /// The key of fingerprints of secrets, made at the first call that may write; before that it is zeros, which no
    /// fingerprint was made with.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn salt(&self, may_write: bool) -> Result<[u8; 32], CacheError> {
        let path = self.directory.join("salt");
        let access = |source| CacheError::Access { path: path.clone(), source };
        for _ in 0..2 {
            let known = read(&path)?.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            match known {
                Some(salt) => return Ok(salt),
                None if !may_write => return Ok([0; 32]),
                None => {}
            }
            let mut salt = [0; 32];
            rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())
                .map_err(|errno| access(errno.into()))?;
            fs::create_dir_all(&self.directory).map_err(access)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.directory).map_err(access)?;
            file.write_all(&salt).map_err(access)?;
            // Another process may have been first: then its salt counts, and a damaged one is replaced.
            match file.persist_noclobber(&path) {
                Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::metadata(&path).is_ok_and(|found| found.len() != 32 || found.is_dir()) {
                        small_file::remove(&path).map_err(access)?;
                    }
                }
                Err(failed) => return Err(access(failed.error)),
                Ok(_) => {}
            }
        }
        read(&path)?
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| access(io::Error::other("it does not have 32 bytes")))
    }

    /// Keeps a small file whose layer is elsewhere.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn put_file(&self, content: &[u8]) -> Result<(), CacheError> {
        let path = self.shard("files", &ContentDigest::of(content).to_string());
        if path.exists() { Ok(()) } else { write(&path, content) }
    }

    /// A file that [`CacheStore::put_file`] kept. A damaged one is removed and counts as none.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn file(&self, digest: &ContentDigest) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.shard("files", &digest.to_string());
        let Some(content) = read(&path)? else { return Ok(None) };
        if ContentDigest::of(&content) == *digest {
            return Ok(Some(content));
        }
        let _ = fs::remove_file(&path);
        Ok(None)
    }

    /// Removes what [`CacheStore::put_file`] kept: it can be had again with the layers.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn remove_files(&self) -> Result<(), CacheError> {
        let path = self.directory.join("files");
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CacheError::Access { path, source }),
            _ => Ok(()),
        }
    }

    /// Waits until no other process runs the step with this key, then keeps others from running it.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`] if the token is cancelled while waiting; [`CacheError::Access`].
    pub fn lock(&self, key: &CacheKey, cancel: &CancelToken) -> Result<KeyLock, CacheError> {
        let path = self.directory.join("locks").join(key.to_string());
        let error = |source| CacheError::Access { path: path.clone(), source };
        loop {
            small_file::make_directory(&self.directory.join("locks")).map_err(error)?;
            let open = || File::options().create(true).append(true).open(&path);
            let file = small_file::open(&path, open).map_err(error)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The holder before us removed the file: a lock on it keeps nobody out.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => return Ok(KeyLock { path, _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    cancel.check()?;
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Err(errno) => return Err(error(errno.into())),
            }
        }
    }

    /// Every record that is stored, with its file; damaged ones are left out.
    ///
    /// # Errors
    /// [`CacheError::Access`] if a directory cannot be listed.
    pub fn list(&self) -> Result<Vec<(PathBuf, Record)>, CacheError> {
        let mut records = Vec::new();
        for path in self.files_in(&["records", "results"])? {
            let Some(bytes) = read(&path)? else { continue };
            records.extend(unseal(&bytes).map(|record| (path, record)));
        }
        Ok(records)
    }

    /// Whether there is any record at all.
    ///
    /// # Errors
    /// [`CacheError::Access`] if a directory cannot be listed.
    pub fn has_records(&self) -> Result<bool, CacheError> {
        let path = self.directory.join("records");
        let error = |source| CacheError::Access { path: path.clone(), source };
        let shards = match fs::read_dir(&path) {
            Ok(shards) => shards,
            Err(failed) if failed.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(failed) => return Err(error(failed)),
        };
        for shard in shards {
            let shard = shard.map_err(error)?.path();
            if fs::read_dir(shard).map_err(error)?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The file of every record.
    ///
    /// # Errors
    /// [`CacheError::Access`] if a directory cannot be listed.
    pub fn files(&self) -> Result<Vec<PathBuf>, CacheError> {
        self.files_in(&["records", "results", "reads"])
    }

    pub(super) fn files_in(&self, areas: &[&str]) -> Result<Vec<PathBuf>, CacheError> {
        let mut files = Vec::new();
        for area in areas {
            let directory = self.directory.join(area);
            let found = small_file::in_shards(&directory);
            files.extend(found.map_err(|source| CacheError::Access { path: directory, source })?);
        }
        Ok(files)
    }

    /// Removes what killed processes left behind: unfinished files, and locks that nobody holds.
    ///
    /// # Errors
    /// [`CacheError::Access`] if something cannot be removed.
    pub fn sweep(&self) -> Result<(), CacheError> {
        let error = |source| CacheError::Access { path: self.directory.clone(), source };
        for area in ["", "records", "results", "similar", "reads"] {
            small_file::sweep(&self.directory.join(area)).map_err(error)?;
        }
        for path in fs::read_dir(self.directory.join("locks")).into_iter().flatten().flatten().map(|entry| entry.path())
        {
            let Ok(file) = File::options().append(true).open(&path) else { continue };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&file, &path) {
                drop(KeyLock { path, _file: file });
            }
        }
        Ok(())
    }

    /// Says whether a file has a record that is intact and, where the file is named by a key, has that key. One that is gone
    /// is not damaged.
    pub fn is_sound(&self, path: &Path) -> bool {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            bytes => bytes,
        };
        let set = bytes.as_ref().ok().and_then(|bytes| self.is_sound_set(path, bytes));
        if let Some(sound) = set {
            return sound;
        }
        let record = bytes.ok().and_then(|bytes| unseal(&bytes));
        record.is_some_and(|record| {
            let named = self.shard("records", &record.preimage.key().to_string());
            !path.starts_with(self.directory.join("records")) || path == named
        })
    }

    /// The directory, for measuring.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn result_path(&self, root: &StateDigest, result: &SemanticDigest) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(root.as_bytes()).update(result.as_bytes());
        self.shard("results", &hasher.finalize().to_hex())
    }

    fn record_path(&self, key: &CacheKey) -> PathBuf {
        self.shard("records", &key.to_string())
    }

    pub(super) fn shard(&self, area: &str, name: &str) -> PathBuf {
        self.directory.join(area).join(&name[..2]).join(&name[2..])
    }
}

/// Writes a record with a checksum before it.
fn seal(record: &Record) -> Vec<u8> {
    let body = serde_json::to_vec(record).expect("plain data serialises");
    small_file::sealed(&body)
}

/// Reads what [`seal`] wrote; `None` for damaged bytes.
fn unseal(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice(small_file::unsealed(bytes)?).ok()
}

/// Whether an open file is still the one of that name.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, CacheError> {
    small_file::read(path).map_err(|source| CacheError::Access { path: path.to_owned(), source })
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    small_file::write(path, bytes).map_err(|source| CacheError::Access { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Stack, Tree};

    fn record() -> Record {
        let mut preimage = Preimage::new("run");
        preimage.add("argument 0", "make");
        let tree = Tree::empty();
        Record { preimage, tree: tree.id(), semantic: tree.semantic(), created: 1, milliseconds: Some(2), ran: None }
    }

    #[test]
    fn a_record_comes_back_and_a_damaged_one_does_not() {
        let state = tempfile::tempdir().expect("temporary directory");
        let store = CacheStore::new(state.path());
        let key = record().preimage.key();
        assert_eq!(store.get(&key).expect("readable"), None);
        assert!(!store.has_records().expect("listed"));
        assert_eq!(store.put(&record()).expect("stored"), key);
        assert!(store.has_records().expect("listed"));
        assert_eq!(store.get(&key).expect("readable"), Some(record()));
        assert_eq!(store.list().expect("listed").len(), 1);
        let path = store.shard("records", &key.to_string());
        let good = fs::read(&path).expect("there");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            fs::write(&path, bad).expect("written");
            assert_eq!(store.peek(&key).expect("readable"), Looked::Damaged, "byte {at}");
            assert!(path.exists(), "who only wants to know removes nothing");
            assert_eq!(store.get(&key).expect("readable"), None, "byte {at}");
            assert!(!path.exists());
        }
        fs::write(&path, b"").expect("written");
        assert_eq!(store.get(&key).expect("readable"), None);
    }

    #[test]
    fn the_first_result_stays() {
        let state = tempfile::tempdir().expect("temporary directory");
        let store = CacheStore::new(state.path());
        let root = Stack::default().state();
        let later = Record { created: 99, ..record() };
        store.put_first_result(&root, &record()).expect("stored");
        store.put_first_result(&root, &later).expect("stored");
        assert_eq!(store.first_result(&root, &later.semantic).expect("readable"), Some(record()));
    }

    #[test]
    fn a_step_is_locked_until_its_holder_lets_go() {
        let state = tempfile::tempdir().expect("temporary directory");
        let store = CacheStore::new(state.path());
        let key = record().preimage.key();
        let lock = store.lock(&key, &CancelToken::new()).expect("free");
        let cancelled = CancelToken::new();
        cancelled.cancel();
        assert!(matches!(store.lock(&key, &cancelled), Err(CacheError::Cancelled(_))));
        drop(lock);
        store.lock(&key, &cancelled).expect("free again");
    }

    #[test]
    fn what_killed_processes_left_is_no_record_and_is_swept() {
        let state = tempfile::tempdir().expect("temporary directory");
        let store = CacheStore::new(state.path());
        let key = store.put(&record()).expect("stored");
        let path = store.shard("records", &key.to_string());
        let half = path.with_file_name(".tmpabc");
        let file = File::create(&half).expect("made");
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).expect("set");
        assert_eq!(store.files().expect("listed"), std::slice::from_ref(&path));
        let held = store.lock(&key, &CancelToken::new()).expect("free");
        let lock = state.path().join("cache/locks/killed");
        fs::write(&lock, "").expect("written");
        store.sweep().expect("swept");
        assert!(!half.exists() && !lock.exists() && path.exists() && held.path.exists());
        // One that a build drops while it is listed is not damaged; whatever else is there is.
        fs::remove_file(&path).expect("removed");
        assert!(store.is_sound(&path));
        fs::create_dir(&path).expect("made");
        assert!(!store.is_sound(&path));
        assert_eq!(store.look(&key).expect("readable"), Looked::Nothing);
        store.put(&record()).expect("stored");
        assert_eq!(store.get(&key).expect("readable"), Some(record()));
    }

    #[test]
    fn a_result_is_as_old_as_the_beginning_of_the_last_run_of_its_step() {
        let fresh = |created: i64, ran: Option<i64>, milliseconds: Option<u64>, ttl: u64| {
            let record = Record { created, milliseconds, ran, ..record() };
            record.is_fresh(Duration::from_secs(ttl), 1000)
        };
        let check = |created: i64, ran: Option<i64>, ttl: u64, expected: bool| {
            assert_eq!(fresh(created, ran, None, ttl), expected, "{created} {ran:?} {ttl}");
        };
        let took = |milliseconds, ttl| fresh(900, None, Some(milliseconds), ttl);
        assert_eq!([took(999, 101), took(1000, 101), took(1000, 102), took(u64::MAX, 102)], [true, false, true, false]);
        check(900, None, 101, true);
        check(900, None, 100, false);
        check(0, Some(990), 11, true);
        check(990, Some(0), 11, false);
        check(1000, None, 0, false);
        check(2000, None, 1, false);
        check(900, Some(1001), 101, false);
        check(2000, Some(1000), 1, true);
    }

    #[test]
    fn a_salt_is_made_once_and_a_damaged_one_again() {
        use std::os::unix::fs::MetadataExt as _;

        let directory = tempfile::tempdir().expect("temporary directory");
        let store = CacheStore::new(directory.path());
        assert_eq!(store.salt(false).expect("zeros"), [0; 32]);
        let salt = store.salt(true).expect("made");
        assert_ne!(salt, [0; 32]);
        assert_eq!((store.salt(true).expect("read"), store.salt(false).expect("read")), (salt, salt));
        fs::write(directory.path().join("cache/salt"), b"short").expect("written");
        let other = store.salt(true).expect("made again");
        assert!(other != salt && other != [0; 32]);
        let found = fs::metadata(directory.path().join("cache/salt")).expect("there");
        assert_eq!(found.mode() & 0o077, 0);
    }
}
