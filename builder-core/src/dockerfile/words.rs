//! Cutting an instruction's line into flags and words, quotes and escapes kept.

use std::borrow::Cow;

use super::Word;
use crate::diagnostic::Span;

/// A word of a line, by its offsets there, with its text where that differs from the line's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What separates words: BuildKit's class, which is narrower than what it trims.
pub(super) const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | 0xb | 0xc | b'\r' | b' ')
}

/// Splits at the first run of blanks.
pub(super) fn split_first(text: &str) -> (&str, Option<&str>) {
    match text.bytes().position(is_blank) {
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(BLANKS))),
        None => (text, None),
    }
}

/// Words between blanks; quotes mean nothing.
pub(super) fn split_blanks(text: &str, base: usize) -> Vec<Piece<'_>> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().position(|byte| is_blank(*byte)).unwrap_or(bytes.len() - at);
        let word = &text[at..at + length];
        pieces.push(Piece { text: word.into(), start: base + at, end: base + at + length });
        at += length;
        at += bytes[at..].iter().take_while(|byte| is_blank(**byte)).count();
    }
    pieces
}

/// The flags at the beginning of `text`, and the offset where the rest begins.
///
/// Quotes group and are removed, the escape character takes the next one literally. `--` alone ends the flags.
pub(super) fn flags(text: &str, escape: char, base: usize) -> (Vec<Piece<'_>>, usize) {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if !text[at..].starts_with("--") {
            return (found, at);
        }
        let start = at;
        let (word, end) = flag(text, start, escape);
        at = end;
        if word == "--" {
            return (found, at);
        }
        found.push(Piece { text: word, start: base + start, end: base + end });
    }
}

/// One flag, and the offset behind it.
fn flag(text: &str, start: usize, escape: char) -> (Cow<'_, str>, usize) {
    let mut word = Cow::Borrowed("");
    let mut quote = None;
    let mut chars = text[start..].char_indices();
    // Where the part begins that is copied as it is.
    let mut copied = start;
    while let Some((offset, ch)) = chars.next() {
        let at = start + offset;
        if quote.is_none() && ch.is_whitespace() {
            word += &text[copied..at];
            return (word, at);
        }
        let is_quote = quote == Some(ch) || (quote.is_none() && (ch == '\'' || ch == '"'));
        if is_quote {
            quote = if quote.is_none() { Some(ch) } else { None };
        }
        if is_quote || ch == escape {
            word += &text[copied..at];
            copied = at + 1;
            if !is_quote {
                chars.next();
            }
        }
    }
    word += &text[copied..];
    (word, text.len())
}

/// Words as `ENV`, `LABEL` and `ARG` see them: quotes and escapes group but stay.
pub(super) fn quoted_words(text: &str, escape: char, base: usize) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut chars = text.char_indices();
    while let Some((start, first)) = chars.clone().next() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let mut quote = None;
        // At the very end an escape character disappears.
        let mut end = text.len();
        let mut word_end = end;
        while let Some((at, ch)) = chars.next() {
            if quote.is_none() && ch.is_whitespace() {
                (end, word_end) = (at, at);
                break;
            }
            if quote.is_none() && (ch == '\'' || ch == '"') {
                quote = Some(ch);
            } else if quote == Some(ch) {
                quote = None;
            }
            // Nothing can be escaped in single quotes.
            if ch == escape && quote != Some('\'') && chars.next().is_none() {
                word_end = at;
            }
        }
        if start < word_end {
            pieces.push(Piece { text: text[start..word_end].into(), start: base + start, end: base + end });
        }
    }
    pieces
}

/// What a text in JSON form is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json<'a> {
    /// An array of strings.
    Strings(Vec<Piece<'a>>),
    /// An array of something else: an error.
    OtherArray,
    /// No array: the shell form.
    None,
}

/// Reads a JSON array of strings.
pub(super) fn json(text: &str, base: usize) -> Json<'_> {
    let trimmed = text.trim_start();
    if !trimmed.starts_with('[') {
        return Json::None;
    }
    match json_strings(trimmed, base + text.len() - trimmed.len()) {
        Some(pieces) => Json::Strings(pieces),
        None if serde_json::from_str::<Vec<serde_json::Value>>(trimmed).is_ok() => Json::OtherArray,
        None => Json::None,
    }
}

/// `None` if it is not an array of strings and nothing else.
fn json_strings(text: &str, base: usize) -> Option<Vec<Piece<'_>>> {
    let bytes = text.as_bytes();
    let skip = |mut at: usize| {
        while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            at += 1;
        }
        at
    };
    let mut pieces = Vec::new();
    let mut at = skip(1);
    if bytes.get(at) == Some(&b']') {
        return (skip(at + 1) == bytes.len()).then_some(pieces);
    }
    loop {
        let start = at;
        let (word, end) = json_string(text, at)?;
        pieces.push(Piece { text: word, start: base + start, end: base + end });
        at = skip(end);
        match bytes.get(at)? {
            b',' => at = skip(at + 1),
            b']' => return (skip(at + 1) == bytes.len()).then_some(pieces),
            _ => return None,
        }
    }
}

/// One JSON string at an offset, decoded, and the offset behind it. Half surrogates become U+FFFD, as in Go.
fn json_string(text: &str, at: usize) -> Option<(Cow<'_, str>, usize)> {
    let body = text[at..].strip_prefix('"')?;
    let plain = body.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    if body.as_bytes()[plain] == b'"' {
        return Some((body[..plain].into(), at + 1 + plain + 1));
    }
    let mut result = body[..plain].to_owned();
    let mut chars = body[plain..].char_indices();
    while let Some((offset, ch)) = chars.next() {
        match ch {
            '"' => return Some((result.into(), at + 1 + plain + offset + 1)),
            '\\' => match chars.next()?.1 {
                'b' => result.push('\u{8}'),
                'f' => result.push('\u{c}'),
                'n' => result.push('\n'),
                'r' => result.push('\r'),
                't' => result.push('\t'),
                ch @ ('"' | '\\' | '/') => result.push(ch),
                'u' => {
                    let unit = hex4(&mut chars)?;
                    let mut ahead = chars.clone();
                    let low = if (0xd800..0xdc00).contains(&unit) && ahead.next()?.1 == '\\' {
                        ahead.next().filter(|(_, ch)| *ch == 'u').and_then(|_| hex4(&mut ahead))
                    } else {
                        None
                    };
                    match low {
                        Some(low @ 0xdc00..0xe000) => {
                            let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                            result.extend(char::from_u32(code));
                            chars = ahead;
                        }
                        _ => result.push(char::from_u32(unit).unwrap_or('\u{fffd}')),
                    }
                }
                _ => return None,
            },
            ch if ch < ' ' => return None,
            ch => result.push(ch),
        }
    }
    None
}

fn hex4(chars: &mut std::str::CharIndices<'_>) -> Option<u32> {
    (0..4).try_fold(0, |value, _| Some(value * 16 + chars.next()?.1.to_digit(16)?))
}

/// `KEY=VALUE` cut at the first `=`, with the places of both sides.
pub(super) fn split_pair(word: &Word) -> Option<(Word, Word)> {
    let (key, value) = word.text.split_once('=')?;
    let middle = (word.span.start + key.len()).min(word.span.end);
    let value_start = (middle + 1).min(word.span.end);
    Some((
        Word::new(word.text.part(key), Span::new(word.span.start, middle)),
        Word::new(word.text.part(value), Span::new(value_start, word.span.end)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'a>(pieces: &'a [Piece<'_>]) -> Vec<&'a str> {
        pieces.iter().map(|piece| &*piece.text).collect()
    }

    #[test]
    fn words_between_blanks() {
        assert_eq!(texts(&split_blanks("a  'b c'\td", 0)), ["a", "'b", "c'", "d"]);
        assert_eq!(split_blanks("a  b", 5)[1], Piece { text: "b".into(), start: 8, end: 9 });
        assert_eq!(split_first("ENV  a b"), ("ENV", Some("a b")));
        assert_eq!(split_first("ENV"), ("ENV", None));
    }

    #[test]
    fn flags_end_at_the_first_word_without_dashes() {
        let check = |text, expected: &[&str], rest| {
            let (found, at) = flags(text, '\\', 0);
            assert_eq!((texts(&found).as_slice(), &text[at..]), (expected, rest), "{text}");
        };
        check("--a=b  --c d --e", &["--a=b", "--c"], "d --e");
        check("--a='x y' --b=\"z\" c", &["--a=x y", "--b=z"], "c");
        check("--a=x\\ y c", &["--a=x y"], "c");
        check("-a b", &[], "-a b");
        check("--a -- --b", &["--a"], " --b");
        check("--a", &["--a"], "");
        check("--", &[], "");
        check("--a=é b", &["--a=é"], "b");
    }

    #[test]
    fn quoted_words_keep_their_quotes() {
        let check = |text, expected: &[&str]| assert_eq!(texts(&quoted_words(text, '\\', 0)), expected, "{text}");
        check("a=b  c='d e'", &["a=b", "c='d e'"]);
        check("a=\"x \\\" y\" b=1", &["a=\"x \\\" y\"", "b=1"]);
        check("a=x\\ y b", &["a=x\\ y", "b"]);
        check("a='x\\' b", &["a='x\\'", "b"]);
        check("a=\"open b", &["a=\"open b"]);
        check("a\\", &["a"]);
        check("\\", &[]);
        check("a='' b", &["a=''", "b"]);
    }

    #[test]
    fn json_arrays() {
        let check = |text, expected: Option<&[&str]>| match (json(text, 0), expected) {
            (Json::Strings(pieces), Some(expected)) => assert_eq!(texts(&pieces), expected, "{text}"),
            (Json::None, None) => {}
            (other, _) => panic!("{text}: {other:?}"),
        };
        check("[]", Some(&[]));
        check(" [ \"a\" , \"b c\" ] ", Some(&["a", "b c"]));
        check("[\"\\u0041\\n\\/\\ud83d\\ude00\\ud83d\"]", Some(&["A\n/😀\u{fffd}"]));
        check("['a']", None);
        check("[\"a\",]", None);
        check("[\"a\"] x", None);
        check("[\"a\\x\"]", None);
        check("[\"a\tb\"]", None);
        check("[ 1 -eq 1 ]", None);
        check("{\"a\":1}", None);
        assert_eq!(json("[\"a\", 1]", 0), Json::OtherArray);
        assert_eq!(json("[null]", 0), Json::OtherArray);
        assert_eq!(json("[[\"a\"]]", 0), Json::OtherArray);
        let Json::Strings(pieces) = json("  [\"a\", \"bc\"]", 10) else { panic!("an array of strings") };
        assert_eq!((pieces[1].start, pieces[1].end), (18, 22));
    }
}
