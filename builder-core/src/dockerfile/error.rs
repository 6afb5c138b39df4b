//! What is wrong with a Dockerfile: [`ParseErrors`].

use std::fmt;

use crate::diagnostic::{Diagnostic, Location, Source, Span};

/// One error and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub problem: Problem,
    location: Location,
}

impl ParseError {
    /// An error at a place of a text.
    pub fn new(source: &Source, span: Span, problem: Problem) -> Self {
        Self { problem, location: Location { source: source.clone(), span } }
    }

    /// The place.
    pub fn span(&self) -> Span {
        self.location.span
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for ParseError {}

impl Diagnostic for ParseError {
    fn location(&self) -> Option<Location> {
        Some(self.location.clone())
    }
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing but comments and blank lines.
    #[error("file with no instructions")]
    NoInstructions,
}

/// All errors of a file, in file order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseErrors(Vec<ParseError>);

impl ParseErrors {
    /// Sorts them by place.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(mut errors: Vec<ParseError>) -> Self {
        assert!(!errors.is_empty(), "an error list holds an error");
        errors.sort_by_key(ParseError::span);
        Self(errors)
    }

    /// The first one.
    pub fn first(&self) -> &ParseError {
        &self.0[0]
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, ParseError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a ParseErrors {
    type Item = &'a ParseError;
    type IntoIter = std::slice::Iter<'a, ParseError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first().fmt(f)?;
        match self.0.len() {
            1 => Ok(()),
            2 => write!(f, " (and 1 more error)"),
            n => write!(f, " (and {} more errors)", n - 1),
        }
    }
}

impl std::error::Error for ParseErrors {}
