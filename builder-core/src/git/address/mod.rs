//! [`Address`]: where a git repository is and what is wanted of it, as BuildKit writes that in one word. Pure.
//!
//! ```text
//! https://host/owner/name.git        http and https only with a path that ends in `.git`
//! ssh://user@host/path  git://host/path  file:///path
//! user@host:path                     ssh
//! github.com/owner/name              https; as a build context only
//!   …#REF:SUBDIR                     the fragment
//!   …?ref=&branch=&tag=&subdir=&checksum=&commit=&keep-git-dir=&submodules=&mtime=&fetch-by-commit=
//! ```
//!
//! Semantics: moby/buildkit `util/gitutil` and `frontend/dockerfile/dfgitutil`; `file://` and short commit ids are
//! additions.

mod parts;
mod query;

#[cfg(test)]
mod tests;

use std::fmt;

use parts::{Parts, Scheme};

/// A repository, and what is wanted of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    scheme: Scheme,
    /// What git is given: without credentials, query and fragment.
    remote: String,
    /// Host and port.
    host: String,
    credentials: Option<Credentials>,
    /// A branch, a tag, a commit id or a full name (`refs/…`); the default branch if unset.
    pub reference: Option<String>,
    /// The directory that is taken, relative to the top; empty is everything.
    pub subdir: String,
    /// Beginning of the id that the commit (or the annotated tag) must have, in lower case.
    pub checksum: Option<String>,
    /// Whether `.git` is kept; `None` if the address does not say.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched; `None` if the address does not say, which means yes.
    pub submodules: Option<bool>,
    /// Times of the files.
    pub mtime: Mtime,
    /// Fetch the commit that `checksum` names without asking what the reference means now.
    pub fetch_by_commit: bool,
    /// Could be a path too: `github.com/owner/name`. Only a build context may be written so.
    pub looks_local: bool,
}

/// Which times the files of a checkout have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mtime {
    /// When they were checked out.
    #[default]
    Checkout,
    /// When the commit was made.
    Commit,
}

/// User and password of an address.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

/// What is wrong with an address that is plainly one of git.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A part that is not text, or has an escape that is none.
    #[error("git address `{0}` has an invalid escape")]
    Escape(String),
    /// No host, or one that git would take for an option.
    #[error("git address `{0}` has no valid host")]
    Host(String),
    /// A word of the query that means nothing.
    #[error("git address has an unknown query word `{0}`")]
    UnknownQuery(String),
    /// A word of the query without a value.
    #[error("`{0}=` of a git address has no value")]
    NoValue(String),
    /// A word of the query twice.
    #[error("`{0}=` is in a git address more than once")]
    Repeated(String),
    /// A value that the word does not take.
    #[error("`{name}={value}` of a git address is not valid: {expected}")]
    Value {
        /// The word.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// Two parts that say different things.
    #[error("git address names two different {what}: `{first}` and `{second}`")]
    Conflict {
        /// `refs`, `subdirectories`, `commits`.
        what: &'static str,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// `fetch-by-commit` without a commit.
    #[error("`fetch-by-commit` of a git address needs a full commit id in `checksum=`")]
    FetchByCommit,
}

impl crate::diagnostic::Diagnostic for AddressError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownQuery(_) => {
                Some(format!("known are {}", query::WORDS.map(|word| format!("`{word}`")).join(", ")))
            }
            _ => None,
        }
    }
}

impl Address {
    /// Reads an address. `None` if the text is not one of a git repository: another kind of address, or a path.
    pub fn parse(text: &str) -> Option<Result<Self, AddressError>> {
        let parts = Parts::split(text)?;
        Some(Self::from_parts(text, &parts))
    }

    fn from_parts(text: &str, parts: &Parts<'_>) -> Result<Self, AddressError> {
        let shown = || redacted(text);
        if parts.scheme != Scheme::File && (parts.host.is_empty() || parts.host.starts_with('-')) {
            return Err(AddressError::Host(shown()));
        }
        let decode = |part: &str| query::unescape(part, false).ok_or_else(|| AddressError::Escape(shown()));
        let credentials = match (parts.scheme, parts.user) {
            (Scheme::Http | Scheme::Https, Some(user)) => {
                let (user, password) = user.split_once(':').unwrap_or((user, ""));
                Some(Credentials { user: decode(user)?, password: decode(password)? })
            }
            _ => None,
        };
        let mut address = Self {
            scheme: parts.scheme,
            remote: parts.remote(),
            host: parts.host.to_owned(),
            credentials,
            reference: None,
            subdir: String::new(),
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            mtime: Mtime::default(),
            fetch_by_commit: false,
            looks_local: parts.looks_local,
        };
        if let Some(fragment) = parts.fragment {
            let fragment = if parts.is_scp { fragment.to_owned() } else { decode(fragment)? };
            let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
            address.reference = Some(reference.to_owned()).filter(|reference| !reference.is_empty());
            subdir.clone_into(&mut address.subdir);
        }
        if let Some(query) = parts.query {
            query::apply(&mut address, query)?;
        }
        address.subdir = clean_subdir(&address.subdir)?;
        if let Some(reference) = &address.reference
            && !is_reference(reference)
        {
            let value = reference.clone();
            return Err(AddressError::Value { name: "ref", value, expected: "it cannot be the name of a reference" });
        }
        if address.fetch_by_commit && !address.checksum.as_deref().is_some_and(is_commit_id) {
            return Err(AddressError::FetchByCommit);
        }
        Ok(address)
    }

    /// What git is given, which has no credentials.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// Host and port, as in the names of secrets (`GIT_AUTH_TOKEN.host`).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is reached by ssh.
    pub fn is_ssh(&self) -> bool {
        self.scheme == Scheme::Ssh
    }

    /// Whether it is reached by http or https.
    pub fn is_http(&self) -> bool {
        matches!(self.scheme, Scheme::Http | Scheme::Https)
    }

    /// Whether it is a directory of this machine.
    pub fn is_file(&self) -> bool {
        self.scheme == Scheme::File
    }

    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Adds what `--checksum` says.
    ///
    /// # Errors
    /// If it is not the beginning of a commit id, or the address names another.
    pub fn check(&mut self, checksum: &str) -> Result<(), AddressError> {
        let checksum = query::checksum(checksum)?;
        match &self.checksum {
            Some(first) if *first != checksum => {
                Err(AddressError::Conflict { what: "commits", first: first.clone(), second: checksum })
            }
            _ => {
                self.checksum = Some(checksum);
                Ok(())
            }
        }
    }
}

impl fmt::Display for Address {
    /// Without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.remote)?;
        match (&self.reference, self.subdir.as_str()) {
            (None, "") => Ok(()),
            (Some(reference), "") => write!(f, "#{reference}"),
            (reference, subdir) => write!(f, "#{}:{subdir}", reference.as_deref().unwrap_or_default()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// The text of an address with user and password, if it has a password or is one of http, made unreadable.
pub fn redacted(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') || scheme.to_ascii_lowercase().starts_with("http") => {
            format!("{scheme}://xxxxx:xxxxx@{host}{path}")
        }
        _ => text.to_owned(),
    }
}

/// Whether a text is a whole commit id: SHA-1 or SHA-256, in lower case.
pub(super) fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_lower_hex(text)
}

/// Whether a text may be the beginning of a commit id; git takes no fewer than four digits.
pub(super) fn is_short_commit_id(text: &str) -> bool {
    (4..64).contains(&text.len()) && is_lower_hex(text)
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What `git-check-ref-format(1)` lets through, so that no reference is taken for an option, a range or a pattern.
pub(super) fn is_reference(text: &str) -> bool {
    let bad = |character: char| character.is_control() || " ~^:?*[\\".contains(character);
    !text.starts_with(['-', '/', '.'])
        && !text.ends_with(['/', '.'])
        && !text.contains(bad)
        && !["..", "//", "@{", "/."].iter().any(|part| text.contains(part))
        && !text.split('/').any(|part| part.strip_suffix(".lock").is_some())
}

/// A path below the top, without `.` and `..`; empty is the top.
fn clean_subdir(text: &str) -> Result<String, AddressError> {
    let mut parts: Vec<&str> = Vec::new();
    let wrong =
        || AddressError::Value { name: "subdir", value: text.to_owned(), expected: "it leads out of the repository" };
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(wrong)?),
            part if part.contains('\0') => return Err(wrong()),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}
