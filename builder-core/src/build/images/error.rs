//! [`ImageError`].

use crate::content::ContentError;
use crate::diagnostic::Diagnostic;
use crate::oci::{ImageId, ParseManifestError, Reference};

/// A command on images cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing in the store has this name or id.
    #[error("no such image: `{name}`")]
    NoSuchImage {
        /// What was asked for.
        name: String,
    },
    /// A tag with a digest would be wrong as soon as the image changes.
    #[error("`{name}` cannot be a tag: it has a digest")]
    DigestInName {
        /// What was asked for.
        name: Reference,
    },
    /// Removing by id would take several names away.
    #[error("cannot remove image `{}`: it has several names ({})", id.digest().short(), names.join(", "))]
    SeveralNames {
        /// The image.
        id: ImageId,
        /// Its names.
        names: Vec<String>,
    },
    /// A pattern has a bracket that is not closed.
    #[error("the pattern `{pattern}` is not valid")]
    Pattern {
        /// What was asked for.
        pattern: String,
    },
    /// The config of an image cannot be understood.
    #[error("the config of image `{}` cannot be used", id.digest().short())]
    Config {
        /// The image.
        id: ImageId,
        /// Why.
        source: ParseManifestError,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl Diagnostic for ImageError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuchImage { .. } => Some("`rbuild images` lists what there is".to_owned()),
            Self::SeveralNames { .. } => Some("remove the names one by one, or use `--force`".to_owned()),
            Self::Content(error) => error.hint(),
            _ => None,
        }
    }
}
