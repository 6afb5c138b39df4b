//! [`Tree`]: the encoding of a layer's entries, and [`TreeBuilder`] that writes it.
//!
//! The format, version 1, all numbers little-endian:
//!
//! ```text
//! "rbtree1\n"  semantic digest (32)  count (4)
//! entry × count, sorted by path:
//!     path length (2)  path  kind (1)  mode (4)  uid (4)  gid (4)  mtime seconds (8)  mtime nanoseconds (4)
//!     file: size (8)  content digest (32)  link (4)        directory: opaque (1)
//!     symlink: target length (2)  target                   device: major (4)  minor (4)
//!     xattr count (2), each: name length (2)  name  value length (4)  value
//! offset of each entry (4 × count)
//! ```

mod write;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::parts::{Facts, Parts};
use super::{ContentDigest, Entry, Node, SemanticDigest, Time, TreeId, Xattr};
use crate::reader::Reader;
use crate::rootfs::{RootPath, compare_paths};
pub(super) use write::Writer;
pub use write::{TreeBuilder, sort_keeping_last};

const MAGIC: &[u8; 8] = b"rbtree1\n";
const HEADER: usize = 8 + 32 + 4;

/// What an entry takes in a file system besides the bytes of its file.
const BLOCK: u64 = 4096;

/// What one layer changes: its entries, sorted by path. Cloning is cheap.
#[derive(Clone)]
pub struct Tree {
    /// Not a slice: the bytes would have to be copied into it.
    bytes: Arc<Vec<u8>>,
    count: usize,
    /// Where the offset table starts.
    table: usize,
    /// Computed when it is first asked for: a tree may have megabytes.
    id: Arc<OnceLock<TreeId>>,
    facts: Arc<OnceLock<Facts>>,
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Tree {}

/// Stored bytes that are not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The digest of the bytes is not the one that they are stored under.
    #[error("tree {expected} is damaged: its content has digest {actual}")]
    DigestMismatch {
        /// The name.
        expected: TreeId,
        /// The digest found.
        actual: TreeId,
    },
    /// The bytes break the format.
    #[error("tree is malformed: {0}")]
    Malformed(&'static str),
}

impl Tree {
    /// The tree of a layer that changes nothing.
    pub fn empty() -> Self {
        TreeBuilder::new().finish()
    }

    /// Reads a stored tree and checks it against its name.
    ///
    /// # Errors
    /// [`TreeError::DigestMismatch`] for damaged bytes.
    pub fn open(bytes: Vec<u8>, id: &TreeId) -> Result<Self, TreeError> {
        let actual = TreeId::new(*blake3::hash(&bytes).as_bytes());
        if actual != *id {
            return Err(TreeError::DigestMismatch { expected: *id, actual });
        }
        let tree = Self::from_bytes(bytes)?;
        Ok(Self { id: Arc::new(OnceLock::from(actual)), ..tree })
    }

    /// Reads bytes that this program wrote and whose digest was checked.
    fn from_bytes(bytes: Vec<u8>) -> Result<Self, TreeError> {
        let short = TreeError::Malformed("it is too short");
        if bytes.get(..8) != Some(MAGIC) {
            return Err(TreeError::Malformed("it has no known version"));
        }
        let count: [u8; 4] = bytes.get(40..HEADER).and_then(|four| four.try_into().ok()).ok_or(short.clone())?;
        let count = u32::from_le_bytes(count) as usize;
        let table = bytes.len().checked_sub(count * 4).filter(|table| *table >= HEADER).ok_or(short)?;
        Ok(Self { bytes: Arc::new(bytes), count, table, id: Arc::default(), facts: Arc::default() })
    }

    /// Reads bytes from outside: every entry is decoded, the order and the semantic digest are checked.
    ///
    /// # Errors
    /// [`TreeError::Malformed`] for anything that [`TreeBuilder`] would not have written.
    pub fn parse_untrusted(bytes: Vec<u8>) -> Result<Self, TreeError> {
        let tree = Self::from_bytes(bytes)?;
        let mut builder = TreeBuilder::new();
        for index in 0..tree.count {
            let start = tree.offset(index);
            if start < HEADER || start >= tree.table {
                return Err(TreeError::Malformed("an entry lies outside"));
            }
            let mut reader = Reader { bytes: &tree.bytes[start..tree.table] };
            builder.push(reader.entry().ok_or(TreeError::Malformed("an entry is cut off"))?);
        }
        if builder.finish().bytes != tree.bytes {
            return Err(TreeError::Malformed("it is not in its normal form"));
        }
        Ok(tree)
    }

    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Digest of the encoding, times included.
    pub fn id(&self) -> TreeId {
        *self.id.get_or_init(|| TreeId::new(*blake3::hash(&self.bytes).as_bytes()))
    }

    /// Digest of everything but times.
    pub fn semantic(&self) -> SemanticDigest {
        let digest: [u8; 32] = self.bytes[8..40].try_into().expect("the header was checked");
        SemanticDigest::new(digest)
    }

    fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| Facts::of((0..self.count).map(|index| self.encoded(index))))
    }

    /// Sum of the sizes of all regular files in bytes, each link group counted once.
    pub fn content_size(&self) -> u64 {
        self.facts().content_size
    }

    /// Whether there are hard links.
    pub fn has_links(&self) -> bool {
        self.facts().has_links
    }

    /// Whether it takes nothing away from lower layers: no whiteout, no opaque directory.
    pub fn only_adds(&self) -> bool {
        self.facts().only_adds
    }

    /// About what it takes to write the tree out: the bytes of its files, and a block for each entry.
    pub fn weight(&self) -> u64 {
        self.content_size().saturating_add(BLOCK * self.count as u64)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry> + '_ {
        (0..self.count).map(|index| self.entry(index))
    }

    /// The entry of exactly this path.
    pub fn get(&self, path: &RootPath) -> Option<Entry> {
        self.position(path).map(|index| self.entry(index))
    }

    /// The entries of `directory` and below it, in order.
    pub fn below(&self, directory: &RootPath) -> impl ExactSizeIterator<Item = Entry> + '_ {
        self.range(directory).map(|index| self.entry(index))
    }

    /// The entries right in `directory`, in order; what is below them is skipped, not read.
    pub fn children(&self, directory: &RootPath) -> impl Iterator<Item = Entry> + '_ {
        self.child_numbers(directory).map(|index| self.entry(index))
    }

    /// The numbers of the entries right in `directory`, in order.
    pub(super) fn child_numbers(&self, directory: &RootPath) -> impl Iterator<Item = usize> + '_ {
        let Range { mut start, end } = self.range(directory);
        let skip = if directory.is_root() { 0 } else { directory.as_bytes().len() + 1 };
        std::iter::from_fn(move || {
            while start < end {
                let (index, path) = (start, self.path(start));
                let below = path.get(skip..).unwrap_or_default();
                if let Some(name) = below.iter().position(|byte| *byte == b'/') {
                    // Below a child. `\0` as a rank follows `/`: the first entry after it and all that is below it.
                    start = self.lower_bound(&[&path[..skip + name], b"\0"].concat());
                    continue;
                }
                start += 1;
                // The directory itself has nothing left of its path.
                if !below.is_empty() {
                    return Some(index);
                }
            }
            None
        })
    }

    /// Size in bytes and link number of a regular file, without decoding the rest of its entry.
    pub fn file_size(&self, index: usize) -> Option<(u64, u32)> {
        let Parts { kind, size, link, .. } = Parts::of(self.encoded(index));
        (kind == b'f').then_some((size, link))
    }

    /// Number of the entry of exactly this path, in order.
    pub fn position(&self, path: &RootPath) -> Option<usize> {
        let index = self.lower_bound(path.as_bytes());
        (index < self.count && self.path(index) == path.as_bytes()).then_some(index)
    }

    fn range(&self, directory: &RootPath) -> Range<usize> {
        if directory.is_root() {
            return 0..self.count;
        }
        let start = self.lower_bound(directory.as_bytes());
        // `\0` cannot be in a path, and as a rank it follows `/`: it is the end of everything below.
        let end = self.lower_bound(&[directory.as_bytes(), b"\0"].concat());
        start..end
    }

    /// Index of the first entry whose path is not before `path`.
    pub(super) fn lower_bound(&self, path: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if compare_paths(self.path(middle), path).is_lt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn offset(&self, index: usize) -> usize {
        let at = self.table + index * 4;
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes")) as usize
    }

    /// The encoding of one entry.
    pub(super) fn encoded(&self, index: usize) -> &[u8] {
        self.encoded_range(index..index + 1)
    }

    /// The encoding of some entries, by their numbers in order.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn encoded_range(&self, range: Range<usize>) -> &[u8] {
        let at = |index| if index < self.count { self.offset(index) } else { self.table };
        &self.bytes[at(range.start)..at(range.end)]
    }

    pub(super) fn path(&self, index: usize) -> &[u8] {
        let start = self.offset(index);
        let length = usize::from(u16::from_le_bytes([self.bytes[start], self.bytes[start + 1]]));
        &self.bytes[start + 2..start + 2 + length]
    }

    /// The entry with this number, in order.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn entry(&self, index: usize) -> Entry {
        let mut reader = Reader { bytes: &self.bytes[self.offset(index)..self.table] };
        reader.entry().expect("the digest of the tree was checked")
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<usize> {
        self.array().map(|bytes| usize::from(u16::from_le_bytes(bytes)))
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn entry(&mut self) -> Option<Entry> {
        let length = self.u16()?;
        let path = RootPath::from_clean(self.take(length)?)?;
        let kind = self.u8()?;
        let (mode, uid, gid) = (self.u32()?, self.u32()?, self.u32()?);
        let mtime = Time { seconds: i64::from_le_bytes(self.array()?), nanoseconds: self.u32()? };
        let node = match kind {
            b'd' => Node::Directory { opaque: self.u8()? != 0 },
            b'f' => Node::File {
                size: u64::from_le_bytes(self.array()?),
                content: ContentDigest::new(self.array()?),
                link: self.u32()?,
            },
            b'l' => {
                let length = self.u16()?;
                Node::Symlink { target: self.take(length)?.to_vec() }
            }
            b'c' => Node::CharDevice { major: self.u32()?, minor: self.u32()? },
            b'b' => Node::BlockDevice { major: self.u32()?, minor: self.u32()? },
            b'p' => Node::Fifo,
            b'w' => Node::Whiteout,
            _ => return None,
        };
        let mut xattrs = Vec::new();
        for _ in 0..self.u16()? {
            let length = self.u16()?;
            let name = self.take(length)?.to_vec();
            let length = self.u32()? as usize;
            xattrs.push(Xattr { name, value: self.take(length)?.to_vec() });
        }
        Some(Entry { path, node, mode, uid, gid, mtime, xattrs })
    }
}
