//! [`Entry`]: everything that a layer says about one path.

use super::ContentDigest;
use crate::rootfs::RootPath;

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: RootPath,
    /// What.
    pub node: Node,
    /// Permission bits, at most `0o7777`; `0o777` for symbolic links, 0 for whiteouts.
    pub mode: u32,
    /// Owner, as a number inside the image.
    pub uid: u32,
    /// Group, as a number inside the image.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Extended attributes that belong to the image, sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory; an opaque one hides what lower layers have in it.
    Directory {
        /// Whether lower layers are hidden.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Digest of the bytes.
        content: ContentDigest,
        /// Hard links: paths of one tree with the same number are one file. 0 is a file with one name. Numbers are
        /// given anew by the builder, in order of the first path.
        link: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as stored.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A path that lower layers have and this one removes.
    Whiteout,
}

impl Node {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// Whether it is a regular file with other names in its tree.
    pub fn is_linked(&self) -> bool {
        matches!(self, Self::File { link: 1.., .. })
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

/// A point in time as file systems keep it: seconds since 1970 (negative before), and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds since 1970-01-01 UTC, rounded down.
    pub seconds: i64,
    /// The rest, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Time {
    /// A whole second.
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// An extended attribute (`xattr(7)`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Name with its namespace, `security.capability`.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

impl Xattr {
    /// Whether an attribute belongs to an image: `user.*` except overlayfs' own, file capabilities, POSIX ACLs.
    ///
    /// The rest is control data of the host or of overlayfs and never enters or leaves a layer (invariant E-8).
    pub fn belongs_to_image(name: &[u8]) -> bool {
        match name {
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
            _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
        }
    }
}

impl Entry {
    /// A directory with mode and owner and nothing else.
    pub fn directory(path: RootPath, mode: u32, uid: u32, gid: u32, mtime: Time) -> Self {
        Self { path, node: Node::Directory { opaque: false }, mode, uid, gid, mtime, xattrs: Vec::new() }
    }

    /// A whiteout of `path`.
    pub fn whiteout(path: RootPath) -> Self {
        Self { path, node: Node::Whiteout, mode: 0, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
    }

    /// Whether two entries say the same apart from their times and the numbers of their link groups.
    pub fn same_without_times(&self, other: &Self) -> bool {
        let node = |node: &Node| match node {
            Node::File { size, content, .. } => Node::File { size: *size, content: *content, link: 0 },
            other => other.clone(),
        };
        self.path == other.path
            && node(&self.node) == node(&other.node)
            && (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
            && self.xattrs == other.xattrs
    }
}
