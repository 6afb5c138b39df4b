//! [`CacheMounts`]: directories that stay from build to build (`RUN --mount=type=cache`).
//!
//! ```text
//! STATE/mounts/<digest of the identity>/{identity, lock, content/}        sharing=shared and locked
//! STATE/mounts/<digest of the identity>.N/…                              further ones for sharing=private
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::cancel::{CancelToken, Cancelled};
use crate::dockerfile::Sharing;
use crate::graph::CacheMount;

/// The directory of cache mounts.
#[derive(Debug)]
pub struct CacheMounts {
    directory: PathBuf,
}

/// A cache mount in use; others are kept out, as its sharing says, until this is dropped.
#[derive(Debug)]
pub struct MountedCache {
    /// The directory to mount.
    pub content: PathBuf,
    /// Whether it was just made and wants to be filled from its seed.
    pub is_new: bool,
    _lock: File,
}

/// A cache mount cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheMountError {
    /// The file system fails.
    #[error("cannot access cache mount {}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The build was cancelled while it waited for another step.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl CacheMounts {
    /// Names the cache mounts of a state directory; nothing is touched yet.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("mounts") }
    }

    /// The directory, for measuring and pruning.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes a cache mount into use, waiting or going aside as its sharing says.
    ///
    /// # Errors
    /// Every case of [`CacheMountError`].
    pub fn open(&self, mount: &CacheMount, cancel: &CancelToken) -> Result<MountedCache, CacheMountError> {
        // Mode and owner belong to the identity: another user gets a directory that it can write.
        let identity = format!("{}\nmode={:o} uid={} gid={}\n", mount.id, mount.mode, mount.uid, mount.gid);
        let name = blake3::hash(identity.as_bytes()).to_hex();
        for number in 0.. {
            let suffix = if number == 0 { String::new() } else { format!(".{number}") };
            let directory = self.directory.join(format!("{name}{suffix}"));
            let error = |source| CacheMountError::Access { path: directory.clone(), source };
            fs::create_dir_all(&directory).map_err(error)?;
            let lock = File::options().create(true).append(true).open(directory.join("lock")).map_err(error)?;
            let taken = match mount.sharing {
                Sharing::Shared => wait(&lock, FlockOperation::NonBlockingLockShared, cancel)?,
                Sharing::Locked => wait(&lock, FlockOperation::NonBlockingLockExclusive, cancel)?,
                Sharing::Private => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            };
            if !taken {
                continue;
            }
            // The time of the lock says when the mount was used last.
            let _ = lock.set_modified(std::time::SystemTime::now());
            let content = directory.join("content");
            let is_new = !content.exists();
            if is_new {
                create(&directory, &content, mount, &identity).map_err(error)?;
            }
            return Ok(MountedCache { content, is_new, _lock: lock });
        }
        unreachable!("some number is free")
    }
}

fn wait(lock: &File, operation: FlockOperation, cancel: &CancelToken) -> Result<bool, Cancelled> {
    while flock(lock, operation).is_err() {
        cancel.check()?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(true)
}

fn create(directory: &Path, content: &Path, mount: &CacheMount, identity: &str) -> io::Result<()> {
    fs::write(directory.join("identity"), identity)?;
    let fresh = tempfile::Builder::new().prefix("new-").tempdir_in(directory)?;
    chown(fresh.path(), Some(mount.uid), Some(mount.gid))?;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(mount.mode))?;
    // A plain rename would take the place of a directory that is still empty, under the step that mounts it.
    match renameat_with(CWD, fresh.path(), CWD, content, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        // Two steps with sharing=shared made it at the same time; the first one's stays.
        Err(_) if content.exists() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let _ = fresh.keep();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(sharing: Sharing) -> CacheMount {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        CacheMount { id: "/c".into(), sharing, read_only: false, seed: None, mode: 0o750, uid, gid }
    }

    #[test]
    fn sharing_decides_who_gets_which_directory() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        let cancel = CancelToken::new();
        let open = |sharing| mounts.open(&mount(sharing), &cancel).expect("usable");
        let first = open(Sharing::Shared);
        assert!(first.is_new);
        assert_eq!(fs::metadata(&first.content).expect("there").permissions().mode() & 0o7777, 0o750);
        let second = open(Sharing::Shared);
        assert!(!second.is_new);
        assert_eq!(second.content, first.content);
        let aside = open(Sharing::Private);
        assert_ne!(aside.content, first.content);
        cancel.cancel();
        assert!(matches!(mounts.open(&mount(Sharing::Locked), &cancel), Err(CacheMountError::Cancelled(_))));
        drop((first, second));
        assert!(mounts.open(&mount(Sharing::Locked), &cancel).is_ok());
    }

    #[test]
    fn another_owner_or_id_is_another_directory() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        let content = |mount: &CacheMount| mounts.open(mount, &CancelToken::new()).expect("usable").content;
        let base = mount(Sharing::Shared);
        let other_mode = CacheMount { mode: 0o700, ..base.clone() };
        let other_id = CacheMount { id: "../../x".into(), ..base.clone() };
        assert_ne!(content(&base), content(&other_mode));
        assert_ne!(content(&base), content(&other_id));
        assert!(content(&other_id).starts_with(state.path().join("mounts")));
    }
}
