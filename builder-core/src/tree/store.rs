//! [`TreeStore`]: trees on disk, one file each, named by [`TreeId`].
//!
//! Trees are small and outlive the snapshots that they describe: a step can hit although its files were pruned.
//!
//! A large tree that was made of another one and has most of its pieces has a file with only the others in it, and beside
//! it a hard link to the file that has the rest, `….rest`. So each tree stays whole, whichever other one is removed.
//!
//! ```text
//! whole:  the encoding
//! part:   "rbpart1\n"  the encoding up to the first piece, and of the pieces those that the other file has not
//! ```

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::piece::Piece;
use super::{Tree, TreeError, TreeId};
use crate::lock::lock;
use crate::small_file;

const PART_MAGIC: &[u8; 8] = b"rbpart1\n";

/// The name of the other file ends with it.
const REST: &str = "rest";

/// Trees shorter than this, in bytes, are always written whole.
const MIN_LENGTH: usize = if cfg!(debug_assertions) { 1 << 10 } else { 256 << 10 };

/// What is not in the other file is at most one part in so many.
const MAX_SHARE: usize = 8;

/// The directory of trees, `STATE/trees/ab/cdef…`.
#[derive(Debug)]
pub struct TreeStore {
    directory: PathBuf,
    loaded: Mutex<HashMap<TreeId, Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    tree: Tree,
    /// Its file was read or written, and not only the tree held.
    stored: Option<Stored>,
}

/// How a tree is stored.
#[derive(Debug, Clone)]
enum Stored {
    Whole,
    /// With the pieces of this tree, as far as it has them.
    Part(Tree),
}

/// What the files of a tree say.
enum Read {
    Missing,
    Damaged(TreeError),
    Found(Tree, Stored),
}

/// A tree could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum TreeStoreError {
    /// It is damaged on disk.
    #[error(transparent)]
    Damaged(#[from] TreeError),
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl TreeStore {
    /// Names the store of a state directory; nothing is touched yet.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("trees"), loaded: Mutex::default() }
    }

    /// Reads a tree; `None` if the store has not got it, or has it damaged (it is removed then).
    ///
    /// # Errors
    /// [`TreeStoreError::Read`] if the file system fails.
    pub fn get(&self, id: &TreeId) -> Result<Option<Tree>, TreeStoreError> {
        if let Some(loaded) = self.loaded().get(id) {
            return Ok(Some(loaded.tree.clone()));
        }
        match self.read(id)? {
            Read::Missing => Ok(None),
            Read::Damaged(_) => {
                // A tree can always be made again; a damaged one is as good as none. If it cannot be removed it is
                // found damaged again.
                let _ = self.remove(id);
                Ok(None)
            }
            Read::Found(tree, stored) => {
                self.loaded().insert(*id, Loaded { tree: tree.clone(), stored: Some(stored) });
                Ok(Some(tree))
            }
        }
    }

    /// Reads a tree from its files, whatever is known of it; `None` if the store has not got it.
    ///
    /// # Errors
    /// [`TreeStoreError::Damaged`], [`TreeStoreError::Read`] if the file system fails.
    pub fn check(&self, id: &TreeId) -> Result<Option<Tree>, TreeStoreError> {
        match self.read(id)? {
            Read::Missing => Ok(None),
            Read::Damaged(error) => Err(error.into()),
            Read::Found(tree, _) => Ok(Some(tree)),
        }
    }

    fn read(&self, id: &TreeId) -> Result<Read, TreeStoreError> {
        let path = self.path(id);
        match read(&path, &self.rest(id)) {
            Ok(Ok((tree, _))) if tree.id() != *id => {
                Ok(Read::Damaged(TreeError::DigestMismatch { expected: *id, actual: tree.id() }))
            }
            Ok(Ok((tree, stored))) => Ok(Read::Found(tree, stored)),
            Ok(Err(error)) => Ok(Read::Damaged(error)),
            Err(error) if small_file::is_missing(&error) => Ok(Read::Missing),
            Err(source) => Err(TreeStoreError::Read { path, source }),
        }
    }

    /// Stores a tree under its id.
    ///
    /// # Errors
    /// [`TreeStoreError::Write`] if the file system fails.
    pub fn put(&self, tree: &Tree) -> Result<TreeId, TreeStoreError> {
        let id = tree.id();
        let seen = self.loaded().get(&id).and_then(|loaded| loaded.stored.clone());
        // It may be removed since it was seen, and a file that nobody has read may be damaged.
        let there = match seen {
            Some(stored) => Some(stored).filter(|stored| self.is_there(tree, stored)),
            None => match self.read(&id) {
                Ok(Read::Found(_, stored)) => Some(stored),
                _ => None,
            },
        };
        let stored = match there {
            Some(stored) => stored,
            None => self.write(tree).map_err(|source| TreeStoreError::Write { path: self.path(&id), source })?,
        };
        self.loaded().insert(id, Loaded { tree: tree.clone(), stored: Some(stored) });
        Ok(id)
    }

    fn is_there(&self, tree: &Tree, stored: &Stored) -> bool {
        let length =
            |path: PathBuf| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|found| found.len());
        let id = tree.id();
        match stored {
            Stored::Whole => length(self.path(&id)) == Some(tree.encoded_len() as u64),
            Stored::Part(rest) => {
                length(self.path(&id)).is_some() && length(self.rest(&id)) == Some(rest.encoded_len() as u64)
            }
        }
    }

    fn write(&self, tree: &Tree) -> io::Result<Stored> {
        let path = self.path(&tree.id());
        let (magic, pieces, stored) = match self.part(tree) {
            Some((rest, own)) => (PART_MAGIC.as_slice(), own, Stored::Part(rest)),
            None => (&[][..], tree.pieces().iter().collect(), Stored::Whole),
        };
        let pieces = pieces.into_iter().map(Piece::encoded);
        small_file::write_parts(&path, [magic, &tree.head()].into_iter().chain(pieces))?;
        Ok(stored)
    }

    /// The tree that another file has, linked to this one, and the pieces that it has not; `None` if there is no such file,
    /// or nothing is gained.
    fn part<'a>(&self, tree: &'a Tree) -> Option<(Tree, Vec<&'a Piece>)> {
        let origin = tree.origin().filter(|_| tree.encoded_len() >= MIN_LENGTH)?;
        let (rest, file) = match self.loaded().get(&origin)? {
            Loaded { tree, stored: Some(Stored::Whole) } => (tree.clone(), self.path(&origin)),
            Loaded { stored: Some(Stored::Part(rest)), .. } => (rest.clone(), self.rest(&origin)),
            Loaded { stored: None, .. } => return None,
        };
        let known: HashSet<&[u8; 32]> = rest.pieces().iter().map(|piece| &piece.row.digest).collect();
        let own: Vec<&Piece> = tree.pieces().iter().filter(|piece| !known.contains(&piece.row.digest)).collect();
        let length: usize = own.iter().map(|piece| piece.encoded().len()).sum();
        if length > tree.encoded_len() / MAX_SHARE {
            return None;
        }
        // File systems without hard links have whole trees; so has who finds the name taken.
        let link = self.rest(&tree.id());
        small_file::make_directory(link.parent()?).ok()?;
        fs::hard_link(&file, &link).ok()?;
        Some((rest, own))
    }

    /// Knows a tree as long as this store is open, without writing it.
    pub fn hold(&self, tree: &Tree) -> TreeId {
        let id = tree.id();
        self.loaded().entry(id).or_insert_with(|| Loaded { tree: tree.clone(), stored: None });
        id
    }

    /// Every tree that is stored.
    ///
    /// # Errors
    /// [`TreeStoreError::Read`] if a directory cannot be listed.
    pub fn list(&self) -> Result<Vec<TreeId>, TreeStoreError> {
        let error = |source| TreeStoreError::Read { path: self.directory.clone(), source };
        let mut ids = Vec::new();
        for path in small_file::in_shards(&self.directory).map_err(error)? {
            let mut names = path.iter().rev().filter_map(|name| name.to_str());
            let (Some(rest), Some(prefix)) = (names.next(), names.next()) else { continue };
            ids.extend(format!("{prefix}{rest}").parse::<TreeId>());
        }
        Ok(ids)
    }

    /// Removes what killed processes left behind, when nobody writes.
    ///
    /// # Errors
    /// [`TreeStoreError::Write`] if something cannot be removed.
    pub fn sweep(&self) -> Result<(), TreeStoreError> {
        let error = |source| TreeStoreError::Write { path: self.directory.clone(), source };
        small_file::sweep(&self.directory).map_err(error)?;
        for path in small_file::in_shards(&self.directory).map_err(error)? {
            let is_rest = path.extension().is_some_and(|extension| extension == REST);
            if is_rest && !path.with_extension("").exists() {
                small_file::remove(&path).map_err(error)?;
            }
        }
        Ok(())
    }

    /// Forgets a tree; nothing happens if it is not there.
    ///
    /// # Errors
    /// [`TreeStoreError::Write`] if the file cannot be removed.
    pub fn remove(&self, id: &TreeId) -> Result<(), TreeStoreError> {
        self.loaded().remove(id);
        for path in [self.path(id), self.rest(id)] {
            small_file::remove(&path).map_err(|source| TreeStoreError::Write { path, source })?;
        }
        Ok(())
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<TreeId, Loaded>> {
        lock(&self.loaded)
    }

    /// Where the other pieces of a tree are, if they are not in its file.
    pub fn rest(&self, id: &TreeId) -> PathBuf {
        self.path(id).with_extension(REST)
    }

    /// Where a tree is, or would be.
    pub fn path(&self, id: &TreeId) -> PathBuf {
        let name = id.to_string();
        self.directory.join(&name[..2]).join(&name[2..])
    }
}

/// Reads a tree from its file, and `rest` if that says that it is a part.
fn read(path: &Path, rest: &Path) -> io::Result<Result<(Tree, Stored), TreeError>> {
    let file = File::open(path)?;
    let mut magic = [0; 8];
    let is_part = file.read_at(&mut magic, 0)? == magic.len() && magic == *PART_MAGIC;
    if !is_part {
        return Ok(Tree::load(&file, 0, None)?.map(|tree| (tree, Stored::Whole)));
    }
    let rest = match File::open(rest).and_then(|file| Tree::load(&file, 0, None)) {
        Ok(Ok(rest)) => rest,
        Ok(Err(error)) => return Ok(Err(error)),
        Err(error) if small_file::is_missing(&error) => {
            return Ok(Err(TreeError::Malformed("the file with its other pieces is gone")));
        }
        Err(error) => return Err(error),
    };
    let tree = Tree::load(&file, magic.len() as u64, Some(&rest))?;
    Ok(tree.map(|tree| (tree, Stored::Part(rest))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::RootPath;
    use crate::tree::{Entry, Time, TreeBuilder};

    #[test]
    fn trees_come_back_and_damaged_ones_do_not() {
        let state = tempfile::tempdir().expect("temporary directory");
        let id = TreeStore::new(state.path()).put(&Tree::empty()).expect("stored");
        let store = TreeStore::new(state.path());
        assert_eq!(store.get(&id).expect("readable"), Some(Tree::empty()));
        assert_eq!(store.list().expect("listed"), [id]);
        fs::write(store.path(&id), b"rbtree2\nbroken").expect("written");
        let fresh = TreeStore::new(state.path());
        assert_eq!(fresh.get(&id).expect("readable"), None);
        assert_eq!(fresh.list().expect("listed"), []);
    }

    #[test]
    fn what_is_known_is_stored_all_the_same() {
        let state = tempfile::tempdir().expect("temporary directory");
        let store = TreeStore::new(state.path());
        let id = store.hold(&Tree::empty());
        assert_eq!(store.list().expect("listed"), []);
        store.put(&Tree::empty()).expect("stored");
        assert_eq!(store.list().expect("listed"), [id]);
        fs::remove_file(store.path(&id)).expect("removed");
        store.put(&Tree::empty()).expect("stored");
        assert_eq!(store.list().expect("listed"), [id]);

        fs::write(store.path(&id), "damaged").expect("written");
        let fresh = TreeStore::new(state.path());
        fresh.hold(&Tree::empty());
        fresh.put(&Tree::empty()).expect("stored");
        assert_eq!(TreeStore::new(state.path()).get(&id).expect("readable"), Some(Tree::empty()));
    }

    /// Files of a tree as numbers; those after `changed` are others.
    fn large(changed: &[usize]) -> Tree {
        let mut builder = TreeBuilder::new();
        for number in 0..4000 {
            let path = RootPath::clean(format!("d/{number:04}")).expect("clean");
            let mode = if changed.contains(&number) { 0o600 } else { 0o644 };
            builder.push(Entry::directory(path, mode, 0, 0, Time::default()));
        }
        builder.finish()
    }

    /// The same as [`large`], made of the tree with nothing changed.
    fn patched(from: &Tree, changed: &[usize]) -> Tree {
        from.patched([], &some(&large(changed), changed)).expect("no hard links")
    }

    /// A tree with some entries of another one.
    fn some(of: &Tree, numbers: &[usize]) -> Tree {
        let mut builder = TreeBuilder::new();
        for number in numbers {
            builder.push(of.entry(*number));
        }
        builder.finish()
    }

    fn names(store: &TreeStore) -> usize {
        small_file::in_shards(&store.directory).expect("listed").len()
    }

    #[test]
    fn what_a_tree_shares_with_another_one_is_stored_once() {
        let state = tempfile::tempdir().expect("temporary directory");
        let open = || TreeStore::new(state.path());
        let length = |path: &Path| fs::metadata(path).expect("there").len();
        let store = open();
        let (base, next, third) = (large(&[]), large(&[7]), large(&[7, 8]));
        let id = store.put(&base).expect("stored");
        assert_eq!(store.put(&patched(&base, &[7])).expect("stored"), next.id());
        assert!(length(&store.path(&next.id())) < length(&store.path(&id)) / 8);
        assert_eq!((names(&store), store.list().expect("listed").len()), (3, 2));
        // The next one is made of one that is in parts.
        let other = open();
        let known = other.get(&next.id()).expect("readable").expect("there");
        let made = known.patched([], &some(&third, &[8])).expect("no hard links");
        other.put(&made).expect("stored");
        assert!(length(&store.path(&third.id())) < length(&store.path(&id)) / 8);

        // Without the one that they were made of all of it is there, too.
        store.remove(&id).expect("removed");
        assert_eq!(open().get(&id).expect("readable"), None);
        assert_eq!(open().check(&next.id()).expect("sound"), Some(next.clone()));
        store.remove(&next.id()).expect("removed");
        assert_eq!(open().check(&third.id()).expect("sound"), Some(third.clone()));
        store.remove(&third.id()).expect("removed");
        assert_eq!(names(&store), 0);

        // Much that is new, or a base that is not stored: whole.
        let many: Vec<usize> = (0..4000).step_by(50).collect();
        let store = open();
        store.put(&base).expect("stored");
        let whole = store.put(&patched(&base, &many)).expect("stored");
        assert_eq!(length(&store.path(&whole)), large(&many).encoded_len() as u64);
        let held = open();
        held.hold(&base);
        let whole = held.put(&patched(&base, &[9])).expect("stored");
        assert_eq!(length(&store.path(&whole)), base.encoded_len() as u64);
    }

    #[test]
    fn damaged_parts_are_no_trees_and_are_written_again() {
        let (base, next) = (large(&[]), large(&[7]));
        for kind in 0..6 {
            let state = tempfile::tempdir().expect("temporary directory");
            let open = || TreeStore::new(state.path());
            let store = open();
            store.put(&base).expect("stored");
            store.put(&patched(&base, &[7])).expect("stored");
            let (path, rest) = (store.path(&next.id()), store.rest(&next.id()));
            let change = |path: &Path, at: usize| {
                let mut bytes = fs::read(path).expect("read");
                let at = bytes.len() * at / 100;
                bytes[at] ^= 1;
                fs::write(path, bytes).expect("written");
            };
            match kind {
                0 => fs::remove_file(&rest).expect("removed"),
                1 => change(&rest, 50),
                2 => change(&path, 99),
                3 => change(&path, 3),
                4 => {
                    fs::remove_file(&rest).expect("removed");
                    fs::create_dir(&rest).expect("made");
                }
                _ => fs::write(&rest, "other").expect("written"),
            }
            assert!(open().check(&next.id()).is_err(), "{kind}");
            assert_eq!(open().get(&next.id()).expect("readable"), None, "{kind}");
            assert!(!path.exists() && !rest.exists(), "{kind}");
            let fresh = open();
            let known = fresh.get(&base.id()).expect("readable").unwrap_or_else(|| base.clone());
            fresh.put(&patched(&known, &[7])).expect("stored");
            assert_eq!(open().check(&next.id()).expect("sound"), Some(next.clone()), "{kind}");
        }
    }

    #[test]
    fn links_that_killed_processes_left_are_swept() {
        let state = tempfile::tempdir().expect("temporary directory");
        let store = TreeStore::new(state.path());
        let base = large(&[]);
        store.put(&base).expect("stored");
        let next = store.put(&patched(&base, &[7])).expect("stored");
        let other = large(&[8]);
        let link = store.rest(&other.id());
        let leave = || {
            small_file::make_directory(link.parent().expect("a shard")).expect("made");
            fs::write(&link, "other").expect("written");
        };
        leave();
        store.sweep().expect("swept");
        assert!(store.rest(&next).exists() && !link.exists());
        // A name that is taken by something else is not used.
        leave();
        store.put(&patched(&base, &[8])).expect("stored");
        assert_eq!(TreeStore::new(state.path()).check(&other.id()).expect("sound"), Some(other));
    }
}
