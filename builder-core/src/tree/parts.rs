//! [`Parts`]: what is asked of the encoding of an entry without decoding it.

use std::ops::Range;

/// The encoding of an entry, cut around the number of its link group.
pub(super) struct Parts<'a> {
    pub(super) kind: u8,
    /// Everything before the number.
    pub(super) head: &'a [u8],
    /// The number; 0 for what is no file.
    pub(super) link: u32,
    /// Where its times are.
    pub(super) times: Range<usize>,
    /// Everything after it.
    pub(super) tail: &'a [u8],
    /// What depends on the kind, and the attributes.
    pub(super) rest: &'a [u8],
    /// Length of a file in bytes.
    pub(super) size: u64,
}

impl<'a> Parts<'a> {
    pub(super) fn of(encoded: &'a [u8]) -> Self {
        let path = usize::from(u16::from_le_bytes([encoded[0], encoded[1]]));
        // Kind, mode, owner and group, time; then of a file size and digest. See `encoding`.
        let times = 2 + path + 1 + 12..2 + path + 1 + 12 + 12;
        let (kind, rest) = (encoded[2 + path], &encoded[times.end..]);
        if kind != b'f' {
            return Self { kind, head: encoded, link: 0, times, tail: &[], rest, size: 0 };
        }
        let (size, after) = rest.split_at(8);
        let (head, tail) = encoded.split_at(encoded.len() - after.len() + 32);
        let (link, tail) = tail.split_at(4);
        let link = u32::from_le_bytes(link.try_into().expect("four bytes"));
        let size = u64::from_le_bytes(size.try_into().expect("eight bytes"));
        Self { kind, head, link, times, tail, rest, size }
    }
}
