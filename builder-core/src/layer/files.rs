//! [`Files`]: where the bytes of a tree's regular files are.

use std::fs::File;
use std::io;

use crate::rootfs::RootPath;
use crate::snapshot::Snapshot;
use crate::tree::{Entry, TreeId};

/// Opens the regular files of a tree. What it gives is checked against the tree while it is read.
pub trait Files: Sync {
    /// Opens the file of an entry for reading, at its start.
    ///
    /// # Errors
    /// If it is not there, or is no regular file.
    fn open(&self, entry: &Entry) -> io::Result<File>;

    /// The snapshot of the store that holds the file of an entry, if one does: a file that is not what its tree says is
    /// damaged then, and not changed by somebody.
    fn snapshot(&self, _entry: &Entry) -> Option<TreeId> {
        None
    }

    /// Appends what is in the file of an entry, if that is known without opening it; says whether it was, and appends nothing
    /// if not. It has been compared with the entry's digest and length.
    fn kept(&self, _entry: &Entry, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Is told what was read from a small file that was opened, for [`Files::kept`].
    fn keep(&self, _entry: &Entry, _bytes: &[u8]) {}

    /// Where the file of an entry is in the build context, if it is in one and that is known.
    fn origin(&self, _entry: &Entry) -> Option<RootPath> {
        None
    }
}

impl Files for Snapshot {
    fn snapshot(&self, _entry: &Entry) -> Option<TreeId> {
        Some(self.id())
    }

    fn open(&self, entry: &Entry) -> io::Result<File> {
        self.open_file(&entry.path)
    }
}

impl<F: Files + ?Sized> Files for &F {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        (**self).open(entry)
    }

    fn snapshot(&self, entry: &Entry) -> Option<TreeId> {
        (**self).snapshot(entry)
    }

    fn kept(&self, entry: &Entry, out: &mut Vec<u8>) -> bool {
        (**self).kept(entry, out)
    }

    fn keep(&self, entry: &Entry, bytes: &[u8]) {
        (**self).keep(entry, bytes);
    }

    fn origin(&self, entry: &Entry) -> Option<RootPath> {
        (**self).origin(entry)
    }
}
