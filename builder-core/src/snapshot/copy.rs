//! [`CopySnapshotter`]: where overlayfs cannot be mounted, a full copy of the stack.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::active::Baseline;
use super::mount::{copy_root_metadata, settled, visible};
use super::{Active, Mount, Overlaid, Snapshot, SnapshotError, SnapshotStore, Snapshotter, StubLayer};
use super::{create_node, overlaid, read_entry, set_metadata, set_metadata_of};
use crate::rootfs::{Directory, Kind, RootDir, RootPath};
use crate::sys::mount::{Attributes, bind};
use crate::tree::Node;

/// Copies every layer into one directory: slow and large, and right. Blocks are shared where the file system can.
#[derive(Debug)]
pub struct CopySnapshotter {
    store: SnapshotStore,
}

impl CopySnapshotter {
    /// Works in a store, which may be shared.
    pub fn new(store: SnapshotStore) -> Self {
        Self { store }
    }
}

/// Longer than one tick of the clock that file times are taken from: what changes after the wait has another time.
const CLOCK_TICK: Duration = Duration::from_millis(12);

impl Snapshotter for CopySnapshotter {
    fn mount(&self, lowers: &[&Snapshot], stubs: Option<&StubLayer>, upper: &Active) -> Result<Mount, SnapshotError> {
        let path = upper.path();
        let error = |source| SnapshotError::io("copy layers into", &path)(source);
        let visible = settled(&self.store, visible(lowers).map_err(error)?)?;
        for layer in visible.iter().flat_map(Snapshot::layers) {
            overlay_copy(layer, upper.root()).map_err(error)?;
        }
        if let Some(stubs) = stubs {
            overlay_copy(stubs.root(), upper.root()).map_err(error)?;
        }
        copy_root_metadata(lowers, upper.root().directory()).map_err(error)?;
        upper.set_baseline(baseline(upper.root()).map_err(error)?);
        std::thread::sleep(CLOCK_TICK);
        bind(upper.root(), Attributes::empty()).map(Mount::new).map_err(error)
    }

    fn mount_read_only(&self, lowers: &[&Snapshot]) -> Result<Mount, SnapshotError> {
        let active = self.store.begin()?;
        let path = active.path();
        let error = |source| SnapshotError::io("copy layers into", &path)(source);
        let visible = settled(&self.store, visible(lowers).map_err(error)?)?;
        for layer in visible.iter().flat_map(Snapshot::layers) {
            overlay_copy(layer, active.root()).map_err(error)?;
        }
        copy_root_metadata(lowers, active.root().directory()).map_err(error)?;
        let fd = bind(active.root(), Attributes::MOUNT_ATTR_RDONLY).map_err(error)?;
        Ok(Mount::of_copy(fd, active))
    }
}

/// Copies one layer over what is in `to`, obeying its whiteouts and opaque directories.
pub(super) fn overlay_copy(from: &RootDir, to: &RootDir) -> io::Result<()> {
    let mut linked: HashMap<(u64, u64), RootPath> = HashMap::new();
    let mut directories = vec![RootPath::root()];
    let mut at = 0;
    while at < directories.len() {
        let path = directories[at].clone();
        let (source, target) = (from.open_dir_exact(&path)?, to.open_dir_exact(&path)?);
        for name in source.names()? {
            let stat = source.stat(&name)?;
            let mark = overlaid(&source, &name, &stat)?;
            let is_directory = stat.kind == Kind::Directory;
            let merges = is_directory && target.open_dir(&name).is_ok();
            match mark {
                Overlaid::Opaque if merges => target.open_dir(&name)?.remove_contents()?,
                _ if merges => {}
                _ => target.remove_tree(&name)?,
            }
            if mark == Overlaid::Whiteout {
                continue;
            }
            let below = path.child(&name);
            let Some(entry) = read_entry(&source, &name, below.clone(), &stat)? else { continue };
            match &entry.node {
                Node::Directory { .. } => {
                    if !merges {
                        target.create_dir(&name)?;
                    }
                    directories.push(below);
                }
                Node::File { .. } => {
                    if stat.links > 1
                        && let Some(first) = linked.get(&stat.identity)
                    {
                        let (directory, first) = to.parent(first)?;
                        directory.hard_link(first, &target, &name)?;
                        continue;
                    }
                    linked.insert(stat.identity, below);
                    let copy = target.create_file(&name)?;
                    copy_content(&source.open_file(&name)?, &copy, stat.size)?;
                    set_metadata_of(&copy, &entry)?;
                }
                node => {
                    create_node(&target, &name, node)?;
                    set_metadata(&target, &name, &entry)?;
                }
            }
        }
        at += 1;
    }
    // Deepest first: what is made in a directory changes its time.
    for path in directories.iter().rev().filter(|path| !path.is_root()) {
        let (source, name) = from.parent(path)?;
        if let Some(entry) = read_entry(&source, name, path.clone(), &source.stat(name)?)? {
            set_metadata_of(to.open_dir_exact(path)?, &entry)?;
        }
    }
    Ok(())
}

/// Copies the bytes of a file; shares its blocks where the file system can, and leaves holes as they are.
fn copy_content(from: &File, to: &File, size: u64) -> io::Result<()> {
    use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
    if ioctl_ficlone(to.as_fd(), from.as_fd()).is_ok() {
        return Ok(());
    }
    ftruncate(to, size)?;
    let mut offset = 0;
    while offset < size {
        // Without SEEK_DATA the whole file is data.
        let Ok(start) = seek(from, SeekFrom::Data(offset)) else {
            let position = seek(from, SeekFrom::Start(offset))?;
            return copy_range(from, to, position, size);
        };
        let end = seek(from, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        let (mut input, mut output) = (start, start);
        while input < end {
            let length = usize::try_from((end - input).min(1 << 30)).expect("at most 1 GiB");
            match copy_file_range(from, Some(&mut input), to, Some(&mut output), length) {
                Ok(0) | Err(_) => {
                    copy_range(from, to, input, end)?;
                    break;
                }
                Ok(_) => {}
            }
        }
        offset = end;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 128 * 1024];
    let mut offset = start;
    while offset < end {
        let length = from.read_at(&mut buffer, offset)?;
        if length == 0 {
            break;
        }
        to.write_all_at(&buffer[..length], offset)?;
        offset += length as u64;
    }
    Ok(())
}

/// Remembers every path, so that what a command did not touch need not be read again.
fn baseline(root: &RootDir) -> io::Result<Baseline> {
    let mut baseline = Baseline::new();
    let mut pending = vec![RootPath::root()];
    while let Some(path) = pending.pop() {
        let directory: Directory = root.open_dir_exact(&path)?;
        for name in directory.names()? {
            let stat = directory.stat(&name)?;
            let below = path.child(&name);
            if stat.kind == Kind::Directory {
                pending.push(below.clone());
            }
            baseline.insert(below, (stat.identity.1, stat.ctime));
        }
    }
    Ok(baseline)
}
