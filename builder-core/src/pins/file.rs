//! [`LockFile`]: the pins of a file.
//!
//! A subset of TOML 1.0: one entry a line, sorted, so that two branches that add different sources merge.
//!
//! ```text
//! version = 1
//!
//! [images]
//! "alpine:3.20" = "sha256:…"
//!
//! [urls]
//! "https://example.com/x.tgz" = { digest = "sha256:…", modified = 2024-05-01T10:00:00Z }
//!
//! [git]
//! "https://example.com/x.git#v1" = { commit = "…", name = "refs/tags/v1", tag = "…" }
//! ```
//!
//! An unknown version, table or field is refused: who skips what it does not know builds something else than was locked.

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::fmt::{self, Write as _};

use super::parse;
use super::{Pin, SourceKind, SourceName, UrlPin};
use crate::diagnostic::{Diagnostic, Location, Source};

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// What the file begins with.
const HEAD: &str = "# What names of sources stood for when they were locked: `rbuild build --lock` adds, `rbuild lock update` renews.\n";

/// What names of sources stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockFile {
    pins: BTreeMap<SourceName, Pin>,
}

/// A lock file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockFileError {
    /// A line is wrong.
    #[error("{reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
        /// Where.
        location: Box<Location>,
    },
    /// A later version of this program wrote it.
    #[error("the lock file is of version {found}, and this program knows version {VERSION} only")]
    Newer {
        /// Its version.
        found: u32,
        /// Where it says so.
        location: Box<Location>,
    },
}

impl Diagnostic for LockFileError {
    fn location(&self) -> Option<Location> {
        match self {
            Self::Damaged { location, .. } | Self::Newer { location, .. } => Some((**location).clone()),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Damaged { .. } => "take the file from the repository again, or remove it and write it with `--lock`",
            Self::Newer { .. } => "use the version of rbuild that wrote it, or build without it: `--no-lock`",
        };
        Some(hint.to_owned())
    }
}

impl LockFile {
    /// Reads the text of a lock file.
    ///
    /// # Errors
    /// [`LockFileError`], with the line.
    pub fn parse(text: &Source) -> Result<Self, LockFileError> {
        parse::parse(text)
    }

    /// What a source stands for.
    pub fn get(&self, name: &SourceName) -> Option<&Pin> {
        self.pins.get(name)
    }

    /// Sets what a source stands for; gives what it stood for before.
    pub fn insert(&mut self, name: SourceName, pin: Pin) -> Option<Pin> {
        self.pins.insert(name, pin)
    }

    /// Takes a source out.
    pub fn remove(&mut self, name: &SourceName) -> Option<Pin> {
        self.pins.remove(name)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    /// Everything in it, sorted.
    pub fn iter(&self) -> Iter<'_, SourceName, Pin> {
        self.pins.iter()
    }
}

impl<'a> IntoIterator for &'a LockFile {
    type Item = (&'a SourceName, &'a Pin);
    type IntoIter = Iter<'a, SourceName, Pin>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for LockFile {
    /// The text of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}version = {VERSION}")?;
        for (kind, table) in TABLES {
            let mut title = Some(table);
            for (name, pin) in self.pins.iter().filter(|(name, _)| name.kind() == kind) {
                if let Some(table) = title.take() {
                    write!(f, "\n[{table}]\n")?;
                }
                writeln!(f, "{} = {}", quoted(name.as_str()), value(pin))?;
            }
        }
        Ok(())
    }
}

/// The tables, in order.
pub(super) const TABLES: [(SourceKind, &str); 3] =
    [(SourceKind::Image, "images"), (SourceKind::Url, "urls"), (SourceKind::Git, "git")];

fn value(pin: &Pin) -> String {
    match pin {
        Pin::Image(digest) => quoted(digest.as_str()),
        Pin::Url(UrlPin { digest, modified }) => {
            let time = modified.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
            let time = time.map_or_else(String::new, |time| format!(", modified = {time}"));
            format!("{{ digest = {}{time} }}", quoted(digest.as_str()))
        }
        Pin::Git(resolved) => {
            let mut fields = vec![("commit", resolved.identity())];
            fields.extend(resolved.name.as_deref().map(|name| ("name", name)));
            fields.extend(resolved.commit.as_ref().map(|_| ("tag", resolved.object.as_str())));
            let fields: Vec<String> =
                fields.into_iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => {
                write!(quoted, "\\U{:08X}", u32::from(character)).expect("a String takes it");
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
