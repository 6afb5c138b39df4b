//! Variables and quotes in words: [`Expander`].
//!
//! The forms are those of BuildKit's shell lexer: `$v`, `${v}`, the operators `- :- + :+ ? :?`, removal of a prefix
//! (`#`, `##`) or suffix (`%`, `%%`) that matches a pattern, replacement (`/`, `//`), single and double quotes, and an
//! escape character. Depth, length and work are bounded, so that no text makes it slow or large.

mod lexer;
mod pattern;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use lexer::{Lexer, Options, Quotes};

/// Longest result of one expansion, in bytes, unless the word itself is longer: `ENV a=$b$b$b$b` sixteen times would
/// be 4^16.
pub const MAX_WORD: usize = 1 << 20;

/// How many bytes of variables' values one expander looks at in its life.
pub const MAX_TOTAL: usize = 16 << 20;

/// Deepest nesting of `${a:-${b:-…}}`. The lexer recurses, so this also bounds the stack.
pub const MAX_DEPTH: usize = 100;

/// What a variable is worth: `None` if it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands words. One is made for a build, so that the sum of all that is looked up is bounded by [`MAX_TOTAL`].
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
    /// Names that were looked up and not set, each once. A default in the word (`${v:-w}`) changes nothing: BuildKit
    /// warns of those too.
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
    /// A quote without its partner.
    #[error("unexpected end of statement while looking for the matching {quote} quote")]
    UnclosedQuote {
        /// `single` or `double`.
        quote: &'static str,
    },
    /// `${v` without `}`.
    #[error("syntax error: missing `}}`")]
    MissingBrace,
    /// `${v/pattern` without the second `/`.
    #[error("syntax error: missing `/` in `${{}}`")]
    MissingSlash,
    /// `${}`, `${{v}}`, `${:v}`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// An operator that is none of those above.
    #[error("unsupported modifier `{0}` in substitution")]
    UnsupportedModifier(String),
    /// `${v:?message}` of a variable that is not set or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the word says, or a default text.
        message: String,
    },
    /// A pattern with an escape that means nothing.
    #[error("invalid pattern `{pattern}` in substitution: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than [`MAX_DEPTH`] substitutions inside each other.
    #[error("substitutions are nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// The result is longer than [`MAX_WORD`], or the build looked at more than [`MAX_TOTAL`].
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
    pub fn word(&self, input: &str, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
        // The last one begins a byte order mark.
        let special = |byte| matches!(byte, b'$' | b'\'' | b'"' | b'\\' | b'`' | 0xef);
        if !input.bytes().any(special) {
            return Ok(Expanded { text: input.to_owned(), ..Expanded::default() });
        }
        self.expand(input, Quotes::Remove, self.escape, lookup)
    }

    /// As [`Expander::word`], and splits the result at blanks that were not quoted.
    ///
    /// # Errors
    /// If the word is malformed or the result too long.
    pub fn words(&self, input: &str, lookup: Lookup<'_>) -> Result<ExpandedWords, ExpandError> {
        let options = Options { escape: self.escape, quotes: Quotes::Remove, keep_escapes: false, keep_unset: false };
        let mut lexer = Lexer::new(input, options, lookup, &self.remaining);
        let words = lexer.words()?.into_iter().map(|(word, _)| word).collect();
        let (used, unset) = lexer.names();
        Ok(ExpandedWords { words, used, unset })
    }

    /// Expands the body of a heredoc of `COPY` or `ADD`: quotes stay as they are, and the escape character is the
    /// backslash whatever the directive says.
    ///
    /// # Errors
    /// If the body is malformed or the result too long.
    pub fn heredoc(&self, body: &str, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
        self.expand(body, Quotes::Ignore, '\\', lookup)
    }

    /// A command line with its variables filled in, to be shown: quotes stay, and so do variables that are not set.
    /// What can't be expanded is shown as it is.
    pub fn display(&self, line: &str, lookup: Lookup<'_>) -> String {
        let options = Options { escape: self.escape, quotes: Quotes::Keep, keep_escapes: false, keep_unset: true };
        Lexer::new(line, options, lookup, &self.remaining).text().unwrap_or_else(|_| line.to_owned())
    }

    fn expand(&self, input: &str, quotes: Quotes, escape: char, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
        let options = Options { escape, quotes, keep_escapes: false, keep_unset: false };
        let mut lexer = Lexer::new(input, options, lookup, &self.remaining);
        let text = lexer.text()?;
        let (used, unset) = lexer.names();
        Ok(Expanded { text, used, unset })
    }
}

/// Splits a line as a shell would, keeping quotes, escapes and variables, each word with its offset. `None` if the
/// line is not well formed: then it has no heredocs either.
pub(super) fn raw_words(line: &str) -> Option<Vec<(String, usize)>> {
    let options = Options { escape: '\\', quotes: Quotes::Keep, keep_escapes: true, keep_unset: true };
    Lexer::new(line, options, &|_| None, &Cell::new(usize::MAX)).words().ok()
}

/// The words of a heredoc's delimiter, quotes removed (`keep_quotes` off) or kept.
pub(super) fn delimiter_words(delimiter: &str, keep_quotes: bool) -> Result<Vec<String>, ExpandError> {
    let quotes = if keep_quotes { Quotes::Keep } else { Quotes::Remove };
    let options = Options { escape: '\\', quotes, keep_escapes: false, keep_unset: true };
    let words = Lexer::new(delimiter, options, &|_| None, &Cell::new(usize::MAX)).words()?;
    Ok(words.into_iter().map(|(word, _)| word).collect())
}
