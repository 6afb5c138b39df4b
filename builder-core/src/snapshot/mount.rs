//! [`Snapshotter`]: layers on top of each other, as a directory.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Active, CopySnapshotter, Dialect, Snapshot, SnapshotError, SnapshotStore, StubLayer, overlaid};
use crate::rootfs::{Directory, RootPath};
use crate::snapshot::{Overlaid, read_entry, set_metadata_of};
use crate::sys::mount::{self, Attributes, Overlay, Upper};

/// A detached mount: in no namespace until it is attached, and gone when it is dropped.
#[derive(Debug)]
pub struct Mount {
    fd: OwnedFd,
    /// The directory behind it, if it was made only for this mount.
    copy: Option<Active>,
}

impl Mount {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, copy: None }
    }

    pub(super) fn of_copy(fd: OwnedFd, copy: Active) -> Self {
        Self { fd, copy: Some(copy) }
    }

    /// Whether the files behind the mount are a copy that goes away with it.
    pub fn is_temporary(&self) -> bool {
        self.copy.is_some()
    }
}

impl AsFd for Mount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes one root file system of snapshots.
pub trait Snapshotter: fmt::Debug + Send + Sync {
    /// Mounts `lowers` (lowest first; none is an empty root) and above them `stubs`, with `upper` receiving every
    /// change. The mount must be gone before `upper` is captured or committed.
    ///
    /// # Errors
    /// [`SnapshotError::Overlay`] if the kernel refuses, [`SnapshotError::Io`] if the file system fails.
    fn mount(&self, lowers: &[&Snapshot], stubs: Option<&StubLayer>, upper: &Active) -> Result<Mount, SnapshotError>;

    /// Mounts `lowers` (lowest first) read-only.
    ///
    /// # Errors
    /// As [`Snapshotter::mount`].
    fn mount_read_only(&self, lowers: &[&Snapshot]) -> Result<Mount, SnapshotError>;
}

/// Stacks with overlayfs: costs nothing, however large the layers are.
#[derive(Debug)]
pub struct OverlaySnapshotter {
    store: SnapshotStore,
}

impl OverlaySnapshotter {
    /// Works in a store, which may be shared.
    pub fn new(store: SnapshotStore) -> Self {
        Self { store }
    }
}

impl Snapshotter for OverlaySnapshotter {
    fn mount(&self, lowers: &[&Snapshot], stubs: Option<&StubLayer>, upper: &Active) -> Result<Mount, SnapshotError> {
        let error = |source| SnapshotError::io("prepare", &upper.path())(source);
        copy_root_metadata(lowers, upper.root().directory()).map_err(error)?;
        let visible = settled(&self.store, visible(lowers).map_err(error)?)?;
        // Overlayfs wants at least one lower layer.
        let empty = if visible.is_empty() && stubs.is_none() { Some(upper.stubs().map_err(error)?) } else { None };
        let mut fds: Vec<BorrowedFd<'_>> = Vec::with_capacity(2 * visible.len() + 1);
        fds.extend(stubs.map(|stubs| stubs.root().as_fd()));
        fds.extend(empty.as_ref().map(AsFd::as_fd));
        fds.extend(uppermost_first(&visible));
        let work = upper.work().map_err(error)?;
        let directories = Upper { directory: upper.root().as_fd(), work: work.as_fd(), volatile: true };
        overlay(&fds, Some(directories), upper.dialect()).map(Mount::new)
    }

    fn mount_read_only(&self, lowers: &[&Snapshot]) -> Result<Mount, SnapshotError> {
        let below = lowers.first().map(|lowest| lowest.path().to_owned()).unwrap_or_default();
        let visible = settled(&self.store, visible(lowers).map_err(SnapshotError::io("read", &below))?)?;
        let mut fds: Vec<BorrowedFd<'_>> = uppermost_first(&visible).collect();
        if fds.len() < 2 {
            // Nothing to stack. A bind mount would show whiteouts as devices, so one layer is not enough either, unless
            // it is put on top of an empty one.
            let active = self.store.begin()?;
            let stubs = active.stubs().map_err(SnapshotError::io("prepare", &active.path()))?;
            fds.push(stubs.as_fd());
            let fd = overlay(&fds, None, active.dialect())?;
            return Ok(Mount::of_copy(fd, active));
        }
        let dialect = self.store.dialect()?;
        overlay(&fds, None, dialect).map(Mount::new)
    }
}

fn overlay(lowers: &[BorrowedFd<'_>], upper: Option<Upper<'_>>, dialect: Dialect) -> Result<OwnedFd, SnapshotError> {
    let options = Overlay { lowers, upper, userxattr: dialect == Dialect::User, attributes: Attributes::empty() };
    mount::overlay(&options).map_err(|source| SnapshotError::Overlay { layers: lowers.len(), source })
}

/// The layers from the uppermost whose root is opaque: overlayfs looks for that mark only below the root.
pub(super) fn visible<'a, 'b>(lowers: &'a [&'b Snapshot]) -> io::Result<&'a [&'b Snapshot]> {
    for (at, snapshot) in lowers.iter().enumerate().rev() {
        let directory = snapshot.root().directory();
        // Only a tree that speaks of its root can say that it is opaque.
        if snapshot.has_root_entry() && overlaid(directory, b".", &directory.stat_self()?)? == Overlaid::Opaque {
            return Ok(&lowers[at..]);
        }
    }
    Ok(lowers)
}

/// The layers as they can be stacked: derived ones that would hide something of those below are made whole.
pub(super) fn settled(store: &SnapshotStore, lowers: &[&Snapshot]) -> Result<Vec<Snapshot>, SnapshotError> {
    let mut settled: Vec<Snapshot> = Vec::with_capacity(lowers.len());
    for snapshot in lowers {
        let hides = snapshot.hides_anything_of(&settled).map_err(SnapshotError::io("read", snapshot.path()))?;
        settled.push(if hides { store.make_whole(snapshot)? } else { (*snapshot).clone() });
    }
    Ok(settled)
}

fn uppermost_first(snapshots: &[Snapshot]) -> impl Iterator<Item = BorrowedFd<'_>> {
    snapshots.iter().rev().flat_map(|snapshot| snapshot.layers().into_iter().rev().map(AsFd::as_fd))
}

/// The root directory of a mount shows the metadata of the uppermost layer; gives it those of the layer that says
/// something about the root.
pub(super) fn copy_root_metadata(lowers: &[&Snapshot], root: &Directory) -> io::Result<()> {
    let Some(from) = lowers.iter().rev().find(|snapshot| snapshot.has_root_entry()) else { return Ok(()) };
    let from = from.root().directory();
    if let Some(entry) = read_entry(from, b".", RootPath::root(), &from.stat_self()?)? {
        set_metadata_of(root, &entry)?;
    }
    Ok(())
}

/// Finds out by mounting whether overlayfs works in a store, and takes the copying snapshotter if it does not.
///
/// # Errors
/// [`SnapshotError::Io`] if the store cannot be written.
pub fn probe(store: SnapshotStore) -> Result<Box<dyn Snapshotter>, SnapshotError> {
    let active = store.begin()?;
    let overlay = OverlaySnapshotter::new(store.clone());
    match overlay.mount(&[], None, &active) {
        Ok(mount) => {
            drop(mount);
            Ok(Box::new(overlay))
        }
        Err(SnapshotError::Overlay { .. }) => Ok(Box::new(CopySnapshotter::new(store))),
        Err(error) => Err(error),
    }
}
