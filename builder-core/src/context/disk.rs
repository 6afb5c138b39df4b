//! [`Disk`]: the files of a context through the descriptor of its root. No call follows a symbolic link or leaves the
//! root, so nobody can redirect a read by swapping a directory (invariant E-7).

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, StatxTimestamp, fgetxattr, flistxattr,
    flistxattr_query, fstatfs, openat2, readlinkat, statx,
};
use rustix::io::Errno;

use super::ContextError;
use super::index::{Record, Stamp};
use crate::rootfs::RootPath;
use crate::sys::lease::has_writer;
use crate::tree::{ContentDigest, ContentHasher, Node, Time, Xattr};

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// Buffer for reading files, in bytes. A thread has one.
const BUFFER: usize = 128 << 10;

/// File systems whose timestamps come from this machine's clock (`statfs(2)`).
const LOCAL: [u32; 11] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0xf2f5_2010, // f2fs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // erofs
];

/// The root of a context.
#[derive(Debug)]
pub(super) struct Disk {
    root: OwnedFd,
    /// Set if the clock of the file system with this device number is ours.
    local_device: Option<u64>,
}

/// What the kernel says about a path.
#[derive(Debug, Clone)]
pub(super) struct Stat {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    /// Number of names; more than one makes a regular file a hard link.
    pub(super) links: u32,
    pub(super) device_number: (u32, u32),
    pub(super) stamp: Stamp,
}

/// A file that was read completely and did not change meanwhile.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) stat: Stat,
    pub(super) record: Record,
    /// When reading began, by the clock that the kernel stamps local files with.
    pub(super) began: Time,
    /// Somebody could still write to it afterwards. What a shared mapping writes moves the change time when a page is
    /// written first, and not again before the page is written back.
    pub(super) has_writer: bool,
}

impl Disk {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "magic numbers have 32 bits")]
        let local = LOCAL.contains(&(fstatfs(&root)?.f_type as u32));
        let device = Stat::of(&root)?.stamp.device;
        Ok(Self { root, local_device: local.then_some(device) })
    }

    fn open_beneath(&self, path: &RootPath, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat2(&self.root, path.as_relative(), flags, Mode::empty(), resolve)?)
    }

    pub(super) fn directory(&self, path: &RootPath) -> io::Result<OwnedFd> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a file for reading; a fifo does not block it.
    pub(super) fn file(&self, path: &RootPath) -> io::Result<File> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map(File::from)
    }

    /// Opens a file whose symbolic links are followed as long as they stay inside.
    pub(super) fn file_following_links(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH)?.into())
    }

    /// `None` if nothing is there.
    pub(super) fn stat(&self, path: &RootPath) -> io::Result<Option<Stat>> {
        match self.open_beneath(path, OFlags::PATH) {
            Ok(file) => Stat::of(&file).map(Some),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether something is at a path of an index.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        RootPath::from_clean(path).is_some_and(|path| matches!(self.stat(&path), Ok(Some(_))))
    }

    pub(super) fn read_link(&self, path: &RootPath) -> io::Result<Vec<u8>> {
        let link = self.open_beneath(path, OFlags::PATH)?;
        Ok(readlinkat(link, "", Vec::new())?.into_bytes())
    }

    /// Whether a file that was last changed at `changed` and read from `began` on would show every later change by a
    /// new time. `newest` is the newest time seen in the context, which another machine's clock has reached for sure.
    pub(super) fn is_settled(&self, stamp: &Stamp, began: Time, newest: Time) -> bool {
        let now = if self.local_device == Some(stamp.device) { began } else { newest.min(began) };
        [stamp.changed, stamp.modified].iter().all(|time| {
            // The clock ticks every 10 ms at worst; a file system that shows no fraction counts seconds, or two.
            let tick = if time.nanoseconds == 0 { 2_000_000_000 } else { 10_000_000 };
            nanoseconds(*time) + tick < nanoseconds(now)
        })
    }

    /// Reads a file to its end for its digest and attributes.
    ///
    /// # Errors
    /// [`ContextError::Changed`] if it did not stay the same for one of three readings; `Read` if it can't be read.
    pub(super) fn hash(&self, path: &RootPath, buffer: &mut Vec<u8>) -> Result<Hashed, ContextError> {
        let read = |source| ContextError::Read { path: path.clone(), source };
        for _ in 0..ATTEMPTS {
            let began = now();
            let mut file = self.file(path).map_err(read)?;
            let before = Stat::of(&file).map_err(read)?;
            if before.kind != FileType::RegularFile {
                break;
            }
            let (content, length) = hash_content(&mut file, buffer).map_err(read)?;
            let xattrs = xattrs(file.as_fd()).map_err(read)?;
            let after = Stat::of(&file).map_err(read)?;
            if before.stamp == after.stamp && length == after.stamp.size {
                let record = Record { stamp: after.stamp, content, xattrs };
                // A writer that comes later begins with a new time.
                let has_writer = has_writer(file.as_fd()).unwrap_or(false);
                return Ok(Hashed { stat: after, record, began, has_writer });
            }
        }
        Err(ContextError::Changed(path.clone()))
    }
}

impl Stat {
    pub(super) fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?.into())
    }

    /// The state of a name in a directory; `None` if it is gone.
    pub(super) fn in_directory(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Self>> {
        match statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Ok(found) => Ok(Some(found.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What it becomes in an image; `None` for a regular file, whose content is not known yet. `target` is that of a
    /// symbolic link.
    pub(super) fn node(&self, target: Option<&[u8]>) -> Option<Node> {
        let (major, minor) = self.device_number;
        Some(match self.kind {
            FileType::RegularFile => return None,
            FileType::Directory => Node::Directory { opaque: false },
            FileType::Symlink => Node::Symlink { target: target.unwrap_or_default().to_vec() },
            FileType::Fifo => Node::Fifo,
            FileType::CharacterDevice => Node::CharDevice { major, minor },
            FileType::BlockDevice => Node::BlockDevice { major, minor },
            // A socket means nothing in an image; BuildKit makes it an empty file.
            FileType::Socket | FileType::Unknown => Node::File { size: 0, content: ContentDigest::of(b""), link: 0 },
        })
    }
}

impl From<Statx> for Stat {
    fn from(found: Statx) -> Self {
        let time = |time: StatxTimestamp| Time { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
        Self {
            kind: FileType::from_raw_mode(found.stx_mode.into()),
            mode: u32::from(found.stx_mode) & 0o7777,
            links: found.stx_nlink,
            device_number: (found.stx_rdev_major, found.stx_rdev_minor),
            stamp: Stamp {
                device: u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor),
                inode: found.stx_ino,
                size: found.stx_size,
                modified: time(found.stx_mtime),
                changed: time(found.stx_ctime),
            },
        }
    }
}

/// The names in a directory with their kinds, sorted.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    spans: Vec<(Range<usize>, FileType)>,
}

impl Names {
    pub(super) fn of(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        let mut names = Self::default();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name, entry.file_type());
            }
        }
        let Self { bytes, spans } = &mut names;
        spans.sort_unstable_by(|a, b| bytes[a.0.clone()].cmp(&bytes[b.0.clone()]));
        Ok(names)
    }

    /// The names of which one is known.
    pub(super) fn one(name: &[u8], kind: FileType) -> Self {
        let mut names = Self::default();
        names.push(name, kind);
        names
    }

    pub(super) fn push(&mut self, name: &[u8], kind: FileType) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.spans.push((start..self.bytes.len(), kind));
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn get(&self, number: usize) -> (&[u8], FileType) {
        let (range, kind) = &self.spans[number];
        (&self.bytes[range.clone()], *kind)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], FileType)> {
        self.spans.iter().map(|(range, kind)| (&self.bytes[range.clone()], *kind))
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.spans.binary_search_by(|(range, _)| self.bytes[range.clone()].cmp(name)).is_ok()
    }
}

/// The attributes that belong to an image.
pub(super) fn xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    let size = match flistxattr_query(file) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(size) => size,
        Err(error) => return Err(error.into()),
    };
    // Room for what may come between the two calls; a list that still does not fit is an error.
    let mut names = Vec::with_capacity(size + 1024);
    flistxattr(file, rustix::buffer::spare_capacity(&mut names))?;
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| Xattr::belongs_to_image(name)) {
        let mut value = Vec::with_capacity(64 << 10);
        match fgetxattr(file, name, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => {
                value.shrink_to_fit();
                found.push(Xattr { name: name.to_vec(), value });
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}

/// Whether an error says that a path is not there (any more), or is now something else than it was.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].into_iter().any(|gone| errno == Some(gone))
}

fn hash_content(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<(ContentDigest, u64)> {
    buffer.resize(BUFFER, 0);
    let mut hasher = ContentHasher::new();
    let mut length = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok((hasher.finish(), length)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The clock that the kernel stamps files with.
fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Time { seconds: now.tv_sec, nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

fn nanoseconds(time: Time) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
}
