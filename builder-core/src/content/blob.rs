//! [`BlobReader`] and [`BlobWriter`]: streams that hash what goes through them.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::ContentError;
use super::store::{Area, Inner, area_of, read_error, write_error};
use crate::oci::{Algorithm, Digest, Hasher};

/// Bytes gathered before they are written to the file.
const WRITE_BUFFER: usize = 128 << 10;

/// Where large temporary files go that the store has no place for (`file-hierarchy(7)`).
const TEMPORARY: &str = "/var/tmp";

/// Reads one blob and verifies it on the way.
///
/// The end of the stream is reported only if the bytes were the right ones: a damaged blob gives an error instead
/// (a [`ContentError::DigestMismatch`] inside the [`io::Error`]), and its file is taken out of the store.
pub struct BlobReader {
    store: Arc<Inner>,
    digest: Digest,
    file: File,
    size: u64,
    hasher: Option<Hasher>,
    /// The digest of a damaged blob, once it is known.
    damaged: Option<Digest>,
}

impl BlobReader {
    pub(super) fn new(store: Arc<Inner>, digest: Digest, file: File, size: u64) -> Self {
        let hasher = (!store.is_verified(&digest)).then(|| Hasher::new(digest.algorithm()));
        Self { store, digest, file, size, hasher, damaged: None }
    }

    /// Length of the blob in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(hasher) = self.hasher.take() {
            let actual = hasher.finish();
            if actual == self.digest {
                self.store.mark_verified(&self.digest);
            } else {
                self.store.quarantine(&self.digest);
                self.damaged = Some(actual);
            }
        }
        match &self.damaged {
            // Whoever asks again must not take the end for a good one.
            Some(actual) => {
                let (expected, actual) = (self.digest.clone(), actual.clone());
                Err(ContentError::DigestMismatch { expected, actual }.into_io())
            }
            None => Ok(()),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.file.read(buffer).map_err(|source| {
            if source.kind() == io::ErrorKind::Interrupted {
                return source;
            }
            ContentError::Read { path: self.store.blob_path(&self.digest), source }.into_io()
        })?;
        match &mut self.hasher {
            Some(hasher) if count > 0 => hasher.update(&buffer[..count]),
            _ if count == 0 => self.finish()?,
            _ => {}
        }
        Ok(count)
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobReader({}, {} bytes)", self.digest, self.size)
    }
}

/// Writes one new blob into a temporary file; it gets its name when it is committed, and vanishes when it is dropped.
pub struct BlobWriter {
    store: Arc<Inner>,
    /// In the directory for temporary files; empty if it has none, because the store cannot be written.
    name: String,
    file: Option<BufWriter<File>>,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    pub(super) fn new(store: &Arc<Inner>, algorithm: Algorithm) -> Result<Self, ContentError> {
        match Self::named(store, algorithm) {
            // What is written cannot be kept, but passed on.
            Err(error) if error.is_read_only() => Self::unnamed(store, algorithm),
            other => other,
        }
    }

    fn unnamed(store: &Arc<Inner>, algorithm: Algorithm) -> Result<Self, ContentError> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let opened = rustix::fs::open(TEMPORARY, flags, Mode::RUSR | Mode::WUSR);
        let file = opened.map_err(|errno| write_error(TEMPORARY.into(), errno))?;
        let file = Some(BufWriter::with_capacity(WRITE_BUFFER, File::from(file)));
        Ok(Self { store: Arc::clone(store), name: String::new(), file, hasher: Hasher::new(algorithm), size: 0 })
    }

    fn named(store: &Arc<Inner>, algorithm: Algorithm) -> Result<Self, ContentError> {
        let path = store.area_path(Area::Temporary);
        let dir = store.area(Area::Temporary, true)?.expect("the area was to be made");
        loop {
            let name = random_name().map_err(|errno| write_error(path.clone(), errno))?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(dir, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => File::from(file),
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(write_error(path.join(name), errno)),
            };
            // Tells garbage collection that the file has a living writer; the kernel drops the lock with the process.
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|errno| write_error(path.join(&name), errno))?;
            let file = Some(BufWriter::with_capacity(WRITE_BUFFER, file));
            return Ok(Self { store: Arc::clone(store), name, file, hasher: Hasher::new(algorithm), size: 0 });
        }
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Stores the blob under the digest of what was written; returns that and the length in bytes.
    ///
    /// The bytes are on disk before the name is, and the name is on disk when this returns.
    ///
    /// # Errors
    /// [`ContentError::Write`]; the temporary file is gone then.
    pub fn commit(self) -> Result<(Digest, u64), ContentError> {
        self.finish(None)
    }

    /// Stores the blob if it is the expected one.
    ///
    /// # Errors
    /// [`ContentError::SizeMismatch`] or [`ContentError::DigestMismatch`] if it is not, else as [`BlobWriter::commit`].
    pub fn commit_as(self, digest: &Digest, size: u64) -> Result<(), ContentError> {
        self.finish(Some((digest, size))).map(drop)
    }

    fn finish(mut self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), ContentError> {
        let actual = std::mem::take(&mut self.hasher).finish();
        let size = self.size;
        if let Some((digest, expected)) = expected {
            if size != expected {
                return Err(ContentError::SizeMismatch { digest: digest.clone(), expected, actual: size });
            }
            if actual != *digest {
                return Err(ContentError::DigestMismatch { expected: digest.clone(), actual });
            }
        }
        if self.name.is_empty() {
            return Err(write_error(self.store.blob_path(&actual), Errno::ROFS));
        }
        let to = self.store.area(area_of(&actual), true)?.expect("the area was to be made");
        if self.store.is_verified(&actual)
            && rustix::fs::statat(to, actual.hex(), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| u64::try_from(stat.st_size) == Ok(size))
        {
            return Ok((actual, size));
        }
        let path = self.path();
        let write = |source: io::Error| ContentError::Write { path: path.clone(), source };
        let mut file = self.file.take().expect("the file is there until the blob is finished");
        file.flush().map_err(write)?;
        file.get_ref().sync_all().map_err(write)?;
        let from = self.store.area(Area::Temporary, true)?.expect("the area was to be made");
        // A blob that is there already is replaced: that heals one with wrong bytes.
        let mut renamed = rustix::fs::renameat(from, &self.name, to, actual.hex());
        if renamed == Err(Errno::ISDIR) {
            self.store.quarantine(&actual);
            renamed = rustix::fs::renameat(from, &self.name, to, actual.hex());
        }
        renamed.map_err(|errno| write_error(self.store.blob_path(&actual), errno))?;
        self.name.clear();
        rustix::fs::fsync(to).map_err(|errno| write_error(self.store.area_path(area_of(&actual)), errno))?;
        self.store.mark_verified(&actual);
        Ok((actual, size))
    }

    fn path(&self) -> PathBuf {
        self.store.area_path(Area::Temporary).join(&self.name)
    }

    /// A second descriptor for reading what was written so far, from its beginning.
    ///
    /// # Errors
    /// [`ContentError::Write`] if the buffered bytes cannot be written, [`ContentError::Read`] if the file cannot be opened.
    pub fn reopen(&mut self) -> Result<File, ContentError> {
        let path = self.path();
        if let Some(file) = &mut self.file {
            file.flush().map_err(|source| ContentError::Write { path: path.clone(), source })?;
        }
        if let (true, Some(file)) = (self.name.is_empty(), &self.file) {
            let again = format!("/proc/self/fd/{}", file.get_ref().as_raw_fd());
            return File::open(again).map_err(|source| ContentError::Read { path: TEMPORARY.into(), source });
        }
        let dir = self.store.area(Area::Temporary, true)?.expect("the area was to be made");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(dir, &self.name, flags, Mode::empty()).map_err(|errno| read_error(path, errno))?;
        Ok(File::from(file))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().expect("the file is there until the blob is finished");
        match file.write(bytes) {
            Ok(count) => {
                self.hasher.update(&bytes[..count]);
                self.size += count as u64;
                Ok(count)
            }
            Err(source) if source.kind() == io::ErrorKind::Interrupted => Err(source),
            Err(source) => Err(ContentError::Write { path: self.path(), source }.into_io()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = self.file.as_mut().expect("the file is there until the blob is finished");
        file.flush().map_err(|source| ContentError::Write { path: self.path(), source }.into_io())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        // BufWriter would write its buffer when it is dropped, into a file that goes away.
        if let Some(file) = self.file.take() {
            drop(file.into_parts());
        }
        if let Ok(Some(dir)) = self.store.area(Area::Temporary, false) {
            let _ = rustix::fs::unlinkat(dir, &self.name, AtFlags::empty());
        }
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobWriter({}, {} bytes)", self.name, self.size)
    }
}

/// A name that no other writer picks.
pub(super) fn random_name() -> Result<String, Errno> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
