//! [`Index`]: which content the files of a context had when they were last read.
//!
//! One file a context, `STATE/contexts/<BLAKE3 of its canonical path>`, version 2, numbers little-endian:
//!
//! ```text
//! "rbindex2"  length of the table in bytes (8)
//! table:
//!     number of directories (4)
//!     directory × n, sorted by path:  path length (2)  path  length of its records in bytes (4)
//!     BLAKE3 of each 16 KiB of the records, the last piece may be shorter (32)
//! BLAKE3 of everything before (32)
//! records of all directories, one behind the other in the order of the table; of each directory, sorted by name:
//!     name length (1)  name  device (8)  inode (8)  size (8)  mtime seconds (8) nanoseconds (4)
//!     ctime seconds (8) nanoseconds (4)  content digest (32)  length of the attributes in bytes (4)
//!     attribute: name length (1)  name  value length (4)  value
//! ```
//!
//! Most builds want the records of a few directories. So only the table is read at once, and those pieces that have them
//! when they are wanted. Directories have no digests of their own: of two kilobytes each they would take four times as
//! long as pieces of this length.
//!
//! What changed of a few directories since is in a second file beside it, `….more`, so that not all is written again:
//!
//! ```text
//! "rbmore2\n"  BLAKE3 in the first file that ends its table (32)
//! directory × n, sorted by path: each stands for the one with its path there
//!     path length (2)  path  length of its records in bytes (4)  its records, as there
//! BLAKE3 of everything before (32)
//! ```
//!
//! A foreign or missing file, or one with a damaged table, is an empty index; directories of which a piece is damaged
//! are unknown.
//! The index only saves time: it is not synced, and who writes last wins.

mod file;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::Names;
use crate::small_file;
use file::Table;

pub(super) use record::{Record, Records, Stamp};

/// The second file is at most one part in so many of the first.
const MORE_SHARE: u64 = 8;

/// Directories by path.
type Directories = BTreeMap<Vec<u8>, Records>;

/// The index of one context.
#[derive(Debug)]
pub(super) struct Index {
    file: PathBuf,
    loaded: Option<Loaded>,
    /// Directories with new records; they replace what was loaded.
    changed: Directories,
}

#[derive(Debug)]
struct Loaded {
    table: Option<Table>,
    /// Those that the second file has, or is going to have. They replace those of the table.
    more: Directories,
}

impl Index {
    /// Names the index of a context; nothing is read yet.
    pub(super) fn new(state: &Path, canonical_root: &Path) -> Self {
        Self { file: super::place(state, canonical_root), loaded: None, changed: BTreeMap::new() }
    }

    /// What is known of the files in a directory.
    pub(super) fn directory(&mut self, path: &[u8]) -> Option<Records> {
        if let Some(records) = self.changed.get(path) {
            return Some(records.clone());
        }
        let Loaded { table, more } = self.loaded();
        more.get(path).cloned().or_else(|| table.as_ref()?.records(path))
    }

    /// Remembers files of a directory. Old records stay unless `listing`, all names in the directory, is given and lacks
    /// them.
    pub(super) fn remember(&mut self, path: &[u8], mut new: Vec<(Vec<u8>, Record)>, listing: Option<&Names>) {
        new.sort_by(|a, b| a.0.cmp(&b.0));
        let old = self.directory(path);
        let old = old.iter().flat_map(Records::iter).filter(|(name, _)| {
            new.binary_search_by(|(other, _)| other.as_slice().cmp(name)).is_err()
                && listing.is_none_or(|all| all.has(name))
        });
        let mut all: Vec<(Vec<u8>, Record)> = old.map(|(name, record)| (name.to_vec(), record)).collect();
        all.append(&mut new);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        self.changed.insert(path.to_vec(), Records::of(&all));
    }

    /// Writes what is new, if anything is.
    pub(super) fn save(&mut self, exists: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return Ok(());
        }
        let touched = changed.len();
        let (file, more_file) = (self.file.clone(), self.more_file());
        let loaded = self.loaded();
        loaded.more.extend(changed);
        let is_new = loaded.more.keys().any(|path| !loaded.table.as_ref().is_some_and(|table| table.has(path)));
        if let Some(table) = loaded.table.as_ref().filter(|_| !is_new) {
            let bytes = file::encode_more(table.digest(), &loaded.more);
            if bytes.len() as u64 <= table.file_length() / MORE_SHARE {
                return small_file::write(&more_file, &bytes);
            }
        }
        let mut all = loaded.all();
        // Directories that are gone are looked for only when there are new ones, and they may be many.
        if is_new && all.len() - touched > all.len() / 2 {
            all.retain(|path, _| exists(path));
        }
        small_file::write(&file, &file::encode(&all))?;
        self.loaded = None;
        // What it says is in the first file now, which it does not belong to any more.
        let _ = small_file::remove(&more_file);
        Ok(())
    }

    fn loaded(&mut self) -> &mut Loaded {
        let more = self.more_file();
        self.loaded.get_or_insert_with(|| {
            let table = Table::open(&self.file);
            let more = table.as_ref().and_then(|table| file::read_more(&more, table.digest()));
            Loaded { table, more: more.unwrap_or_default() }
        })
    }

    fn more_file(&self) -> PathBuf {
        self.file.with_extension("more")
    }
}

impl Loaded {
    /// All directories; those that can't be read are left out.
    fn all(&self) -> Directories {
        let mut all = self.more.clone();
        for (path, records) in self.table.iter().flat_map(Table::directories) {
            all.entry(path.to_vec()).or_insert(records);
        }
        all
    }
}
