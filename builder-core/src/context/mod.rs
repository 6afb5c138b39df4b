//! Build contexts: directories that are read in place, where only what an instruction asks for is looked at.
//!
//! ```text
//! root + ignore file ── open ──▶ BuildContext                                  nothing else read yet
//! Request ── compile ──▶ literal part, patterns, Filter
//!            └─ survey: follow links inside the root ─▶ walk (ignored directories not entered)
//!                 ├─▶ Fingerprint of all that was seen ─▶ Memo: what was made of exactly this before
//!                 └─ read ─▶ Index: (device, inode, size, mtime, ctime) known? its digest : read and hash the file
//!                      └─▶ Match { name, entries with digests }
//! Match entry ── open_file ──▶ File                                            packed straight from the context, or from
//!                                                                              Contents, where small files are together
//! ```
//!
//! Nothing is copied, and no file is trusted by its size and times alone: see [`BuildContext::select`].

mod error;
mod glob;
mod pattern;
mod ignore;
mod disk;
mod index;
mod memo;
mod mode;
mod select;
mod survey;
mod walk;
mod lookup;
mod read;
mod outline;
mod bases;
mod contents;

#[cfg(test)]
mod tests;

pub use bases::Base;
pub use error::{ContextError, IgnoredBy};
pub use glob::{BadPattern, Glob};
pub use ignore::{IgnoreFile, IgnoreSource};
pub use mode::ContextMode;
pub use outline::{Changes, Outline};
pub use pattern::{Above, Matcher, Verdict};
pub use read::Reading;
pub use select::{Compiled, Filter, FilterAbove, Match, Request, RequestError, Selected};
pub use survey::{Fingerprint, Survey};

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::diagnostic::Source;
use crate::rootfs::RootPath;
use crate::tree::{ContentDigest, Entry, Node, SemanticDigest};
use contents::Contents;
use disk::Disk;
use index::Index;
use memo::Memo;

/// A directory that `COPY`, `ADD` and bind mounts take files from.
///
/// A context that came as an archive is unpacked by the caller and opened like any other.
#[derive(Debug)]
pub struct BuildContext {
    root: PathBuf,
    disk: Disk,
    ignore: Option<IgnoreFile>,
    /// What is not ignored when there is no ignore file: everything.
    nothing: Matcher,
    mode: ContextMode,
    index: Mutex<Index>,
    memo: Mutex<Memo<SemanticDigest>>,
    bases: Mutex<Memo<Arc<Base>>>,
    contents: Contents,
}

impl BuildContext {
    /// Opens a directory. Only the ignore file is read; the index in `state` is opened when the first file is looked up.
    ///
    /// # Errors
    /// [`ContextError::Open`] if `root` is not a directory that can be opened; `ReadIgnoreFile` and `Pattern` for the
    /// ignore file.
    pub fn open(root: &Path, ignore: &IgnoreSource, state: &Path) -> Result<Self, ContextError> {
        let failed = |source| ContextError::Open { path: root.to_owned(), source };
        let canonical = root.canonicalize().map_err(failed)?;
        let disk = Disk::open(&canonical).map_err(failed)?;
        let ignore = match ignore {
            IgnoreSource::Nothing => None,
            IgnoreSource::Text(source) => Some(source.clone()),
            IgnoreSource::FirstOf(files) => first_of(files, root, &canonical, &disk)?,
        };
        let ignore = ignore.map(IgnoreFile::parse).transpose()?;
        let index = Mutex::new(Index::new(state, &canonical));
        let memo = Mutex::new(Memo::new(state, &canonical));
        let bases = Mutex::new(Memo::new(state, &canonical));
        let contents = Contents::new(state, &canonical);
        let (nothing, mode) = (Matcher::default(), ContextMode::Docker);
        Ok(Self { root: canonical, disk, ignore, nothing, mode, index, memo, bases, contents })
    }

    /// The same with other rights of its files.
    #[must_use]
    pub fn with_mode(mut self, mode: ContextMode) -> Self {
        self.mode = mode;
        self
    }

    /// What says which files do not count; `None` if all do.
    pub fn ignore_file(&self) -> Option<&IgnoreFile> {
        self.ignore.as_ref()
    }

    /// The directory, without symbolic links in its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The line that ignores a path, whether anything is there or not; `None` if it is not ignored.
    pub fn ignored_by(&self, path: &RootPath) -> Option<IgnoredBy> {
        let ignore = self.ignore.as_ref()?;
        let verdict = ignore.matcher().judge_path(path.as_bytes());
        (verdict.matched && !path.is_root()).then(|| ignore.line(verdict.line))
    }

    /// Opens the file of an entry that [`BuildContext::select`] returned, for reading.
    ///
    /// Whoever reads it has to compare what it read with the entry's digest: the file may change at any time.
    ///
    /// # Errors
    /// If it is gone, or is plainly not the selected file any more: not regular, or of another size.
    pub fn open_file(&self, entry: &Entry) -> io::Result<File> {
        let Node::File { size, .. } = entry.node else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` is not a regular file", entry.path)));
        };
        self.open_path(&entry.path, size)
    }

    /// [`BuildContext::open_file`] for a path whose file was selected with a length of `size` bytes.
    ///
    /// # Errors
    /// As there.
    pub fn open_path(&self, path: &RootPath, size: u64) -> io::Result<File> {
        if size == 0 {
            // Sockets become empty files and can't be opened.
            return File::open("/dev/null");
        }
        let file = self.disk.file(path)?;
        let found = file.metadata()?;
        if found.is_file() && found.len() == size {
            Ok(file)
        } else {
            Err(io::Error::other(ContextError::Changed(path.clone())))
        }
    }

    /// Appends the content of a small file that has this digest and length in bytes, if it was
    /// [kept](Self::keep_content); says whether it was.
    pub fn kept_content(&self, content: &ContentDigest, length: u64, out: &mut Vec<u8>) -> bool {
        self.contents.read(content, length, out)
    }

    /// Keeps the content of a file, if it is small. It has to be the content that has the digest.
    pub fn keep_content(&self, content: &ContentDigest, bytes: &[u8]) {
        self.contents.note(content, bytes);
    }

    /// What was made of files of this context before; `None` if that is not known.
    ///
    /// `inputs` is a digest of all that decides what is made: the fingerprints of surveys, and whatever else. It has to
    /// hold a version of the code that makes it.
    pub fn recall(&self, inputs: &[u8; 32]) -> Option<SemanticDigest> {
        self.memo.lock().expect("no holder panics").get(inputs)
    }

    /// Remembers what was made of files, for [`BuildContext::recall`]. Only for what was [settled](Reading::settled).
    pub fn remember(&self, inputs: [u8; 32], result: SemanticDigest) {
        self.memo.lock().expect("no holder panics").put(inputs, result);
    }

    /// What was made of a whole directory before, and how that was then; `None` if that is not known. `making` is a digest of
    /// all that decides what is made, but for what is in the directory.
    pub fn base(&self, making: &[u8; 32]) -> Option<Arc<Base>> {
        self.bases.lock().expect("no holder panics").get(making)
    }

    /// Remembers what was made of a directory, for [`BuildContext::base`]. Only for what was [settled](Reading::settled).
    pub fn remember_base(&self, making: [u8; 32], base: Base) {
        self.bases.lock().expect("no holder panics").put(making, Arc::new(base));
    }

    /// Writes what is new in the index, and what was remembered or kept. Dropping the context does the same.
    ///
    /// # Errors
    /// If it can't be written; the next build then reads the files again, nothing else is lost.
    pub fn save(&self) -> io::Result<()> {
        let disk = &self.disk;
        self.index.lock().expect("no holder panics").save(|path| disk.has(path))?;
        self.memo.lock().expect("no holder panics").save()?;
        self.bases.lock().expect("no holder panics").save()?;
        self.contents.save()
    }

    fn matcher(&self) -> &Matcher {
        self.ignore.as_ref().map_or(&self.nothing, IgnoreFile::matcher)
    }
}

impl Drop for BuildContext {
    fn drop(&mut self) {
        // They only save time: a build does not fail for them.
        if let (Ok(index), Ok(memo), Ok(bases)) = (self.index.get_mut(), self.memo.get_mut(), self.bases.get_mut()) {
            let disk = &self.disk;
            let _ = index.save(|path| disk.has(path));
            let _ = memo.save();
            let _ = bases.save();
            let _ = self.contents.save();
        }
    }
}

/// Where the store has what it knows of a context: the index, and files with its name and an ending.
fn place(state: &Path, canonical_root: &Path) -> PathBuf {
    let name = blake3::hash(canonical_root.as_os_str().as_encoded_bytes()).to_hex();
    state.join("contexts").join(name.as_str())
}

/// Reads the first ignore file that exists. One that lies in the context is opened through it, so that a symbolic link
/// can't make it name lines of a file outside.
fn first_of(files: &[PathBuf], root: &Path, canonical: &Path, disk: &Disk) -> Result<Option<Source>, ContextError> {
    for path in files {
        let failed = |source| ContextError::ReadIgnoreFile { path: path.clone(), source };
        let inside = path.strip_prefix(root).or_else(|_| path.strip_prefix(canonical));
        let opened = match inside {
            Ok(relative) => disk.file_following_links(relative),
            Err(_) => open_outside(path),
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let refuse = |what: &str| failed(io::Error::new(io::ErrorKind::InvalidInput, what));
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(refuse("not a regular file"));
        }
        let mut text = Vec::new();
        file.take(ignore::MAX_SIZE + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > ignore::MAX_SIZE {
            return Err(refuse("larger than 4 MiB"));
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        return Ok(Some(Source::new(name.as_ref(), text)));
    }
    Ok(None)
}

fn open_outside(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A fifo must not block.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    std::fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}
