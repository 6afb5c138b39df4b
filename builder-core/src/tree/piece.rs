//! [`Piece`]: some entries of a tree that follow each other, with a digest of their own.
//!
//! Where a piece begins is decided by the path of its first entry alone. So what is changed of a tree changes the pieces
//! that it is in, and the others are those of the tree before: nobody has to hash, compare or copy them.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::parts::Parts;
use crate::rootfs::compare_paths;

/// One path in so many begins a piece: of 50,000 entries about 200 do, each piece with 20 KB.
const SHARE: u64 = 256;

/// There are hard links.
const LINKS: u8 = 1;

/// There are whiteouts or opaque directories.
const TAKES_AWAY: u8 = 2;

/// Length of a row in bytes.
pub(super) const ROW: usize = 4 + 4 + 8 + 1 + 32 + 32;

/// Some entries, encoded, and what is known of them together. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) row: Row,
    /// Of several pieces.
    bytes: Arc<Vec<u8>>,
    /// Where this one begins.
    start: usize,
}

/// What a tree says of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Number of entries.
    pub(super) count: u32,
    /// Length in bytes: the entries, and where each begins.
    length: u32,
    /// Lengths of all files together in bytes, each name of one counted.
    pub(super) sizes: u64,
    flags: u8,
    /// BLAKE3 of the bytes.
    pub(super) digest: [u8; 32],
    /// BLAKE3 of the entries without their times.
    pub(super) timeless: [u8; 32],
}

/// Whether a piece begins with the entry of this path. A change of this is a new version of trees.
pub(super) fn begins(path: &[u8]) -> bool {
    // FNV-1a, and a last multiplication so that the upper bits depend on every byte.
    let hash = path
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> 32 < (1 << 32) / SHARE
}

impl Piece {
    /// The piece at `start`; `None` if there are not so many bytes, or not enough for so many entries.
    pub(super) fn new(row: Row, bytes: &Arc<Vec<u8>>, start: usize) -> Option<Self> {
        let is_whole =
            start.checked_add(row.length as usize)? <= bytes.len() && row.count.checked_mul(4)? <= row.length;
        (is_whole && row.count > 0).then(|| Self { row, bytes: Arc::clone(bytes), start })
    }

    /// All bytes.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.row.length as usize]
    }

    pub(super) fn count(&self) -> usize {
        self.row.count as usize
    }

    /// Length of the entries together.
    fn table(&self) -> usize {
        self.row.length as usize - self.count() * 4
    }

    /// Where an entry begins, and where the last one ends.
    fn offset(&self, index: usize) -> usize {
        if index == self.count() {
            return self.table();
        }
        let at = self.start + self.table() + index * 4;
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes")) as usize
    }

    /// The encodings of some entries.
    pub(super) fn range(&self, range: Range<usize>) -> &[u8] {
        &self.encoded()[self.offset(range.start)..self.offset(range.end)]
    }

    /// The encodings of all entries.
    pub(super) fn entries(&self) -> &[u8] {
        &self.encoded()[..self.table()]
    }

    pub(super) fn path(&self, index: usize) -> &[u8] {
        encoded_path(&self.encoded()[self.offset(index)..])
    }

    /// Number of the first entry whose path is not before `path`.
    pub(super) fn lower_bound(&self, path: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            if compare_paths(self.path(middle), path) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl Row {
    pub(super) fn has_links(&self) -> bool {
        self.flags & LINKS != 0
    }

    pub(super) fn takes_away(&self) -> bool {
        self.flags & TAKES_AWAY != 0
    }

    pub(super) fn length(&self) -> usize {
        self.length as usize
    }

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.sizes.to_le_bytes());
        bytes.push(self.flags);
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&self.timeless);
    }

    pub(super) fn parse(bytes: &[u8; ROW]) -> Self {
        let four = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let digest = |at: usize| bytes[at..at + 32].try_into().expect("32 bytes");
        Self {
            count: four(0),
            length: four(4),
            sizes: u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")),
            flags: bytes[16],
            digest: digest(17),
            timeless: digest(49),
        }
    }
}

/// Writes pieces: entries are appended to `bytes` in order, and each is noted.
pub(super) struct PieceWriter {
    pub(super) bytes: Vec<u8>,
    rows: Vec<(Row, usize)>,
    /// Where the piece at hand begins.
    start: usize,
    offsets: Vec<u32>,
    /// Its entries without their times.
    timeless: Vec<u8>,
    sizes: u64,
    flags: u8,
}

impl PieceWriter {
    /// Makes room for entries, and for the bytes of their encodings.
    pub(super) fn new(entries: usize, size: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(size + entries * 4),
            rows: Vec::new(),
            start: 0,
            offsets: Vec::new(),
            timeless: Vec::new(),
            sizes: 0,
            flags: 0,
        }
    }

    /// Appends an encoding.
    pub(super) fn copy(&mut self, encoded: &[u8]) {
        let start = self.begin(encoded_path(encoded));
        self.bytes.extend_from_slice(encoded);
        self.note(start);
    }

    /// Ends the piece before if one begins with the path; gives where the entry begins that is appended now.
    pub(super) fn begin(&mut self, path: &[u8]) -> usize {
        if begins(path) {
            self.end();
        }
        self.bytes.len()
    }

    /// What was appended from `start` on is an entry.
    pub(super) fn note(&mut self, start: usize) {
        let encoded = &self.bytes[start..];
        let Parts { kind, times, rest, size, link, .. } = Parts::of(encoded);
        let takes_away = kind == b'w' || (kind == b'd' && rest.first() != Some(&0));
        self.flags |= if takes_away { TAKES_AWAY } else { 0 } | if link != 0 { LINKS } else { 0 };
        self.sizes = self.sizes.saturating_add(size);
        self.offsets.push(u32::try_from(start - self.start).expect("a piece is smaller than 4 GiB"));
        self.timeless.extend_from_slice(&encoded[..times.start]);
        self.timeless.extend_from_slice(&encoded[times.end..]);
    }

    fn end(&mut self) {
        if self.offsets.is_empty() {
            return;
        }
        for offset in &self.offsets {
            self.bytes.extend_from_slice(&offset.to_le_bytes());
        }
        let row = Row {
            count: u32::try_from(self.offsets.len()).expect("fewer than 2^32 paths"),
            length: u32::try_from(self.bytes.len() - self.start).expect("a piece is smaller than 4 GiB"),
            sizes: std::mem::take(&mut self.sizes),
            flags: std::mem::take(&mut self.flags),
            digest: *blake3::hash(&self.bytes[self.start..]).as_bytes(),
            timeless: *blake3::hash(&self.timeless).as_bytes(),
        };
        self.rows.push((row, self.start));
        self.start = self.bytes.len();
        self.offsets.clear();
        self.timeless.clear();
    }

    pub(super) fn finish(mut self) -> Vec<Piece> {
        self.end();
        let bytes = Arc::new(self.bytes);
        let piece = |(row, start)| Piece { row, bytes: Arc::clone(&bytes), start };
        self.rows.into_iter().map(piece).collect()
    }
}

/// The path that the encoding of an entry begins with.
fn encoded_path(encoded: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_le_bytes([encoded[0], encoded[1]]));
    &encoded[2..2 + length]
}
