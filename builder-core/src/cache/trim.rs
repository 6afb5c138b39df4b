//! [`CacheMounts::trim`]: keeps a cache mount within a size.
//!
//! What was not used for longest goes first. A file was used when it was read, written, or changed in any other way: the
//! latest of its three times. Where reading leaves no trace (`noatime`), or one a day (`relatime`, the default of Linux),
//! that is all that is known.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::Timespec;

use super::mounts::{CacheMountError, CacheMounts};
use crate::cancel::CancelToken;
use crate::rootfs::{Kind, RootDir, RootPath, Stat};

/// What was removed from a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Files; hard links to one count once.
    pub files: usize,
    /// Bytes on disk.
    pub bytes: u64,
}

impl CacheMounts {
    /// Removes the least recently used files of the mount whose content is in `content`, until it takes at most `limit`
    /// bytes on disk, and directories that are empty then. `None` if a step uses the mount, or it is gone.
    ///
    /// # Errors
    /// Every case of [`CacheMountError`].
    pub fn trim(&self, content: &Path, limit: u64, cancel: &CancelToken) -> Result<Option<Trimmed>, CacheMountError> {
        let directory = content.parent().unwrap_or(content);
        let Some(_held) = self.hold_directory(directory, Duration::ZERO, cancel)? else { return Ok(None) };
        let error = |source| CacheMountError::Access { path: content.to_owned(), source };
        let root = RootDir::open(content).map_err(error)?;
        let mut contents = Contents::default();
        contents.scan(&root, cancel)?.map_err(error)?;
        contents.shrink(&root, limit, cancel)?.map_err(error).map(Some)
    }
}

/// What a mount holds.
#[derive(Default)]
struct Contents {
    bytes: u64,
    files: Vec<Used>,
    directories: HashMap<RootPath, u64>,
}

/// A file with all its names in the mount.
struct Used {
    at: (i64, i64),
    bytes: u64,
    names: Vec<RootPath>,
}

impl Contents {
    fn scan(&mut self, root: &RootDir, cancel: &CancelToken) -> Result<io::Result<()>, CacheMountError> {
        let (mut links, mut pending) = (HashMap::new(), vec![RootPath::root()]);
        while let Some(path) = pending.pop() {
            cancel.check()?;
            let add = self.directory(root, &path, &mut links, &mut pending);
            if add.is_err() {
                return Ok(add);
            }
        }
        Ok(Ok(()))
    }

    /// Adds what is right in a directory.
    fn directory(
        &mut self,
        root: &RootDir,
        path: &RootPath,
        links: &mut HashMap<(u64, u64), usize>,
        pending: &mut Vec<RootPath>,
    ) -> io::Result<()> {
        let directory = root.open_dir_exact(path)?;
        for name in directory.names()? {
            let (stat, child) = (directory.stat(&name)?, path.child(&name));
            if stat.kind == Kind::Directory {
                self.bytes += stat.allocated;
                self.directories.insert(child.clone(), stat.allocated);
                pending.push(child);
                continue;
            }
            if stat.links > 1 {
                if let Some(at) = links.get(&stat.identity) {
                    self.files[*at].names.push(child);
                    continue;
                }
                links.insert(stat.identity, self.files.len());
            }
            self.bytes += stat.allocated;
            self.files.push(Used { at: used(&stat), bytes: stat.allocated, names: vec![child] });
        }
        Ok(())
    }

    /// Removes until `limit` is kept.
    fn shrink(
        &mut self,
        root: &RootDir,
        limit: u64,
        cancel: &CancelToken,
    ) -> Result<io::Result<Trimmed>, CacheMountError> {
        let mut trimmed = Trimmed::default();
        // Mostly few of many go: a heap gives them without sorting all.
        let order: Vec<_> = self.files.iter().enumerate().map(|(at, file)| Reverse((file.at, at))).collect();
        let mut oldest = BinaryHeap::from(order);
        while self.bytes > limit
            && let Some(Reverse((_, at))) = oldest.pop()
        {
            cancel.check()?;
            let file = &self.files[at];
            let mut freed = file.bytes;
            for name in &file.names {
                match remove(root, name, &self.directories) {
                    Ok(below) => freed += below,
                    Err(error) => return Ok(Err(error)),
                }
            }
            self.bytes = self.bytes.saturating_sub(freed);
            trimmed.files += 1;
            trimmed.bytes += freed;
        }
        Ok(Ok(trimmed))
    }
}

/// Removes a file, and the directories above that are empty then; gives what these occupied.
fn remove(root: &RootDir, path: &RootPath, sizes: &HashMap<RootPath, u64>) -> io::Result<u64> {
    let mut freed = 0;
    let (Some(mut above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(0) };
    root.open_dir_exact(&above)?.remove_file(name)?;
    while let (Some(next), Some(name)) = (above.parent(), above.file_name()) {
        // One that is not empty, or that nobody may remove, stays.
        if root.open_dir_exact(&next)?.remove_dir(name).is_err() {
            break;
        }
        freed += sizes.get(&above).copied().unwrap_or(0);
        above = next;
    }
    Ok(freed)
}

/// When a file was used last, in seconds and nanoseconds.
fn used(stat: &Stat) -> (i64, i64) {
    #[allow(clippy::useless_conversion, reason = "the types of these fields differ between machines")]
    let time = |time: Timespec| (i64::from(time.tv_sec), i64::from(time.tv_nsec));
    time(stat.atime).max(time(stat.mtime)).max(time(stat.ctime))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::dockerfile::Sharing;
    use crate::graph::CacheMount;

    fn mount() -> CacheMount {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        CacheMount { id: "/c".into(), sharing: Sharing::Shared, read_only: false, seed: None, mode: 0o750, uid, gid }
    }

    /// A mount of files of 8 KiB, which were made one after another.
    fn filled(state: &Path, names: &[&str]) -> (CacheMounts, PathBuf) {
        let mounts = CacheMounts::new(state);
        let opened = mounts.open(&mount(), &CancelToken::new()).expect("usable");
        for name in names {
            let path = opened.content.join(name);
            fs::create_dir_all(path.parent().expect("in the mount")).expect("made");
            fs::write(&path, [1; 8192]).expect("written");
            std::thread::sleep(Duration::from_millis(12));
        }
        opened.filled().expect("noted");
        (mounts, opened.content)
    }

    /// Files of the mount, and the bytes that it occupies.
    fn left(content: &Path) -> (Vec<String>, u64) {
        let (mut names, mut bytes, mut pending) = (Vec::new(), 0, vec![content.to_owned()]);
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).expect("listed") {
                let entry = entry.expect("read");
                let found = entry.metadata().expect("there");
                bytes += std::os::unix::fs::MetadataExt::blocks(&found) * 512;
                if found.is_dir() {
                    pending.push(entry.path());
                } else {
                    let path = entry.path();
                    names.push(path.strip_prefix(content).expect("below").to_str().expect("text").to_owned());
                }
            }
        }
        names.sort();
        (names, bytes)
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let state = tempfile::tempdir().expect("temporary directory");
        let (mounts, content) = filled(state.path(), &["a/old", "read", "b/c/written", "b/mid", "new"]);
        let cancel = CancelToken::new();
        let all = left(&content).1;
        assert_eq!(mounts.trim(&content, all, &cancel).expect("trimmed"), Some(Trimmed::default()));
        assert_eq!(left(&content).0.len(), 5, "it is within its size");
        // Read: whatever the file system notes of itself, the times say so.
        let now = SystemTime::now() + Duration::from_secs(5);
        let read = fs::File::open(content.join("read")).expect("opened");
        read.set_times(fs::FileTimes::new().set_accessed(now)).expect("set");
        fs::write(content.join("b/c/written"), [2; 8192]).expect("written");
        let trimmed = mounts.trim(&content, all - 16384, &cancel).expect("trimmed").expect("nobody uses it");
        assert_eq!(trimmed.files, 2);
        let (names, bytes) = left(&content);
        assert_eq!(names, ["b/c/written", "new", "read"]);
        assert!(!content.join("a").exists(), "it is empty");
        assert_eq!(all - bytes, trimmed.bytes);
        assert_eq!(mounts.trim(&content, 0, &cancel).expect("trimmed").expect("nobody uses it").files, 3);
        assert!(content.is_dir() && left(&content).1 == 0);
    }

    #[test]
    fn nothing_goes_while_a_step_uses_the_mount() {
        let state = tempfile::tempdir().expect("temporary directory");
        let (mounts, content) = filled(state.path(), &["a"]);
        let used = mounts.open(&mount(), &CancelToken::new()).expect("usable");
        assert_eq!(mounts.trim(&content, 0, &CancelToken::new()).expect("asked"), None);
        assert!(content.join("a").exists());
        drop(used);
        assert!(mounts.trim(&content, 0, &CancelToken::new()).expect("trimmed").is_some());
        assert!(!content.join("a").exists());
        assert_eq!(mounts.trim(Path::new("/nowhere/content"), 0, &CancelToken::new()).expect("asked"), None);
    }

    #[test]
    fn names_of_one_file_go_together_and_links_lead_nowhere() {
        let state = tempfile::tempdir().expect("temporary directory");
        let outside = state.path().join("outside");
        fs::write(&outside, "kept").expect("written");
        let (mounts, content) = filled(state.path(), &["one"]);
        fs::create_dir(content.join("d")).expect("made");
        fs::hard_link(content.join("one"), content.join("d/two")).expect("linked");
        std::os::unix::fs::symlink(state.path(), content.join("link")).expect("linked");
        let trimmed = mounts.trim(&content, 0, &CancelToken::new()).expect("trimmed").expect("nobody uses it");
        assert!(trimmed.files <= 2 && trimmed.bytes >= 8192, "{trimmed:?}");
        assert!(!content.join("one").exists() && !content.join("d").exists());
        assert_eq!(fs::read(&outside).expect("there"), b"kept");
    }
}
