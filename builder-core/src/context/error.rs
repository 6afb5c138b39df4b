//! What can be wrong with a build context.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::glob::BadPattern;
use crate::diagnostic::{Diagnostic, Location, Source, Span};
use crate::rootfs::{ParseRootPathError, RootPath};

/// The line of an ignore file that hides a path.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct IgnoredBy {
    /// Name of the file, as shown to people.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
}

impl fmt::Display for IgnoredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file, self.line)
    }
}

/// A build context can't be used, or has not got what is asked for.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The context itself can't be opened.
    #[error("cannot open the build context {}", path.display())]
    Open {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An ignore file can't be read.
    #[error("cannot read the ignore file {}", path.display())]
    ReadIgnoreFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pattern of an ignore file is not valid.
    #[error("invalid pattern `{pattern}`: {problem}")]
    Pattern {
        /// The ignore file.
        source_text: Source,
        /// The line.
        span: Span,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: BadPattern,
    },
    /// A source or an `--exclude` of an instruction is not a valid pattern.
    #[error("invalid pattern `{pattern}`: {problem}")]
    SourcePattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: BadPattern,
    },
    /// A source is not a path.
    #[error(transparent)]
    Path(#[from] ParseRootPathError),
    /// A source is not there.
    #[error("no such file in the build context: `{path}`")]
    NotFound {
        /// What was looked for.
        path: RootPath,
        /// The name next to it that is most like it.
        nearest: Option<String>,
        /// It is there, but ignored.
        ignored: Option<IgnoredBy>,
    },
    /// Symbolic links lead to links without end.
    #[error("too many symbolic links in `{0}`")]
    Loop(RootPath),
    /// Something in the context can't be read.
    #[error("cannot read `{path}` in the build context")]
    Read {
        /// The path in the context.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// A file changes faster than it can be read.
    #[error("`{0}` changed while it was read")]
    Changed(RootPath),
}

impl Diagnostic for ContextError {
    fn location(&self) -> Option<Location> {
        match self {
            Self::Pattern { source_text, span, .. } => Some(Location { source: source_text.clone(), span: *span }),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { ignored: Some(ignored), .. } => Some(format!("it is excluded by {ignored}")),
            Self::NotFound { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::NotFound { .. } => Some("paths are relative to the build context".to_owned()),
            Self::ReadIgnoreFile { source, .. } if source.kind() == io::ErrorKind::CrossesDevices => {
                Some("it is a symbolic link that leads out of the build context".to_owned())
            }
            Self::Changed(_) => Some("wait until nothing writes to the build context, then build again".to_owned()),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("make it readable, or list it in `.dockerignore`".to_owned())
            }
            Self::Pattern { .. } | Self::SourcePattern { .. } => {
                Some("write `\\` before `*`, `?` and `[` to mean the character itself".to_owned())
            }
            _ => None,
        }
    }
}
