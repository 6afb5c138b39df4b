//! What names of sources from outside stand for, held fast: `rbuild.lock`.
//!
//! ```text
//! text ── LockFile::parse ──▶ LockFile ── Pins ──▶ resolving of a build asks it first
//!                                           └───▶ PinReport: what was used, found, and is not in it
//! ```
//!
//! | source | named by | held by |
//! |---|---|---|
//! | image | its reference, without a digest | the digest of what the registry has under it: an index, or the one manifest |
//! | address | itself, without user and password | the digest of its content, and its time |
//! | git repository | address and reference | the commit |
//!
//! What names its content already (an image with a digest, a whole commit id) is not in it, nor what is on this machine.
//! A pin replaces a name by what a server said of it: all that comes is verified as if the Dockerfile had named it so. So a
//! build with pins has the keys, and the image, of a build whose names mean the same.

mod file;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use crate::diagnostic::Diagnostic;
use crate::git::{Address, Resolved};
use crate::lock::lock;
use crate::oci::{Digest, Reference};

pub use file::{LockFile, LockFileError};

/// What kind of source it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// An image of a registry.
    Image,
    /// A web address.
    Url,
    /// A reference of a git repository.
    Git,
}

/// A source as it is named. Sorted as in the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName {
    kind: SourceKind,
    name: String,
}

/// What a source stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// The digest of an index or a manifest.
    Image(Digest),
    /// A content.
    Url(UrlPin),
    /// A commit, with the name and the tag that led to it.
    Git(Resolved),
}

/// The content of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPin {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// `Last-Modified`, in seconds since 1970: the time of the file that `ADD` makes of it.
    pub modified: Option<i64>,
}

/// What is done about a source without a pin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PinMode {
    /// It is resolved as without a lock file.
    #[default]
    Free,
    /// It is resolved, and gets one.
    Add,
    /// It is an error.
    Only,
    /// These are resolved as if they had none, and get a new one; the rest as [`PinMode::Add`].
    Renew(Selection),
}

/// Sources that are chosen by words; without words all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection(pub Vec<String>);

/// The pins of one build. The default has none and changes nothing.
#[derive(Debug, Default)]
pub struct Pins {
    shown: String,
    locked: LockFile,
    mode: PinMode,
    report: Mutex<PinReport>,
}

/// What became of pins in a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinReport {
    /// What was resolved anew; only with [`PinMode::Add`] and [`PinMode::Renew`].
    pub found: LockFile,
    /// What the lock file has and the build asked for.
    pub used: Vec<SourceName>,
    /// What was asked for and has no pin, with the reason where it cannot have one.
    pub unlocked: BTreeMap<SourceName, Option<&'static str>>,
}

/// A source that the lock file does not have, in a build that takes nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is not in `{file}`")]
pub struct NotLocked {
    /// The source.
    pub name: SourceName,
    /// The lock file, as people name it.
    pub file: String,
}

impl Diagnostic for NotLocked {
    fn hint(&self) -> Option<String> {
        let image = "; an image that only this store has cannot be locked";
        let image = if self.name.kind == SourceKind::Image { image } else { "" };
        Some(format!("add it with `rbuild build --lock`, or build without `--locked`{image}"))
    }
}

impl SourceName {
    /// An image; its digest, if it has one, is no part of the name.
    pub fn image(reference: &Reference) -> Self {
        let name = reference.tag().and_then(|tag| reference.with_tag(tag).ok()).unwrap_or_else(|| reference.clone());
        Self { kind: SourceKind::Image, name: name.familiar() }
    }

    /// A web address, which has neither user nor password.
    pub fn url(address: impl Into<String>) -> Self {
        Self { kind: SourceKind::Url, name: address.into() }
    }

    /// What an address of a git repository asks for. The directory, and how it is checked out, are no part of it.
    pub fn git(address: &Address) -> Self {
        let mut name = address.remote().to_owned();
        if let Some(reference) = &address.reference {
            name.push('#');
            name.push_str(reference);
        }
        Self { kind: SourceKind::Git, name }
    }

    /// What it is.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// As it is written in the file.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            SourceKind::Image => "image",
            SourceKind::Url => "address",
            SourceKind::Git => "git reference",
        };
        write!(f, "{kind} `{}`", self.name)
    }
}

impl fmt::Display for Pin {
    /// The digest or the commit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(digest) | Self::Url(UrlPin { digest, .. }) => f.write_str(digest.as_str()),
            Self::Git(resolved) => f.write_str(resolved.identity()),
        }
    }
}

impl Selection {
    /// Whether a source is one of them: named as in the file, or an image without its tag or without its registry, or an
    /// address that begins so.
    pub fn has(&self, source: &SourceName) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| names(word, source))
    }
}

fn names(word: &str, source: &SourceName) -> bool {
    let name = source.as_str();
    if source.kind != SourceKind::Image {
        return name.starts_with(word);
    }
    let Ok(reference) = name.parse::<Reference>() else { return name == word };
    let bare = reference.familiar_name();
    let last = bare.rsplit('/').next() == Some(word);
    last || bare == word || name == word || word.parse().is_ok_and(|word: Reference| word == reference)
}

impl Pins {
    /// The pins of `locked`, a file that people know as `shown`.
    pub fn new(shown: impl Into<String>, locked: LockFile, mode: PinMode) -> Self {
        Self { shown: shown.into(), locked, mode, report: Mutex::default() }
    }

    /// What the file says.
    pub fn locked(&self) -> &LockFile {
        &self.locked
    }

    /// The file, as people name it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether a source without a pin is an error.
    pub fn is_strict(&self) -> bool {
        self.mode == PinMode::Only
    }

    /// Whether what is resolved gets a pin.
    pub fn collects(&self) -> bool {
        matches!(self.mode, PinMode::Add | PinMode::Renew(_))
    }

    /// Whether a source has a pin by now.
    pub(crate) fn holds(&self, name: &SourceName) -> bool {
        self.locked.get(name).is_some() || lock(&self.report).found.get(name).is_some()
    }

    /// What became of the pins so far.
    pub fn report(&self) -> PinReport {
        lock(&self.report).clone()
    }

    /// The image that a name stands for.
    pub(crate) fn image(&self, name: &SourceName) -> Result<Option<Digest>, NotLocked> {
        Ok(self.get(name)?.and_then(|pin| if let Pin::Image(digest) = pin { Some(digest) } else { None }))
    }

    /// The content that an address stands for.
    pub(crate) fn url(&self, name: &SourceName) -> Result<Option<UrlPin>, NotLocked> {
        Ok(self.get(name)?.and_then(|pin| if let Pin::Url(content) = pin { Some(content) } else { None }))
    }

    /// The commit that a reference stands for.
    pub(crate) fn git(&self, name: &SourceName) -> Result<Option<Resolved>, NotLocked> {
        Ok(self.get(name)?.and_then(|pin| if let Pin::Git(resolved) = pin { Some(resolved) } else { None }))
    }

    fn get(&self, name: &SourceName) -> Result<Option<Pin>, NotLocked> {
        let mut report = lock(&self.report);
        if let Some(found) = report.found.get(name) {
            return Ok(Some(found.clone()));
        }
        let locked = self.locked.get(name);
        if locked.is_some() && !report.used.contains(name) {
            report.used.push(name.clone());
        }
        let renewed = matches!(&self.mode, PinMode::Renew(selection) if selection.has(name));
        match locked.filter(|_| !renewed) {
            Some(pin) => Ok(Some(pin.clone())),
            None if self.is_strict() => Err(NotLocked { name: name.clone(), file: self.shown.clone() }),
            None => {
                if !self.collects() {
                    report.unlocked.insert(name.clone(), None);
                }
                Ok(None)
            }
        }
    }

    /// Says what a source that had no pin came to. Of two that resolved it at the same time the first counts: gives what
    /// was agreed on.
    pub(crate) fn found(&self, name: SourceName, pin: Pin) -> Pin {
        if !self.collects() {
            return pin;
        }
        let mut report = lock(&self.report);
        if let Some(first) = report.found.get(&name) {
            return first.clone();
        }
        report.found.insert(name, pin.clone());
        pin
    }

    /// Says why a source cannot have a pin.
    pub(crate) fn leave(&self, name: SourceName, reason: &'static str) {
        lock(&self.report).unlocked.insert(name, Some(reason));
    }
}

#[cfg(test)]
mod tests;
