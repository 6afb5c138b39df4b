//! [`TreeBuilder`]: from entries to a [`Tree`].

use std::collections::HashMap;

use super::PieceWriter;
use crate::rootfs::RootPath;
use crate::tree::{Entry, Node, Tree};

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
        let mut writer = PieceWriter::new(items.len(), items.len() * 128);
        for item in items {
            let entry: &Entry = entry(item);
            let start = writer.begin(entry.path.as_bytes());
            encode(entry, &mut writer.bytes);
            writer.note(start);
        }
        Self::of_pieces(writer.finish(), None)
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

/// Appends the encoding of an entry.
fn encode(entry: &Entry, bytes: &mut Vec<u8>) {
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
}
