//! [`RegistryError`].

use std::io;
use std::path::PathBuf;

use crate::cancel::Cancelled;
use crate::content::ContentError;
use crate::diagnostic::Diagnostic;
use crate::oci::{Digest, ParseManifestError, Platform};

/// A registry could not be used, or gave something else than it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer came.
    #[error("cannot reach registry `{registry}`: {reason}")]
    Unreachable {
        /// Which registry.
        registry: String,
        /// What the network said.
        reason: String,
    },
    /// The certificate of the registry is not to be trusted, or TLS failed otherwise.
    #[error("cannot trust registry `{registry}`: {reason}")]
    Tls {
        /// Which registry.
        registry: String,
        /// What TLS said.
        reason: String,
    },
    /// Credentials are needed, and there are none.
    #[error("registry `{registry}` wants credentials for `{subject}`, or there is no such image")]
    Unauthorized {
        /// Which registry.
        registry: String,
        /// The repository.
        subject: String,
        /// A token server that the password was not sent to, because it is another host.
        untrusted_realm: Option<String>,
    },
    /// There are credentials, and the registry does not accept them.
    #[error("registry `{registry}` refused the credentials for `{subject}`")]
    Refused {
        /// Which registry.
        registry: String,
        /// The repository.
        subject: String,
    },
    /// The registry does not have the image.
    #[error("image `{reference}` is not in its registry")]
    ImageNotFound {
        /// Which image.
        reference: String,
    },
    /// The registry does not have a blob.
    #[error("blob `{digest}` of `{reference}` is not in its registry")]
    BlobNotFound {
        /// The image that it is part of.
        reference: String,
        /// Which blob.
        digest: Digest,
    },
    /// The registry asks for patience, more often than is bearable.
    #[error("registry `{registry}` limits the rate of requests: {message}")]
    RateLimited {
        /// Which registry.
        registry: String,
        /// What it said.
        message: String,
    },
    /// Any other answer that is not a success.
    #[error("registry `{registry}` answered {status} to {action}: {message}")]
    Status {
        /// Which registry.
        registry: String,
        /// What it was asked for.
        action: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// An answer breaks the protocol.
    #[error("registry `{registry}` gave an unusable answer to {action}: {reason}")]
    Protocol {
        /// Which registry.
        registry: String,
        /// What it was asked for.
        action: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes are not the ones that were asked for.
    #[error("registry `{registry}` sent other bytes than asked for: expected `{expected}`, got `{actual}`")]
    DigestMismatch {
        /// Which registry.
        registry: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("registry `{registry}` sent {actual} bytes of `{digest}`, its descriptor says {expected}")]
    SizeMismatch {
        /// Which registry.
        registry: String,
        /// The blob.
        digest: Digest,
        /// Length according to the descriptor, in bytes.
        expected: u64,
        /// Length that was announced or came, in bytes; one more than expected if it never ended.
        actual: u64,
    },
    /// A document is larger than is read.
    #[error("{what} of `{reference}` is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Of which image.
        reference: String,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// A manifest or index cannot be used.
    #[error("cannot use image `{reference}`: {source}")]
    Manifest {
        /// Which image.
        reference: String,
        /// What is wrong.
        source: ParseManifestError,
    },
    /// The image has Docker's oldest manifest format.
    #[error("image `{reference}` has a schema 1 manifest, which was given up in 2017")]
    SchemaOne {
        /// Which image.
        reference: String,
    },
    /// The answer is no manifest.
    #[error("`{reference}` is not an image: its media type is `{media_type}`")]
    NotAnImage {
        /// What was asked for.
        reference: String,
        /// What came.
        media_type: String,
    },
    /// No variant of the image is for the platform.
    #[error("image `{reference}` is not available for {wanted}")]
    NoPlatform {
        /// Which image.
        reference: String,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<Platform>,
    },
    /// Indexes name indexes name indexes.
    #[error("image `{reference}` has indexes nested deeper than {limit} levels")]
    Nested {
        /// Which image.
        reference: String,
        /// How many levels are followed.
        limit: usize,
    },
    /// A file with credentials cannot be used.
    #[error("cannot use credentials in {}: {reason}", path.display())]
    CredentialFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A credential helper failed.
    #[error("credential helper `{helper}` failed: {reason}")]
    CredentialHelper {
        /// The program.
        helper: String,
        /// What it said.
        reason: String,
    },
    /// The configuration of the client is wrong.
    #[error("cannot use {what}: {reason}")]
    Config {
        /// Which setting.
        what: String,
        /// Why.
        reason: String,
    },
    /// What was to be pushed cannot be read.
    #[error("cannot read blob `{digest}` to push it")]
    Source {
        /// Which blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The build was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl RegistryError {
    /// Unwraps the error that a [`super::BlobStream`] put into an [`io::Error`].
    ///
    /// # Errors
    /// Gives the [`io::Error`] back if it is another one.
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        match error.downcast::<Self>() {
            Ok(error) => Ok(error),
            Err(error) => ContentError::from_io(error).map(Self::Content),
        }
    }

    /// Wraps the error for [`io::Read`].
    pub(super) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Says whether asking another endpoint, or uploading in another way, is pointless.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Cancelled(_) | Self::Content(_) | Self::Source { .. } | Self::Config { .. })
    }
}

impl Diagnostic for RegistryError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { .. } => "check its name and the network, or use `--registry-mirror`".to_owned(),
            Self::Tls { registry, .. } => {
                format!("install its CA, or give `--insecure-registry {registry}` if you trust the network")
            }
            Self::Unauthorized { registry, untrusted_realm: Some(realm), .. } => format!(
                "the password was not sent to `{realm}`, which is another host than `{registry}`; allow it as a token host if it is right"
            ),
            Self::Unauthorized { registry, .. } => {
                format!("check the name, or log in with `rbuild login {registry}`")
            }
            Self::Status { registry, status: 403, .. } => {
                format!("log in with an account that may do this: `rbuild login {registry}`")
            }
            Self::Refused { registry, .. } => format!("log in again with `rbuild login {registry}`"),
            Self::ImageNotFound { .. } => "check name and tag".to_owned(),
            Self::RateLimited { registry, .. } => {
                format!("wait, log in with `rbuild login {registry}`, or use a mirror")
            }
            Self::SchemaOne { .. } => "pull and push it once with a tool of that time, or use a newer tag".to_owned(),
            Self::NoPlatform { available, .. } if !available.is_empty() => {
                let names: Vec<String> = available.iter().map(ToString::to_string).collect();
                format!("it is available for {}", names.join(", "))
            }
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                "a proxy or mirror in between may be broken; try again without it".to_owned()
            }
            Self::Content(error) => return error.hint(),
            _ => return None,
        })
    }
}

/// A text from outside as part of one line: control characters escaped, and not longer than a line or two.
pub(super) fn one_line(text: &str) -> String {
    const LIMIT: usize = 300;
    let mut line = String::new();
    for character in text.trim().chars() {
        if line.len() >= LIMIT {
            line.push('…');
            break;
        }
        if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
    }
    line
}
