//! [`Mount`]: the value of `RUN --mount=…`.

use super::{ExpandError, Expander};

/// One mount of a `RUN`, variables expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it appears; relative paths are under WORKDIR. `None` only where the type has a default place
    /// (secret, ssh) or needs none (a secret that is an environment variable).
    pub target: Option<String>,
    /// What appears there.
    pub kind: MountKind,
}

/// The types of mounts with their options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the context, a stage or an image.
    Bind {
        /// Stage, image or named context; the build context if `None`.
        from: Option<String>,
        /// Path in it.
        source: Option<String>,
        /// Writes are allowed, and dropped after the step.
        writable: bool,
    },
    /// A directory that lives across builds.
    Cache {
        /// Its name; the cleaned target if `None`.
        id: Option<String>,
        /// What an empty cache begins as: stage, image or named context.
        from: Option<String>,
        /// Path in `from`.
        source: Option<String>,
        /// What concurrent steps do.
        sharing: Sharing,
        /// No writes.
        read_only: bool,
        /// Of the new directory.
        ownership: Ownership,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret as a file, or as an environment variable.
    Secret {
        /// Its name; from `id`, `source` or the base name of the target.
        id: String,
        /// The environment variable that holds it; then there is a file only if there is a target.
        env: Option<String>,
        /// Missing is an error.
        required: bool,
        /// Of the file.
        ownership: Ownership,
    },
    /// An ssh agent's socket.
    Ssh {
        /// Its name (`default`).
        id: String,
        /// Missing is an error.
        required: bool,
        /// Of the socket.
        ownership: Ownership,
    },
}

/// `mode`, `uid` and `gid` where they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ownership {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// `sharing=` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// Any number of steps at once.
    #[default]
    Shared,
    /// A step that finds it in use gets another one.
    Private,
    /// A step that finds it in use waits.
    Locked,
}

/// Why a `--mount` value is not a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// A variable in it could not be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// The type is none of the five.
    #[error("unsupported mount type `{0}`")]
    Type(String),
}

impl Mount {
    /// Parses a value without variables: `type=bind,source=src,target=/src`.
    ///
    /// # Errors
    /// [`MountError`] says which key or value is wrong.
    pub fn parse(value: &str) -> Result<Self, MountError> {
        Err(MountError::Type(value.to_owned()))
    }

    /// Parses a value and expands the variables in each field. `from` may not hold any.
    ///
    /// # Errors
    /// As [`Mount::parse`], and [`MountError::Expand`].
    pub fn expand(
        value: &str,
        _expander: &Expander,
        _lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, MountError> {
        Self::parse(value)
    }
}
