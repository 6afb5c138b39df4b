//! Snapshots that hold only what differs from another one, their base.
//!
//! ```text
//! <tree id>/delta    an upper directory for the base: what is new or changed, and whiteouts of what is gone
//! <tree id>/base     BLAKE3 of the rest (64 hex digits) newline, id of the base newline, then the hidden paths, each ended by NUL
//! ```
//!
//! A *hidden* path is one that the base has and the tree has not, or has as a directory where the base has none. In the
//! mount of both nothing of lower layers shows there, as if the tree hid it, which it does not. So a derived
//! snapshot is stacked only where no lower layer has such a path; elsewhere it is made whole first.
//!
//! A base is whole when something is derived from it, so derived snapshots make no chains. (One that was lost and made
//! again may be derived itself; that is followed to a bound.)

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::copy::overlay_copy;
use super::mount::copy_root_metadata;
use super::{Active, Snapshot, SnapshotError, SnapshotStore};
use crate::rootfs::{RootDir, RootPath};
use crate::small_file;
use crate::tree::{Tree, TreeId};

/// Most snapshots below one another; what goes beyond is damaged.
pub(super) const MAX_DEPTH: usize = 8;

/// Snapshots that are remembered as bases.
const MAX_BASES: usize = 8;

/// What a derived snapshot needs besides its own directory.
#[derive(Debug)]
pub(super) struct Derivation {
    pub(super) base: Snapshot,
    pub(super) hidden: Vec<RootPath>,
}

/// What a file `base` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseFile {
    pub(super) base: TreeId,
    pub(super) hidden: Vec<RootPath>,
}

impl BaseFile {
    fn encode(&self) -> Vec<u8> {
        let mut body = format!("{}\n", self.base).into_bytes();
        for path in &self.hidden {
            body.extend_from_slice(path.as_bytes());
            body.push(0);
        }
        small_file::sealed(&body)
    }

    /// `None` for damaged bytes.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (base, rest) = small_file::unsealed(bytes)?.split_at_checked(65)?;
        let base = str::from_utf8(base).ok()?.strip_suffix('\n')?.parse().ok()?;
        let paths = rest.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let hidden = paths.map(|path| RootPath::clean(path).ok()).collect::<Option<Vec<_>>>()?;
        Some(Self { base, hidden })
    }
}

impl Snapshot {
    /// Its directories, lowest first: each is an upper directory for those before it.
    pub(super) fn layers(&self) -> Vec<&RootDir> {
        let mut layers = self.derived.as_ref().map(|derived| derived.base.layers()).unwrap_or_default();
        layers.push(&self.root);
        layers
    }

    /// The snapshot that it is derived from.
    pub fn base(&self) -> Option<&Snapshot> {
        self.derived.as_ref().map(|derived| &derived.base)
    }

    /// Whether stacking it on `below` would hide something of those that its tree does not hide.
    pub(super) fn hides_anything_of(&self, below: &[Snapshot]) -> io::Result<bool> {
        let Some(derived) = &self.derived else { return Ok(false) };
        for layer in below.iter().flat_map(Snapshot::layers) {
            for path in &derived.hidden {
                if is_there(layer, path)? {
                    return Ok(true);
                }
            }
        }
        derived.base.hides_anything_of(below)
    }
}

/// Whether an error says that a path is not there, or that something on the way is no directory.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

fn is_there(root: &RootDir, path: &RootPath) -> io::Result<bool> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    match root.open_dir_exact(&parent).and_then(|directory| directory.stat(name)) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

impl SnapshotStore {
    /// Commits a snapshot that, mounted on top of `base`, holds what `tree` says. `hidden` are the paths at which lower
    /// layers are hidden by the two without `tree` saying so.
    ///
    /// # Errors
    /// As [`SnapshotStore::commit`].
    pub fn commit_derived(
        &self,
        active: Active,
        tree: &Tree,
        base: &Snapshot,
        hidden: Vec<RootPath>,
    ) -> Result<Snapshot, SnapshotError> {
        let file = BaseFile { base: base.id(), hidden };
        self.put(active, tree, Some(&file.encode()))
    }

    /// What a derived snapshot is derived from; `None` for one that is whole, damaged or not there.
    pub fn base_of(&self, id: &TreeId) -> Option<TreeId> {
        self.base_file(id).map(|file| file.base)
    }

    pub(super) fn base_file(&self, id: &TreeId) -> Option<BaseFile> {
        let path = self.path(id);
        fs::read(path.join("base")).ok().and_then(|bytes| BaseFile::parse(&bytes))
    }

    /// Opens the derived snapshot of a tree; `None` if it is damaged, or its base is gone.
    pub(super) fn open_derived(
        &self,
        id: &TreeId,
        depth: usize,
    ) -> Result<Option<(RootDir, Arc<Derivation>)>, SnapshotError> {
        let path = self.path(id).join("delta");
        let root = match RootDir::open(&path) {
            Ok(root) => root,
            Err(error) if small_file::is_missing(&error) => return Ok(None),
            Err(error) => return Err(SnapshotError::io("open", &path)(error)),
        };
        let Some(BaseFile { base, hidden }) = self.base_file(id).filter(|_| depth < MAX_DEPTH) else {
            return Ok(None);
        };
        let Some(base) = self.open(&base, depth + 1)? else { return Ok(None) };
        Ok(Some((root, Arc::new(Derivation { base, hidden }))))
    }

    /// Gives a derived snapshot all of its files, so that it needs its base no longer. What was there stays where
    /// others have it mounted, and goes with the next [`SnapshotStore::sweep`].
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn make_whole(&self, snapshot: &Snapshot) -> Result<Snapshot, SnapshotError> {
        let id = snapshot.id();
        let path = self.path(&id);
        let error = |source| SnapshotError::io("write", &path)(source);
        let mut active = self.begin()?;
        for layer in snapshot.layers() {
            overlay_copy(layer, active.root()).map_err(error)?;
        }
        copy_root_metadata(&[snapshot], active.root().directory()).map_err(error)?;
        // One of an earlier boot that was never synced is still to be compared with its tree.
        let meta = fs::read_to_string(path.join("meta")).unwrap_or_default();
        let meta = if path.join("durable").exists() { self.meta_line(snapshot.has_root_entry()) } else { meta };
        active.finish(&meta, None).map_err(error)?;
        active.exchange(&path).map_err(error)?;
        // The next one is rather derived from this; it has about as many entries.
        let base = snapshot.base().map(Snapshot::id);
        if let Some((_, entries)) = self.bases().into_iter().find(|(known, _)| Some(*known) == base) {
            self.note_base(&id, entries);
        }
        let lost = || SnapshotError::io("open", &path)(io::ErrorKind::NotFound.into());
        self.get(&id)?.ok_or_else(lost)
    }

    /// Makes everything whole that is derived from a snapshot: the snapshot can be removed then.
    ///
    /// # Errors
    /// As [`SnapshotStore::make_whole`].
    pub fn detach(&self, base: &TreeId) -> Result<(), SnapshotError> {
        for id in self.list()? {
            if self.base_of(&id) == Some(*base)
                && let Some(snapshot) = self.get(&id)?
            {
                self.make_whole(&snapshot)?;
            }
        }
        Ok(())
    }

    /// Snapshots from which others may be derived, the last used first, each with the number of entries of its tree.
    pub fn bases(&self) -> Vec<(TreeId, usize)> {
        let text = fs::read_to_string(self.bases_path()).unwrap_or_default();
        let line = |line: &str| {
            let (id, entries) = line.split_once(' ')?;
            Some((id.parse().ok()?, entries.parse().ok()?))
        };
        text.lines().filter_map(line).take(MAX_BASES).collect()
    }

    /// Remembers a whole snapshot as the base that was used last. That this cannot be written is no error: it only saves
    /// work.
    pub fn note_base(&self, id: &TreeId, entries: usize) {
        let known = self.bases();
        if known.first() == Some(&(*id, entries)) {
            return;
        }
        let others = known.into_iter().filter(|(other, _)| other != id);
        let lines = std::iter::once((*id, entries)).chain(others).take(MAX_BASES);
        let lines: Vec<String> = lines.map(|(id, entries)| format!("{id} {entries}")).collect();
        let path = self.bases_path();
        let write = |directory: &Path| -> io::Result<()> {
            let file = tempfile::Builder::new().prefix("tmp-").tempfile_in(directory)?;
            fs::write(file.path(), lines.join("\n") + "\n")?;
            file.persist(&path)?;
            Ok(())
        };
        let _ = path.parent().map(write);
    }

    fn bases_path(&self) -> std::path::PathBuf {
        self.directory().join("bases")
    }
}

/// Puts `from` in the place of `to`, and what was there in its.
pub(super) fn swap(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
        // Not every file system can.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let aside = from.with_extension("old");
            fs::rename(to, &aside)?;
            fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_base_comes_back_and_a_damaged_one_does_not() {
        let path = |text: &str| RootPath::clean(text).expect("clean");
        for hidden in [vec![], vec![path("a"), path("with\nline/and space")]] {
            let file = BaseFile { base: Tree::empty().id(), hidden };
            let bytes = file.encode();
            assert_eq!(BaseFile::parse(&bytes), Some(file));
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x20;
                assert_eq!(BaseFile::parse(&bad), None, "byte {at}");
                assert_eq!(BaseFile::parse(&bytes[..at]), None, "cut at {at}");
            }
        }
    }
}
