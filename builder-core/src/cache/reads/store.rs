//! Sets on disk, one file each: `STATE/cache/reads/ab/cdef….0123…`, the definition and a digest of the looks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{ReadSet, VERSION};
use crate::cache::record::{read, write};
use crate::cache::{CacheError, CacheKey, CacheStore, Record};
use crate::small_file;

/// Sets of one definition that are kept.
const MAX_SETS: usize = 8;

const AREA: &str = "reads";

impl CacheStore {
    /// The sets of a definition, the last used first. With `repair` a damaged one, or one of another version, is removed;
    /// either way it counts as none.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn read_sets(&self, definition: &CacheKey, repair: bool) -> Result<Vec<ReadSet>, CacheError> {
        let mut sets = Vec::new();
        for path in self.set_paths(definition)? {
            let Some(bytes) = read(&path)? else { continue };
            match unseal(&bytes).filter(|set| set.definition == definition.to_string()) {
                Some(set) => sets.push(set),
                None if repair => drop(small_file::remove(&path)),
                None => {}
            }
        }
        Ok(sets)
    }

    /// Stores a set; the least recently used go where there are too many.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn put_read_set(&self, definition: &CacheKey, set: &ReadSet) -> Result<(), CacheError> {
        let body = serde_json::to_vec(set).expect("plain data serialises");
        write(&self.set_path(definition, set), &small_file::sealed(&body))?;
        for path in self.set_paths(definition)?.into_iter().skip(MAX_SETS) {
            small_file::remove(&path).map_err(|source| CacheError::Access { path, source })?;
        }
        Ok(())
    }

    /// Notes that a set was of use.
    pub fn mark_read_set(&self, definition: &CacheKey, set: &ReadSet) {
        small_file::mark_used(&self.set_path(definition, set));
    }

    /// Removes every set of a definition; says how many there were.
    ///
    /// # Errors
    /// [`CacheError::Access`] if the file system fails.
    pub fn drop_read_sets(&self, definition: &CacheKey) -> Result<usize, CacheError> {
        let mut dropped = 0;
        for path in self.set_paths(definition)? {
            dropped += usize::from(small_file::remove(&path).map_err(|source| CacheError::Access { path, source })?);
        }
        Ok(dropped)
    }

    /// The record in every set, with the file of the set; damaged ones are left out.
    ///
    /// # Errors
    /// [`CacheError::Access`] if a directory cannot be listed.
    pub fn list_read_sets(&self) -> Result<Vec<(PathBuf, Record)>, CacheError> {
        let mut records = Vec::new();
        for path in self.files_in(&[AREA])? {
            let Some(bytes) = read(&path)? else { continue };
            records.extend(unseal(&bytes).map(|set| (path, set.record)));
        }
        Ok(records)
    }

    /// Whether a file that is one of a set has the set that its name says.
    pub(in crate::cache) fn is_sound_set(&self, path: &Path, bytes: &[u8]) -> Option<bool> {
        if !path.starts_with(self.directory().join(AREA)) {
            return None;
        }
        let set = unseal(bytes);
        Some(set.is_some_and(|set| {
            let definition = set.definition.parse::<CacheKey>();
            definition.is_ok_and(|definition| path == self.set_path(&definition, &set))
        }))
    }

    fn set_path(&self, definition: &CacheKey, set: &ReadSet) -> PathBuf {
        let looks = serde_json::to_vec(&set.looks).expect("plain data serialises");
        let name = blake3::hash(&looks).to_hex();
        self.shard(AREA, &format!("{definition}.{}", &name[..16]))
    }

    /// The files of a definition, the last used first.
    fn set_paths(&self, definition: &CacheKey) -> Result<Vec<PathBuf>, CacheError> {
        let any = self.shard(AREA, &definition.to_string());
        let (Some(shard), Some(name)) = (any.parent(), any.file_name()) else { return Ok(Vec::new()) };
        let access = |source| CacheError::Access { path: shard.to_owned(), source };
        let entries = match fs::read_dir(shard) {
            Err(error) if small_file::is_missing(&error) => return Ok(Vec::new()),
            entries => entries.map_err(access)?,
        };
        let begins = format!("{}.", name.to_string_lossy());
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in entries {
            let entry = entry.map_err(access)?;
            if entry.file_name().to_string_lossy().starts_with(&begins) {
                let used = entry.metadata().and_then(|facts| facts.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((used, entry.path()));
            }
        }
        found.sort_by(|one, other| other.cmp(one));
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }
}

fn unseal(bytes: &[u8]) -> Option<ReadSet> {
    let set: ReadSet = serde_json::from_slice(small_file::unsealed(bytes)?).ok()?;
    (set.version == VERSION).then_some(set)
}
