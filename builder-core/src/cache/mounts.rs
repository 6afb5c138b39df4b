//! [`CacheMounts`]: directories that stay from build to build (`RUN --mount=type=cache`).
//!
//! ```text
//! STATE/mounts/<digest of the identity>/{identity, lock, content/}        sharing=shared and locked
//! STATE/mounts/<digest of the identity>.N/…                              further ones for sharing=private
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::cancel::{CancelToken, Cancelled};
use crate::dockerfile::Sharing;
use crate::graph::CacheMount;
use crate::rootfs::RootDir;
use crate::small_file;

use super::record::is_at;

/// The directory of cache mounts.
#[derive(Debug)]
pub struct CacheMounts {
    directory: PathBuf,
}

/// A file beside the content of a mount that does not have all that it begins with.
const UNFILLED: &str = "unfilled";

/// What the names of directories begin with that are not finished.
const NEW: &str = "new-";

/// How long whoever waits for a mount waits before it looks again.
const PAUSE: Duration = Duration::from_millis(20);

/// A cache mount in use; others are kept out, as its sharing says, until this is dropped.
#[derive(Debug)]
pub struct MountedCache {
    /// The directory to mount.
    pub content: PathBuf,
    /// Whether it was just made and wants to be filled from its seed.
    pub is_new: bool,
    shared: bool,
    lock: File,
}

impl MountedCache {
    /// Says that a new one has everything that it begins with: from now on others see it. Without this it is new again the
    /// next time.
    ///
    /// # Errors
    /// [`CacheMountError::Access`] if the file system fails.
    pub fn filled(&self) -> Result<(), CacheMountError> {
        let unfilled = self.content.with_file_name(UNFILLED);
        let error = |source| CacheMountError::Access { path: unfilled.clone(), source };
        small_file::remove(&unfilled).map_err(error)?;
        if self.shared {
            flock(&self.lock, FlockOperation::NonBlockingLockShared).map_err(|errno| error(errno.into()))?;
        }
        Ok(())
    }

    /// Puts a directory in the place of the content, in one step; what was there is removed. Nobody else may have the mount.
    ///
    /// # Errors
    /// [`CacheMountError::Access`] if the file system fails.
    pub fn replace(&self, fresh: &Path) -> Result<(), CacheMountError> {
        let error = |source| CacheMountError::Access { path: self.content.clone(), source };
        let directory = self.content.parent().unwrap_or(&self.content);
        // What a killed process leaves here is swept.
        let beside = tempfile::Builder::new().prefix(NEW).tempdir_in(directory).map_err(error)?;
        let new = beside.path().join("content");
        let found = fs::metadata(&self.content).map_err(error)?;
        chown(fresh, Some(found.uid()), Some(found.gid())).map_err(error)?;
        fs::set_permissions(fresh, found.permissions()).map_err(error)?;
        fs::rename(fresh, &new).map_err(error)?;
        renameat_with(CWD, &new, CWD, &self.content, RenameFlags::EXCHANGE).map_err(|errno| error(errno.into()))?;
        RootDir::open(beside.path()).and_then(|root| root.directory().remove_tree(b"content")).map_err(error)
    }
}

/// A cache mount of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMount {
    /// What steps call it.
    pub id: String,
    /// Permission bits of its directory.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The directory that holds it.
    pub directory: PathBuf,
    /// When a step used it last.
    pub used: SystemTime,
}

impl StoredMount {
    /// What names it, as text: the id on a line, then mode and owner.
    pub fn identity(&self) -> String {
        identity(&self.id, self.mode, self.uid, self.gid)
    }

    /// Reads what [`StoredMount::identity`] gives; it is in no directory then.
    pub fn parse(identity: &str) -> Option<Self> {
        let (id, rest) = identity.strip_suffix('\n')?.rsplit_once('\n')?;
        let mut words = rest.split(' ');
        let mode = u32::from_str_radix(words.next()?.strip_prefix("mode=")?, 8).ok().filter(|mode| *mode <= 0o7777)?;
        let uid = words.next()?.strip_prefix("uid=")?.parse().ok()?;
        let gid = words.next()?.strip_prefix("gid=")?.parse().ok()?;
        let (id, directory, used) = (id.to_owned(), PathBuf::new(), SystemTime::UNIX_EPOCH);
        words.next().is_none().then_some(Self { id, mode, uid, gid, directory, used })
    }
}

impl CacheMount {
    /// What names its directory, as text: the id on a line, then mode and owner.
    pub fn identity(&self) -> String {
        identity(&self.id, self.mode, self.uid, self.gid)
    }
}

fn identity(id: &str, mode: u32, uid: u32, gid: u32) -> String {
    format!("{id}\nmode={mode:o} uid={uid} gid={gid}\n")
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
        let identity = mount.identity();
        let name = blake3::hash(identity.as_bytes()).to_hex();
        for number in 0.. {
            let suffix = if number == 0 { String::new() } else { format!(".{number}") };
            let directory = self.directory.join(format!("{name}{suffix}"));
            let error = |source| CacheMountError::Access { path: directory.clone(), source };
            let Some(lock) = lock_in(&directory, mount.sharing, cancel).map_err(|failed| failed.at(&directory))? else {
                continue;
            };
            // The time of the lock says when the mount was used last.
            let _ = lock.set_modified(std::time::SystemTime::now());
            let (content, unfilled) = (directory.join("content"), directory.join(UNFILLED));
            let is_filled = || content.is_dir() && !unfilled.exists();
            let mut lock = lock;
            let shared = mount.sharing == Sharing::Shared;
            while shared && !is_filled() {
                // One step alone fills it; whoever wants to share it waits for that, and no longer.
                drop(lock);
                let lock_as = |sharing| lock_in(&directory, sharing, cancel).map_err(|failed| failed.at(&directory));
                if let Some(alone) = lock_as(Sharing::Private)? {
                    lock = alone;
                    break;
                }
                cancel.check()?;
                std::thread::sleep(PAUSE);
                lock = lock_as(Sharing::Shared)?.expect("it is waited for");
            }
            let is_new = !is_filled();
            if is_new {
                // What a killed step began is begun again.
                small_file::write(&unfilled, b"").map_err(error)?;
                small_file::remove(&content).map_err(error)?;
                create(&directory, &content, mount).map_err(error)?;
            } else if shared {
                flock(&lock, FlockOperation::NonBlockingLockShared).map_err(|errno| error(errno.into()))?;
            }
            // A damaged one would hide it from everything that lists mounts.
            let named = directory.join("identity");
            if small_file::read(&named).map_err(error)?.as_deref() != Some(identity.as_bytes()) {
                small_file::write(&named, identity.as_bytes()).map_err(error)?;
            }
            return Ok(MountedCache { content, is_new, shared, lock });
        }
        unreachable!("some number is free")
    }

    /// Every mount, by id; of mounts that several steps used at the same time each directory.
    ///
    /// # Errors
    /// [`CacheMountError::Access`] if the directory cannot be listed.
    pub fn list(&self) -> Result<Vec<StoredMount>, CacheMountError> {
        let error = |source| CacheMountError::Access { path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(failed) if failed.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(failed) => return Err(error(failed)),
        };
        let mut mounts = Vec::new();
        for entry in entries {
            let directory = entry.map_err(error)?.path();
            // One that is being made or removed has no identity, or not all that it begins with.
            if directory.join(UNFILLED).exists() {
                continue;
            }
            let Ok(text) = fs::read_to_string(directory.join("identity")) else { continue };
            let Some(mount) = StoredMount::parse(&text) else { continue };
            let modified = |name| fs::metadata(directory.join(name)).and_then(|found| found.modified());
            // The lock is made again by whoever needs it.
            let used = modified("lock").or_else(|_| modified("content")).unwrap_or(SystemTime::UNIX_EPOCH);
            mounts.push(StoredMount { directory, used, ..mount });
        }
        mounts.sort_by(|a, b| (&a.id, &a.directory).cmp(&(&b.id, &b.directory)));
        Ok(mounts)
    }

    /// Keeps every step off a mount; `None` if it is gone, or one uses it for longer than `patience`.
    ///
    /// # Errors
    /// Every case of [`CacheMountError`].
    pub fn hold(
        &self,
        mount: &StoredMount,
        patience: Duration,
        cancel: &CancelToken,
    ) -> Result<Option<MountedCache>, CacheMountError> {
        self.hold_directory(&mount.directory, patience, cancel)
    }

    /// As [`CacheMounts::hold`], by the directory that holds the mount.
    #[expect(clippy::unused_self, reason = "the directory is one of these mounts")]
    pub(super) fn hold_directory(
        &self,
        directory: &Path,
        patience: Duration,
        cancel: &CancelToken,
    ) -> Result<Option<MountedCache>, CacheMountError> {
        let error = |source| CacheMountError::Access { path: directory.to_owned(), source };
        let path = directory.join("lock");
        let mut opened = File::options().append(true).open(&path);
        if matches!(&opened, Err(failed) if failed.kind() == io::ErrorKind::IsADirectory) {
            small_file::remove_directory(&path).map_err(error)?;
            opened = File::options().create(true).append(true).open(&path);
        }
        // A mount without its lock is one that nobody uses.
        if matches!(&opened, Err(failed) if failed.kind() == io::ErrorKind::NotFound)
            && directory.join("identity").exists()
        {
            opened = File::options().create(true).append(true).open(&path);
        }
        let lock = match opened {
            Ok(lock) => lock,
            Err(failed) if failed.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(failed) => return Err(error(failed)),
        };
        let begun = Instant::now();
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            cancel.check()?;
            if begun.elapsed() >= patience {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
        if !is_at(&lock, &path) {
            return Ok(None);
        }
        let content = directory.join("content");
        Ok(content.is_dir().then_some(MountedCache { content, is_new: false, shared: false, lock }))
    }

    /// Removes a mount; `false` if a step uses it.
    ///
    /// # Errors
    /// [`CacheMountError::Access`] if it cannot be removed.
    pub fn remove(&self, mount: &StoredMount) -> Result<bool, CacheMountError> {
        let error = |source| CacheMountError::Access { path: mount.directory.clone(), source };
        let Some(held) = self.hold(mount, Duration::ZERO, &CancelToken::new())? else {
            return Ok(!mount.directory.join("content").exists());
        };
        // At once: who comes meanwhile makes a new one, and does not find half of this.
        let gone = tempfile::Builder::new().prefix(NEW).tempdir_in(&self.directory).map_err(error)?;
        fs::rename(&mount.directory, gone.path().join("mount")).map_err(error)?;
        drop(held);
        gone.close().map_err(error)?;
        Ok(true)
    }

    /// Removes what killed processes left in mounts that nobody uses.
    ///
    /// # Errors
    /// [`CacheMountError::Access`] if something cannot be removed.
    pub fn sweep(&self) -> Result<(), CacheMountError> {
        for path in fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NEW.as_bytes())) {
                small_file::remove(&path).map_err(|source| CacheMountError::Access { path, source })?;
            }
        }
        for mount in self.list()? {
            let Some(_held) = self.hold(&mount, Duration::ZERO, &CancelToken::new())? else { continue };
            for entry in fs::read_dir(&mount.directory).into_iter().flatten().flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(NEW.as_bytes()) {
                    let path = entry.path();
                    fs::remove_dir_all(&path).map_err(|source| CacheMountError::Access { path, source })?;
                }
            }
        }
        Ok(())
    }
}

/// Locks a mount as its sharing says, and makes its directory where there is none; `None` if it is not to be waited for.
fn lock_in(directory: &Path, sharing: Sharing, cancel: &CancelToken) -> Result<Option<File>, LockError> {
    let path = directory.join("lock");
    let (operation, patient) = match sharing {
        Sharing::Shared => (FlockOperation::NonBlockingLockShared, true),
        Sharing::Locked => (FlockOperation::NonBlockingLockExclusive, true),
        Sharing::Private => (FlockOperation::NonBlockingLockExclusive, false),
    };
    loop {
        small_file::make_directory(directory)?;
        let lock = match File::options().create(true).append(true).open(&path) {
            // Removed at this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                small_file::remove_directory(&path)?;
                continue;
            }
            lock => lock?,
        };
        while flock(&lock, operation).is_err() {
            if !patient {
                return Ok(None);
            }
            cancel.check()?;
            std::thread::sleep(PAUSE);
        }
        // Whoever removed the mount held the lock of its file: that keeps nobody off the next one.
        if is_at(&lock, &path) {
            return Ok(Some(lock));
        }
    }
}

/// As [`CacheMountError`], without the path.
#[derive(Debug, thiserror::Error)]
enum LockError {
    #[error(transparent)]
    Access(#[from] io::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl LockError {
    fn at(self, directory: &Path) -> CacheMountError {
        match self {
            Self::Access(source) => CacheMountError::Access { path: directory.to_owned(), source },
            Self::Cancelled(cancelled) => cancelled.into(),
        }
    }
}

fn create(directory: &Path, content: &Path, mount: &CacheMount) -> io::Result<()> {
    if fs::symlink_metadata(content).is_ok_and(|found| !found.is_dir()) {
        small_file::remove(content)?;
    }
    let fresh = tempfile::Builder::new().prefix(NEW).tempdir_in(directory)?;
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
    fn a_mount_that_was_not_filled_is_new_again_and_nobody_shares_it_before() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        let cancel = CancelToken::new();
        let killed = mounts.open(&mount(Sharing::Shared), &cancel).expect("usable");
        fs::write(killed.content.join("half"), "").expect("written");
        assert_eq!(mounts.list().expect("listed"), [], "it is not there yet");
        drop(killed);
        let first = mounts.open(&mount(Sharing::Shared), &cancel).expect("usable");
        assert!(first.is_new && fs::read_dir(&first.content).expect("listed").next().is_none());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| mounts.open(&mount(Sharing::Shared), &cancel).expect("usable"));
            std::thread::sleep(Duration::from_millis(60));
            assert!(!second.is_finished(), "it would see an empty directory");
            fs::write(first.content.join("seed"), "").expect("written");
            first.filled().expect("noted");
            let second = second.join().expect("no panic");
            assert!(!second.is_new && second.content.join("seed").exists());
        });
        assert_eq!(mounts.list().expect("listed").len(), 1);
    }

    #[test]
    fn who_shares_a_new_mount_waits_for_its_filling_only() {
        let cancel = CancelToken::new();
        for _ in 0..20 {
            let state = tempfile::tempdir().expect("temporary directory");
            let mounts = CacheMounts::new(state.path());
            let (begun, using) = (std::sync::Barrier::new(4), std::sync::atomic::AtomicUsize::new(0));
            let work = || {
                begun.wait();
                let used = mounts.open(&mount(Sharing::Shared), &cancel).expect("usable");
                if used.is_new {
                    used.filled().expect("noted");
                }
                using.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let (since, all) = (Instant::now(), || using.load(std::sync::atomic::Ordering::SeqCst) == 4);
                while !all() && since.elapsed() < Duration::from_secs(10) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                (all(), used.is_new)
            };
            let results: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
                all.into_iter().map(|one| one.join().expect("no panic")).collect()
            });
            assert!(results.iter().all(|(all, _)| *all), "each has it while the others have it");
            assert_eq!(results.iter().filter(|(_, is_new)| *is_new).count(), 1);
        }
    }

    #[test]
    fn sharing_decides_who_gets_which_directory() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        let cancel = CancelToken::new();
        let open = |sharing| mounts.open(&mount(sharing), &cancel).expect("usable");
        let first = open(Sharing::Shared);
        assert!(first.is_new);
        first.filled().expect("noted");
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
    fn what_is_stored_is_listed_held_and_removed() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        assert_eq!(mounts.list().expect("listed"), []);
        let cancel = CancelToken::new();
        let two_lines = CacheMount { id: "a\nb".into(), ..mount(Sharing::Shared) };
        let used = mounts.open(&two_lines, &cancel).expect("usable");
        used.filled().expect("noted");
        mounts.open(&mount(Sharing::Shared), &cancel).expect("usable").filled().expect("noted");
        let listed = mounts.list().expect("listed");
        assert_eq!(listed.iter().map(|mount| mount.id.as_str()).collect::<Vec<_>>(), ["/c", "a\nb"]);
        assert_eq!(listed[0].mode, 0o750);
        assert!(mounts.hold(&listed[1], Duration::from_millis(1), &cancel).expect("readable").is_none(), "in use");
        assert!(!mounts.remove(&listed[1]).expect("readable"));
        assert!(mounts.hold(&listed[0], Duration::ZERO, &cancel).expect("readable").is_some());
        drop(used);
        assert!(mounts.remove(&listed[1]).expect("removed"));
        assert_eq!(mounts.list().expect("listed").len(), 1);
        for bad in
            ["", "a", "a\n", "a\nmode=9 uid=0 gid=0\n", "a\nmode=77777 uid=0 gid=0\n", "a\nmode=7 uid=0 gid=0 x\n"]
        {
            assert_eq!(StoredMount::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_mount_without_its_lock_is_used_by_nobody() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        let cancel = CancelToken::new();
        let lose = || {
            let opened = mounts.open(&mount(Sharing::Shared), &cancel).expect("usable");
            opened.filled().expect("noted");
            fs::remove_file(opened.content.with_file_name("lock")).expect("removed");
            mounts.list().expect("listed").remove(0)
        };
        let lost = lose();
        assert!(lost.used.elapsed().expect("in the past") < Duration::from_secs(60), "its content says when");
        let held = mounts.hold(&lost, Duration::ZERO, &cancel).expect("readable").expect("nobody uses it");
        assert!(mounts.hold(&lost, Duration::ZERO, &cancel).expect("readable").is_none(), "now somebody does");
        drop(held);
        assert!(mounts.remove(&lose()).expect("removed"));
        assert_eq!(fs::read_dir(mounts.directory()).expect("listed").count(), 0);
        // What a killed removal left is no mount, and is swept.
        fs::create_dir_all(mounts.directory().join("new-x/mount")).expect("made");
        assert_eq!(mounts.list().expect("listed"), []);
        mounts.sweep().expect("swept");
        assert_eq!(fs::read_dir(mounts.directory()).expect("listed").count(), 0);
    }

    #[test]
    fn whoever_waited_for_a_mount_that_was_removed_gets_the_next_one() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        let cancel = CancelToken::new();
        let first = mounts.open(&mount(Sharing::Locked), &cancel).expect("usable");
        first.filled().expect("noted");
        let directory = first.content.parent().expect("it has one").to_owned();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| mounts.open(&mount(Sharing::Locked), &cancel).expect("usable"));
            // It has the lock file open by then.
            std::thread::sleep(Duration::from_millis(100));
            fs::remove_dir_all(&directory).expect("removed");
            drop(first);
            let second = waits.join().expect("no panic");
            assert!(second.is_new && second.content.is_dir());
            second.filled().expect("noted");
            let stored = mounts.list().expect("listed");
            assert!(mounts.hold(&stored[0], Duration::ZERO, &cancel).expect("readable").is_none(), "it is locked");
        });
    }

    #[test]
    fn what_killed_steps_left_is_swept_and_a_damaged_name_is_written_again() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        let cancel = CancelToken::new();
        let used = mounts.open(&mount(Sharing::Shared), &cancel).expect("usable");
        used.filled().expect("noted");
        let directory = used.content.parent().expect("it has one").to_owned();
        fs::create_dir(directory.join("new-abc")).expect("made");
        mounts.sweep().expect("swept");
        assert!(directory.join("new-abc").exists(), "a step uses the mount");
        drop(used);
        mounts.sweep().expect("swept");
        assert!(!directory.join("new-abc").exists() && directory.join("content").exists());
        fs::write(directory.join("identity"), "x").expect("written");
        assert_eq!(mounts.list().expect("listed"), []);
        drop(mounts.open(&mount(Sharing::Shared), &cancel).expect("usable"));
        assert_eq!(mounts.list().expect("listed").len(), 1);
    }

    #[test]
    fn the_content_is_replaced_at_once() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mounts = CacheMounts::new(state.path());
        let opened = mounts.open(&mount(Sharing::Locked), &CancelToken::new()).expect("usable");
        opened.filled().expect("noted");
        fs::write(opened.content.join("old"), "").expect("written");
        let fresh = state.path().join("fresh");
        fs::create_dir(&fresh).expect("made");
        fs::write(fresh.join("new"), "").expect("written");
        opened.replace(&fresh).expect("replaced");
        let names = |path: &Path| -> Vec<_> {
            let names = fs::read_dir(path).expect("listed").map(|entry| entry.expect("read").file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().expect("text")).collect();
            names.sort();
            names
        };
        assert_eq!(names(&opened.content), ["new"]);
        assert_eq!(fs::metadata(&opened.content).expect("there").permissions().mode() & 0o7777, 0o750);
        assert_eq!(names(opened.content.parent().expect("it has one")), ["content", "identity", "lock"]);
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
