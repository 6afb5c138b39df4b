//! Small files of the store: each is written whole or not at all.
//!
//! What is read here can be made again. So a file that cannot be one (a directory has its name, a file that of the directory
//! above it) counts as missing, and is replaced when the file is written.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the names of files begin with that are not finished.
const TEMPORARY: &str = ".tmp";

/// An unfinished file younger than this may have a writer.
const GRACE: Duration = Duration::from_secs(60);

/// Reads a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error says that there is no such file, or something that is none.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | IsADirectory | NotADirectory)
}

/// Bytes with a checksum before them: BLAKE3 (64 hex digits) newline.
pub(crate) fn sealed(body: &[u8]) -> Vec<u8> {
    [blake3::hash(body).to_hex().as_bytes(), b"\n", body].concat()
}

/// What was [`sealed`]; `None` for damaged bytes.
pub(crate) fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    let (head, body) = bytes.split_at_checked(65)?;
    let is_whole = head[..64] == *blake3::hash(body).to_hex().as_bytes() && head[64] == b'\n';
    is_whole.then_some(body)
}

/// Puts bytes into a file beside `path`, then in its place. Nothing is synced.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_parts(path, [bytes])
}

/// The same with bytes that are in several places.
pub(crate) fn write_parts<'a>(path: &Path, parts: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_directory(directory)?;
    let mut file = begin(directory)?;
    for bytes in parts {
        file.write_all(bytes)?;
    }
    finish(file, path)
}

/// Gives a file that was [begun](begin) its name.
pub(crate) fn finish(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    let file = match file.persist(path) {
        Err(failed) if is_directory(path) => failed.file,
        Err(failed) => return Err(failed.error),
        Ok(_) => return Ok(()),
    };
    fs::remove_dir_all(path)?;
    file.persist(path).map(drop).map_err(|failed| failed.error)
}

/// Says with the time of the file's change when it was used last, exact to the hour: that is what decides what is removed
/// when space is short. Times of reading are not used: mounts with `relatime` or `noatime` do not have them.
pub(crate) fn mark_used(path: &Path) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
    let modified = fs::metadata(path).and_then(|found| found.modified());
    let fresh = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() < 3600));
    if !fresh {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // A store that is only read keeps its times.
        let _ = utimensat(CWD, path, &Timestamps { last_access: now, last_modification: now }, AtFlags::empty());
    }
}

/// Begins a file that gets its name when it is persisted.
pub(crate) fn begin(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(directory)
}

/// Makes a directory, and removes a file that has its name.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir_all(path) {
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) => {
            fs::remove_file(path)?;
            fs::create_dir_all(path)
        }
        made => made,
    }
}

/// Removes a file, or what has its name; says whether there was anything.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    let removed = if is_directory(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a file; a directory that has its name goes first.
pub(crate) fn open<T>(path: &Path, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match open() {
        Err(failed) if failed.kind() == io::ErrorKind::IsADirectory => {
            remove_directory(path)?;
            open()
        }
        opened => opened,
    }
}

/// Removes a directory that has the name of a file, and never a file that somebody has put in its place meanwhile.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if !is_missing(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The entries of the directories in a directory (`ab/cdef…`), but for unfinished files.
pub(crate) fn in_shards(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for shard in entries(directory)? {
        files.extend(entries(&shard)?.into_iter().filter(|path| !is_temporary(path)));
    }
    Ok(files)
}

/// Removes the unfinished files of killed processes from a directory and those in it.
pub(crate) fn sweep(directory: &Path) -> io::Result<()> {
    for path in entries(directory)? {
        if is_leftover(&path) {
            remove(&path)?;
        } else if is_directory(&path) {
            for path in entries(&path)?.into_iter().filter(|path| is_leftover(path)) {
                remove(&path)?;
            }
        }
    }
    Ok(())
}

/// The entries of a directory; none if it is not there.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
}

fn is_leftover(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
    let age = modified.map(|time| SystemTime::now().duration_since(time).unwrap_or_else(|ahead| ahead.duration()));
    is_temporary(path) && age.is_ok_and(|age| age >= GRACE)
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_has_the_name_of_a_file_counts_as_missing_and_is_replaced() {
        let top = tempfile::tempdir().expect("temporary directory");
        let path = top.path().join("area/ab/cdef");
        let check = |what: &str| {
            assert_eq!(read(&path).expect("readable"), None, "{what}");
            assert!(!remove(&top.path().join("area/ab/other")).expect("nothing to do"), "{what}");
            write(&path, what.as_bytes()).expect("written");
            assert_eq!(read(&path).expect("readable").as_deref(), Some(what.as_bytes()));
            assert_eq!(in_shards(&top.path().join("area")).expect("listed"), [path.as_path()], "{what}");
        };
        check("nothing");
        fs::remove_file(&path).expect("removed");
        fs::create_dir_all(path.join("x")).expect("made");
        check("a directory");
        fs::remove_dir_all(top.path().join("area/ab")).expect("removed");
        fs::write(top.path().join("area/ab"), "").expect("written");
        check("a file for the directory");
        fs::write(top.path().join("area/stray"), "").expect("written");
        assert_eq!(in_shards(&top.path().join("area")).expect("listed").len(), 1);
    }

    #[test]
    fn unfinished_files_are_not_listed_and_swept() {
        let top = tempfile::tempdir().expect("temporary directory");
        write(&top.path().join("ab/cdef"), b"whole").expect("written");
        for name in [".tmpabc", "ab/.tmpdef"] {
            let file = fs::File::create(top.path().join(name)).expect("made");
            file.set_modified(SystemTime::now() - GRACE).expect("set");
        }
        fs::write(top.path().join("ab/.tmpghi"), "half").expect("written");
        assert_eq!(in_shards(top.path()).expect("listed"), [top.path().join("ab/cdef")]);
        sweep(top.path()).expect("swept");
        assert!(!top.path().join(".tmpabc").exists() && !top.path().join("ab/.tmpdef").exists());
        assert!(top.path().join("ab/.tmpghi").exists(), "somebody may be writing it");
        assert_eq!(in_shards(top.path()).expect("listed"), [top.path().join("ab/cdef")]);
        sweep(&top.path().join("nothing")).expect("nothing to do");
    }
}
