//! What is wrong with a Dockerfile once its words are put together: [`GraphErrors`].

use std::fmt;

use crate::diagnostic::{Diagnostic, Errors, Location};
use crate::dockerfile::{ExpandError, MountError, ParseError, PortError};
use crate::git::AddressError;
use crate::oci::{ParseDigestError, ParsePlatformError, ParseReferenceError, Reference};
use crate::rootfs::ParseRootPathError;

/// One error and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphError {
    /// What is wrong.
    pub kind: GraphErrorKind,
    /// Where; `None` if it is not in a text (`--target`).
    pub location: Option<Location>,
    /// For an ONBUILD trigger, the `FROM` that brought it.
    pub origin: Option<Location>,
    /// What to do.
    pub hint: Option<String>,
}

impl GraphError {
    pub(super) fn new(kind: impl Into<GraphErrorKind>) -> Self {
        Self { kind: kind.into(), location: None, origin: None, hint: None }
    }

    pub(super) fn at(mut self, location: Location) -> Self {
        self.location.get_or_insert(location);
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for GraphError {}

impl Diagnostic for GraphError {
    fn location(&self) -> Option<Location> {
        self.location.clone()
    }

    fn origin(&self) -> Option<Location> {
        self.origin.clone()
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphErrorKind {
    /// `--target` names nothing.
    #[error("target stage `{0}` could not be found")]
    UnknownTarget(String),
    /// `FROM $X` with nothing in X.
    #[error("base name `{0}` is blank after expansion")]
    BlankBase(String),
    /// The name of a base, or of `--from`, is neither a stage nor an image.
    #[error("`{name}` is not a stage, and {source}")]
    Reference {
        /// As written.
        name: String,
        /// Why it is not an image.
        source: ParseReferenceError,
    },
    /// `FROM --platform=$X` with nothing in X.
    #[error("platform `{0}` is empty after expansion")]
    BlankPlatform(String),
    /// Not a platform.
    #[error(transparent)]
    Platform(#[from] ParsePlatformError),
    /// A stage needs itself.
    #[error("circular dependency between stages: {0}")]
    Cycle(String),
    /// A stage is used before its definition.
    #[error("cannot use stage `{wanted}` in stage `{user}`, because it is defined later")]
    ForwardReference {
        /// The later stage.
        wanted: String,
        /// The earlier stage.
        user: String,
    },
    /// `--from=7` of five stages.
    #[error("stage index {index} does not exist: the file has {count} stage{}", if *count == 1 { "" } else { "s" })]
    StageIndex {
        /// As written.
        index: usize,
        /// Number of stages.
        count: usize,
    },
    /// Stages and the triggers of their bases multiply.
    #[error("more than {limit} ONBUILD instructions run in the stages of this file")]
    Triggers {
        /// The limit.
        limit: usize,
    },
    /// The caller lowers without having resolved an image.
    #[error("image `{0}` is not resolved")]
    UnresolvedImage(Reference),
    /// A trigger of a base image is malformed.
    #[error("invalid ONBUILD trigger: {0}")]
    Trigger(ParseError),
    /// A word can't be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// A `RUN --mount` value is not a mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A mount has no place of its own.
    #[error("mount target `{0}` is the root directory")]
    MountRoot(String),
    /// A path that no kernel takes.
    #[error(transparent)]
    Path(#[from] ParseRootPathError),
    /// An empty value where one is needed.
    #[error("{instruction} is empty after expansion")]
    Empty {
        /// Its name.
        instruction: &'static str,
    },
    /// An `EXPOSE` word is not a port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Not a signal.
    #[error("invalid signal `{0}`")]
    Signal(String),
    /// Not a mode.
    #[error("invalid `--chmod` value `{0}`: expected octal digits up to 7777 or a symbolic mode such as `u=rwX,go=rX`")]
    Chmod(String),
    /// A source of `ADD` is plainly a git repository, but not a valid address of one.
    #[error(transparent)]
    Git(#[from] AddressError),
    /// `--keep-git-dir` says something else than `keep-git-dir=` of an address.
    #[error("`--keep-git-dir={flag}` is not what the address says")]
    KeepGitDir {
        /// The flag.
        flag: bool,
    },
    /// `COPY` reads files only.
    #[error("`COPY` can not fetch `{0}`")]
    RemoteCopy(String),
    /// `--chown` is given and empty, and the like.
    #[error("`--{0}` is empty after expansion")]
    EmptyFlag(&'static str),
    /// `ADD --checksum` of an address with something else than a digest.
    #[error("invalid `--checksum`: {0}")]
    Checksum(#[from] ParseDigestError),
    /// `# rbuild: heredoc=errexit` where the shell may not know `set -e`.
    #[error("`heredoc=errexit` needs a POSIX shell, not `{0}`")]
    ErrexitShell(String),
    /// `ADD --checksum` with more or less than one source.
    #[error("`--checksum` needs exactly one source")]
    ChecksumSources,
    /// `# syntax=` names a frontend that is not built in.
    #[error("the frontend `{0}` is not supported")]
    Frontend(String),
    /// `ADD --checksum` of a local file.
    #[error("`--checksum` needs an `http://`, `https://` or git source, not `{0}`")]
    ChecksumLocal(String),
    /// Not a time.
    #[error("`{0}` is no value for SOURCE_DATE_EPOCH")]
    SourceDateEpoch(String),
    /// The stage that `SOURCE_DATE_EPOCH` names does more than to fetch one thing.
    #[error("the stage has no time for SOURCE_DATE_EPOCH: {0}")]
    EpochStage(&'static str),
    /// The history of the image is out of proportion.
    #[error("the history of the image is longer than {limit} bytes")]
    HistoryTooLong {
        /// The limit.
        limit: usize,
    },
    /// A warning where `# check=error=true`.
    #[error("lint violation of {rule}: {detail}")]
    Violation {
        /// Name of the rule.
        rule: &'static str,
        /// What was found.
        detail: String,
    },
    /// The build argument `BUILDKIT_DOCKERFILE_CHECK` has an option that does not exist.
    #[error("invalid check option `{0}`")]
    CheckOption(String),
}

/// All errors of a graph, in the order of their places.
pub type GraphErrors = Errors<GraphError>;

impl GraphErrors {
    /// `Ok` if there is no error.
    pub(super) fn check(mut errors: Vec<GraphError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        // An error of a trigger stands where its `FROM` does.
        errors.sort_by_key(|error| error.origin.as_ref().or(error.location.as_ref()).map(|location| location.span));
        errors.dedup();
        Err(Self::of(errors))
    }
}

impl From<GraphError> for GraphErrors {
    fn from(error: GraphError) -> Self {
        Self::of(vec![error])
    }
}
