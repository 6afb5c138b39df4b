//! Finding heredocs: `[fd]<<[-] WORD` among the words of a line.

use std::collections::HashMap;

use super::expand::{ExpandError, delimiter_words, raw_words};
use super::lines::Joined;
use super::{Heredoc, Text, Word};
use crate::diagnostic::Span;

/// A heredoc token: what a [`Heredoc`] says without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) expand: bool,
    pub(super) chomp: bool,
    pub(super) fd: u32,
}

impl Token {
    /// The heredoc with its body.
    pub(super) fn with_body(self, content: Text, span: Span, body: Span) -> Heredoc {
        let Self { name, expand, chomp, fd } = self;
        Heredoc { name: name.into(), content, expand, chomp, fd, span, body }
    }
}

/// Reads one word. `None` if it is not a heredoc.
///
/// The delimiter is lexed with the backslash as escape character, whatever the directive says, and must be one word.
///
/// # Errors
/// If the delimiter has a quote without its partner or a malformed variable.
pub(super) fn parse_token(word: &str) -> Result<Option<Token>, ExpandError> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let Some(rest) = word[digits..].strip_prefix("<<") else { return Ok(None) };
    let (chomp, delimiter) = match rest.strip_prefix('-') {
        Some(delimiter) => (true, delimiter),
        None => (false, rest),
    };
    // `<< NAME`; after the dash too, where no line has blanks.
    let delimiter = delimiter.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if delimiter.is_empty() || delimiter.contains('<') {
        return Ok(None);
    }
    let mut plain = delimiter_words(delimiter, false)?;
    let quoted = delimiter_words(delimiter, true)?;
    let (Some(name), [with_quotes], []) = (plain.pop(), quoted.as_slice(), plain.as_slice()) else { return Ok(None) };
    let count = |text: &str| text.bytes().filter(|byte| matches!(byte, b'\'' | b'"')).count();
    let expand = count(&name) == count(with_quotes);
    Ok(Some(Token { name, expand, chomp, fd: word[..digits].parse().unwrap_or(0) }))
}

/// The heredocs that a line opens, in order.
///
/// # Errors
/// As [`parse_token`]. A line that as a whole is not well formed (an odd quote in a shell comment) opens none.
pub(super) fn tokens(line: &Joined) -> Result<Vec<(Token, Span)>, ExpandError> {
    let mut found = Vec::new();
    for (word, at) in raw_words(line.text()).unwrap_or_default() {
        if let Some(token) = parse_token(&word)? {
            found.push((token, line.span(at, (at + word.len()).min(line.text().len()))));
        }
    }
    Ok(found)
}

/// The bodies of an instruction's heredocs by name; of two with one name the last counts.
pub(super) struct Bodies<'a>(HashMap<&'a str, &'a Heredoc>);

impl<'a> Bodies<'a> {
    pub(super) fn new(heredocs: &'a [Heredoc]) -> Self {
        Self(heredocs.iter().map(|heredoc| (&*heredoc.name, heredoc)).collect())
    }

    /// The heredoc that a word of `COPY` or `ADD` names; an empty one if there is no such body (the JSON form has
    /// none). `None` if the word is no heredoc.
    pub(super) fn resolve(&self, word: &Word) -> Option<Heredoc> {
        let token = parse_token(&word.text).ok().flatten()?;
        let (content, body) = match self.0.get(token.name.as_str()) {
            Some(heredoc) => (heredoc.content.clone(), heredoc.body),
            None => (Text::default(), Span::new(word.span.end, word.span.end)),
        };
        Some(token.with_body(content, word.span, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: Option<(&str, bool, bool, u32)>) {
        let token = parse_token(word).expect(word);
        let seen = token.as_ref().map(|token| (token.name.as_str(), token.expand, token.chomp, token.fd));
        assert_eq!(seen, expected, "{word}");
    }

    // Rows: A35, A37, A38.
    #[test]
    fn tokens_of_heredocs() {
        check("<<EOF", Some(("EOF", true, false, 0)));
        check("<<-EOF", Some(("EOF", true, true, 0)));
        check("3<<EOF", Some(("EOF", true, false, 3)));
        check("<<'EOF'", Some(("EOF", false, false, 0)));
        check("<<-\"EOF\"", Some(("EOF", false, true, 0)));
        check("<<E'O'F", Some(("EOF", false, false, 0)));
        check("<<\\'EOF", Some(("'EOF", true, false, 0)));
        check("<<'a b'", Some(("a b", false, false, 0)));
        check("<<$X", Some(("$X", true, false, 0)));
        check("<<E$", Some(("E$", true, false, 0)));
        check("<< \tEOF", Some(("EOF", true, false, 0)));
        check("<<- 'EOF'", Some(("EOF", false, true, 0)));
        check("<< -EOF", Some(("-EOF", true, false, 0)));
    }

    #[test]
    fn words_that_are_none() {
        for word in ["EOF", "<EOF", "<<", "<<-", "<< ", "<<<EOF", "a<<EOF", "<<a b", "<<''", "\"<<EOF\"", "<<E<F"] {
            check(word, None);
        }
        assert!(parse_token("<<\"EOF").is_err());
    }
}
