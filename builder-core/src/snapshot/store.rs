//! [`SnapshotStore`]: the committed snapshots.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::active::{lock_leftover, remove_directory};
use super::derived::{Derivation, is_missing};
use super::verify::verify;
use super::{Active, Dialect, SnapshotError};
use crate::rootfs::{Kind, RootDir, RootPath};
use crate::small_file;
use crate::tree::{Tree, TreeId};

/// The snapshots of a state directory, each named by the id of its tree. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    directory: PathBuf,
    boot: OnceLock<String>,
    dialect: OnceLock<Dialect>,
}

/// A committed snapshot. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Snapshot {
    id: TreeId,
    path: PathBuf,
    pub(super) root: Arc<RootDir>,
    has_root_entry: bool,
    /// Of one that holds only what differs from another.
    pub(super) derived: Option<Arc<Derivation>>,
}

impl Snapshot {
    /// The tree that it holds.
    pub fn id(&self) -> TreeId {
        self.id
    }

    /// Opens a regular file that its tree has.
    ///
    /// # Errors
    /// If it is not there, or is no regular file.
    pub fn open_file(&self, path: &RootPath) -> io::Result<File> {
        match (self.root.open_file_exact(path), self.base()) {
            (Err(error), Some(base)) if is_missing(&error) => base.open_file(path),
            (opened, _) => opened,
        }
    }

    /// The directory, in overlayfs' format for layers. Nobody writes to it. In a derived one there is only what differs
    /// from the base.
    pub(crate) fn root(&self) -> &RootDir {
        &self.root
    }

    /// Where that directory is on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its tree says something about the root directory itself.
    pub(super) fn has_root_entry(&self) -> bool {
        self.has_root_entry
    }
}

impl SnapshotStore {
    /// Names the store of a state directory; nothing is touched yet.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("snapshots"), boot: OnceLock::new(), dialect: OnceLock::new() }
    }

    /// Opens a snapshot, without asking whether it survived a crash of the machine; see
    /// [`SnapshotStore::get_verified`].
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn get(&self, id: &TreeId) -> Result<Option<Snapshot>, SnapshotError> {
        self.open(id, 0)
    }

    /// Opens a snapshot that is `depth` below the one that was asked for.
    pub(super) fn open(&self, id: &TreeId, depth: usize) -> Result<Option<Snapshot>, SnapshotError> {
        let path = self.path(id).join("fs");
        let whole = || match RootDir::open(&path) {
            Ok(root) => Ok(Some(root)),
            // A file that has its name is as good as nothing.
            Err(error) if small_file::is_missing(&error) => Ok(None),
            Err(error) => Err(SnapshotError::io("open", &path)(error)),
        };
        let (root, derived) = match whole()? {
            Some(root) => (root, None),
            None => match self.open_derived(id, depth)? {
                Some((root, derived)) => (root, Some(derived)),
                // It may have been made whole at this moment.
                None => match whole()? {
                    Some(root) => (root, None),
                    None => return Ok(None),
                },
            },
        };
        let path = if derived.is_some() { self.path(id).join("delta") } else { path };
        let has_root_entry = self.meta(id)?.is_some_and(|meta| meta.has_root_entry);
        Ok(Some(Snapshot { id: *id, path, root: Arc::new(root), has_root_entry, derived }))
    }

    /// Opens the snapshot of a tree. If it was written before the machine last started, and never synced, its files
    /// are compared with the tree first; one that lost something is removed, and is not there.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn get_verified(&self, tree: &Tree) -> Result<Option<Snapshot>, SnapshotError> {
        let id = tree.id();
        let Some(mut snapshot) = self.get(&id)? else { return Ok(None) };
        let meta = self.meta(&id)?;
        if meta.is_some_and(|meta| meta.boot == self.boot()) || self.path(&id).join("durable").exists() {
            return Ok(Some(snapshot));
        }
        let path = self.path(&id);
        let exact = self.dialect()? == Dialect::Trusted;
        if !verify(&snapshot, tree, exact).map_err(SnapshotError::io("verify", &path))? {
            self.detach(&id)?;
            self.remove(&id)?;
            return Ok(None);
        }
        let make_durable = || {
            small_file::write(&path.join("meta"), self.meta_text(tree).as_bytes())?;
            rustix::fs::syncfs(snapshot.root())?;
            fs::write(path.join("durable"), "")
        };
        make_durable().map_err(SnapshotError::io("sync", &path))?;
        snapshot.has_root_entry = tree.get(&RootPath::root()).is_some();
        Ok(Some(snapshot))
    }

    /// Says whether the snapshot of a tree is there and holds exactly what the tree says, content included.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn is_sound(&self, tree: &Tree) -> Result<bool, SnapshotError> {
        let Some(snapshot) = self.get(&tree.id())? else { return Ok(false) };
        let exact = self.dialect()? == Dialect::Trusted;
        verify(&snapshot, tree, exact).map_err(SnapshotError::io("verify", &self.path(&tree.id())))
    }

    /// Begins a new snapshot: an empty directory on the file system of the store.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn begin(&self) -> Result<Active, SnapshotError> {
        self.make_directory()?;
        Active::begin(&self.directory, self.dialect()?)
    }

    /// Commits a snapshot that holds what `tree` says. If there is one already that one stays, and the new is dropped.
    ///
    /// Nothing is synced; see [`SnapshotStore::mark_durable`].
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn commit(&self, active: Active, tree: &Tree) -> Result<Snapshot, SnapshotError> {
        self.put(active, tree, None)
    }

    /// Commits a snapshot; `base` is the file of a derived one.
    pub(super) fn put(&self, mut active: Active, tree: &Tree, base: Option<&[u8]>) -> Result<Snapshot, SnapshotError> {
        let id = tree.id();
        let path = self.path(&id);
        let error = |source| SnapshotError::io("write", &path)(source);
        active.finish(&self.meta_text(tree), base).map_err(error)?;
        if !active.publish(&path).map_err(error)? && self.get(&id)?.is_none() {
            // What is there cannot be used, as its base is gone.
            self.remove(&id)?;
            active.publish(&path).map_err(error)?;
        }
        let lost = || SnapshotError::io("open", &path)(io::ErrorKind::NotFound.into());
        self.get(&id)?.ok_or_else(lost)
    }

    /// Removes a snapshot; nothing happens if it is not there. Nobody may have it mounted. What is derived from it goes
    /// with it; see [`SnapshotStore::detach`].
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails. The snapshot is gone from the store all the same.
    pub fn remove(&self, id: &TreeId) -> Result<(), SnapshotError> {
        let path = self.path(id);
        let error = |source| SnapshotError::io("remove", &path)(source);
        // Renamed first, so that a half removed one is never found.
        let away = match tempfile::Builder::new().prefix("tmp-").tempdir_in(&self.directory) {
            Ok(directory) => directory.keep(),
            Err(failed) if failed.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(failed) => return Err(error(failed)),
        };
        let renamed = match fs::rename(&path, &away) {
            // No directory takes its place.
            Err(failed) if failed.kind() == io::ErrorKind::NotADirectory => fs::remove_file(&path),
            renamed => renamed,
        };
        remove_directory(&away).map_err(error)?;
        match renamed {
            Err(failed) if failed.kind() != io::ErrorKind::NotFound => Err(error(failed)),
            _ => Ok(()),
        }
    }

    /// Takes a snapshot out of the store that others may have mounted: its files go with the next
    /// [`SnapshotStore::sweep`]. What is derived from it is lost with it; see [`SnapshotStore::detach`].
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn set_aside(&self, id: &TreeId) -> Result<(), SnapshotError> {
        let path = self.path(id);
        let aside = || {
            let away = tempfile::Builder::new().prefix("tmp-").tempdir_in(&self.directory)?;
            fs::rename(&path, away.path())?;
            let _ = away.keep();
            Ok::<_, io::Error>(())
        };
        match aside() {
            Err(failed) if failed.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(failed) => Err(SnapshotError::io("remove", &path)(failed)),
            Ok(()) => Ok(()),
        }
    }

    /// Every committed snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the directory cannot be listed.
    pub fn list(&self) -> Result<Vec<TreeId>, SnapshotError> {
        Ok(self.names()?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Bytes on disk that a snapshot occupies, its base left out; 0 if it is not there. Hard links count once. A snapshot
    /// never changes, so the number is kept beside it.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn usage(&self, id: &TreeId) -> Result<u64, SnapshotError> {
        let noted = self.path(id).join("usage");
        if let Some(bytes) = fs::read_to_string(&noted).ok().and_then(|text| text.trim_end().parse().ok()) {
            return Ok(bytes);
        }
        let Some(snapshot) = self.get(id)? else { return Ok(0) };
        let bytes = disk_usage(snapshot.root()).map_err(SnapshotError::io("read", snapshot.path()))?;
        // It only saves time: a store that cannot be written is measured again.
        let _ = fs::write(&noted, format!("{bytes}\n"));
        Ok(bytes)
    }

    /// Syncs the file system once and marks every snapshot that was committed before as safe against a power loss.
    /// Returns how many were marked.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn mark_durable(&self) -> Result<usize, SnapshotError> {
        let mut pending = self.list()?;
        // One of an earlier boot may have lost something already: it has to be verified first.
        pending.retain(|id| {
            !self.path(id).join("durable").exists()
                && matches!(self.meta(id), Ok(Some(meta)) if meta.boot == self.boot())
        });
        if !pending.is_empty() {
            let error = |source| SnapshotError::io("sync", &self.directory)(source);
            rustix::fs::syncfs(RootDir::open(&self.directory).map_err(error)?)
                .map_err(io::Error::from)
                .map_err(error)?;
            for id in &pending {
                fs::write(self.path(id).join("durable"), "").map_err(error)?;
            }
        }
        Ok(pending.len())
    }

    /// Removes what processes that were killed left behind. Returns how many directories.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the file system fails.
    pub fn sweep(&self) -> Result<usize, SnapshotError> {
        let mut swept = 0;
        for name in self.names()?.iter().filter(|name| name.starts_with("tmp-")) {
            let path = self.directory.join(name);
            // A directory that is gone was swept by somebody else.
            let Ok(Some(_lock)) = lock_leftover(&path) else { continue };
            remove_directory(&path).map_err(SnapshotError::io("remove", &path))?;
            swept += 1;
        }
        Ok(swept)
    }

    /// Where overlayfs keeps its attributes for this process.
    pub(super) fn dialect(&self) -> Result<Dialect, SnapshotError> {
        if let Some(dialect) = self.dialect.get() {
            return Ok(*dialect);
        }
        let directory = RootDir::open(&self.directory).map_err(SnapshotError::io("open", &self.directory))?;
        Ok(*self.dialect.get_or_init(|| Dialect::detect(directory.directory())))
    }

    /// The directory of snapshots, mode 0700: it holds setuid files that no other user may reach (invariant E-11).
    fn make_directory(&self) -> Result<(), SnapshotError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(SnapshotError::io("make", &self.directory))
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        let directory = match RootDir::open(&self.directory) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(SnapshotError::io("list", &self.directory)(error)),
        };
        let names = directory.directory().names().map_err(SnapshotError::io("list", &self.directory))?;
        Ok(names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect())
    }

    /// Where a snapshot is, or would be, with what is known about it.
    pub fn path(&self, id: &TreeId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn meta(&self, id: &TreeId) -> Result<Option<Meta>, SnapshotError> {
        let path = self.path(id).join("meta");
        match fs::read(&path) {
            // A power loss can leave it empty: then it says nothing.
            Ok(bytes) => Ok(Meta::parse(&bytes)),
            Err(error) if small_file::is_missing(&error) => Ok(None),
            Err(error) => Err(SnapshotError::io("read", &path)(error)),
        }
    }

    fn meta_text(&self, tree: &Tree) -> String {
        self.meta_line(tree.get(&RootPath::root()).is_some())
    }

    pub(super) fn meta_line(&self, has_root_entry: bool) -> String {
        format!("boot {}\nroot {}\n", self.boot(), u8::from(has_root_entry))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The number that the kernel drew when it started (`random(4)`); without one nothing is ever of this boot.
    fn boot(&self) -> &str {
        self.boot.get_or_init(|| {
            let read = fs::read_to_string("/proc/sys/kernel/random/boot_id");
            read.map_or_else(|_| String::new(), |text| text.trim().to_owned())
        })
    }
}

struct Meta {
    boot: String,
    has_root_entry: bool,
}

impl Meta {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        let boot = lines.next()?.strip_prefix("boot ").filter(|boot| !boot.is_empty())?.to_owned();
        let has_root_entry = lines.next()?.strip_prefix("root ")? == "1";
        Some(Self { boot, has_root_entry })
    }
}

fn disk_usage(root: &RootDir) -> io::Result<u64> {
    let mut linked = std::collections::HashSet::new();
    let mut pending = vec![RootPath::root()];
    let mut bytes = 0;
    while let Some(path) = pending.pop() {
        let directory = root.open_dir_exact(&path)?;
        for name in directory.names()? {
            let stat = directory.stat(&name)?;
            if stat.links == 1 || stat.kind == Kind::Directory || linked.insert(stat.identity) {
                bytes += stat.allocated;
            }
            if stat.kind == Kind::Directory {
                pending.push(path.child(&name));
            }
        }
    }
    Ok(bytes)
}
