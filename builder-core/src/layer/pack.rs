//! [`pack`]: a tree and its files as a tar archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;

use super::ahead::{self, in_order};
use super::{Files, PackError};
use crate::rootfs::RootPath;
use crate::tar::{self, Header, Kind};
use crate::tree::{ContentHasher, Entry, Node, Tree};

/// How a tree is written as a tar archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// Latest modification time that is written, in seconds since 1970: later ones become this one.
    pub source_date_epoch: Option<i64>,
}

/// What a whiteout's name begins with (image-spec `layer.md`).
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// The file that makes its directory opaque.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;

/// Entries that are prepared at once, at most.
const PIECE_ENTRIES: usize = 128;

/// Bytes of files that are prepared at once, about.
const PIECE_BYTES: u64 = 512 * 1024;

/// Files up to this size, in bytes, are read ahead; larger ones are passed on as they are read.
const SMALL: u64 = 64 * 1024;

/// Entries below which one thread is quicker.
const WORTH_THREADS: usize = 64;

/// Writes a tree as a tar archive.
///
/// Entries come in the order of the tree, each directory with a trailing slash and right before what is in it. Owners
/// are numbers, times are whole seconds as containerd writes them, access times and names of users are left out. A
/// whiteout is an empty file of mode 0 from 1970. The first path of a link group holds the content, the others are
/// hard links to it. Equal trees give equal bytes on every machine.
///
/// Each file is read once, and its digest is compared with the tree's. Small files are read ahead by several threads.
///
/// Format: OCI image-spec 1.1, `layer.md`; POSIX.1-2008 `pax`.
///
/// # Errors
/// [`PackError::Changed`] and [`PackError::Damaged`] name a file that is not what the tree says any more,
/// [`PackError::ReservedName`] one that a layer cannot hold.
pub fn pack(tree: &Tree, files: &dyn Files, out: &mut dyn Write, options: &PackOptions) -> Result<(), PackError> {
    pack_rest(tree, files, options, &Stops::default(), &mut |bytes| Ok(out.write_all(bytes)?), &mut |_| {})
}

/// Where an archive is begun and looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    /// How many entries are left out: the archive begins after them.
    pub(super) start: usize,
    /// Numbers of entries before which everything before them is written, ascending.
    pub(super) at: Vec<usize>,
}

/// The part of what [`pack`] writes that comes after the first entries. `reached` is told each of the stops.
pub(super) fn pack_rest(
    tree: &Tree,
    files: &dyn Files,
    options: &PackOptions,
    stops: &Stops,
    out: &mut dyn FnMut(&[u8]) -> Result<(), PackError>,
    reached: &mut dyn FnMut(usize),
) -> Result<(), PackError> {
    let packer = Packer { tree, files, options, firsts: first_of_groups(tree) };
    let mut start = stops.start;
    let mut ahead = stops.at.iter().copied().filter(|stop| *stop > stops.start).peekable();
    let next = || {
        while ahead.next_if(|stop| *stop <= start).is_some() {}
        let range = packer.piece(start, ahead.peek().copied().unwrap_or(tree.len()))?;
        start = range.end;
        Some(range)
    };
    let mut buffer = vec![0; PIECE];
    let mut each = |piece: Result<Piece, PackError>| {
        let Piece { end, bytes, large } = piece?;
        out(&bytes)?;
        if let Some((entry, size)) = large {
            packer.content(&entry, size, &mut buffer, out)?;
        }
        if stops.at.binary_search(&end).is_ok() {
            reached(end);
        }
        Ok::<_, PackError>(())
    };
    let work = |range| packer.prepare(range);
    if tree.len() - stops.start < WORTH_THREADS {
        std::iter::from_fn(next).try_for_each(|range| each(work(range)))?;
    } else {
        in_order(ahead::threads(), next, work, each)?;
    }
    out(tar::trailer())
}

/// The first entry of each group of hard links, which holds the content.
fn first_of_groups(tree: &Tree) -> HashMap<u32, usize> {
    let mut firsts = HashMap::new();
    if !tree.has_links() {
        return firsts;
    }
    for index in 0..tree.len() {
        if let Some((_, link)) = tree.file_size(index).filter(|(_, link)| *link != 0) {
            firsts.entry(link).or_insert(index);
        }
    }
    firsts
}

struct Packer<'a> {
    tree: &'a Tree,
    files: &'a dyn Files,
    options: &'a PackOptions,
    firsts: HashMap<u32, usize>,
}

/// Some entries as a part of an archive.
struct Piece {
    /// The number of the entry after them.
    end: usize,
    bytes: Vec<u8>,
    /// The last entry, whose content is still to be written after the bytes, and its length.
    large: Option<(Entry, u64)>,
}

impl Packer<'_> {
    /// The entries that are prepared at once from `start` on; `None` after the last.
    fn piece(&self, start: usize, stop: usize) -> Option<Range<usize>> {
        let (mut end, mut bytes) = (start, 0);
        while end < stop && end - start < PIECE_ENTRIES && bytes < PIECE_BYTES {
            let size = self.tree.file_size(end).map_or(0, |(size, _)| size);
            end += 1;
            bytes += size;
            if size > SMALL {
                break;
            }
        }
        (end > start).then_some(start..end)
    }

    fn prepare(&self, range: Range<usize>) -> Result<Piece, PackError> {
        let (mut bytes, mut buffer, mut large) = (Vec::with_capacity(range.len() * 1024), Vec::new(), None);
        for index in range.clone() {
            let entry = self.tree.entry(index);
            let Some(size) = self.headers(index, &entry, &mut bytes)? else { continue };
            if size > SMALL {
                large = Some((entry, size));
            } else {
                if self.files.kept(&entry, &mut bytes) {
                    bytes.extend_from_slice(tar::padding(size));
                    continue;
                }
                let (start, length) = (bytes.len(), usize::try_from(size).expect("a small number"));
                // One byte more shows the end of the file in the same read.
                let room = length + 1;
                buffer.resize(buffer.len().max(room), 0);
                self.content(&entry, size, &mut buffer[..room], &mut |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })?;
                self.files.keep(&entry, &bytes[start..start + length]);
            }
        }
        Ok(Piece { end: range.end, bytes, large })
    }

    /// Writes what comes before the content of an entry; the answer is its length if it has any.
    fn headers(&self, index: usize, entry: &Entry, out: &mut Vec<u8>) -> Result<Option<u64>, PackError> {
        if entry.path.file_name().is_some_and(|name| name.starts_with(WHITEOUT)) {
            return Err(PackError::ReservedName(entry.path.clone()));
        }
        let mut content = None;
        let mut header = header_of(entry, self.options);
        match &entry.node {
            Node::File { link, size, .. } => {
                if let Some(first) = self.firsts.get(link).filter(|first| **first != index) {
                    let first = self.tree.entry(*first).path;
                    (header.kind, header.link, header.xattrs) = (Kind::HardLink, first.as_bytes().to_vec(), Vec::new());
                } else {
                    header.size = *size;
                    content = Some(*size).filter(|size| *size > 0);
                }
            }
            Node::Whiteout if entry.path.is_root() => return Ok(None),
            _ => {}
        }
        // The root itself is written as `./`, and only if the tree says something about it.
        encode(&header, &entry.path, out)?;
        if entry.node == (Node::Directory { opaque: true }) {
            let marker = Header::new(entry.path.child(OPAQUE).as_bytes().to_vec(), Kind::File);
            encode(&marker, &entry.path, out)?;
        }
        Ok(content)
    }

    /// Copies a file into the archive. Not one byte more or less than the header says is ever written.
    fn content(
        &self,
        entry: &Entry,
        size: u64,
        buffer: &mut [u8],
        out: &mut dyn FnMut(&[u8]) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        let open = self.files.open(entry).map_err(|source| PackError::Read { path: entry.path.clone(), source });
        let read = open.and_then(|file| read_verified(entry, &file, buffer, &mut *out));
        read.map_err(|error| error.in_store(self.files, entry))?;
        out(tar::padding(size))
    }
}

fn encode(header: &Header, path: &RootPath, out: &mut Vec<u8>) -> Result<(), PackError> {
    tar::encode(header, out).map_err(|error| PackError::XattrName { path: path.clone(), name: error.0 })
}

fn header_of(entry: &Entry, options: &PackOptions) -> Header {
    let path = entry.path.as_bytes();
    let (kind, path) = match &entry.node {
        Node::Directory { .. } if path.is_empty() => (Kind::Directory, b"./".to_vec()),
        Node::Directory { .. } => (Kind::Directory, [path, b"/"].concat()),
        Node::File { .. } => (Kind::File, path.to_vec()),
        Node::Symlink { .. } => (Kind::Symlink, path.to_vec()),
        Node::CharDevice { .. } => (Kind::CharDevice, path.to_vec()),
        Node::BlockDevice { .. } => (Kind::BlockDevice, path.to_vec()),
        Node::Fifo => (Kind::Fifo, path.to_vec()),
        Node::Whiteout => {
            let name = [WHITEOUT, entry.path.file_name().unwrap_or_default()].concat();
            let parent = entry.path.parent().unwrap_or_default();
            (Kind::File, parent.child(&name).as_bytes().to_vec())
        }
    };
    let mut header = Header::new(path, kind);
    (header.mode, header.uid, header.gid) = (entry.mode, entry.uid, entry.gid);
    let latest = options.source_date_epoch.unwrap_or(i64::MAX);
    header.mtime = (entry.mtime.seconds.min(latest), 0);
    header.xattrs = entry.xattrs.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone())).collect();
    match &entry.node {
        Node::Symlink { target } => header.link.clone_from(target),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => header.device = (*major, *minor),
        _ => {}
    }
    header
}

/// Reads a file piece by piece, and checks length and digest against its entry.
pub(super) fn read_verified(
    entry: &Entry,
    mut file: &File,
    buffer: &mut [u8],
    mut each: impl FnMut(&[u8]) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let Node::File { size, content, .. } = &entry.node else { return Ok(()) };
    let changed = || PackError::Changed { path: entry.path.clone() };
    let (mut hasher, mut read) = (ContentHasher::new(), 0);
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(length) => {
                read += length as u64;
                if read > *size {
                    return Err(changed());
                }
                hasher.update(&buffer[..length]);
                each(&buffer[..length])?;
                // There was room for more: that was the end.
                if read == *size && length < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(PackError::Read { path: entry.path.clone(), source }),
        }
    }
    if read == *size && hasher.finish() == *content { Ok(()) } else { Err(changed()) }
}
