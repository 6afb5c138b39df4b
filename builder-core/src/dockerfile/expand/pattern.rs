//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?` only, neither of which crosses a line end.

use super::ExpandError;

/// A parsed pattern.
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Literal(char),
}

/// Bytes of a value that cost as much as looking at one byte of it, for each byte of the pattern.
const STEPS_PER_UNIT: usize = 64;

impl Pattern {
    /// Reads `*`, `?` and the escapes `\*`, `\?`, `\\`; `\}` and `\/` stand for themselves because they had to be
    /// escaped in the substitution.
    pub(super) fn parse(text: &str) -> Result<Self, ExpandError> {
        let mut tokens = Vec::new();
        // BuildKit's scanner skips a byte order mark here too.
        let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
        while let Some(ch) = chars.next() {
            tokens.push(match ch {
                // Several stars in a row are one.
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(ch @ ('}' | '/' | '*' | '?' | '\\')) => Token::Literal(ch),
                    other => {
                        let reason = format!("invalid escape `\\{}`", other.map(String::from).unwrap_or_default());
                        return Err(ExpandError::Pattern { pattern: text.to_owned(), reason });
                    }
                },
                ch => Token::Literal(ch),
            });
        }
        Ok(Self { tokens })
    }

    /// What matching this against `value` costs at most, in units of bytes looked at.
    pub(super) fn cost(&self, value: &str) -> usize {
        value.len().saturating_mul(self.tokens.len()) / STEPS_PER_UNIT
    }

    /// `value` without the shortest or longest beginning that matches.
    pub(super) fn without_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        match match_at(&self.tokens, &chars, longest) {
            Some(end) => chars[end..].iter().collect(),
            None => value.to_owned(),
        }
    }

    /// `value` without the shortest or longest end that matches.
    pub(super) fn without_suffix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
        match match_at(&tokens, &chars, longest) {
            Some(end) => chars[end..].iter().rev().collect(),
            None => value.to_owned(),
        }
    }

    /// `value` with the first (or every) longest match replaced; `None` if the result is longer than `limit` bytes.
    pub(super) fn replace(&self, value: &str, with: &str, all: bool, limit: usize) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let leading_star = self.tokens.first() == Some(&Token::Star);
        let mut result = String::new();
        let mut at = 0;
        let mut previous_end = None;
        // Where a leading star finds nothing, it finds nothing further on in the same line either.
        let mut hopeless_until = 0;
        while at <= chars.len() && result.len() <= limit {
            let found = if at < hopeless_until { None } else { match_at(&self.tokens, &chars[at..], true) };
            if found.is_none() && leading_star && at >= hopeless_until {
                hopeless_until = at + chars[at..].iter().position(|ch| *ch == '\n').unwrap_or(chars.len() - at);
            }
            match found {
                // A match does not end in another, empty one.
                Some(length) if length > 0 || previous_end != Some(at) => {
                    result.push_str(with);
                    if length == 0 {
                        result.extend(chars.get(at));
                    }
                    previous_end = Some(at + length);
                    at += length.max(1);
                    if !all {
                        break;
                    }
                }
                _ => {
                    result.extend(chars.get(at));
                    at += 1;
                }
            }
        }
        result.extend(chars.get(at..).unwrap_or_default());
        (result.len() <= limit).then_some(result)
    }
}

/// Length of the shortest or longest beginning of `text` that `tokens` match.
///
/// The pieces between stars are placed one after the other. Each at its first place gives the shortest match; the
/// longest one then has the last piece at its last place. So the time is at most text times pattern.
fn match_at(tokens: &[Token], text: &[char], longest: bool) -> Option<usize> {
    let mut pieces = tokens.split(|token| *token == Token::Star);
    let first = pieces.next().unwrap_or_default();
    if !piece_matches(first, text) {
        return None;
    }
    let mut end = first.len();
    let pieces: Vec<&[Token]> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return Some(end) };
    for piece in middle {
        end += find(piece, &text[end..], false)? + piece.len();
    }
    Some(end + find(last, &text[end..], longest)? + last.len())
}

/// Offset of a piece behind a star, which does not cross a line end: the first or the last one.
fn find(piece: &[Token], text: &[char], last: bool) -> Option<usize> {
    let line = text.iter().position(|ch| *ch == '\n').unwrap_or(text.len());
    let mut places = 0..=line;
    let matches = |at: &usize| piece_matches(piece, &text[*at..]);
    if last { places.rfind(matches) } else { places.find(matches) }
}

fn piece_matches(piece: &[Token], text: &[char]) -> bool {
    piece.len() <= text.len()
        && piece.iter().zip(text).all(|(token, ch)| match token {
            Token::Literal(literal) => literal == ch,
            Token::Any | Token::Star => *ch != '\n',
        })
}
