//! [`IgnoreFile`]: `.dockerignore`.

use std::path::PathBuf;

use super::pattern::{Matcher, clean, trim};
use super::{ContextError, IgnoredBy};
use crate::diagnostic::{Source, Span};

/// Where the ignore patterns of a context come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum IgnoreSource {
    /// Nothing is ignored.
    #[default]
    Nothing,
    /// The first of these files that exists; the caller puts `Dockerfile.dockerignore` before `.dockerignore`. Those in
    /// the context may be symbolic links, but not out of it.
    FirstOf(Vec<PathBuf>),
    /// A text that is at hand.
    Text(Source),
}

/// Largest ignore file that is read, in bytes (invariant P-1). A hundred times the largest ones seen.
pub(super) const MAX_SIZE: u64 = 4 << 20;

/// A parsed ignore file.
#[derive(Debug, Clone)]
pub struct IgnoreFile {
    source: Source,
    matcher: Matcher,
}

impl IgnoreFile {
    /// Parses the text. A line is a pattern; `#` in its first column makes it a comment; white space at its ends, a
    /// leading slash and a byte order mark at the start of the file go away.
    ///
    /// # Errors
    /// [`ContextError::Pattern`] points at the first pattern that is not valid.
    pub fn parse(source: Source) -> Result<Self, ContextError> {
        let text = source.text();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = text.split(|byte| *byte == b'\n').enumerate();
        let patterns = lines.filter_map(|(at, line)| Some((at + 1, pattern_of(line)?)));
        match Matcher::new(patterns) {
            Ok(matcher) => Ok(Self { source, matcher: matcher.strict() }),
            Err((line, pattern, problem)) => {
                let span = span_of_line(source.text(), line);
                let pattern = String::from_utf8_lossy(&pattern).into_owned();
                Err(ContextError::Pattern { source_text: source, span, pattern, problem })
            }
        }
    }

    /// The text, with its name.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The patterns.
    pub(super) fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// The path, cleaned, if a source of `COPY` or `ADD` that is written so is excluded. With a `!` in the file nobody
    /// can tell without looking: then none is, as in BuildKit.
    pub fn excluded_source(&self, source: &str) -> Option<String> {
        if self.matcher.has_negated() {
            return None;
        }
        let path = clean(source.as_bytes());
        let excluded = self.matcher.judge_path(&path).matched;
        excluded.then(|| String::from_utf8_lossy(&path).into_owned())
    }

    /// Names a line for people.
    pub(super) fn line(&self, line: usize) -> IgnoredBy {
        IgnoredBy { file: self.source.name().to_owned(), line }
    }
}

fn pattern_of(line: &[u8]) -> Option<Vec<u8>> {
    if line.starts_with(b"#") {
        return None;
    }
    let line = trim(line);
    let (mark, pattern) = match line.strip_prefix(b"!") {
        Some(rest) => (&b"!"[..], trim(rest)),
        None => (&b""[..], line),
    };
    if line.is_empty() {
        return None;
    }
    if pattern.is_empty() {
        return Some(mark.to_vec());
    }
    let cleaned = clean(pattern);
    let relative = if cleaned.len() > 1 { cleaned.strip_prefix(b"/").unwrap_or(&cleaned) } else { &cleaned };
    Some([mark, relative].concat())
}

fn span_of_line(text: &[u8], line: usize) -> Span {
    let start = text.split_inclusive(|byte| *byte == b'\n').take(line - 1).map(<[u8]>::len).sum();
    let rest = &text[start..];
    let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    Span::new(start, start + rest[..length].trim_ascii_end().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Diagnostic;

    fn parse(text: &[u8]) -> Result<IgnoreFile, ContextError> {
        IgnoreFile::parse(Source::new(".dockerignore", text))
    }

    #[test]
    fn lines_become_patterns() {
        let file = parse(b"\xef\xbb\xbftest1\n/test2\r\n /a//file/here/ \n\n# comment\n  #name\n! /a/file/here/x\n/")
            .expect("valid");
        for (path, matched, line) in [
            ("test1", true, 1),
            ("test2/below", true, 2),
            ("a/file/here/y", true, 3),
            ("a/file/here/x", false, 7),
            ("# comment", false, 0),
            ("#name", true, 6),
            ("other", false, 0),
        ] {
            let verdict = file.matcher().judge_path(path.as_bytes());
            assert_eq!((verdict.matched, verdict.line), (matched, line), "{path}");
        }
    }

    #[test]
    fn a_bad_pattern_is_shown_with_its_line() {
        let error = parse(b"ok\n  a[  \nb").expect_err("bad");
        assert_eq!(error.to_string(), "invalid pattern `a[`: a character class is not complete");
        let location = error.location().expect("it has a place");
        assert_eq!(location.source.line(location.span.start), 2);
        assert!(parse(b"!\n").is_err());
    }

    #[test]
    fn sources_that_are_excluded() {
        let file = parse(b"secret\n**/*.log\n").expect("valid");
        for (source, expected) in
            [("secret", Some("secret")), ("./secret/", Some("secret")), ("a/../b/x.log", Some("b/x.log")), ("a", None)]
        {
            assert_eq!(file.excluded_source(source).as_deref(), expected, "{source}");
        }
        assert_eq!(parse(b"a\n!b").expect("valid").excluded_source("a"), None);
    }

    #[test]
    fn any_bytes_give_an_answer() {
        for text in [&b"\xff\xfe\0*["[..], b"!!a", b"**/**/**/**", b"\\", b"[[:bogus:]]", b"\n\n\n", b"\\Qx", b"{{{"] {
            let _ = parse(text).map(|file| file.matcher().judge_path(b"a/\xffb").matched);
        }
    }
}
