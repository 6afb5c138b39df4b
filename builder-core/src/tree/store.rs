//! [`TreeStore`]: trees on disk, one file each, named by [`TreeId`].
//!
//! Trees are small and outlive the snapshots that they describe: a step can hit although its files were pruned.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{Tree, TreeError, TreeId};
use crate::small_file;

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
    stored: bool,
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
        let path = self.path(id);
        let Some(bytes) =
            small_file::read(&path).map_err(|source| TreeStoreError::Read { path: path.clone(), source })?
        else {
            return Ok(None);
        };
        let Ok(tree) = Tree::open(bytes, id) else {
            // A tree can always be made again; a damaged one is as good as none. If it cannot be removed it is
            // found damaged again.
            let _ = fs::remove_file(&path);
            return Ok(None);
        };
        self.loaded().insert(*id, Loaded { tree: tree.clone(), stored: true });
        Ok(Some(tree))
    }

    /// Stores a tree under its id.
    ///
    /// # Errors
    /// [`TreeStoreError::Write`] if the file system fails.
    pub fn put(&self, tree: &Tree) -> Result<TreeId, TreeStoreError> {
        let id = tree.id();
        let path = self.path(&id);
        // It may be removed since it was seen, and a file that nobody has read may be damaged.
        let seen = self.loaded().get(&id).is_some_and(|loaded| loaded.stored);
        let is_there = if seen {
            fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == tree.encoded_len() as u64)
        } else {
            small_file::read(&path).is_ok_and(|stored| stored.is_some_and(|bytes| Tree::open(bytes, &id).is_ok()))
        };
        if !is_there {
            write(&path, tree).map_err(|source| TreeStoreError::Write { path, source })?;
        }
        self.loaded().insert(id, Loaded { tree: tree.clone(), stored: true });
        Ok(id)
    }

    /// Knows a tree as long as this store is open, without writing it.
    pub fn hold(&self, tree: &Tree) -> TreeId {
        let id = tree.id();
        self.loaded().entry(id).or_insert_with(|| Loaded { tree: tree.clone(), stored: false });
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

    /// Removes what killed processes left behind.
    ///
    /// # Errors
    /// [`TreeStoreError::Write`] if something cannot be removed.
    pub fn sweep(&self) -> Result<(), TreeStoreError> {
        let error = |source| TreeStoreError::Write { path: self.directory.clone(), source };
        small_file::sweep(&self.directory).map_err(error)
    }

    /// Forgets a tree; nothing happens if it is not there.
    ///
    /// # Errors
    /// [`TreeStoreError::Write`] if the file cannot be removed.
    pub fn remove(&self, id: &TreeId) -> Result<(), TreeStoreError> {
        self.loaded().remove(id);
        let path = self.path(id);
        small_file::remove(&path).map(drop).map_err(|source| TreeStoreError::Write { path, source })
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<TreeId, Loaded>> {
        self.loaded.lock().expect("no holder of the lock panics")
    }

    /// Where a tree is, or would be.
    pub fn path(&self, id: &TreeId) -> PathBuf {
        let name = id.to_string();
        self.directory.join(&name[..2]).join(&name[2..])
    }
}

fn write(path: &Path, tree: &Tree) -> io::Result<()> {
    let (head, pieces) = tree.encoded_parts();
    small_file::write_parts(path, [head.as_slice()].into_iter().chain(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
