//! Parser directives: `# key=value` lines at the very top.

use super::lines::{Line, Lines};
use super::{Directives, Problem, Word};
use crate::diagnostic::{Source, Span};

/// The directives of a text, what is wrong with them, and where their block ends.
pub(super) struct Block {
    pub(super) directives: Directives,
    pub(super) errors: Vec<(Problem, Span)>,
    pub(super) end: usize,
}

/// Reads the directives of a text that begins at `start` (behind a byte order mark).
///
/// The block ends at the first line that is no directive with a known key. After a `#!` line, `syntax` and `check`
/// are still found, `escape` is not. A line with blanks before `#` is a directive too, but hides `syntax` and
/// `check` from itself on.
pub(super) fn read(text: &str, start: usize) -> Block {
    let mut block = Block { directives: Directives::default(), errors: Vec::new(), end: start };
    let mut lines = Lines::new(text, start);
    let mut seen = Vec::new();
    let mut after_shebang = false;
    if text[start..].starts_with("#!") {
        lines.next();
        after_shebang = true;
    }
    let mut at_margin = true;
    for line in lines {
        let Some((key, value)) = parse_line(&line, "#") else { break };
        let key = key.to_ascii_lowercase();
        let span = Span::new(line.start, line.end());
        at_margin &= line.text.starts_with('#');
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            break;
        }
        if seen.contains(&key) {
            if after_shebang {
                break;
            }
            block.errors.push((Problem::DuplicateDirective(key), span));
            continue;
        }
        let first = value.text.split(' ').next().unwrap_or_default();
        let word = Word::new(first, Span::new(value.span.start, value.span.start + first.len()));
        match key.as_str() {
            "syntax" if at_margin => block.directives.syntax = Some(word),
            "check" if at_margin => block.directives.check = Some(word),
            "escape" if !after_shebang => match &*value.text {
                "\\" => block.directives.escape = '\\',
                "`" => block.directives.escape = '`',
                other => block.errors.push((Problem::EscapeDirective(other.to_owned()), value.span)),
            },
            _ => {}
        }
        if !after_shebang {
            block.end = line.start + line.full.len();
        }
        seen.push(key);
    }
    block
}

/// `prefix key = value` with blanks between the parts.
fn parse_line<'a>(line: &Line<'a>, prefix: &str) -> Option<(&'a str, Word)> {
    let blank = |ch: char| matches!(ch, '\t' | '\n' | '\u{c}' | '\r' | ' ');
    let rest = line.text.trim_start().strip_prefix(prefix)?.trim_start_matches(blank);
    let length = rest.find(|ch: char| !ch.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let (key, rest) = rest.split_at(length);
    if !key.starts_with(|ch: char| ch.is_ascii_alphabetic()) {
        return None;
    }
    let value = rest.trim_start_matches(blank).strip_prefix('=')?.trim_start_matches(blank);
    let start = line.end() - value.len();
    let value = value.trim_end_matches(blank);
    (!value.is_empty()).then(|| (key, Word::new(value, Span::new(start, start + value.len()))))
}

/// The check options in the comments above an instruction, if there are any.
pub(super) fn check_in_comments(comments: &[Word]) -> Option<Word> {
    comments.iter().find_map(|comment| {
        let line = Line { text: &comment.text, full: &comment.text, start: comment.span.start };
        let (key, value) = parse_line(&line, "")?;
        let first = value.text.split(' ').next().unwrap_or_default();
        let span = Span::new(value.span.start, value.span.start + first.len());
        key.eq_ignore_ascii_case("check").then(|| Word::new(first, span))
    })
}

/// The image of the frontend that a file asks for, in each of the forms in which BuildKit looks for it: `# syntax=`,
/// `// syntax=`, or a JSON object with the key `syntax`. So it may be found in a file that is no Dockerfile.
pub fn detect_syntax(source: &Source) -> Option<Word> {
    let text = std::str::from_utf8(source.text()).ok()?;
    let start = bom_length(source.text());
    if let Some(word) = read(text, start).directives.syntax {
        return Some(word);
    }
    let mut lines = Lines::new(text, start).peekable();
    lines.next_if(|line| line.text.starts_with("#!"));
    for line in lines {
        let Some((key, value)) = parse_line(&line, "//") else { break };
        if !matches!(key.to_ascii_lowercase().as_str(), "syntax" | "escape" | "check") {
            break;
        }
        if key.eq_ignore_ascii_case("syntax") {
            let first = value.text.split(' ').next().unwrap_or_default();
            return Some(Word::new(first, Span::new(value.span.start, value.span.start + first.len())));
        }
    }
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text[start..]).ok()?;
    Some(Word::new(json.get("syntax")?.as_str()?, Span::new(start, text.len())))
}

/// Length of the UTF-8 byte order mark at the beginning, 0 without one.
pub(super) fn bom_length(text: &[u8]) -> usize {
    if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, syntax: Option<&str>, escape: char, check: Option<&str>) {
        let block = read(text, 0);
        assert!(block.errors.is_empty(), "{text:?}");
        let found = &block.directives;
        let value = |word: &Option<Word>| word.as_ref().map(|word| word.text.clone());
        assert_eq!(value(&found.syntax).as_deref(), syntax, "{text:?}");
        assert_eq!(found.escape, escape, "{text:?}");
        assert_eq!(value(&found.check).as_deref(), check, "{text:?}");
    }

    // Rows: A11, A14.
    #[test]
    fn directives_at_the_top() {
        check("# syntax=a/b:1\n# escape=`\nFROM a", Some("a/b:1"), '`', None);
        check("#syntax = a/b  arg\r\n#ESCAPE=\\\r\n", Some("a/b"), '\\', None);
        check("# check=skip=all;error=true\n", None, '\\', Some("skip=all;error=true"));
        check("# check=skip=A, B\n", None, '\\', Some("skip=A,"));
        check("#!/usr/bin/x\n# syntax=a\n# escape=`\n", Some("a"), '\\', None);
        check("  # escape=`\n# syntax=a\n", None, '`', None);
    }

    #[test]
    fn anything_else_ends_the_block() {
        for first in ["", "# a comment", "#", "# other=1", "FROM a", "#1=2", "# a-b=c", "# syntax="] {
            check(&format!("{first}\n# syntax=a\n# escape=`\n"), None, '\\', None);
        }
    }

    #[test]
    fn errors() {
        let problems = |text| read(text, 0).errors.into_iter().map(|(problem, _)| problem).collect::<Vec<_>>();
        assert_eq!(problems("# escape=x\n"), [Problem::EscapeDirective("x".to_owned())]);
        assert_eq!(problems("# syntax=a\n# Syntax=b\n"), [Problem::DuplicateDirective("syntax".to_owned())]);
    }

    // Rows: A12.
    #[test]
    fn syntax_in_other_files() {
        let detect = |text: &str| detect_syntax(&Source::new("x", text.as_bytes())).map(|word| word.text.to_string());
        assert_eq!(detect("// syntax=a/b x\nint main;"), Some("a/b".to_owned()));
        assert_eq!(detect("{\"syntax\": \"a/b\", \"x\": 1}"), Some("a/b".to_owned()));
        assert_eq!(detect("\u{feff}#!/bin/x\n# syntax=c\n"), Some("c".to_owned()));
        assert_eq!(detect("FROM a\n"), None);
    }
}
