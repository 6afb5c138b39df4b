//! [`ParseOutputError`].

use crate::diagnostic::{Diagnostic, nearest};
use crate::oci::{ParsePlatformError, ParseReferenceError};

/// The text of `--output` is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseOutputError {
    /// There is nothing in it.
    #[error("the output is empty")]
    Empty,
    /// `type=` is missing.
    #[error("the output has no type")]
    NoType,
    /// There is no such type.
    #[error("unknown output type `{kind}`")]
    UnknownType {
        /// What was written.
        kind: String,
        /// What there is.
        known: &'static [&'static str],
    },
    /// There is no such option.
    #[error("unknown option `{key}` of output type `{kind}`")]
    UnknownKey {
        /// What was written.
        key: String,
        /// The type.
        kind: &'static str,
        /// What the type knows.
        known: Vec<&'static str>,
    },
    /// A field has no `=`.
    #[error("`{field}` is not of the form `key=value`")]
    NotAPair {
        /// The field.
        field: String,
    },
    /// A key comes twice.
    #[error("option `{key}` is given twice")]
    Twice {
        /// Which one.
        key: String,
    },
    /// A value is not one of those that its key takes.
    #[error("`{value}` is not a value of `{key}`: expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// `dest` is missing.
    #[error("output type `{kind}` needs a destination")]
    NoDestination {
        /// The type.
        kind: &'static str,
    },
    /// Two options contradict each other.
    #[error("{reason}")]
    Conflict {
        /// How.
        reason: &'static str,
    },
    /// Quotes are not closed, or inside a field.
    #[error("the quotes in `{text}` do not match")]
    Quotes {
        /// The whole text.
        text: String,
    },
    /// A name is not a reference.
    #[error(transparent)]
    Name {
        /// Why.
        source: ParseReferenceError,
    },
    /// The platform of an annotation is not one.
    #[error(transparent)]
    Platform {
        /// Why.
        source: ParsePlatformError,
    },
}

impl Diagnostic for ParseOutputError {
    fn hint(&self) -> Option<String> {
        let did_you_mean = |word: &str, known: &[&str]| {
            nearest(word, known.iter().copied()).map(|known| format!("did you mean `{known}`?"))
        };
        match self {
            Self::UnknownType { kind, known } => did_you_mean(kind, known),
            Self::UnknownKey { key, known, .. } => did_you_mean(key, known),
            Self::NoType => Some("for example `type=oci,dest=image.tar`".to_owned()),
            Self::NoDestination { .. } => Some("add `dest=PATH`".to_owned()),
            Self::NotAPair { .. } => Some("a value with a comma is written `\"key=a,b\"`".to_owned()),
            _ => None,
        }
    }
}
