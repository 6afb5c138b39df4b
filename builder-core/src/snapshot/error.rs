//! [`SnapshotError`].

use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::rootfs::RootPath;
use crate::tree::ResolveError;

/// A snapshot cannot be made, mounted or removed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what, on the host.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused to stack the layers.
    #[error("cannot mount {layers} layers with overlayfs")]
    Overlay {
        /// How many.
        layers: usize,
        /// Why not.
        source: io::Error,
    },
    /// A place for a mount is a symbolic link in the image, which could lead anywhere.
    #[error("`{0}` is a symbolic link in the image, and nothing is mounted on it")]
    TargetIsLink(RootPath),
    /// A place for a mount is of another kind in the image.
    #[error("`{path}` is not a {expected} in the image, and {what} is to be mounted on it", what = if *expected == "directory" { "one" } else { "a file" })]
    TargetKind {
        /// The place.
        path: RootPath,
        /// `directory` or `file`.
        expected: &'static str,
    },
    /// A place for a mount cannot be found in the image.
    #[error(transparent)]
    Target(#[from] ResolveError),
}

impl SnapshotError {
    /// Names what was done and to what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// The failure of the system below, if that is what it is.
    pub fn source_io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } | Self::Overlay { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Diagnostic for SnapshotError {
    fn hint(&self) -> Option<String> {
        match self.source_io()?.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("free some space, for example with `rbuild prune`".to_owned())
            }
            io::ErrorKind::PermissionDenied => Some("is the store owned by another user?".to_owned()),
            _ => None,
        }
    }
}
