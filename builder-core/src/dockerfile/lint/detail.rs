//! [`Detail`]: the wording of findings.

use std::fmt;

use super::Rule;
use crate::oci::Platform;

/// What a rule found, with what it is about. Displayed as BuildKit words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail<'a> {
    /// Name of a variable, and of the one that may be meant.
    UndefinedVar(&'a str, Option<&'a str>),
    /// Name of an argument, and of the one that may be meant.
    UndefinedArgInFrom(&'a str, Option<&'a str>),
    /// An image, the platform that it has, and the one that was expected.
    InvalidBaseImagePlatform(&'a str, &'a Platform, &'a Platform),
    /// `Copy` or `Add`, and a path.
    CopyIgnoredFile(&'a str, &'a str),
    /// Name of the instruction as written.
    LegacyKeyValueFormat(&'a str),
    /// `ARG` or `ENV`, and a name.
    SecretsUsedInArgOrEnv(&'a str, &'a str),
    /// Name of the instruction as written.
    JsonArgsRecommended(&'a str),
    /// Name of the later instruction as written.
    MultipleInstructionsDisallowed(&'a str),
    /// The path.
    WorkdirRelativePath(&'a str),
    /// The port as written, after expansion.
    ExposeProtoCasing(&'a str),
    /// The port as written, after expansion.
    ExposeInvalidFormat(&'a str),
    /// Id of the secret.
    SecretNotInKey(&'a str),
}

impl Detail<'_> {
    /// The rule.
    pub fn rule(&self) -> Rule {
        match self {
            Self::UndefinedVar(..) => Rule::UndefinedVar,
            Self::UndefinedArgInFrom(..) => Rule::UndefinedArgInFrom,
            Self::InvalidBaseImagePlatform(..) => Rule::InvalidBaseImagePlatform,
            Self::CopyIgnoredFile(..) => Rule::CopyIgnoredFile,
            Self::LegacyKeyValueFormat(_) => Rule::LegacyKeyValueFormat,
            Self::SecretsUsedInArgOrEnv(..) => Rule::SecretsUsedInArgOrEnv,
            Self::JsonArgsRecommended(_) => Rule::JsonArgsRecommended,
            Self::MultipleInstructionsDisallowed(_) => Rule::MultipleInstructionsDisallowed,
            Self::WorkdirRelativePath(_) => Rule::WorkdirRelativePath,
            Self::ExposeProtoCasing(_) => Rule::ExposeProtoCasing,
            Self::ExposeInvalidFormat(_) => Rule::ExposeInvalidFormat,
            Self::SecretNotInKey(_) => Rule::SecretNotInKey,
        }
    }
}

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UndefinedVar(name, None) => write!(f, "Usage of undefined variable '${name}'"),
            Self::UndefinedVar(name, Some(meant)) => {
                write!(f, "Usage of undefined variable '${name}' (did you mean ${meant}?)")
            }
            Self::UndefinedArgInFrom(name, None) => write!(f, "FROM argument '{name}' is not declared"),
            Self::UndefinedArgInFrom(name, Some(meant)) => {
                write!(f, "FROM argument '{name}' is not declared (did you mean {meant}?)")
            }
            Self::InvalidBaseImagePlatform(image, actual, expected) => write!(
                f,
                "Base image {image} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
            ),
            Self::CopyIgnoredFile(instruction, path) => {
                write!(f, "Attempting to {instruction} file {} that is excluded by .dockerignore", Quoted(path))
            }
            Self::LegacyKeyValueFormat(name) => {
                write!(f, "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format")
            }
            Self::SecretsUsedInArgOrEnv(instruction, name) => {
                write!(f, "Do not use ARG or ENV instructions for sensitive data ({instruction} {})", Quoted(name))
            }
            Self::JsonArgsRecommended(name) => {
                write!(f, "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals")
            }
            Self::MultipleInstructionsDisallowed(name) => write!(
                f,
                "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
            ),
            Self::WorkdirRelativePath(path) => {
                write!(f, "Relative workdir {} can have unexpected results if the base image changes", Quoted(path))
            }
            Self::ExposeProtoCasing(port) => {
                write!(f, "Defined protocol '{port}' in EXPOSE instruction should be lowercase")
            }
            Self::ExposeInvalidFormat(port) => {
                write!(f, "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'")
            }
            Self::SecretNotInKey(id) => write!(
                f,
                "Another secret {} does not run this step again: add `cache=hash` or `epoch=WORD` to its `--secret`, or write \
                 `# cache=TIME` above the step",
                Quoted(id)
            ),
        }
    }
}

/// A text in double quotes, what would break them escaped as Go's `%q` does for plain text.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for ch in self.0.chars() {
            match ch {
                '"' | '\\' => write!(f, "\\{ch}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                ch if ch < ' ' || ch == '\u{7f}' => write!(f, "\\x{:02x}", u32::from(ch))?,
                ch => write!(f, "{ch}")?,
            }
        }
        f.write_str("\"")
    }
}

/// The option that may be meant: at most two letters have to be added, dropped or changed; of equally near ones the
/// first. None if one of them is the name itself.
///
/// Source: BuildKit `util/suggest`; unlike [`nearest`](crate::diagnostic::nearest) it offers `B` for `A`.
pub(crate) fn suggest<'a>(name: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().collect();
    let mut best = None;
    let mut limit = 3;
    for option in options {
        let distance = distance(&name, option, limit);
        if distance == 0 {
            return None;
        }
        if distance < limit {
            (best, limit) = (Some(option), distance);
        }
    }
    best
}

/// Levenshtein distance, or `limit` if it is not below that.
fn distance(a: &[char], b: &str, limit: usize) -> usize {
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) >= limit {
        return limit;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()].min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_two_letters_away_at_most() {
        let check = |name, options: &[&'static str], expected: Option<&str>| {
            assert_eq!(suggest(name, options.iter().copied()), expected, "{name} {options:?}");
        };
        check("FOBAR", &["PATH", "FOOBAR"], Some("FOOBAR"));
        check("VERSOIN", &["VERSION"], Some("VERSION"));
        check("A", &["PATH", "B", "C"], Some("B"));
        check("ab", &["abcd", "abc"], Some("abc"));
        check("abc", &["abcdef", "xyz", "ABC"], None);
        check("FOO", &["FOP", "FOO"], None);
        check("", &["ab"], Some("ab"));
    }
}
