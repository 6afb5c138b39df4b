//! What can be wrong with a copy.

use crate::context::{ContextError, RequestError};
use crate::diagnostic::{Diagnostic, Location};
use crate::rootfs::{ParseRootPathError, RootPath};
use crate::tree::ResolveError;

/// A copy can't be done.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source in the build context is missing or can't be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A source is not a valid pattern or path.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A source is not in the stage or image that it is taken from.
    #[error("no such file: `{path}`")]
    NotFound {
        /// What was looked for.
        path: RootPath,
        /// The name next to it that is most like it.
        nearest: Option<RootPath>,
    },
    /// Symbolic links in a path don't lead anywhere.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The destination is not a path.
    #[error(transparent)]
    Path(#[from] ParseRootPathError),
    /// A directory is to be made or filled where something else is.
    #[error("cannot copy to `{path}`: {kind} is in the way")]
    NotADirectory {
        /// Where.
        path: RootPath,
        /// What it is: `a file`.
        kind: &'static str,
    },
    /// A directory would have to go for something that is not one.
    #[error("cannot replace the directory `{0}` by something that is not a directory")]
    IsADirectory(RootPath),
    /// A name that means a deletion in every layer (image-spec `layer.md`).
    #[error("cannot copy to `{0}`: a name that begins with `.wh.` would delete a file wherever the layer is unpacked")]
    ReservedName(RootPath),
    /// The value of `--chmod` is not a mode.
    #[error("invalid mode `{0}`")]
    Mode(String),
}

impl Diagnostic for CopyError {
    fn location(&self) -> Option<Location> {
        match self {
            Self::Context(error) => error.location(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Context(error) => error.hint(),
            Self::NotFound { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::NotFound { .. } => Some("paths are relative to the root of the stage or image".to_owned()),
            Self::NotADirectory { kind: "a symbolic link", .. } => {
                Some("copy to where it leads, or let `--link` replace it".to_owned())
            }
            Self::NotADirectory { .. } => Some("remove it in an earlier `RUN`, or copy to another place".to_owned()),
            Self::IsADirectory(_) => {
                Some("remove the directory in an earlier `RUN`, or copy to another name".to_owned())
            }
            Self::ReservedName(_) => {
                Some("rename the file, or leave it out with `--exclude` or `.dockerignore`".to_owned())
            }
            Self::Mode(_) => {
                Some("it is an octal number up to 07777, or a symbolic mode like `u=rwX,go=rX`".to_owned())
            }
            _ => None,
        }
    }
}
