//! [`TreeBuilder`]: from entries to a [`Tree`].

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{HEADER, MAGIC};
use crate::rootfs::RootPath;
use crate::tree::{Entry, Node, Tree};

/// Bytes; what BLAKE3 hashes side by side at most, times four.
const HASHED_AT_ONCE: usize = 64 << 10;

/// Collects entries in any order and writes the tree. A path that comes twice keeps its last entry.
#[derive(Debug, Clone, Default)]
pub struct TreeBuilder {
    entries: Vec<Entry>,
}

impl TreeBuilder {
    /// Starts with no entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. Files with the same nonzero `link` number become hard links of each other.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Sorts and encodes.
    pub fn finish(mut self) -> Tree {
        sort_keeping_last(&mut self.entries, |entry| &entry.path);
        Tree::of_sorted(&mut self.entries, |entry| entry)
    }
}

/// Sorts items by path; of those with equal paths the last one stays.
pub fn sort_keeping_last<T>(items: &mut Vec<T>, path: impl Fn(&T) -> &RootPath) {
    if items.is_sorted_by(|a, b| path(a) < path(b)) {
        return;
    }
    // Stable, so of equal paths the last one comes last.
    items.sort_by(|a, b| path(a).cmp(path(b)));
    items.dedup_by(|later, earlier| {
        let same = path(later) == path(earlier);
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
}

impl Tree {
    /// Encodes entries where they are, which `entry` finds in each item: sorted by path, each path once. They get the form
    /// that every tree has: sorted attributes, numbers of link groups in order, no number for a file with one name.
    pub fn of_sorted<T>(items: &mut [T], entry: impl Fn(&mut T) -> &mut Entry) -> Self {
        normalise(items, &entry);
        let mut writer = Writer::new(items.len(), items.len() * 128);
        for item in items {
            let start = writer.bytes.len();
            let times = encode(entry(item), &mut writer.bytes);
            writer.note(start, times);
        }
        writer.finish()
    }
}

/// Writes a tree: entries are appended to `bytes` in order, and each is noted.
pub(in crate::tree) struct Writer {
    pub(in crate::tree) bytes: Vec<u8>,
    offsets: Vec<u32>,
    semantic: blake3::Hasher,
    /// Hashed in large pieces: that takes a quarter of the time of small ones.
    timeless: Vec<u8>,
}

impl Writer {
    /// Makes room for entries, and for the bytes of their encodings.
    pub(in crate::tree) fn new(entries: usize, size: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + size + entries * 4);
        bytes.extend_from_slice(MAGIC);
        bytes.resize(HEADER, 0);
        let timeless = Vec::with_capacity(2 * HASHED_AT_ONCE);
        Self { bytes, offsets: Vec::with_capacity(entries), semantic: blake3::Hasher::new(), timeless }
    }

    /// The entry that begins at `start` and ends with the bytes has its times there.
    fn note(&mut self, start: usize, times: Range<usize>) {
        self.note_within(start..self.bytes.len(), times);
    }

    /// The same for an entry that others follow already.
    pub(in crate::tree) fn note_within(&mut self, entry: Range<usize>, times: Range<usize>) {
        self.offsets.push(u32::try_from(entry.start).expect("a tree is smaller than 4 GiB"));
        self.timeless.extend_from_slice(&self.bytes[entry.start..times.start]);
        self.timeless.extend_from_slice(&self.bytes[times.end..entry.end]);
        if self.timeless.len() >= HASHED_AT_ONCE {
            self.semantic.update(&self.timeless);
            self.timeless.clear();
        }
    }

    pub(in crate::tree) fn finish(self) -> Tree {
        let Self { mut bytes, offsets, mut semantic, timeless } = self;
        semantic.update(&timeless);
        let table = bytes.len();
        for offset in &offsets {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes[8..40].copy_from_slice(semantic.finalize().as_bytes());
        let count = u32::try_from(offsets.len()).expect("fewer than 2^32 paths");
        bytes[40..HEADER].copy_from_slice(&count.to_le_bytes());
        Tree { bytes: Arc::new(bytes), count: offsets.len(), table, id: Arc::default(), facts: Arc::default() }
    }
}

fn normalise<T>(items: &mut [T], entry: &impl Fn(&mut T) -> &mut Entry) {
    let mut members: HashMap<u32, u32> = HashMap::new();
    for item in &mut *items {
        if let Node::File { link, .. } = entry(item).node
            && link != 0
        {
            *members.entry(link).or_default() += 1;
        }
    }
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    for item in items {
        let entry = entry(item);
        entry.xattrs.sort();
        match &mut entry.node {
            Node::File { link, .. } if *link != 0 => {
                let next = u32::try_from(numbers.len()).expect("fewer than 2^32 paths") + 1;
                *link = if members[link] > 1 { *numbers.entry(*link).or_insert(next) } else { 0 };
            }
            Node::Symlink { .. } => entry.mode = 0o777,
            Node::Whiteout => *entry = Entry::whiteout(std::mem::take(&mut entry.path)),
            _ => {}
        }
    }
}

/// Appends the encoding of an entry; returns where its times are.
fn encode(entry: &Entry, bytes: &mut Vec<u8>) -> Range<usize> {
    let short = |length: usize| u16::try_from(length).expect("bounded by PATH_MAX and the xattr limits").to_le_bytes();
    bytes.extend_from_slice(&short(entry.path.as_bytes().len()));
    bytes.extend_from_slice(entry.path.as_bytes());
    bytes.push(match entry.node {
        Node::Directory { .. } => b'd',
        Node::File { .. } => b'f',
        Node::Symlink { .. } => b'l',
        Node::CharDevice { .. } => b'c',
        Node::BlockDevice { .. } => b'b',
        Node::Fifo => b'p',
        Node::Whiteout => b'w',
    });
    for number in [entry.mode, entry.uid, entry.gid] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let times = bytes.len()..bytes.len() + 12;
    bytes.extend_from_slice(&entry.mtime.seconds.to_le_bytes());
    bytes.extend_from_slice(&entry.mtime.nanoseconds.to_le_bytes());
    match &entry.node {
        Node::Directory { opaque } => bytes.push(u8::from(*opaque)),
        Node::File { size, content, link } => {
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(content.as_bytes());
            bytes.extend_from_slice(&link.to_le_bytes());
        }
        Node::Symlink { target } => {
            bytes.extend_from_slice(&short(target.len()));
            bytes.extend_from_slice(target);
        }
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            bytes.extend_from_slice(&major.to_le_bytes());
            bytes.extend_from_slice(&minor.to_le_bytes());
        }
        Node::Fifo | Node::Whiteout => {}
    }
    bytes.extend_from_slice(&short(entry.xattrs.len()));
    for xattr in &entry.xattrs {
        bytes.extend_from_slice(&short(xattr.name.len()));
        bytes.extend_from_slice(&xattr.name);
        let length = u32::try_from(xattr.value.len()).expect("values are at most 64 KiB (xattr(7))");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&xattr.value);
    }
    times
}
