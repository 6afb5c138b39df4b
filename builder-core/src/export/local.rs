//! `type=local`: the files of an image in a directory of the host.
//!
//! Everything is written beside its place first and moved there at the end, file by file. Files belong to the caller;
//! so set-user-id bits are dropped as `chown(2)` drops them, and device nodes are left out. Links inside the target
//! are never followed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::Timespec;

use super::ExportError;
use super::root::Roots;
use crate::cancel::CancelToken;
use crate::layer::{Files as _, PackError};
use crate::rootfs::{Directory, Kind, RootDir, RootPath};
use crate::tree::{ContentHasher, Entry, Node, Time, Tree};

/// Prefix of directories that are being filled.
const STAGING: &str = ".rbuild-";

/// Files that wait for the moment when they are moved into a directory.
#[derive(Debug)]
pub(super) struct Staged {
    staging: tempfile::TempDir,
    tree: Tree,
    target: PathBuf,
    delete: bool,
}

/// Writes the files of an image beside `target`.
pub(super) fn stage(
    roots: &Roots,
    epoch: Option<i64>,
    target: &Path,
    delete: bool,
    cancel: &CancelToken,
) -> Result<Staged, ExportError> {
    let write = |source| ExportError::Write { path: target.to_owned(), source };
    let beside = match fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => target.to_owned(),
        Ok(_) => return Err(ExportError::NotADirectory { path: target.to_owned() }),
        Err(_) => {
            let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(parent).map_err(write)?;
            parent.to_owned()
        }
    };
    let staging = tempfile::Builder::new().prefix(STAGING).tempdir_in(beside).map_err(write)?;
    let tree = roots.tree(epoch);
    let directory = open_directory(staging.path()).map_err(write)?;
    let mut writer = Writer { root: directory, open: Vec::new(), links: HashMap::new() };
    for entry in tree.iter().filter(|entry| !entry.path.is_root()) {
        cancel.check()?;
        writer.write(&entry, roots).map_err(|source| failed(&entry, roots, target, source))?;
    }
    Ok(Staged { staging, tree, target: target.to_owned(), delete })
}

/// A file that is damaged in the store can be made again; the rest is about the target.
fn failed(entry: &Entry, roots: &Roots, target: &Path, source: io::Error) -> ExportError {
    let (name, lost) =
        (entry.path.clone(), matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound));
    match roots.snapshot(entry).filter(|_| lost && matches!(entry.node, Node::File { .. })) {
        Some(snapshot) => {
            let source = PackError::Damaged { path: name, snapshot, source: Some(source) };
            ExportError::Pack { layer: 0, source }
        }
        None => ExportError::WriteFile { name, path: target.to_owned(), source },
    }
}

impl Staged {
    /// Moves everything to its place.
    pub(super) fn commit(self) -> Result<(), ExportError> {
        let write = |source| ExportError::Write { path: self.target.clone(), source };
        fs::create_dir_all(&self.target).map_err(write)?;
        let target = open_directory(&self.target).map_err(write)?;
        let staged = open_directory(self.staging.path()).map_err(write)?;
        merge(&staged, &target, self.delete).map_err(write)?;
        finish_directories(&target, &self.tree).map_err(write)
    }
}

fn open_directory(path: &Path) -> io::Result<Directory> {
    Ok(Directory::from_fd(RootDir::open(path)?.directory().try_clone_fd()?))
}

/// Moves what is in `from` into `to`. Directories are merged, anything else is replaced.
fn merge(from: &Directory, to: &Directory, delete: bool) -> io::Result<()> {
    let names = from.names()?;
    for name in &names {
        let new = from.stat(name)?.kind;
        match to.stat(name).map(|stat| stat.kind) {
            Ok(Kind::Directory) if new == Kind::Directory => {
                merge(&from.open_dir(name)?, &to.open_dir(name)?, delete)?;
                continue;
            }
            Ok(Kind::Directory) => to.remove_tree(name)?,
            Ok(_) if new == Kind::Directory => to.remove_file(name)?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        from.rename(name, to, name)?;
    }
    if delete {
        let staging = |name: &[u8]| name.starts_with(STAGING.as_bytes());
        for name in to.names()?.iter().filter(|name| !names.contains(name) && !staging(name)) {
            to.remove_tree(name)?;
        }
    }
    Ok(())
}

/// Gives directories their modes and times, the lowest first: until now they had to be writable, and moving files
/// into them changed their times.
fn finish_directories(root: &Directory, tree: &Tree) -> io::Result<()> {
    let directories: Vec<Entry> = tree.iter().filter(|entry| entry.node.is_directory()).collect();
    for entry in directories.iter().rev() {
        let Some(name) = entry.path.file_name() else { continue };
        let parent = open_below(root, &entry.path.parent().unwrap_or_default())?;
        parent.set_mode(name, entry.mode & 0o1777)?;
        parent.set_mtime(name, timespec(entry.mtime))?;
    }
    Ok(())
}

fn open_below(root: &Directory, path: &RootPath) -> io::Result<Directory> {
    path.components().try_fold(root.try_clone()?, |directory, name| directory.open_dir(name))
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
}

/// Writes entries in the order of their paths, keeping the directories above the current one open.
struct Writer {
    root: Directory,
    open: Vec<(RootPath, Directory)>,
    /// First path of each group of hard links.
    links: HashMap<u32, RootPath>,
}

impl Writer {
    fn write(&mut self, entry: &Entry, roots: &Roots) -> io::Result<()> {
        let parent = entry.path.parent().unwrap_or_default();
        self.enter(&parent)?;
        let Self { root, open, links } = self;
        let directory = open.last().map_or(&*root, |(_, directory)| directory);
        let name = entry.path.file_name().expect("it is not the root");
        match &entry.node {
            Node::Directory { .. } => return directory.create_dir(name).map(drop),
            Node::File { size, content, link } => {
                if let Some(first) = links.get(link).filter(|_| *link != 0) {
                    let from = open_below(root, &first.parent().unwrap_or_default())?;
                    return from.hard_link(first.file_name().expect("a file has a name"), directory, name);
                }
                links.insert(*link, entry.path.clone());
                let mut file = directory.create_file(name)?;
                copy(&mut roots.open(entry)?, &mut file, *size, *content)?;
                crate::rootfs::set_mode(&file, entry.mode & 0o777)?;
                return crate::rootfs::set_times(&file, timespec(entry.mtime));
            }
            Node::Symlink { target } => directory.symlink(target, name)?,
            Node::Fifo => {
                directory.make_node(name, Kind::Fifo, (0, 0))?;
                directory.set_mode(name, entry.mode & 0o777)?;
            }
            Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Whiteout => return Ok(()),
        }
        directory.set_mtime(name, timespec(entry.mtime))
    }

    /// Makes `path` the open directory. One that no entry describes is made.
    fn enter(&mut self, path: &RootPath) -> io::Result<()> {
        while self.open.last().is_some_and(|(open, _)| !path.starts_with(open)) {
            self.open.pop();
        }
        let mut at = self.open.last().map(|(open, _)| open.clone()).unwrap_or_default();
        let rest = path.strip_prefix(&at).unwrap_or_default();
        for name in rest.components() {
            let above = self.open.last().map_or(&self.root, |(_, directory)| directory);
            let directory = match above.open_dir(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => above.create_dir(name)?,
                opened => opened?,
            };
            at = at.child(name);
            self.open.push((at.clone(), directory));
        }
        Ok(())
    }
}

/// Copies a file, as a reflink where the file system can, and compares it with its digest.
fn copy(from: &mut File, to: &mut File, size: u64, digest: crate::tree::ContentDigest) -> io::Result<()> {
    let changed = || io::Error::new(io::ErrorKind::InvalidData, "the file changed while it was being exported");
    // What a clone shares may have changed before: it is read back.
    let cloned = size > 0 && from.metadata()?.len() == size && rustix::fs::ioctl_ficlone(&*to, &*from).is_ok();
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = if cloned { to.read(&mut buffer) } else { from.read(&mut buffer) };
        let count = match read {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        if !cloned {
            to.write_all(&buffer[..count])?;
        }
    }
    if hasher.finish() == digest { Ok(()) } else { Err(changed()) }
}
