//! [`materialise`]: a tree and its files as a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{ftruncate, ioctl_ficlone};

use super::pack::read_verified;
use super::{Files, PackError};
use crate::rootfs::{Directory, RootPath, set_mode};
use crate::snapshot::{Active, create_node, set_metadata, set_metadata_of, set_opaque};
use crate::tree::{Entry, Node, Tree};

/// Writes the entries of a tree into an empty snapshot, whiteouts and opaque directories too.
///
/// Blocks are shared with the source where the file system can; each file's digest is compared with the tree's all the
/// same. A directory that the tree has no entry for is made with mode `0o755`; only root's own has none usually.
///
/// # Errors
/// [`PackError::Changed`] and [`PackError::Damaged`] name a file that is not what the tree says any more,
/// [`PackError::Place`] an entry that cannot be written.
pub fn materialise(tree: &Tree, files: &dyn Files, active: &Active) -> Result<(), PackError> {
    let mut writer = Writer { active, files, current: None, first_paths: HashMap::new(), buffer: vec![0; 128 * 1024] };
    let mut directories = Vec::new();
    for entry in tree.iter() {
        writer.place(&entry).map_err(|error| error.in_store(files, &entry))?;
        if entry.node.is_directory() {
            directories.push(entry);
        }
    }
    // Deepest first: what is made in a directory changes its time, and its mode may forbid it.
    for entry in directories.iter().rev() {
        let place = |source| PackError::Place { path: entry.path.clone(), source };
        let directory = active.root().open_dir_exact(&entry.path).map_err(place)?;
        if entry.node == (Node::Directory { opaque: true }) {
            set_opaque(&directory, active.dialect()).map_err(place)?;
        }
        set_metadata_of(&directory, entry).map_err(place)?;
    }
    Ok(())
}

struct Writer<'a> {
    active: &'a Active,
    files: &'a dyn Files,
    /// The directory of the last entry; entries of one directory mostly follow each other.
    current: Option<(RootPath, Directory)>,
    first_paths: HashMap<u32, RootPath>,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn place(&mut self, entry: &Entry) -> Result<(), PackError> {
        let place = |source| PackError::Place { path: entry.path.clone(), source };
        let (Some(parent), Some(name)) = (entry.path.parent(), entry.path.file_name()) else { return Ok(()) };
        if self.current.as_ref().is_none_or(|(path, _)| *path != parent) {
            let directory = open_or_make(self.active, &parent).map_err(place)?;
            self.current = Some((parent, directory));
        }
        let (_, directory) = self.current.as_ref().expect("set above");
        match &entry.node {
            Node::Directory { .. } => match directory.create_dir(name) {
                // It is there if an entry below it came first, which a sorted tree does not do.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                made => made.map(drop).map_err(place),
            },
            Node::File { link, .. } => {
                if let Some(first) = self.first_paths.get(link).filter(|_| *link != 0) {
                    let (from, first) = self.active.root().parent(first).map_err(place)?;
                    return from.hard_link(first, directory, name).map_err(place);
                }
                self.first_paths.insert(*link, entry.path.clone());
                let file = directory.create_file(name).map_err(place)?;
                let open = self.files.open(entry);
                let source = open.map_err(|source| PackError::Read { path: entry.path.clone(), source })?;
                copy(entry, &source, &file, &mut self.buffer)?;
                set_metadata_of(&file, entry).map(drop).map_err(place)
            }
            node => {
                create_node(directory, name, node).map_err(place)?;
                set_metadata(directory, name, entry).map(drop).map_err(place)
            }
        }
    }
}

fn open_or_make(active: &Active, path: &RootPath) -> io::Result<Directory> {
    match active.root().open_dir_exact(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return active.root().open_dir_exact(path);
    };
    let made = open_or_make(active, &parent)?.create_dir(name)?;
    set_mode(&made, 0o755)?;
    Ok(made)
}

/// Copies a file and verifies it: a clone is read back, because what it shares may have changed before.
pub(super) fn copy(entry: &Entry, from: &File, to: &File, buffer: &mut [u8]) -> Result<(), PackError> {
    let place = |source: io::Error| PackError::Place { path: entry.path.clone(), source };
    if ioctl_ficlone(to, from).is_ok() {
        return read_verified(entry, to, buffer, |_| Ok(()));
    }
    let mut offset = 0;
    read_verified(entry, from, buffer, |bytes| {
        // What is only zeros becomes a hole.
        if bytes.iter().any(|byte| *byte != 0) {
            to.write_all_at(bytes, offset).map_err(place)?;
        }
        offset += bytes.len() as u64;
        Ok(())
    })?;
    ftruncate(to, offset).map_err(|error| place(error.into()))
}
