//! Where in which text something is wrong, and what to do about it: [`Source`], [`Span`], [`Diagnostic`].
//!
//! Errors carry spans and hints as data; how they look is the caller's business.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A named text that spans point into: a Dockerfile, an ignore file, an ONBUILD trigger of a base image.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Source {
    name: Arc<str>,
    text: Arc<[u8]>,
}

impl Source {
    /// Names `text`; the name is shown to people as it is (`Dockerfile`, `ONBUILD of alpine:3.20`).
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text, byte for byte as it was read.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Line of a byte offset, counted from 1.
    pub fn line(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        1 + self.text[..end].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Column of a byte offset in its line, counted in bytes from 1.
    pub fn column(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        let start = self.text[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        1 + end - start
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} bytes)", self.name, self.text.len())
    }
}

/// A range of bytes in a [`Source`]; the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The span from `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The span as a range for slicing.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A span together with the text that it points into.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// The text.
    pub source: Source,
    /// The place in it.
    pub span: Span,
}

/// An error or a warning that can show where it comes from and say what to do.
pub trait Diagnostic: fmt::Display {
    /// The place that is wrong, if it is in a text.
    fn location(&self) -> Option<Location> {
        None
    }

    /// Where the text itself came from: the `FROM` whose base image brought an ONBUILD trigger.
    fn origin(&self) -> Option<Location> {
        None
    }

    /// What the user can do, as one sentence fragment without a final stop.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// All that is wrong with one thing; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors<E>(Vec<E>);

impl<E> Errors<E> {
    /// These errors, in this order; at least one.
    pub(crate) fn of(errors: Vec<E>) -> Self {
        assert!(!errors.is_empty(), "an error list holds an error");
        Self(errors)
    }

    /// The first one.
    pub fn first(&self) -> &E {
        &self.0[0]
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, E> {
        self.0.iter()
    }
}

impl<'a, E> IntoIterator for &'a Errors<E> {
    type Item = &'a E;
    type IntoIter = std::slice::Iter<'a, E>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E: fmt::Display> fmt::Display for Errors<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first().fmt(f)?;
        match self.0.len() {
            1 => Ok(()),
            2 => write!(f, " (and 1 more error)"),
            n => write!(f, " (and {} more errors)", n - 1),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for Errors<E> {}

/// An error and its sources in one line, without the numbers of the system's errors: `cannot write /x: No space left on
/// device`.
///
/// A source that ends the text before it is left out: some messages hold that of their source already.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = shown(error);
    let mut source = error.source();
    while let Some(error) = source {
        let inner = shown(error);
        if !text.ends_with(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        source = error.source();
    }
    text
}

fn shown(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) if error.is::<io::Error>() => text[..at].to_owned(),
        _ => text,
    }
}

/// Returns the candidate nearest to `word`, if it is near enough to be what was meant.
///
/// The distance counts changed, missing, added and swapped letters, without case; at most a third of the word (and
/// at least one letter) may differ.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let change = above[j] + usize::from(a[i] != b[j]);
            let mut best = change.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one() {
        let source = Source::new("Dockerfile", &b"FROM a\nRUN b\n"[..]);
        assert_eq!((source.line(0), source.column(0)), (1, 1));
        assert_eq!((source.line(7), source.column(7)), (2, 1));
        assert_eq!((source.line(11), source.column(11)), (2, 5));
        assert_eq!(source.line(999), 3);
    }

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        let all = ["RUN", "COPY", "ADD", "ENTRYPOINT"];
        assert_eq!(nearest("RNU", all), Some("RUN"));
        assert_eq!(nearest("RUM", all), Some("RUN"));
        assert_eq!(nearest("entripoint", all), Some("ENTRYPOINT"));
        assert_eq!(nearest("xyz", all), None);
    }
}
