//! The cache by hand: [`Engine::export_cache`](super::Engine::export_cache) sends what the store holds, without a build,
//! [`Engine::import_cache`](super::Engine::import_cache) brings everything that a place has.
//!
//! ```text
//! CacheSelection ── select ──▶ records, trees, bases ── remote::Exporter ──▶ CacheDestination
//! CacheSource ── remote::Whole ──▶ trees, bases, small files, then records; files of layers and cache mounts if asked for
//! ```
//!
//! The formats, and what is believed, are those of `--cache-to` and `--cache-from`.

mod export;
mod import;
mod select;

use super::error::StepError;
use super::images::ImageError;
use crate::cancel::Cancelled;
use crate::diagnostic::Diagnostic;
use crate::history::{BuildId, HistoryError};
use crate::oci::Platform;
use crate::remote::{MountChoice, RemoteError};

/// Which results are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSelection {
    /// All that the store holds.
    Everything,
    /// Those of the steps of a build.
    Build(BuildId),
    /// Those of an image: its layers, and all steps of the newest build that made it. A name or an id.
    Image(String),
    /// Those with these keys or ids of layers; the beginning is enough.
    Keys(Vec<String>),
}

/// What an export by hand came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheExported {
    /// Results of steps in the cache; none if there was nothing to send, and the place is as it was.
    pub results: usize,
    /// Layers whose files are in it.
    pub layers: usize,
    /// Layers whose files the store has not got.
    pub without_files: usize,
    /// Ids of the cache mounts in it.
    pub mounts: Vec<String>,
    /// Ids of cache mounts that a build uses, and that are as they were at the place.
    pub busy_mounts: Vec<String>,
    /// Blobs that were sent.
    pub sent: usize,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Blobs that were there already.
    pub present: usize,
}

/// What is brought besides records and trees.
#[derive(Debug, Clone, Default)]
pub struct CacheImport {
    /// The files of layers.
    pub layers: bool,
    /// Cache mounts.
    pub mounts: MountChoice,
    /// For caches in images: the platforms of the images; that of this machine if there is none.
    pub platforms: Vec<Platform>,
}

/// What an import came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheImported {
    /// Results of steps that are new here.
    pub results: usize,
    /// Results that were here already.
    pub known_results: usize,
    /// Results that name a tree which the cache has not got.
    pub useless: usize,
    /// Layers whose files are new here.
    pub layers: usize,
    /// Layers whose files were here already.
    pub known_layers: usize,
    /// Ids of cache mounts that are new here.
    pub mounts: Vec<String>,
    /// Ids of cache mounts that were here already, and stay as they are.
    pub known_mounts: Vec<String>,
    /// What was damaged and left out, a sentence each.
    pub damaged: Vec<String>,
}

/// A cache cannot be sent or brought.
#[derive(Debug, thiserror::Error)]
pub enum CacheTransferError {
    /// No result has this key or id.
    #[error("there is no result with the key or id `{key}`")]
    NoSuchResult {
        /// What was asked for.
        key: String,
    },
    /// What was asked for has no result any more that could be sent.
    #[error("{what} has no results in the store")]
    NoResults {
        /// A build or an image.
        what: String,
    },
    /// There is no such cache mount.
    #[error("there is no cache mount `{id}`")]
    NoSuchMount {
        /// What was asked for.
        id: String,
    },
    /// The image.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// The build.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// It cannot be written.
    #[error("cannot write the cache to {place}")]
    Write {
        /// Where.
        place: String,
        /// Why.
        source: Box<RemoteError>,
    },
    /// It cannot be read.
    #[error("cannot read the cache of {place}")]
    Read {
        /// Where.
        place: String,
        /// Why.
        source: Box<RemoteError>,
    },
    /// The store fails.
    #[error(transparent)]
    Store(Box<StepError>),
    /// The caller cancelled it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Diagnostic for CacheTransferError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuchResult { .. } => {
                Some("`rbuild cache ls` lists ids, `rbuild explain --json` the keys of a build".to_owned())
            }
            Self::NoResults { .. } => Some("build it again; what was pruned cannot be sent".to_owned()),
            Self::NoSuchMount { .. } => Some("`rbuild cache mounts ls` lists them".to_owned()),
            Self::Image(error) => error.hint(),
            Self::History(error) => error.hint(),
            Self::Write { source, .. } | Self::Read { source, .. } => source.hint(),
            Self::Store(error) => error.hint(),
            Self::Cancelled(_) => None,
        }
    }
}

/// An error of one of the stores.
fn store<E: Into<StepError>>(error: E) -> CacheTransferError {
    let error = error.into();
    if error.is_cancelled() { Cancelled.into() } else { CacheTransferError::Store(Box::new(error)) }
}
