//! [`ImageError`].

use std::io;

use crate::content::ContentError;
use crate::diagnostic::Diagnostic;
use crate::export::ExportError;
use crate::oci::{DiffId, ImageId, ParseManifestError, Reference};

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
    /// An image contradicts itself.
    #[error("image `{image}` is malformed: {reason}")]
    Malformed {
        /// What was asked for.
        image: String,
        /// How.
        reason: String,
    },
    /// A layer is not the one that the config names.
    #[error(
        "layer {layer} of image `{image}` is not the right one: its tar has digest `{actual}`, its config says `{expected}`"
    )]
    DiffId {
        /// What was asked for.
        image: String,
        /// Number of the layer, the lowest is 0.
        layer: usize,
        /// What the config says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// A file to be loaded holds no images.
    #[error("this is no archive of images: {reason}")]
    NotAnArchive {
        /// Why not.
        reason: String,
    },
    /// A file to be loaded cannot be read.
    #[error("cannot read the archive")]
    ReadArchive {
        /// Why.
        source: io::Error,
    },
    /// A registry, an archive or a layer.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl ImageError {
    /// Whether it is the consequence of a cancelled command.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Content(error) => matches!(error, ContentError::Cancelled(_)),
            Self::Export(error) => error.is_cancelled(),
            _ => false,
        }
    }
}

impl From<crate::registry::RegistryError> for ImageError {
    fn from(error: crate::registry::RegistryError) -> Self {
        Self::Export(error.into())
    }
}

impl Diagnostic for ImageError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuchImage { .. } => Some("`rbuild images` lists what there is".to_owned()),
            Self::SeveralNames { .. } => Some("remove the names one by one, or use `--force`".to_owned()),
            Self::NotAnArchive { .. } => Some("`rbuild load` reads what `save` writes, and OCI layouts".to_owned()),
            Self::Content(error) => error.hint(),
            Self::Export(error) => error.hint(),
            _ => None,
        }
    }
}
