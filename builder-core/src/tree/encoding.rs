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

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::{ContentDigest, Entry, Node, SemanticDigest, Time, TreeId, Xattr};
use crate::rootfs::{RootPath, compare_paths};

const MAGIC: &[u8; 8] = b"rbtree1\n";
const HEADER: usize = 8 + 32 + 4;

/// Bytes; what BLAKE3 hashes side by side at most, times four.
const HASHED_AT_ONCE: usize = 64 << 10;

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
        Ok(Self { bytes: Arc::new(bytes), count, table, id: Arc::default() })
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
        let Range { mut start, end } = self.range(directory);
        let skip = if directory.is_root() { 0 } else { directory.as_bytes().len() + 1 };
        std::iter::from_fn(move || {
            while start < end {
                let (index, path) = (start, self.path(start));
                let Some(below) = path.get(skip..).filter(|below| !below.is_empty()) else {
                    // The directory itself.
                    start += 1;
                    continue;
                };
                let name = below.iter().position(|byte| *byte == b'/').unwrap_or(below.len());
                // `\0` as a rank follows `/`: the first entry after the child and all that is below it.
                start = self.lower_bound(&[&path[..skip + name], b"\0"].concat());
                if name == below.len() {
                    return Some(self.entry(index));
                }
            }
            None
        })
    }

    /// Sum of the sizes of all regular files in bytes, each link group counted once.
    pub fn content_size(&self) -> u64 {
        let mut linked = std::collections::HashSet::new();
        (0..self.count)
            .filter_map(|index| self.file_size(index))
            .filter(|(_, link)| *link == 0 || linked.insert(*link))
            .map(|(size, _)| size)
            .sum()
    }

    /// Size in bytes and link number of a regular file, without decoding the rest of its entry.
    pub fn file_size(&self, index: usize) -> Option<(u64, u32)> {
        let mut reader = Reader { bytes: &self.bytes[self.offset(index)..self.table] };
        let length = reader.u16()?;
        reader.take(length)?;
        let kind = reader.u8()?;
        reader.take(3 * 4 + 12)?;
        let size = u64::from_le_bytes(reader.array()?);
        reader.take(32)?;
        let link = reader.u32()?;
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
    fn lower_bound(&self, path: &[u8]) -> usize {
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

    /// Where the times are in the encoding of an entry: after its path, kind, mode, owner and group.
    pub(super) fn times(&self, index: usize) -> Range<usize> {
        let start = 2 + self.path(index).len() + 1 + 3 * 4;
        start..start + 12
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

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

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
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    offsets: Vec<u32>,
    semantic: blake3::Hasher,
    /// Hashed in large pieces: that takes a quarter of the time of small ones.
    timeless: Vec<u8>,
}

impl Writer {
    /// Makes room for entries, and for the bytes of their encodings.
    pub(super) fn new(entries: usize, size: usize) -> Self {
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
    pub(super) fn note_within(&mut self, entry: Range<usize>, times: Range<usize>) {
        self.offsets.push(u32::try_from(entry.start).expect("a tree is smaller than 4 GiB"));
        self.timeless.extend_from_slice(&self.bytes[entry.start..times.start]);
        self.timeless.extend_from_slice(&self.bytes[times.end..entry.end]);
        if self.timeless.len() >= HASHED_AT_ONCE {
            self.semantic.update(&self.timeless);
            self.timeless.clear();
        }
    }

    pub(super) fn finish(self) -> Tree {
        let Self { mut bytes, offsets, mut semantic, timeless } = self;
        semantic.update(&timeless);
        let table = bytes.len();
        for offset in &offsets {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes[8..40].copy_from_slice(semantic.finalize().as_bytes());
        let count = u32::try_from(offsets.len()).expect("fewer than 2^32 paths");
        bytes[40..HEADER].copy_from_slice(&count.to_le_bytes());
        Tree { bytes: Arc::new(bytes), count: offsets.len(), table, id: Arc::default() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RootPath {
        RootPath::clean(text).expect("clean")
    }

    fn file(name: &str, content: &[u8], link: u32, mtime: i64) -> Entry {
        let node = Node::File { size: content.len() as u64, content: ContentDigest::of(content), link };
        let mtime = Time::from_seconds(mtime);
        let xattrs =
            vec![Xattr { name: b"user.b".to_vec(), value: vec![1] }, Xattr { name: b"user.a".to_vec(), value: vec![] }];
        Entry { path: path(name), node, mode: 0o644, uid: 1, gid: 2, mtime, xattrs }
    }

    fn tree(entries: impl IntoIterator<Item = Entry>) -> Tree {
        let mut builder = TreeBuilder::new();
        entries.into_iter().for_each(|entry| builder.push(entry));
        builder.finish()
    }

    fn sample() -> Vec<Entry> {
        let other =
            |name: &str, node| Entry { node, ..Entry::directory(path(name), 0o755, 0, 0, Time::from_seconds(-5)) };
        vec![
            other("/", Node::Directory { opaque: false }),
            file("/b-file", b"x", 7, 1),
            other("/b", Node::Directory { opaque: true }),
            file("/b/two", b"x", 7, 1),
            other("/c", Node::CharDevice { major: 1, minor: 3 }),
            other("/d", Node::BlockDevice { major: 8, minor: 0 }),
            other("/e", Node::Fifo),
            other("/l", Node::Symlink { target: b"../x\xff".to_vec() }),
            Entry::whiteout(path("/gone")),
        ]
    }

    #[test]
    fn a_tree_keeps_everything_in_walk_order() {
        let tree = tree(sample());
        let paths: Vec<_> = tree.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(paths, ["/", "/b", "/b/two", "/b-file", "/c", "/d", "/e", "/gone", "/l"]);
        assert_eq!(tree.get(&path("/d")).expect("there").node, Node::BlockDevice { major: 8, minor: 0 });
        assert_eq!(tree.get(&path("/l")).expect("there").node, Node::Symlink { target: b"../x\xff".to_vec() });
        assert_eq!(tree.get(&path("/x")), None);
        assert_eq!(tree.below(&path("/b")).map(|entry| entry.path.to_string()).collect::<Vec<_>>(), ["/b", "/b/two"]);
        assert_eq!(tree.content_size(), 1, "hard links count once");
        let again = Tree::parse_untrusted(tree.as_bytes().to_vec()).expect("own bytes");
        assert_eq!(again, tree);
        assert_eq!(Tree::open(tree.as_bytes().to_vec(), &tree.id()).expect("own bytes"), tree);
    }

    #[test]
    fn order_of_pushing_and_link_numbers_do_not_matter_and_times_only_for_the_id() {
        let a = tree(sample());
        let mut entries = sample();
        entries.reverse();
        for entry in &mut entries {
            if let Node::File { link, .. } = &mut entry.node {
                *link = 99;
            }
        }
        assert_eq!(tree(entries.clone()).id(), a.id());
        entries[0].mtime = Time::from_seconds(77);
        entries[3].mtime = Time::from_seconds(77);
        let later = tree(entries.clone());
        assert_ne!(later.id(), a.id());
        assert_eq!(later.semantic(), a.semantic());
        entries[3].mode = 0o600;
        assert_ne!(tree(entries).semantic(), a.semantic());
    }

    #[test]
    fn everything_but_times_is_in_the_semantic_digest() {
        type Change = (&'static str, fn(&mut Entry));
        let mut digests = std::collections::BTreeMap::from([(tree(sample()).semantic(), "as it was".to_owned())]);
        let mut check = |what: String, entries: Vec<Entry>| {
            if let Some(same) = digests.insert(tree(entries).semantic(), what.clone()) {
                panic!("{what} is not told from {same}");
            }
        };
        let changes: [Change; 6] = [
            ("mode", |entry| entry.mode ^= 0o11),
            ("owner", |entry| entry.uid += 9),
            ("group", |entry| entry.gid += 9),
            ("attribute", |entry| entry.xattrs.push(Xattr { name: b"user.c".to_vec(), value: b"1".to_vec() })),
            ("value", |entry| entry.xattrs.push(Xattr { name: b"user.c".to_vec(), value: b"2".to_vec() })),
            ("path", |entry| entry.path = RootPath::clean(format!("{}x", entry.path)).expect("clean")),
        ];
        // A whiteout has nothing but its path, and every link has the same mode.
        for number in 0..8 {
            for (what, change) in changes.iter().filter(|(what, _)| *what != "mode" || number != 7) {
                let mut entries = sample();
                change(&mut entries[number]);
                check(format!("{what} of {number}"), entries);
            }
        }
        let nodes = [
            (0, Node::Directory { opaque: true }),
            (1, Node::File { size: 1, content: ContentDigest::of(b"y"), link: 7 }),
            (1, Node::File { size: 2, content: ContentDigest::of(b"x"), link: 7 }),
            (1, Node::File { size: 1, content: ContentDigest::of(b"x"), link: 0 }),
            (2, Node::Directory { opaque: false }),
            (4, Node::CharDevice { major: 1, minor: 5 }),
            (4, Node::CharDevice { major: 2, minor: 3 }),
            (4, Node::BlockDevice { major: 1, minor: 3 }),
            (6, Node::File { size: 0, content: ContentDigest::of(b""), link: 0 }),
            (7, Node::Symlink { target: b"../y".to_vec() }),
            (8, Node::Fifo),
        ];
        for (number, node) in nodes {
            let mut entries = sample();
            entries[number].node = node.clone();
            check(format!("{number} as {node:?}"), entries);
        }
        check("none of the last".to_owned(), sample()[..8].to_vec());
    }

    #[test]
    fn the_last_entry_of_a_path_wins_and_a_lone_link_is_a_plain_file() {
        let one = tree([file("/f", b"old", 0, 1), file("/f", b"new", 4, 1)]);
        assert_eq!(one.len(), 1);
        let entry = one.get(&path("/f")).expect("there");
        assert_eq!(entry.node, Node::File { size: 3, content: ContentDigest::of(b"new"), link: 0 });
    }

    #[test]
    fn damaged_bytes_are_noticed() {
        let tree = tree(sample());
        let mut bytes = tree.as_bytes().to_vec();
        bytes[60] ^= 1;
        assert!(matches!(Tree::open(bytes.clone(), &tree.id()), Err(TreeError::DigestMismatch { .. })));
        for cut in 0..tree.as_bytes().len() {
            assert!(Tree::parse_untrusted(tree.as_bytes()[..cut].to_vec()).is_err(), "cut at {cut}");
        }
    }
}
