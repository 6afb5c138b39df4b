//! How an [`Entry`] lies on disk: overlayfs' whiteouts and opaque directories, and metadata in the order that survives.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::Timespec;
use rustix::io::Errno;

use crate::rootfs::{self, Directory, Kind, RootPath, Stat};
use crate::tree::{ContentDigest, ContentHasher, Entry, Node, Time, Xattr};

/// Where overlayfs keeps its own attributes: in `trusted.` or, mounted with `userxattr` in a user namespace, in `user.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `trusted.overlay.*`, which needs `CAP_SYS_ADMIN` in the first user namespace.
    Trusted,
    /// `user.overlay.*`.
    User,
}

impl Dialect {
    /// Finds out which of the two this process may write, by writing to `directory`. Reading does not tell: without
    /// privilege `trusted.` attributes look as if they were not there.
    pub(crate) fn detect(directory: &Directory) -> Self {
        match rootfs::set_xattr(directory, b"trusted.overlay.probe", b"y") {
            Ok(()) => Self::Trusted,
            Err(_) => Self::User,
        }
    }

    fn opaque(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.opaque",
            Self::User => b"user.overlay.opaque",
        }
    }
}

/// What overlayfs' own marks say about an entry of an upper directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlaid {
    /// Nothing.
    Plain,
    /// Lower layers are hidden.
    Opaque,
    /// The entry is a whiteout.
    Whiteout,
}

/// Reads overlayfs' marks in every dialect: device 0/0; `overlay.whiteout` on an empty file; `overlay.opaque` = `y`.
/// (`x` says only that there are whiteouts of the second kind inside.)
pub(crate) fn overlaid(directory: &Directory, name: &[u8], stat: &Stat) -> io::Result<Overlaid> {
    match stat.kind {
        Kind::CharDevice if stat.device == (0, 0) => Ok(Overlaid::Whiteout),
        Kind::File if stat.size == 0 => {
            let marks =
                directory.xattrs(name, |key| matches!(key, b"trusted.overlay.whiteout" | b"user.overlay.whiteout"))?;
            Ok(if marks.is_empty() { Overlaid::Plain } else { Overlaid::Whiteout })
        }
        Kind::Directory => {
            let marks =
                directory.xattrs(name, |key| matches!(key, b"trusted.overlay.opaque" | b"user.overlay.opaque"))?;
            let opaque = marks.iter().any(|(_, value)| value == b"y");
            Ok(if opaque { Overlaid::Opaque } else { Overlaid::Plain })
        }
        _ => Ok(Overlaid::Plain),
    }
}

/// Makes a whiteout.
pub(crate) fn make_whiteout(directory: &Directory, name: &[u8]) -> io::Result<()> {
    directory.make_node(name, Kind::CharDevice, (0, 0))
}

/// Marks an open directory as opaque.
pub(crate) fn set_opaque(directory: impl AsFd, dialect: Dialect) -> io::Result<()> {
    rootfs::set_xattr(directory, dialect.opaque(), b"y")
}

/// Takes the mark away, in both dialects.
pub(crate) fn clear_opaque(directory: impl AsFd) -> io::Result<()> {
    for dialect in [Dialect::Trusted, Dialect::User] {
        match rustix::fs::fremovexattr(directory.as_fd(), dialect.opaque()) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes the entry itself, without metadata, if it is neither a directory nor a regular file.
///
/// Says whether the kernel took it as it is: a device that must not be made is an empty file instead.
pub(crate) fn create_node(directory: &Directory, name: &[u8], node: &Node) -> io::Result<bool> {
    let made = match node {
        Node::Symlink { target } => directory.symlink(target, name),
        Node::Fifo => directory.make_node(name, Kind::Fifo, (0, 0)),
        Node::CharDevice { major, minor } => directory.make_node(name, Kind::CharDevice, (*major, *minor)),
        Node::BlockDevice { major, minor } => directory.make_node(name, Kind::BlockDevice, (*major, *minor)),
        Node::Whiteout => make_whiteout(directory, name),
        Node::Directory { .. } | Node::File { .. } => Err(Errno::INVAL.into()),
    };
    match made {
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && matches!(node, Node::CharDevice { .. } | Node::BlockDevice { .. }) =>
        {
            directory.create_file(name)?;
            Ok(false)
        }
        made => made.map(|()| true),
    }
}

/// A refusal that leaves the fact in the tree only: a user namespace has no such owner or forbids such an attribute.
fn kept_in_tree(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PERM | Errno::INVAL | Errno::NOTSUP)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Sets owner, mode, xattrs and times of an open file or directory, in this order: a chown takes setuid bits and file
/// capabilities away. Says whether the kernel took all of it.
pub(crate) fn set_metadata_of(file: impl AsFd, entry: &Entry) -> io::Result<bool> {
    let file = file.as_fd();
    let mut exact = kept_in_tree(rootfs::set_owner(file, entry.uid, entry.gid))?;
    rootfs::set_mode(file, entry.mode)?;
    for xattr in &entry.xattrs {
        exact &= kept_in_tree(rootfs::set_xattr(file, &xattr.name, &xattr.value))?;
    }
    rootfs::set_times(file, timespec(entry.mtime))?;
    Ok(exact)
}

/// As [`set_metadata_of`], for an entry of any kind but a whiteout, by name.
pub(crate) fn set_metadata(directory: &Directory, name: &[u8], entry: &Entry) -> io::Result<bool> {
    match entry.node {
        Node::Directory { .. } => return set_metadata_of(directory.open_dir(name)?, entry),
        Node::Whiteout => return Ok(true),
        _ => {}
    }
    let mut exact = kept_in_tree(directory.set_owner(name, entry.uid, entry.gid))?;
    if !matches!(entry.node, Node::Symlink { .. }) {
        directory.set_mode(name, entry.mode)?;
    }
    for xattr in &entry.xattrs {
        exact &= kept_in_tree(directory.set_xattr(name, &xattr.name, &xattr.value))?;
    }
    directory.set_mtime(name, timespec(entry.mtime))?;
    Ok(exact)
}

/// Sets the time of an open file or directory.
pub(crate) fn set_mtime(file: impl AsFd, mtime: Time) -> io::Result<()> {
    rootfs::set_times(file, timespec(mtime))
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
}

/// Reads what the disk says about an entry. The digest of a file is left zero; `None` for a socket.
pub(crate) fn read_entry(directory: &Directory, name: &[u8], path: RootPath, stat: &Stat) -> io::Result<Option<Entry>> {
    let (major, minor) = stat.device;
    let node = match stat.kind {
        Kind::Directory => Node::Directory { opaque: false },
        Kind::File => Node::File { size: stat.size, content: ContentDigest::new([0; 32]), link: 0 },
        Kind::Symlink => Node::Symlink { target: directory.read_link(name)? },
        Kind::CharDevice => Node::CharDevice { major, minor },
        Kind::BlockDevice => Node::BlockDevice { major, minor },
        Kind::Fifo => Node::Fifo,
        Kind::Socket => return Ok(None),
    };
    let xattrs = directory.xattrs(name, Xattr::belongs_to_image)?;
    let xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
    let nanoseconds = u32::try_from(stat.mtime.tv_nsec).unwrap_or(0);
    let mtime = Time { seconds: stat.mtime.tv_sec, nanoseconds };
    let mode = if stat.kind == Kind::Symlink { 0o777 } else { stat.mode };
    Ok(Some(Entry { path, node, mode, uid: stat.uid, gid: stat.gid, mtime, xattrs }))
}

/// Size of the pieces in which files are read: large enough for BLAKE3's widest kernels, small enough for the L2 cache.
const PIECE: usize = 128 * 1024;

/// Reads a file to its end; gives its length and digest.
pub(crate) fn hash_file(mut file: &File) -> io::Result<(u64, ContentDigest)> {
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; PIECE];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hasher.finish())),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                size += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
