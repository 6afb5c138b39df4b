//! [`Tree`]: the encoding of a layer's entries, and [`TreeBuilder`] that writes it.
//!
//! The format, version 2, all numbers little-endian:
//!
//! ```text
//! "rbtree2\n"  number of pieces (4)
//! piece:  number of entries (4)  length (4)  lengths of its files together (8)  hard links 1 | takes away 2 (1)
//!         BLAKE3 of it (32)  BLAKE3 of its entries without their times (32)                    × number of pieces
//! piece × number of pieces:
//!     entry × number of entries, sorted by path:
//!         path length (2)  path  kind (1)  mode (4)  uid (4)  gid (4)  mtime seconds (8)  mtime nanoseconds (4)
//!         file: size (8)  content digest (32)  link (4)        directory: opaque (1)
//!         symlink: target length (2)  target                   device: major (4)  minor (4)
//!         xattr count (2), each: name length (2)  name  value length (4)  value
//!     offset of each entry in the piece (4 × number of entries)
//! ```
//!
//! A piece begins with the first entry, and with each whose path says so ([`begins`](super::piece::begins)). The id of the
//! tree is the digest of everything before the first piece, its semantic digest that of the digests without times.

mod load;
mod write;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::parts::Parts;
use super::piece::{Piece, PieceWriter, ROW, Row};
use super::{ContentDigest, Entry, Node, SemanticDigest, Time, TreeId, Xattr};
use crate::reader::Reader;
use crate::rootfs::{RootPath, compare_paths};
pub use write::{TreeBuilder, sort_keeping_last};

const MAGIC: &[u8; 8] = b"rbtree2\n";
const HEADER: usize = 8 + 4;

/// What an entry takes in a file system besides the bytes of its file.
const BLOCK: u64 = 4096;

/// What one layer changes: its entries, sorted by path. Cloning is cheap.
#[derive(Clone)]
pub struct Tree {
    inner: Arc<Inner>,
}

struct Inner {
    pieces: Vec<Piece>,
    /// Number of entries up to the end of each piece.
    ends: Vec<usize>,
    id: TreeId,
    semantic: SemanticDigest,
    content_size: OnceLock<u64>,
    /// The tree that it was patched from.
    origin: Option<TreeId>,
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
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

impl TreeError {
    const SHORT: Self = Self::Malformed("it is too short");
    const LONG: Self = Self::Malformed("it is too long");
}

impl Tree {
    /// The tree of a layer that changes nothing.
    pub fn empty() -> Self {
        TreeBuilder::new().finish()
    }

    /// Reads bytes; the pieces are not looked at.
    fn from_bytes(bytes: Vec<u8>) -> Result<Self, TreeError> {
        let (head, rest) = bytes.split_first_chunk().ok_or(TreeError::SHORT)?;
        let length = count(head)?.checked_mul(ROW).ok_or(TreeError::SHORT)?;
        let rows = rows(rest.get(..length).ok_or(TreeError::SHORT)?);
        let known = vec![None; rows.len()];
        Self::assembled(&rows, known, bytes, HEADER + length)
    }

    /// The tree with these pieces: those that are known, and the others from `start` to the end of the bytes.
    fn assembled(rows: &[Row], known: Vec<Option<Piece>>, bytes: Vec<u8>, start: usize) -> Result<Self, TreeError> {
        let (bytes, mut at) = (Arc::new(bytes), start);
        let mut pieces = Vec::with_capacity(rows.len());
        for (row, known) in rows.iter().zip(known) {
            pieces.push(if let Some(known) = known {
                known
            } else {
                let piece = Piece::new(*row, &bytes, at).ok_or(TreeError::SHORT)?;
                at += row.length();
                piece
            });
        }
        if at == bytes.len() { Ok(Self::of_pieces(pieces, None)) } else { Err(TreeError::LONG) }
    }

    /// `origin` is the tree that most of the pieces are from.
    pub(super) fn of_pieces(pieces: Vec<Piece>, origin: Option<TreeId>) -> Self {
        let mut semantic = blake3::Hasher::new();
        let mut ends = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            semantic.update(&piece.row.timeless);
            ends.push(ends.last().copied().unwrap_or_default() + piece.count());
        }
        let id = TreeId::new(*blake3::hash(&head(&pieces)).as_bytes());
        let semantic = SemanticDigest::new(*semantic.finalize().as_bytes());
        Self { inner: Arc::new(Inner { pieces, ends, id, semantic, content_size: OnceLock::new(), origin }) }
    }

    /// Reads bytes from outside: every entry is decoded, the order and all digests are checked.
    ///
    /// # Errors
    /// [`TreeError::Malformed`] for anything that [`TreeBuilder`] would not have written.
    pub fn parse_untrusted(bytes: Vec<u8>) -> Result<Self, TreeError> {
        let tree = Self::from_bytes(bytes)?;
        let mut builder = TreeBuilder::new();
        for piece in tree.pieces() {
            // One after the other, whatever is said of where they begin: so no byte becomes part of two entries.
            let mut reader = Reader { bytes: piece.entries() };
            for _ in 0..piece.count() {
                builder.push(reader.entry().ok_or(TreeError::Malformed("an entry is cut off"))?);
            }
        }
        let normal = builder.finish();
        let same = |(one, other): (&Piece, &Piece)| one.row == other.row && one.encoded() == other.encoded();
        if normal.pieces().len() != tree.pieces().len() || !normal.pieces().iter().zip(tree.pieces()).all(same) {
            return Err(TreeError::Malformed("it is not in its normal form"));
        }
        Ok(tree)
    }

    /// The encoding up to the first piece.
    pub(super) fn head(&self) -> Vec<u8> {
        head(self.pieces())
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.extend_from_slice(&self.head());
        for piece in self.pieces() {
            bytes.extend_from_slice(piece.encoded());
        }
        bytes
    }

    /// Length of the encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        HEADER + self.pieces().iter().map(|piece| ROW + piece.row.length()).sum::<usize>()
    }

    /// Digest of the encoding, times included.
    pub fn id(&self) -> TreeId {
        self.inner.id
    }

    /// Digest of everything but times.
    pub fn semantic(&self) -> SemanticDigest {
        self.inner.semantic
    }

    /// The tree that it was patched from.
    pub(super) fn origin(&self) -> Option<TreeId> {
        self.inner.origin
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.inner.pieces
    }

    /// Sum of the sizes of all regular files in bytes, each link group counted once.
    pub fn content_size(&self) -> u64 {
        *self.inner.content_size.get_or_init(|| {
            if !self.has_links() {
                return self.pieces().iter().fold(0, |sum, piece| sum.saturating_add(piece.row.sizes));
            }
            let mut groups = HashSet::new();
            let sizes = (0..self.len()).filter_map(|index| self.file_size(index));
            let counted = sizes.filter(|(_, link)| *link == 0 || groups.insert(*link));
            counted.fold(0, |sum, (size, _)| sum.saturating_add(size))
        })
    }

    /// Whether there are hard links.
    pub fn has_links(&self) -> bool {
        self.pieces().iter().any(|piece| piece.row.has_links())
    }

    /// Whether it takes nothing away from lower layers: no whiteout, no opaque directory.
    pub fn only_adds(&self) -> bool {
        !self.pieces().iter().any(|piece| piece.row.takes_away())
    }

    /// About what it takes to write the tree out: the bytes of its files, and a block for each entry.
    pub fn weight(&self) -> u64 {
        self.content_size().saturating_add(BLOCK * self.len() as u64)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.inner.ends.last().copied().unwrap_or_default()
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.pieces().is_empty()
    }

    /// All entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry> + '_ {
        (0..self.len()).map(|index| self.entry(index))
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
        (index < self.len() && self.path(index) == path.as_bytes()).then_some(index)
    }

    fn range(&self, directory: &RootPath) -> Range<usize> {
        if directory.is_root() {
            return 0..self.len();
        }
        let start = self.lower_bound(directory.as_bytes());
        // `\0` cannot be in a path, and as a rank it follows `/`: it is the end of everything below.
        let end = self.lower_bound(&[directory.as_bytes(), b"\0"].concat());
        start..end
    }

    /// Index of the first entry whose path is not before `path`.
    pub(super) fn lower_bound(&self, path: &[u8]) -> usize {
        let after = self.pieces().partition_point(|piece| compare_paths(piece.path(0), path).is_lt());
        // It is in the last piece that begins before it, or the first of the next one.
        let Some(last) = after.checked_sub(1) else { return 0 };
        self.start_of(last) + self.pieces()[last].lower_bound(path)
    }

    /// Number of the first entry of a piece.
    pub(super) fn start_of(&self, piece: usize) -> usize {
        piece.checked_sub(1).map_or(0, |before| self.inner.ends[before])
    }

    /// Number of the piece that an entry is in, and of the entry there.
    pub(super) fn place(&self, index: usize) -> (usize, usize) {
        let piece = self.inner.ends.partition_point(|end| *end <= index);
        (piece, index - self.start_of(piece))
    }

    /// The encoding of one entry.
    pub(super) fn encoded(&self, index: usize) -> &[u8] {
        let (piece, index) = self.place(index);
        self.pieces()[piece].range(index..index + 1)
    }

    pub(super) fn path(&self, index: usize) -> &[u8] {
        let (piece, index) = self.place(index);
        self.pieces()[piece].path(index)
    }

    /// The entry with this number, in order.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn entry(&self, index: usize) -> Entry {
        Reader { bytes: self.encoded(index) }.entry().expect("the digest of the tree was checked")
    }

    /// The pieces that it is kept in, in order: together they have all entries.
    pub fn piece_views(&self) -> impl Iterator<Item = PieceView<'_>> {
        self.pieces().iter().enumerate().map(|(number, piece)| PieceView { first: self.start_of(number), piece })
    }
}

/// Entries of a tree that follow each other, with a digest of their own.
#[derive(Debug)]
pub struct PieceView<'a> {
    first: usize,
    piece: &'a Piece,
}

impl PieceView<'_> {
    /// Numbers of the entries.
    pub fn entries(&self) -> Range<usize> {
        self.first..self.first + self.piece.count()
    }

    /// Digest of the encodings of all of them, times included.
    pub fn digest(&self) -> &[u8; 32] {
        &self.piece.row.digest
    }

    /// Lengths of all files together in bytes, each name of a file counted.
    pub fn sizes(&self) -> u64 {
        self.piece.row.sizes
    }

    /// The encodings of some of them, by their numbers in the tree.
    ///
    /// # Panics
    /// If one is not among them.
    pub fn encoded(&self, entries: Range<usize>) -> &[u8] {
        self.piece.range(entries.start - self.first..entries.end - self.first)
    }
}

/// The number of pieces that the beginning of an encoding says.
fn count(head: &[u8; HEADER]) -> Result<usize, TreeError> {
    let count = head.strip_prefix(MAGIC).ok_or(TreeError::Malformed("it has no known version"))?;
    Ok(u32::from_le_bytes(count.try_into().expect("four bytes")) as usize)
}

/// What is said of each piece.
fn rows(bytes: &[u8]) -> Vec<Row> {
    bytes.as_chunks::<ROW>().0.iter().map(Row::parse).collect()
}

/// What is before the pieces.
fn head(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + pieces.len() * ROW);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&u32::try_from(pieces.len()).expect("fewer than 2^32 paths").to_le_bytes());
    for piece in pieces {
        piece.row.encode(&mut bytes);
    }
    bytes
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
