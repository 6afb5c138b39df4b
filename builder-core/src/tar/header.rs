//! [`Header`]: what an archive says about one file.

/// One file of an archive, with everything that extended headers said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Path, as it is written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a hard or symbolic link, as it is written.
    pub link: Vec<u8>,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Length of the file in bytes.
    pub size: u64,
    /// Where the bytes of a sparse file belong, as offset and length: ascending, inside `size`. The rest is holes.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes (`SCHILY.xattr.`), sorted, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header {
    /// A header with nothing but path and kind.
    pub fn new(path: Vec<u8>, kind: Kind) -> Self {
        Self {
            path,
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            sparse: None,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// How many bytes of content follow in the archive.
    pub fn stored(&self) -> u64 {
        match &self.sparse {
            Some(map) => map.iter().map(|(_, length)| length).sum(),
            None => self.size,
        }
    }
}

/// What an archived file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// Whether these bytes begin with the header of a file: POSIX.1-1988 ustar, where the checksum is the sum of all bytes,
/// its own taken as blanks.
pub fn is_header(bytes: &[u8]) -> bool {
    let Some(block) = bytes.first_chunk::<{ super::BLOCK }>() else { return false };
    let field = &block[148..156];
    let digits: Vec<u8> = field.iter().copied().filter(|byte| (b'0'..=b'7').contains(byte)).collect();
    let Some(expected) = std::str::from_utf8(&digits).ok().and_then(|text| u64::from_str_radix(text, 8).ok()) else {
        return false;
    };
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = field.iter().map(|byte| u64::from(*byte)).sum();
    block[0] != 0 && sum - own + 8 * u64::from(b' ') == expected
}
