//! [`ParseCacheError`] and [`RemoteError`].

use std::io;
use std::path::PathBuf;

use crate::cancel::Cancelled;
use crate::content::ContentError;
use crate::diagnostic::{Diagnostic, nearest};
use crate::export::{ExportError, ParseOutputError};
use crate::layer::UnpackError;
use crate::oci::{Digest, ParseManifestError, ParseReferenceError, Reference};
use crate::registry::RegistryError;
use crate::snapshot::SnapshotError;

/// The text of `--cache-from` or `--cache-to` is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCacheError {
    /// It is no list of `key=value`.
    #[error(transparent)]
    Text(#[from] ParseOutputError),
    /// There is no such type.
    #[error("{}", if kind.is_empty() { "the type of the cache is missing".to_owned() } else { format!("unknown cache type `{kind}`") })]
    UnknownType {
        /// What was written.
        kind: String,
        /// What there is.
        known: &'static [&'static str],
    },
    /// There is no such option.
    #[error("unknown option `{key}` of cache type `{kind}`")]
    UnknownKey {
        /// What was written.
        key: String,
        /// The type.
        kind: String,
        /// What the type knows.
        known: Vec<&'static str>,
    },
    /// An option is missing.
    #[error("cache type `{kind}` needs `{key}`")]
    Missing {
        /// The type.
        kind: String,
        /// What is missing.
        key: &'static str,
    },
    /// A value is not one of those that its key takes.
    #[error("`{value}` is not a value of `{key}`: expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// `ref` is not the name of an image.
    #[error(transparent)]
    Name(#[from] ParseReferenceError),
}

impl Diagnostic for ParseCacheError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownType { kind, known } if kind.is_empty() => {
                Some(format!("begin with `type=`; the types are {}", known.join(", ")))
            }
            Self::UnknownType { kind, known } => Some(match nearest(kind, known.iter().copied()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("the types are {}", known.join(", ")),
            }),
            Self::UnknownKey { key, known, .. } => Some(match nearest(key, known.iter().copied()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("the options are {}", known.join(", ")),
            }),
            // The short form, with options.
            Self::Text(ParseOutputError::NotAPair { field }) if field.parse::<Reference>().is_ok() => {
                Some(format!("a name with options is written `type=registry,ref={field},…`"))
            }
            Self::Missing { kind, key: "url_v2" | "token" } if kind == "gha" => Some(
                "a job of GitHub Actions hands `ACTIONS_RESULTS_URL` and `ACTIONS_RUNTIME_TOKEN` only to actions; \
                 `crazy-max/ghaction-github-runtime` passes them on"
                    .to_owned(),
            ),
            Self::Text(error) => error.hint(),
            Self::Name(ParseReferenceError { text, .. }) if text.starts_with(['/', '.', '~']) => {
                Some(format!("a directory is written `type=local,src={text}`, and `dest=` where the cache goes"))
            }
            _ => None,
        }
    }
}

/// A cache elsewhere cannot be used. Never the end of a build, unless the user asked for that with `strict`.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Nothing came in time.
    #[error("it did not answer within {seconds} seconds")]
    TooSlow {
        /// The limit.
        seconds: u64,
    },
    /// Nothing came or went for too long.
    #[error("nothing came or went for {seconds} seconds")]
    Stalled {
        /// The limit.
        seconds: u64,
    },
    /// A registry refuses.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A server of another kind refuses, or cannot be reached.
    #[error("{action}: {reason}")]
    Http {
        /// What was asked for.
        action: String,
        /// What it said.
        reason: String,
    },
    /// A file or stream cannot be read or written.
    #[error("cannot access {}", path.display())]
    Access {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing at the place.
    #[error("there is no cache")]
    Nothing,
    /// The index names a blob that is not there.
    #[error("blob `{digest}` is not there any more")]
    Gone {
        /// Which one.
        digest: Digest,
    },
    /// Bytes are not those that the index names.
    #[error("blob `{digest}` is damaged: {reason}")]
    Damaged {
        /// What was asked for.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// The index, or what it names, is not what this program writes.
    #[error("it is no cache of this program: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The cache was written by BuildKit.
    #[error("it was written by BuildKit, whose keys are digests of its own operations and match nothing here")]
    BuildKit,
    /// The cache was written by a newer program.
    #[error("its format {found} is newer than this program, which knows {known}")]
    Newer {
        /// The format found.
        found: u32,
        /// The format that this program writes.
        known: u32,
    },
    /// The cache was written by an older program, whose digests of trees are others.
    #[error("its format {found} is older than this program, which knows {known}")]
    Older {
        /// The format found.
        found: u32,
        /// The format that this program writes.
        known: u32,
    },
    /// The files of a layer do not make its tree.
    #[error("the files of layer `{digest}` are not those that were recorded")]
    OtherFiles {
        /// The blob.
        digest: Digest,
    },
    /// The manifest does not parse.
    #[error(transparent)]
    Manifest(#[from] ParseManifestError),
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A layer cannot be packed.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The files of a layer are not at hand.
    #[error("{reason}")]
    NoFiles {
        /// Why.
        reason: String,
    },
    /// The local store refuses.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The local store refuses.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The build was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl RemoteError {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }

    /// Whether one blob is missing or wrong, and the rest of the cache may be fine.
    pub(super) fn is_about_blob(&self) -> bool {
        use RegistryError::{BlobNotFound, DigestMismatch, SizeMismatch};
        matches!(
            self,
            Self::Gone { .. }
                | Self::Damaged { .. }
                | Self::OtherFiles { .. }
                | Self::Unpack(_)
                | Self::Registry(BlobNotFound { .. } | DigestMismatch { .. } | SizeMismatch { .. })
        )
    }

    /// Whether a part of the cache is missing or wrong, and other parts may be fine.
    pub(crate) fn is_damage(&self) -> bool {
        self.is_about_blob() || matches!(self, Self::Malformed { .. })
    }

    /// Whether it is the echo of a cancel.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled(_)
            | Self::Registry(RegistryError::Cancelled(_))
            | Self::Content(ContentError::Cancelled(_)) => true,
            Self::Export(error) => error.is_cancelled(),
            _ => false,
        }
    }
}

impl Diagnostic for RemoteError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Content(error) => error.hint(),
            Self::Export(error) => error.hint(),
            Self::Stalled { .. } => Some("a place that needs more time gets it with `stall-timeout=2m`".to_owned()),
            Self::Access { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Some("free some space".to_owned())
            }
            _ => None,
        }
    }
}
