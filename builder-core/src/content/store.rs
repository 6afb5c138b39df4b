//! [`ContentStore`]: blobs in files named by their digest.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{BlobReader, BlobWriter, ContentError, Database, ExclusiveLease};
use crate::lock::lock;
use crate::oci::{Algorithm, Digest};
use crate::small_file;

/// The newest format of the state directory that this program knows. A new store has the oldest one, so that older
/// programs can use it until something is written that they would misread: see [`ContentStore::need_format`].
///
/// 1 and 2: trees of another encoding, so that nothing in the store has the name that it would have now. 3: trees in pieces.
/// 4: snapshots that hold only what differs from another one.
const FORMAT: u32 = 4;

/// The format that new stores begin with.
const FIRST_FORMAT: u32 = 3;

/// The format of a store that has derived snapshots. An older program would remove what they are derived from.
pub const FORMAT_DERIVED: u32 = 4;

/// Names that a state directory may have before it has a version file.
const KNOWN: [&str; 12] = [
    "version",
    "lock",
    "db.sqlite",
    "db.sqlite-wal",
    "db.sqlite-shm",
    "db.lock",
    "content",
    "snapshots",
    "cache",
    "contexts",
    "mounts",
    "history",
];

/// A temporary file younger than this is left alone by garbage collection even if nobody holds its lock: its writer
/// may be between creating and locking it.
const TEMPORARY_GRACE: Duration = Duration::from_secs(60);

/// The blobs of a store and its database. Clones share everything; methods can be called from any thread.
#[derive(Debug, Clone)]
pub struct ContentStore {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    state: PathBuf,
    root: OwnedFd,
    /// What the version file is known to say at least.
    format: AtomicU32,
    areas: [OnceLock<OwnedFd>; 4],
    verified: Mutex<HashSet<Digest>>,
    database: Database,
}

/// The directories of the store that hold files.
#[derive(Debug, Clone, Copy)]
pub(super) enum Area {
    Sha256,
    Sha512,
    Temporary,
    Damaged,
}

/// What a garbage collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files removed.
    pub files: usize,
    /// Their length together, in bytes.
    pub bytes: u64,
}

impl ContentStore {
    /// Opens the store in `state`, making the directory (mode 0700) and its version file where they are missing.
    ///
    /// An existing store costs three system calls. A mode that lets other users in is tightened: the store holds
    /// setuid files of images.
    ///
    /// # Errors
    /// [`ContentError::NewerFormat`] and [`ContentError::OlderFormat`] for a store of another program,
    /// [`ContentError::NotAStore`] for a directory with other things in it, and what the filesystem says.
    pub fn open(state: &Path) -> Result<Self, ContentError> {
        let root = open_root(state)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let format = match rustix::fs::openat(&root, "version", flags, Mode::empty()) {
            Ok(file) => check_version(state, &mut File::from(file))?,
            Err(Errno::NOENT) => start(state, &root)?,
            Err(errno) => return Err(read_error(state.join("version"), errno)),
        };
        let stat = rustix::fs::fstat(&root).map_err(|errno| read_error(state.to_owned(), errno))?;
        if stat.st_mode & 0o077 != 0 && stat.st_uid == rustix::process::geteuid().as_raw() {
            rustix::fs::fchmod(&root, Mode::RWXU).map_err(|errno| write_error(state.to_owned(), errno))?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                state: state.to_owned(),
                root,
                format: AtomicU32::new(format),
                areas: Default::default(),
                verified: Mutex::default(),
                database: Database::new(state),
            }),
        })
    }

    /// Keeps programs out that do not know a format, before something of it is written.
    ///
    /// # Errors
    /// [`ContentError::Write`] if the version file cannot be written.
    pub fn need_format(&self, format: u32) -> Result<(), ContentError> {
        debug_assert!(format <= FORMAT, "this program knows what it writes");
        if self.inner.format.load(Ordering::Relaxed) < format {
            write_version(&self.inner.state, &self.inner.root, format)?;
            self.inner.format.store(format, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.inner.state
    }

    /// Where the bytes of a blob are, for passing them on as a file. Whoever reads them there verifies them.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.inner.blob_path(digest)
    }

    /// The database of images, tags and facts; its file is opened at the first use.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    /// Length in bytes of a blob that is there.
    ///
    /// # Errors
    /// [`ContentError::Read`] if the filesystem does not say.
    pub fn has(&self, digest: &Digest) -> Result<Option<u64>, ContentError> {
        let Some(dir) = self.inner.area(area_of(digest), false)? else { return Ok(None) };
        match rustix::fs::statat(dir, digest.hex(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(u64::try_from(stat.st_size).unwrap_or(0)))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(read_error(self.inner.blob_path(digest), errno)),
        }
    }

    /// Opens a blob for reading. The bytes are verified while they are read, the first time in this process.
    ///
    /// # Errors
    /// [`ContentError::Missing`], or [`ContentError::Read`].
    pub fn open_blob(&self, digest: &Digest) -> Result<BlobReader, ContentError> {
        let missing = || ContentError::Missing { digest: digest.clone() };
        let dir = self.inner.area(area_of(digest), false)?.ok_or_else(missing)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(dir, digest.hex(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Err(missing()),
            Err(errno) => return Err(read_error(self.inner.blob_path(digest), errno)),
        };
        let metadata =
            file.metadata().map_err(|source| ContentError::Read { path: self.inner.blob_path(digest), source })?;
        if !metadata.is_file() {
            return Err(missing());
        }
        Ok(BlobReader::new(Arc::clone(&self.inner), digest.clone(), file, metadata.len()))
    }

    /// Reads a whole blob of at most `limit` bytes, verified.
    ///
    /// # Errors
    /// [`ContentError::TooLarge`], [`ContentError::DigestMismatch`], and those of [`ContentStore::open_blob`].
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let mut reader = self.open_blob(digest)?;
        let size = reader.size();
        if size > limit {
            return Err(ContentError::TooLarge { digest: digest.clone(), size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        reader.read_to_end(&mut bytes).map_err(|error| {
            ContentError::from_io(error)
                .unwrap_or_else(|source| ContentError::Read { path: self.inner.blob_path(digest), source })
        })?;
        Ok(bytes)
    }

    /// Starts a blob whose digest will be SHA-256.
    ///
    /// # Errors
    /// [`ContentError::Write`] if no file can be made.
    pub fn writer(&self) -> Result<BlobWriter, ContentError> {
        self.writer_with(Algorithm::Sha256)
    }

    /// Starts a blob whose digest will be of `algorithm`.
    ///
    /// # Errors
    /// [`ContentError::Write`] if no file can be made.
    pub fn writer_with(&self, algorithm: Algorithm) -> Result<BlobWriter, ContentError> {
        BlobWriter::new(&self.inner, algorithm)
    }

    /// Stores bytes that are at hand. Bytes that are there already cost one comparison and no write.
    ///
    /// # Errors
    /// [`ContentError::Write`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, ContentError> {
        let digest = Digest::sha256(bytes);
        if self.has(&digest)? == Some(bytes.len() as u64) {
            if self.inner.is_verified(&digest) {
                return Ok(digest);
            }
            if self.read(&digest, bytes.len() as u64).is_ok_and(|stored| stored == bytes) {
                return Ok(digest);
            }
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|error| {
            ContentError::from_io(error)
                .unwrap_or_else(|source| ContentError::Write { path: self.inner.blob_path(&digest), source })
        })?;
        writer.commit_as(&digest, bytes.len() as u64)?;
        Ok(digest)
    }

    /// Removes a blob; says whether it was there.
    ///
    /// # Errors
    /// [`ContentError::Write`] if the filesystem refuses.
    pub fn remove(&self, digest: &Digest) -> Result<bool, ContentError> {
        let Some(dir) = self.inner.area(area_of(digest), false)? else { return Ok(false) };
        lock(&self.inner.verified).remove(digest);
        match rustix::fs::unlinkat(dir, digest.hex(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(write_error(self.inner.blob_path(digest), errno)),
        }
    }

    /// Every blob with its length in bytes, in no order.
    ///
    /// # Errors
    /// [`ContentError::Read`] if a directory cannot be listed.
    pub fn blobs(&self) -> Result<Vec<(Digest, u64)>, ContentError> {
        let mut blobs = Vec::new();
        for (area, prefix) in [(Area::Sha256, "sha256:"), (Area::Sha512, "sha512:")] {
            for name in self.inner.list(area)? {
                let Ok(digest) = format!("{prefix}{name}").parse::<Digest>() else { continue };
                if let Some(size) = self.has(&digest)? {
                    blobs.push((digest, size));
                }
            }
        }
        Ok(blobs)
    }

    /// Removes every blob that `keep` does not name, damaged blobs, and what killed writers left behind.
    ///
    /// The lease shows that no build runs which could be about to use a blob.
    ///
    /// # Errors
    /// [`ContentError::Read`] and [`ContentError::Write`]; what was removed before stays removed.
    pub fn collect(&self, _alone: &ExclusiveLease, keep: &HashSet<Digest>) -> Result<Collected, ContentError> {
        let mut collected = Collected::default();
        for (digest, size) in self.blobs()? {
            if !keep.contains(&digest) && self.remove(&digest)? {
                collected.add(size);
            }
        }
        for area in [Area::Damaged, Area::Temporary] {
            self.collect_strays(area, &mut collected)?;
        }
        Ok(collected)
    }

    fn collect_strays(&self, area: Area, collected: &mut Collected) -> Result<(), ContentError> {
        let Some(dir) = self.inner.area(area, false)? else { return Ok(()) };
        for name in self.inner.list(area)? {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(dir, &name, flags, Mode::empty()) else { continue };
            let file = File::from(file);
            let Ok(metadata) = file.metadata() else { continue };
            let young = |time: SystemTime| match SystemTime::now().duration_since(time) {
                Ok(age) => age < TEMPORARY_GRACE,
                Err(ahead) => ahead.duration() < TEMPORARY_GRACE,
            };
            let held = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
            if matches!(area, Area::Temporary) && (held || metadata.modified().is_ok_and(young)) {
                continue;
            }
            let path = self.inner.area_path(area).join(&name);
            match small_file::remove(&path) {
                Ok(true) => collected.add(metadata.len()),
                Ok(false) => {}
                Err(source) => return Err(ContentError::Write { path, source }),
            }
        }
        Ok(())
    }
}

impl Collected {
    fn add(&mut self, size: u64) {
        self.files += 1;
        self.bytes += size;
    }
}

impl Area {
    fn components(self) -> &'static [&'static str] {
        match self {
            Self::Sha256 => &["content", "blobs", "sha256"],
            Self::Sha512 => &["content", "blobs", "sha512"],
            Self::Temporary => &["content", "tmp"],
            Self::Damaged => &["content", "damaged"],
        }
    }
}

/// The directory of blobs that are named like `digest`.
pub(super) fn area_of(digest: &Digest) -> Area {
    match digest.algorithm() {
        Algorithm::Sha256 => Area::Sha256,
        Algorithm::Sha512 => Area::Sha512,
    }
}

impl Inner {
    /// The descriptor of the state directory.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where `area` is, for messages.
    pub(super) fn area_path(&self, area: Area) -> PathBuf {
        let mut path = self.state.clone();
        path.extend(area.components());
        path
    }

    /// Where a blob is, for messages.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.area_path(area_of(digest)).join(digest.hex())
    }

    /// The state file `name`, for messages.
    pub(super) fn state_path(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// Opens a directory of the store, following no link; `None` if it is not there and not to be made.
    pub(super) fn area(&self, area: Area, create: bool) -> Result<Option<BorrowedFd<'_>>, ContentError> {
        let slot = &self.areas[area as usize];
        if let Some(fd) = slot.get() {
            return Ok(Some(fd.as_fd()));
        }
        let path = || self.area_path(area);
        let mut at: Option<OwnedFd> = None;
        for name in area.components() {
            let parent = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = match rustix::fs::openat(parent, *name, flags, Mode::empty()) {
                Err(Errno::NOENT) if !create => return Ok(None),
                Err(Errno::NOENT) => {
                    make_directory(parent, name).map_err(|errno| write_error(path(), errno))?;
                    rustix::fs::openat(parent, *name, flags, Mode::empty())
                }
                other => other,
            };
            let opened = opened.map_err(|errno| read_error(path(), errno))?;
            at = Some(opened);
        }
        let opened = at.expect("every area has at least one component");
        // Another thread may have been first; its descriptor serves both.
        let _ = slot.set(opened);
        Ok(slot.get().map(AsFd::as_fd))
    }

    fn list(&self, area: Area) -> Result<Vec<String>, ContentError> {
        let Some(dir) = self.area(area, false)? else { return Ok(Vec::new()) };
        let error = |errno| read_error(self.area_path(area), errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(error)? {
            let entry = entry.map_err(error)?;
            // Names that this program makes are ASCII; others are not ours to touch.
            if let Ok(name) = CStr::to_str(entry.file_name())
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    pub(super) fn is_verified(&self, digest: &Digest) -> bool {
        lock(&self.verified).contains(digest)
    }

    pub(super) fn mark_verified(&self, digest: &Digest) {
        lock(&self.verified).insert(digest.clone());
    }

    /// Takes a blob with wrong bytes out of the way, so that it is fetched or built again.
    pub(super) fn quarantine(&self, digest: &Digest) {
        lock(&self.verified).remove(digest);
        let Ok(Some(from)) = self.area(area_of(digest), false) else { return };
        // Best effort: the reader reports the damage in any case, and the next one finds it again.
        if let Ok(Some(to)) = self.area(Area::Damaged, true) {
            let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
            if rustix::fs::renameat(from, digest.hex(), to, name).is_ok() {
                return;
            }
        }
        let _ = rustix::fs::unlinkat(from, digest.hex(), AtFlags::empty());
    }
}

pub(super) fn read_error(path: PathBuf, errno: Errno) -> ContentError {
    ContentError::Read { path, source: errno.into() }
}

pub(super) fn write_error(path: PathBuf, errno: Errno) -> ContentError {
    ContentError::Write { path, source: errno.into() }
}

fn make_directory(parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        // The name has to be on disk before names inside it mean anything.
        Ok(()) => rustix::fs::fsync(parent),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn open_root(state: &Path) -> Result<OwnedFd, ContentError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(state, flags, Mode::empty()) {
        Ok(root) => return Ok(root),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(read_error(state.to_owned(), errno)),
    }
    let write = |source| ContentError::Write { path: state.to_owned(), source };
    if let Some(parent) = state.parent() {
        std::fs::create_dir_all(parent).map_err(write)?;
    }
    match rustix::fs::mkdir(state, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(write(errno.into())),
    }
    rustix::fs::open(state, flags, Mode::empty()).map_err(|errno| read_error(state.to_owned(), errno))
}

fn check_version(state: &Path, file: &mut File) -> Result<u32, ContentError> {
    let path = || state.join("version");
    let mut text = Vec::new();
    file.take(64).read_to_end(&mut text).map_err(|source| ContentError::Read { path: path(), source })?;
    let found = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u32>().ok());
    match found {
        Some(found) if found > FORMAT => {
            Err(ContentError::NewerFormat { path: state.to_owned(), found, known: FORMAT })
        }
        Some(found @ FIRST_FORMAT..=FORMAT) => Ok(found),
        Some(found @ 1..FIRST_FORMAT) => {
            Err(ContentError::OlderFormat { path: state.to_owned(), found, known: FIRST_FORMAT })
        }
        _ => Err(ContentError::Version { path: path() }),
    }
}

/// Makes a store of a directory that is empty, or was left by a process killed right here.
fn start(state: &Path, root: &OwnedFd) -> Result<u32, ContentError> {
    let read = |errno| read_error(state.to_owned(), errno);
    for entry in Dir::read_from(root).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." && !KNOWN.contains(&&*name) && !name.starts_with("version.") {
            return Err(ContentError::NotAStore { path: state.to_owned(), found: name });
        }
    }
    write_version(state, root, FIRST_FORMAT)?;
    Ok(FIRST_FORMAT)
}

fn write_version(state: &Path, root: &OwnedFd, format: u32) -> Result<(), ContentError> {
    let write = |source: io::Error| ContentError::Write { path: state.join("version"), source };
    let temporary = format!("version.{}", super::blob::random_name().map_err(|errno| write(errno.into()))?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, &temporary, flags, Mode::RUSR | Mode::WUSR).map_err(|e| write(e.into()))?;
    let mut file = File::from(file);
    writeln!(file, "{format}").and_then(|()| file.sync_all()).map_err(write)?;
    rustix::fs::renameat(root, &temporary, root, "version").map_err(|errno| write(errno.into()))?;
    rustix::fs::fsync(root).map_err(|errno| write(errno.into()))
}
