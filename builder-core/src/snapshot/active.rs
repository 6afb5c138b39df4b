//! [`Active`]: a snapshot that is being made.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, Timespec, flock};

use super::derived::swap;
use super::{Dialect, SnapshotError};
use crate::rootfs::{Directory, RootDir, RootPath};

/// A directory that will become a snapshot. It is locked while it exists, and removed when it is dropped without
/// having been committed.
#[derive(Debug)]
pub struct Active {
    /// `STATE/snapshots/tmp-XXXX`.
    path: PathBuf,
    /// The same, open; it carries the lock.
    directory: Directory,
    root: RootDir,
    dialect: Dialect,
    /// What a copying snapshotter put here before anything ran.
    baseline: OnceLock<Baseline>,
    works: AtomicU32,
    committed: bool,
}

/// Identity of every file that was copied in: a file whose number and time of change are the same was not touched.
pub(crate) type Baseline = HashMap<RootPath, (u64, Timespec)>;

impl Active {
    /// Makes `snapshots/tmp-XXXX/fs`.
    pub(super) fn begin(snapshots: &Path, dialect: Dialect) -> Result<Self, SnapshotError> {
        fn make(snapshots: &Path, dialect: Dialect) -> io::Result<Option<Active>> {
            let path = tempfile::Builder::new().prefix("tmp-").tempdir_in(snapshots)?.keep();
            let directory = Directory::from_fd(RootDir::open(&path)?.directory().try_clone_fd()?);
            flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
            if !path.exists() {
                // A sweep took it for a leftover before it was locked.
                return Ok(None);
            }
            let fs = directory.create_dir(b"fs")?;
            crate::rootfs::set_mode(&fs, 0o755)?;
            let root = RootDir::open(&path.join("fs"))?;
            let (baseline, works) = (OnceLock::new(), AtomicU32::new(0));
            Ok(Some(Active { path, directory, root, dialect, baseline, works, committed: false }))
        }
        loop {
            if let Some(active) =
                make(snapshots, dialect).map_err(SnapshotError::io("make a snapshot in", snapshots))?
            {
                return Ok(active);
            }
        }
    }

    /// The directory that becomes the snapshot, in overlayfs' format for upper directories.
    pub fn root(&self) -> &RootDir {
        &self.root
    }

    /// Where it is on the host.
    pub fn path(&self) -> PathBuf {
        self.path.join("fs")
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn baseline(&self) -> Option<&Baseline> {
        self.baseline.get()
    }

    /// Says that the directory holds a whole root file system, and not only changes.
    pub(super) fn set_baseline(&self, baseline: Baseline) {
        // The first one counts; nobody copies twice into the same directory.
        let _ = self.baseline.set(baseline);
    }

    /// A fresh directory of overlayfs' own; each mount needs one.
    pub(super) fn work(&self) -> io::Result<Directory> {
        let number = self.works.fetch_add(1, Ordering::Relaxed);
        self.directory.create_dir(format!("work-{number}").as_bytes())
    }

    /// An empty directory beside the snapshot that goes away with it.
    pub(super) fn stubs(&self) -> io::Result<RootDir> {
        self.directory.remove_tree(b"stubs")?;
        let made = self.directory.create_dir(b"stubs")?;
        crate::rootfs::set_mode(&made, 0o755)?;
        RootDir::open(&self.path.join("stubs"))
    }

    /// Leaves only what a committed snapshot has. With `base`, the file that says what it is derived from, the directory
    /// becomes a delta.
    pub(super) fn finish(&mut self, meta: &str, base: Option<&[u8]>) -> io::Result<()> {
        for name in self.directory.names()?.iter().filter(|name| *name != b"fs") {
            self.directory.remove_tree(name)?;
        }
        if let Some(base) = base {
            fs::write(self.path.join("base"), base)?;
            fs::rename(self.path.join("fs"), self.path.join("delta"))?;
        }
        fs::write(self.path.join("meta"), meta)
    }

    /// Puts the directory into the store as `target`; `false` if there is one already.
    pub(super) fn publish(&mut self, target: &Path) -> io::Result<bool> {
        match fs::rename(&self.path, target) {
            Ok(()) => {
                self.committed = true;
                Ok(true)
            }
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Active {
    /// Puts the directory in the place of the snapshot `target`. That one becomes a leftover, which is swept when nobody
    /// can have it mounted any more.
    pub(super) fn exchange(&mut self, target: &Path) -> io::Result<()> {
        swap(&self.path, target)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if !self.committed {
            // What cannot be removed now is removed by the next sweep, which finds it unlocked.
            let _ = remove_directory(&self.path);
        }
    }
}

/// Whether an error says that something has the name already, be it a directory or not.
fn is_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

/// Removes a directory of the store with everything in it, whoever owns what is inside.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    RootDir::open(parent)?.directory().remove_tree(name.as_encoded_bytes())
}

/// Locks a leftover directory; `None` if a process uses it.
pub(super) fn lock_leftover(path: &Path) -> io::Result<Option<OwnedFd>> {
    let fd = RootDir::open(path)?.directory().try_clone_fd()?;
    match flock(fd.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(fd)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
