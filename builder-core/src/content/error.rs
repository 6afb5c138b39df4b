//! [`ContentError`].

use std::io;
use std::path::PathBuf;

use crate::cancel::Cancelled;
use crate::diagnostic::Diagnostic;
use crate::oci::Digest;

/// Something in the store cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store was written by a newer program.
    #[error("the store at {} has format {found}; this program knows formats up to {known}", path.display())]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The store was written by a program that is too old.
    #[error("the store at {} has format {found}; this program knows formats from {known} on", path.display())]
    OlderFormat {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The oldest format known here.
        known: u32,
    },
    /// The directory holds other things than a store.
    #[error("{} is not a store: it holds `{found}`", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// The version file is not a number.
    #[error("the version file {} is damaged", path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// There is no such blob.
    #[error("blob `{digest}` is not in the store")]
    Missing {
        /// Its name.
        digest: Digest,
    },
    /// Bytes are not the ones that the digest names.
    #[error("blob `{expected}` is damaged: its content has digest `{actual}`")]
    DigestMismatch {
        /// What the bytes should have been.
        expected: Digest,
        /// What they are.
        actual: Digest,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("blob `{digest}` has {actual} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Length according to the descriptor, in bytes.
        expected: u64,
        /// Length found, in bytes.
        actual: u64,
    },
    /// A blob that has to be held in memory is too large for that.
    #[error("blob `{digest}` of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database refuses.
    #[error("the database {} cannot be used", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A prefix names several images.
    #[error("image id `{prefix}` is ambiguous: it begins {count} ids")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many images it could be.
        count: usize,
    },
    /// Somebody else made the store; what two users write, neither could use.
    #[error("the store at {} belongs to user {owner}, and this is user {user}", path.display())]
    Foreign {
        /// Its directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who wants to write to it.
        user: u32,
    },
    /// A tag was to be given to an image that is not there.
    #[error("image `{0}` is not in the store")]
    NoSuchImage(crate::oci::ImageId),
    /// The build was cancelled while it waited.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl ContentError {
    /// Unwraps the error that a [`super::BlobReader`] or [`super::BlobWriter`] put into an [`io::Error`].
    ///
    /// # Errors
    /// Gives the [`io::Error`] back if it is another one.
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        error.downcast::<Self>()
    }

    /// Wraps the error for [`io::Read`] and [`io::Write`].
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Read { source, .. } | Self::Write { source, .. } => source.kind(),
            Self::Missing { .. } => io::ErrorKind::NotFound,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}

impl ContentError {
    /// Whether the store is on a file system that cannot be written.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem)
    }
}

impl Diagnostic for ContentError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NewerFormat { .. } => "use a newer rbuild, or another store with `--root`",
            Self::OlderFormat { .. } => "remove it, or use another store with `--root`",
            Self::NotAStore { .. } => "give an empty or a new directory",
            Self::Version { .. } => "write `3` into it if the store is yours, or use another store with `--root`",
            Self::DigestMismatch { .. } | Self::Missing { .. } => "it is fetched or built again by the next build",
            Self::Ambiguous { .. } => "give more digits",
            Self::Foreign { owner, .. } => {
                return Some(format!("build as user {owner}, or use another store with `--root`"));
            }
            Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space, for example with `rbuild prune`"
                }
                io::ErrorKind::PermissionDenied => "the store belongs to another user; use another one with `--root`",
                io::ErrorKind::ReadOnlyFilesystem => "use a store on a writable filesystem with `--root`",
                _ => return None,
            },
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the store belongs to another user; use another one with `--root`"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
