//! [`ParseOutputError`] and [`ExportError`].

use std::io;
use std::path::PathBuf;

use crate::cancel::Cancelled;
use crate::content::ContentError;
use crate::diagnostic::{Diagnostic, nearest};
use crate::layer::{KeepError, PackError};
use crate::oci::{DiffId, ParsePlatformError, ParseReferenceError, Platform};
use crate::registry::RegistryError;
use crate::rootfs::RootPath;
use crate::snapshot::SnapshotError;
use crate::tree::TreeStoreError;

/// The text of `--output` is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseOutputError {
    /// There is nothing in it.
    #[error("the output is empty")]
    Empty,
    /// `type=` is missing.
    #[error("the output has no type")]
    NoType,
    /// There is no such type.
    #[error("unknown output type `{kind}`")]
    UnknownType {
        /// What was written.
        kind: String,
        /// What there is.
        known: &'static [&'static str],
    },
    /// There is no such option.
    #[error("unknown option `{key}` of output type `{kind}`")]
    UnknownKey {
        /// What was written.
        key: String,
        /// The type.
        kind: &'static str,
        /// What the type knows.
        known: Vec<&'static str>,
    },
    /// A field has no `=`.
    #[error("`{field}` is not of the form `key=value`")]
    NotAPair {
        /// The field.
        field: String,
    },
    /// A key comes twice.
    #[error("option `{key}` is given twice")]
    Twice {
        /// Which one.
        key: String,
    },
    /// A value is not one of those that its key takes.
    #[error("`{value}` is not a value of `{key}`: expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// `dest` is missing.
    #[error("output type `{kind}` needs a destination")]
    NoDestination {
        /// The type.
        kind: &'static str,
    },
    /// Two options contradict each other.
    #[error("{reason}")]
    Conflict {
        /// How.
        reason: &'static str,
    },
    /// Quotes are not closed, or inside a field.
    #[error("the quotes in `{text}` do not match")]
    Quotes {
        /// The whole text.
        text: String,
    },
    /// A name is not a reference.
    #[error(transparent)]
    Name {
        /// Why.
        source: ParseReferenceError,
    },
    /// The platform of an annotation is not one.
    #[error(transparent)]
    Platform {
        /// Why.
        source: ParsePlatformError,
    },
}

impl Diagnostic for ParseOutputError {
    fn hint(&self) -> Option<String> {
        let did_you_mean = |word: &str, known: &[&str]| {
            nearest(word, known.iter().copied()).map(|known| format!("did you mean `{known}`?"))
        };
        match self {
            Self::UnknownType { kind, known } => did_you_mean(kind, known),
            Self::UnknownKey { key, known, .. } => did_you_mean(key, known),
            Self::NoType => Some("for example `type=oci,dest=image.tar`".to_owned()),
            Self::NoDestination { .. } => Some("add `dest=PATH`".to_owned()),
            Self::NotAPair { .. } => Some("a value with a comma is written `\"key=a,b\"`".to_owned()),
            _ => None,
        }
    }
}

/// The result of a build cannot be brought where it should be.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An annotation is for a platform that is not built.
    #[error("annotation `{key}` is for {platform}, which is not built")]
    AnnotationPlatform {
        /// Its key.
        key: String,
        /// Its platform.
        platform: Box<Platform>,
    },
    /// Files of several platforms go to one place, and two of them have a file of one name.
    #[error("several platforms have a file `{path}`, and they share one directory")]
    PlatformConflict {
        /// The file.
        path: RootPath,
    },
    /// An annotation is for an index, and there is one manifest only.
    #[error("annotation `{key}` is for an index, and an image for one platform has none")]
    AnnotationIndex {
        /// Its key.
        key: String,
    },
    /// A file or directory of an output cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the image cannot be written into a directory.
    #[error("cannot write `{name}` into {}", path.display())]
    WriteFile {
        /// The file, inside the image.
        name: RootPath,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Stdout {
        /// Why.
        source: io::Error,
    },
    /// An archive was to be written over a directory.
    #[error("{} is a directory", path.display())]
    IsDirectory {
        /// Which one.
        path: PathBuf,
    },
    /// Files were to be written into something else than a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// Which one.
        path: PathBuf,
    },
    /// Two outputs want standard output, or the caller has not supplied it.
    #[error("{reason}")]
    NoStdout {
        /// Which of the two.
        reason: &'static str,
    },
    /// There is nothing to export.
    #[error("there is no image to export")]
    NoImage,
    /// An output needs files that the caller has not brought.
    #[error("the files of the image are not at hand")]
    NoFiles,
    /// An image cannot be pushed, because it has no name to push it under.
    #[error("an image to be pushed needs a name")]
    NoName,
    /// The bytes of a layer are in no place that is known.
    #[error("the files of layer {} (`{diff_id}`) are not in the store", .layer + 1)]
    LayerGone {
        /// Number of the layer, the lowest is 0.
        layer: usize,
        /// Which one.
        diff_id: DiffId,
    },
    /// A layer is not what the config says.
    #[error("layer {} is damaged: its tar has digest `{actual}`, the image says `{expected}`", .layer + 1)]
    DiffId {
        /// Number of the layer, the lowest is 0.
        layer: usize,
        /// What the config says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// A layer was packed into another blob than what was remembered, as a cache that was read had said something
    /// wrong. What is remembered is right now: exporting again succeeds.
    #[error("layer {layer} is packed into another blob than a cache has said")]
    Outdated {
        /// Number of the layer, the lowest is 0.
        layer: usize,
    },
    /// A layer cannot be packed.
    #[error("cannot pack layer {}", .layer + 1)]
    Pack {
        /// Number of the layer, the lowest is 0.
        layer: usize,
        /// Why.
        source: PackError,
    },
    /// A compressed layer cannot be read.
    #[error("cannot read layer {}", .layer + 1)]
    Read {
        /// Number of the layer, the lowest is 0.
        layer: usize,
        /// Why.
        source: io::Error,
    },
    /// An `index.json` that is there already cannot be understood.
    #[error("{} is not an OCI image layout", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Why.
        source: crate::oci::ParseManifestError,
    },
    /// The store refuses.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The trees of the store cannot be used.
    #[error(transparent)]
    Tree(#[from] TreeStoreError),
    /// The snapshots of the store cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A registry refuses.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The build was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Does `work` again as long as it finds out that something was remembered wrongly.
pub(crate) fn until_right<T, E>(mut work: impl FnMut() -> Result<T, E>, outdated: impl Fn(&E) -> bool) -> Result<T, E> {
    // Each round puts one thing right, and a cache cannot say more wrong things than there are layers.
    for _ in 0..MOST_ROUNDS {
        match work() {
            Err(error) if outdated(&error) => {}
            result => return result,
        }
    }
    work()
}

/// Most layers that images have (overlayfs takes 500), with a diff id and a blob each.
const MOST_ROUNDS: usize = 1000;

impl ExportError {
    /// The files of layer `layer` cannot be kept in the store.
    pub(super) fn of_layer(layer: usize, error: KeepError) -> Self {
        match error {
            KeepError::Files(source) => Self::Pack { layer, source },
            KeepError::Snapshot(error) => error.into(),
            KeepError::Tree(error) => error.into(),
            KeepError::Content(error) => error.into(),
        }
    }

    /// Whether it is the consequence of a cancelled build.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Cancelled(_)
                | Self::Content(ContentError::Cancelled(_))
                | Self::Registry(RegistryError::Cancelled(_))
        )
    }
}

impl Diagnostic for ExportError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Write { source, path } => match source.kind() {
                io::ErrorKind::NotFound => {
                    let parent = path.parent()?;
                    return Some(format!("make the directory {} first", parent.display()));
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space",
                _ => return None,
            },
            Self::WriteFile { source, .. } | Self::Stdout { source } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space",
                _ => return None,
            },
            Self::IsDirectory { .. } => "give the name of a file, or `tar=false` for an OCI layout in a directory",
            Self::NotADirectory { .. } => "give the name of a directory, or `type=tar`",
            Self::AnnotationIndex { .. } => {
                "write it to the manifest (`manifest:KEY=VALUE`), or make an index: `--build-arg BUILDKIT_MULTI_PLATFORM=1`"
            }
            Self::PlatformConflict { .. } => "leave out `platform-split=false`",
            Self::NoName => "add `-t NAME` or `name=NAME`",
            Self::Outdated { .. } => "do the same again",
            Self::LayerGone { .. } => "build it again, or pull it again",
            Self::DiffId { .. } => "build it again with `--no-cache`, or pull it again",
            Self::Content(error) => return error.hint(),
            Self::Snapshot(error) => return error.hint(),
            Self::Pack { source, .. } => return source.hint(),
            Self::Registry(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
