//! [`StubLayer`]: places for mounts that the image does not have, in a layer of their own.
//!
//! `/etc/hosts` and its like are bind mounts and need something to be mounted on. Made in the upper directory they
//! would enter the image; made here, between the lower layers and the upper one, they never do.

use std::collections::BTreeSet;
use std::io;

use super::{Active, SnapshotError, set_metadata, set_metadata_of};
use crate::rootfs::{RootDir, RootPath};
use crate::tree::{Entry, Node, Stack, Time};

/// A layer of empty mount targets. It goes away with the [`Active`] that it was made beside.
#[derive(Debug)]
pub struct StubLayer {
    root: RootDir,
}

impl StubLayer {
    pub(super) fn root(&self) -> &RootDir {
        &self.root
    }
}

/// Makes the targets that `stack` has not got, beside `active`; `None` if it has all of them.
///
/// A target is a path and whether it is a directory. Links in it are followed inside the image, so that a mount that
/// resolves the same path finds the same place; `/proc`, `/dev` and `/sys` must be no links (invariant S-5). In an
/// overlay a directory shows the metadata of the uppermost layer, so each directory on the way carries those that the
/// stack shows.
///
/// # Errors
/// [`SnapshotError::TargetIsLink`], [`SnapshotError::TargetKind`] if the image has something else there,
/// [`SnapshotError::Io`] if the file system fails.
pub fn stubs(active: &Active, stack: &Stack, targets: &[(RootPath, bool)]) -> Result<Option<StubLayer>, SnapshotError> {
    // In the order of a walk: a directory comes before what is in it.
    let mut missing: BTreeSet<(RootPath, bool)> = BTreeSet::new();
    for (target, is_directory) in targets {
        let fixed = matches!(target.as_bytes(), b"proc" | b"dev" | b"sys");
        if fixed && matches!(stack.lookup(target).map(|found| found.entry.node), Some(Node::Symlink { .. })) {
            return Err(SnapshotError::TargetIsLink(target.clone()));
        }
        let path = stack.resolve(target, true)?;
        match stack.lookup(&path) {
            None => {
                missing.insert((path, *is_directory));
            }
            Some(found) if found.entry.node.is_directory() != *is_directory => {
                let expected = if *is_directory { "directory" } else { "file" };
                return Err(SnapshotError::TargetKind { path, expected });
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        return Ok(None);
    }
    make(active, stack, &missing).map(Some).map_err(SnapshotError::io("make mount targets in", &active.path()))
}

fn make(active: &Active, stack: &Stack, missing: &BTreeSet<(RootPath, bool)>) -> io::Result<StubLayer> {
    let root = active.stubs()?;
    let mut made: BTreeSet<RootPath> = BTreeSet::new();
    for (path, is_directory) in missing {
        for ancestor in path.ancestors().filter(|ancestor| !ancestor.is_root()) {
            if made.insert(ancestor.clone()) {
                let (directory, name) = root.parent(&ancestor)?;
                directory.create_dir(name)?;
            }
        }
        let (directory, name) = root.parent(path)?;
        let entry = Entry::directory(path.clone(), if *is_directory { 0o755 } else { 0o644 }, 0, 0, Time::default());
        match is_directory {
            true if made.insert(path.clone()) => set_metadata_of(directory.create_dir(name)?, &entry)?,
            true => true,
            false => set_metadata_of(directory.create_file(name)?, &entry)?,
        };
    }
    // Deepest first: making an entry changes the time of its directory.
    for path in made.iter().rev() {
        let default = Entry::directory(path.clone(), 0o755, 0, 0, Time::default());
        let entry = stack.lookup(path).map_or(default, |found| found.entry);
        let (directory, name) = root.parent(path)?;
        set_metadata(&directory, name, &entry)?;
    }
    if let Some(found) = stack.lookup(&RootPath::root()) {
        set_metadata_of(root.directory(), &found.entry)?;
    }
    Ok(StubLayer { root })
}
