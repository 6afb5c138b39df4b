//! Lines of a Dockerfile: physical ones, and those that continuations join.

use std::borrow::Cow;

use super::Text;
use crate::diagnostic::Span;

/// A physical line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Without its line end.
    pub(super) text: &'a str,
    /// With its line end.
    pub(super) full: &'a str,
    /// Offset of its first byte.
    pub(super) start: usize,
}

impl Line<'_> {
    /// Offset of the end of `text`.
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether it is a comment, blanks before the `#` allowed.
    pub(super) fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }
}

/// Reads physical lines and counts them.
pub(super) struct Lines<'a> {
    text: &'a str,
    at: usize,
    count: usize,
}

impl<'a> Lines<'a> {
    /// Reads `text` from the offset `at` on.
    pub(super) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at, count: 0 }
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn number(&self) -> usize {
        self.count
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    /// The next line. `\n` ends it; any `\r` before that belong to the line end, others are text.
    fn next(&mut self) -> Option<Line<'a>> {
        let start = self.at;
        let rest = &self.text[start..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.bytes().position(|byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
        let full = &rest[..length];
        self.at += length;
        self.count += 1;
        Some(Line { text: full.trim_end_matches(['\r', '\n']), full, start })
    }
}

/// The text before a continuation: `None` if the line does not end in one.
///
/// The escape character continues a line if only blanks and tabs follow, and no other escape character stands
/// before it.
pub(super) fn continued(line: &str, escape: char) -> Option<&str> {
    let before = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!before.ends_with(escape)).then_some(before)
}

/// A logical line while its physical ones are joined.
#[derive(Debug)]
pub(super) struct Joining<'a> {
    text: Cow<'a, str>,
    first: usize,
    /// Offset in `text` and in the source of each further piece.
    more: Vec<(usize, usize)>,
}

/// A logical line, and where each of its pieces came from.
#[derive(Debug)]
pub(super) struct Joined {
    text: Text,
    first: usize,
    more: Vec<(usize, usize)>,
}

impl<'a> Joining<'a> {
    /// One piece at an offset of the source.
    pub(super) fn new(text: &'a str, source_at: usize) -> Self {
        Self { text: Cow::Borrowed(text), first: source_at, more: Vec::new() }
    }

    /// Appends a piece.
    pub(super) fn push(&mut self, piece: &str, source_at: usize) {
        self.more.push((self.text.len(), source_at));
        match &mut self.text {
            Cow::Owned(text) => text.push_str(piece),
            Cow::Borrowed(first) => {
                // More lines are likely to follow.
                let mut text = String::with_capacity(4 * (first.len() + piece.len()));
                text.push_str(first);
                text.push_str(piece);
                self.text = Cow::Owned(text);
            }
        }
    }

    /// The whole line. One of a single piece shares the bytes of `file`.
    pub(super) fn end(self, file: &Text) -> Joined {
        let text = match self.text {
            Cow::Borrowed(piece) => file.part(piece),
            Cow::Owned(text) => Text::from(text),
        };
        Joined { text, first: self.first, more: self.more }
    }
}

impl Joined {
    /// The joined text.
    pub(super) fn text(&self) -> &Text {
        &self.text
    }

    /// Where a range of the joined text stands in the source.
    pub(super) fn span(&self, start: usize, end: usize) -> Span {
        let last = self.source_offset(end.saturating_sub(1).max(start));
        Span::new(self.source_offset(start), if end > start { last + 1 } else { last })
    }

    fn source_offset(&self, at: usize) -> usize {
        let after = self.more.partition_point(|(text_at, _)| *text_at <= at);
        match after.checked_sub(1).map(|index| self.more[index]) {
            Some((text_at, source_at)) => source_at + at - text_at,
            None => self.first + at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends() {
        let lines: Vec<_> = Lines::new("a\r\nb\rc\n\nd\r\r\n e", 0).map(|line| (line.text, line.start)).collect();
        assert_eq!(lines, [("a", 0), ("b\rc", 3), ("", 7), ("d", 8), (" e", 12)]);
    }

    #[test]
    fn continuations() {
        let check = |line, expected| assert_eq!(continued(line, '\\'), expected, "{line:?}");
        check("RUN a \\", Some("RUN a "));
        check("RUN a \\ \t", Some("RUN a "));
        check("\\", Some(""));
        check("RUN a \\\\", None);
        check("RUN a \\x", None);
        check("RUN a `", None);
        check("", None);
        assert_eq!(continued("RUN a `  ", '`'), Some("RUN a "));
    }

    #[test]
    fn spans_of_joined_lines() {
        let mut joined = Joining::new("RUN a ", 10);
        joined.push("  b ", 30);
        joined.push("c", 50);
        let joined = joined.end(&Text::default());
        assert_eq!(*joined.text(), "RUN a   b c");
        assert_eq!(joined.span(0, 3), Span::new(10, 13));
        assert_eq!(joined.span(4, 9), Span::new(14, 33));
        assert_eq!(joined.span(10, 11), Span::new(50, 51));
        assert_eq!(joined.span(11, 11), Span::new(51, 51));
    }
}
