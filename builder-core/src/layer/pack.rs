//! [`pack`]: a tree and its files as a tar archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};

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

/// Writes a tree as a tar archive.
///
/// Entries come in the order of the tree, each directory with a trailing slash and right before what is in it. Owners
/// are numbers, times are whole seconds as containerd writes them, access times and names of users are left out. A
/// whiteout is an empty file of mode 0 from 1970. The first path of a link group holds the content, the others are
/// hard links to it. Equal trees give equal bytes on every machine.
///
/// Each file is read once, and its digest is compared with the tree's.
///
/// Format: OCI image-spec 1.1, `layer.md`; POSIX.1-2008 `pax`.
///
/// # Errors
/// [`PackError::Changed`] names a file that is not what the tree says any more, [`PackError::ReservedName`] one that a
/// layer cannot hold.
pub fn pack(tree: &Tree, files: &dyn Files, out: &mut dyn Write, options: &PackOptions) -> Result<(), PackError> {
    let mut first_paths: HashMap<u32, RootPath> = HashMap::new();
    let (mut headers, mut buffer) = (Vec::new(), vec![0; PIECE]);
    for entry in tree.iter() {
        if entry.path.file_name().is_some_and(|name| name.starts_with(WHITEOUT)) {
            return Err(PackError::ReservedName(entry.path));
        }
        headers.clear();
        let mut content = None;
        let mut header = header_of(&entry, options);
        match &entry.node {
            Node::File { link, size, .. } => {
                if let Some(first) = first_paths.get(link).filter(|_| *link != 0) {
                    (header.kind, header.link, header.xattrs) = (Kind::HardLink, first.as_bytes().to_vec(), Vec::new());
                } else {
                    first_paths.insert(*link, entry.path.clone());
                    header.size = *size;
                    content = Some(*size);
                }
            }
            Node::Whiteout if entry.path.is_root() => continue,
            _ => {}
        }
        // The root itself is written as `./`, and only if the tree says something about it.
        encode(&header, &entry.path, &mut headers)?;
        if entry.node == (Node::Directory { opaque: true }) {
            let marker = Header::new(entry.path.child(OPAQUE).as_bytes().to_vec(), Kind::File);
            encode(&marker, &entry.path, &mut headers)?;
        }
        out.write_all(&headers)?;
        if let Some(size) = content {
            copy_content(&entry, size, files, out, &mut buffer)?;
        }
    }
    out.write_all(tar::trailer())?;
    Ok(())
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

/// Copies a file into the archive. Not one byte more or less than the header says is ever written.
fn copy_content(
    entry: &Entry,
    size: u64,
    files: &dyn Files,
    out: &mut dyn Write,
    buffer: &mut [u8],
) -> Result<(), PackError> {
    if size > 0 {
        let file = files.open(entry).map_err(|source| PackError::Read { path: entry.path.clone(), source })?;
        read_verified(entry, &file, buffer, |bytes| out.write_all(bytes).map_err(PackError::from))?;
        out.write_all(tar::padding(size))?;
    }
    Ok(())
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
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(PackError::Read { path: entry.path.clone(), source }),
        }
    }
    if read == *size && hasher.finish() == *content { Ok(()) } else { Err(changed()) }
}
