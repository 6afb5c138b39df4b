//! What can go wrong with a layer.

use std::io;

use super::Files;
use crate::diagnostic::Diagnostic;
use crate::rootfs::RootPath;
use crate::tree::{Entry, ResolveError, TreeId};

/// A tree cannot be packed or written to a directory.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file of the tree cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it was when the tree was made.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// The file.
        path: RootPath,
    },
    /// A file of the store is not what it was when it was stored.
    #[error("`{path}` is damaged in the store")]
    Damaged {
        /// The file.
        path: RootPath,
        /// The snapshot that has it, or is derived from the one that has it.
        snapshot: TreeId,
        /// What the file system says, if anything.
        source: Option<io::Error>,
    },
    /// The name of an extended attribute cannot be written in a pax header.
    #[error("extended attribute `{name}` of `{path}` has a `=` in its name, which a layer cannot hold")]
    XattrName {
        /// The file.
        path: RootPath,
        /// The attribute.
        name: String,
    },
    /// A name that means a deletion in every layer (image-spec `layer.md`).
    #[error(
        "`{0}` cannot be in a layer: a name that begins with `.wh.` would delete a file wherever the layer is unpacked"
    )]
    ReservedName(RootPath),
    /// What was packed cannot be written.
    #[error("cannot write the layer")]
    Write {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// An entry cannot be made in a snapshot.
    #[error("cannot write `{path}` into the snapshot")]
    Place {
        /// The entry.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
}

/// What a command changed cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file system failed.
    #[error("cannot read `{path}` in the snapshot")]
    Io {
        /// Where.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// A name that means a deletion in every layer (image-spec `layer.md`).
    #[error(
        "`{0}` cannot be in a layer: a name that begins with `.wh.` would delete a file wherever the layer is unpacked"
    )]
    ReservedName(RootPath),
    /// A path that no program could open by its name.
    #[error("a path below `{directory}` is longer than 4095 bytes")]
    TooLong {
        /// The directory it is in.
        directory: RootPath,
    },
}

/// An archive is malformed, hostile, or cannot be written to disk.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The compressed bytes or those below cannot be read.
    #[error("cannot read the archive")]
    Read {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// The bytes are no tar archive, or a damaged one.
    #[error("not a valid tar archive: {reason}, at byte {offset}")]
    Tar {
        /// What is wrong.
        reason: String,
        /// Where in the uncompressed archive.
        offset: u64,
    },
    /// An entry names what cannot be.
    #[error("entry `{path}` of the archive is refused: {reason}")]
    Entry {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A limit was reached.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// `bytes`, `entries`, `bytes of names and attributes`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An entry cannot be written.
    #[error("cannot write `{path}` into the snapshot")]
    Write {
        /// The entry.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// A hard link leads to a file that no lower layer has.
    #[error("hard link `{path}` leads to `{target}`, which is in no lower layer")]
    LinkTarget {
        /// The link.
        path: RootPath,
        /// Where it leads.
        target: RootPath,
    },
    /// Symbolic links in a path lead nowhere.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl PackError {
    /// The same, if `files` are those of the store: what was not there or not as the tree says is damaged.
    pub(super) fn in_store(self, files: &dyn Files, entry: &Entry) -> Self {
        match (self, files.snapshot(entry)) {
            (Self::Changed { path }, Some(snapshot)) => Self::Damaged { path, snapshot, source: None },
            (Self::Read { path, source }, Some(snapshot)) if is_lost(&source) => {
                Self::Damaged { path, snapshot, source: Some(source) }
            }
            (error, _) => error,
        }
    }
}

/// Whether an error says that a file is not there, or that the disk cannot give it.
fn is_lost(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lost = [Errno::NOENT, Errno::NOTDIR, Errno::ISDIR, Errno::LOOP, Errno::INVAL, Errno::IO];
    Errno::from_io_error(error).is_some_and(|errno| lost.contains(&errno)) || error.kind() == io::ErrorKind::NotFound
}

fn disk_hint(source: &io::Error) -> Option<String> {
    let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    full.then(|| "free some space, for example with `rbuild prune`".to_owned())
}

impl Diagnostic for PackError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("do not change the build context while a build runs; build again".to_owned()),
            Self::Write { source } | Self::Place { source, .. } => disk_hint(source),
            Self::Damaged { .. } => Some(
                "`rbuild cache verify --repair` removes what is damaged; then build or pull the image again".to_owned(),
            ),
            Self::ReservedName(_) => Some("rename it, or leave it out with `.dockerignore`".to_owned()),
            Self::Read { .. } | Self::XattrName { .. } => None,
        }
    }
}

impl Diagnostic for CaptureError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } => disk_hint(source),
            Self::ReservedName(_) => Some("remove or rename the file in the same `RUN`".to_owned()),
            Self::TooLong { .. } => Some("remove the deep directory in the same `RUN`".to_owned()),
        }
    }
}

impl Diagnostic for UnpackError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Write { source, .. } => disk_hint(source),
            Self::Limit { .. } => Some("is it a decompression bomb? the limits can be raised".to_owned()),
            _ => None,
        }
    }
}
