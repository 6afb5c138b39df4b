use std::io;
use std::path::PathBuf;

use crate::cancel::Cancelled;
use crate::diagnostic::Diagnostic;

/// A repository cannot be had. No address in here has credentials.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no `git` in the caller's `PATH`.
    #[error("cannot fetch `{address}`: `git` is not installed")]
    NotInstalled {
        /// The repository.
        address: String,
    },
    /// Git failed.
    #[error("cannot {what} `{address}`: {message}")]
    Git {
        /// `fetch`, `check out`.
        what: &'static str,
        /// The repository.
        address: String,
        /// The last of what git wrote.
        message: String,
    },
    /// The reference does not exist.
    #[error("repository `{address}` has no `{reference}`")]
    NoReference {
        /// The repository.
        address: String,
        /// What was asked for.
        reference: String,
    },
    /// Nothing was ever committed, or there is no default branch.
    #[error("repository `{address}` has no default branch")]
    NoDefaultBranch {
        /// The repository.
        address: String,
    },
    /// The store has not got the commit, and nobody may be asked.
    #[error("`{address}` is not in the local store")]
    NotLocal {
        /// The repository with its reference.
        address: String,
    },
    /// `checksum` names another commit.
    #[error("`{address}` is commit {actual}, but its checksum says {expected}")]
    Checksum {
        /// The repository with its reference.
        address: String,
        /// What was asked for.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A tag leads to another commit than was said of it.
    #[error("tag {tag} of `{address}` is commit {actual}, and not {expected}")]
    Tag {
        /// The repository with its reference.
        address: String,
        /// The object of the tag.
        tag: String,
        /// What was said.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// There is no such directory.
    #[error("`{subdir}` of `{address}` is not a directory")]
    Subdir {
        /// The repository.
        address: String,
        /// The path.
        subdir: String,
        /// Why it cannot be opened.
        source: io::Error,
    },
    /// A secret that cannot be sent.
    #[error("secret `{0}` is not one line of text")]
    Secret(String),
    /// The file system fails.
    #[error("cannot access {}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl GitError {
    /// An error of the file system about `path`.
    pub(super) fn access(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Access { path, source }
    }
}

impl Diagnostic for GitError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotInstalled { .. } => "install git (Debian and Alpine: package `git`)",
            Self::Git { message, .. } => hint_about(message)?,
            Self::NoReference { .. } => "check the name of the branch or tag, or write a commit id",
            Self::NotLocal { .. } => "build without `--pull=never`",
            Self::Checksum { actual, .. } => return Some(format!("if this commit is right, write `{actual}`")),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

fn hint_about(message: &str) -> Option<&'static str> {
    let has = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    if has(&["could not read Username", "could not read Password", "Authentication failed", "error: 401", "error: 403"])
    {
        Some("pass a token with `--secret id=GIT_AUTH_TOKEN,env=NAME`, or check the address")
    } else if has(&["Host key verification failed", "HOST IDENTIFICATION HAS CHANGED"]) {
        Some("the key of the server is not the one that is known; if it was renewed, correct `known_hosts`")
    } else if has(&["Permission denied (", "no such identity"]) {
        Some("pass keys with `--ssh default`, and check that `ssh-add -l` lists one that the server knows")
    } else if has(&["cannot run ssh", "ssh: not found", "ssh: No such file"]) {
        Some("install an ssh client (Debian: package `openssh-client`)")
    } else if has(&[
        "Could not resolve host",
        "Failed to connect",
        "Couldn't connect",
        "Connection refused",
        "unable to connect",
    ]) {
        Some("check the address and the network")
    } else if has(&["does not appear to be a git repository", "Repository not found", "repository not found"]) {
        Some("check the address; a private repository does not exist for those without access")
    } else if has(&["transport 'file' not allowed"]) {
        Some("submodules that are directories of this machine are not fetched")
    } else {
        None
    }
}
