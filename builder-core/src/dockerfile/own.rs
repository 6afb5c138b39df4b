//! What only rbuild knows, and is a comment to others: `# rbuild: key=value` for a file, `# cache=12h` and
//! `# cache=reads` for a `RUN`.

use std::time::Duration;

use super::lines::Lines;
use super::{Problem, Word, duration};
use crate::diagnostic::Span;

/// The options of a file.
#[derive(Default)]
pub(super) struct Own {
    /// `heredoc=errexit`
    pub(super) heredoc_errexit: bool,
    pub(super) errors: Vec<(Problem, Span)>,
}

/// Reads the comments above the first instruction, from the end of the parser directives on.
///
/// A comment whose first word after `rbuild:` has no `=` is an ordinary one.
pub(super) fn read(text: &str, start: usize) -> Own {
    let mut own = Own::default();
    for line in Lines::new(text, start) {
        let body = line.text.trim();
        let Some(comment) = body.strip_prefix('#') else {
            if body.is_empty() {
                continue;
            }
            break;
        };
        let Some(options) = comment.trim_start().strip_prefix("rbuild:") else { continue };
        let mut options = options.split_whitespace().peekable();
        if options.peek().is_none_or(|first| !first.contains('=')) {
            continue;
        }
        for option in options {
            match option {
                "heredoc=errexit" => own.heredoc_errexit = true,
                other => {
                    let at = line.start + line.text.find(other).unwrap_or_default();
                    own.errors.push((Problem::OwnOption(other.to_owned()), Span::new(at, at + other.len())));
                }
            }
        }
    }
    own
}

/// How long the result of an instruction counts, as the comments above it say: `# cache=12h`. Of several the last one
/// counts, and text may follow.
///
/// Several words of which the first does not begin with a digit are an ordinary comment.
///
/// # Errors
/// Where the value is no duration.
pub(super) fn time_to_live(comments: &[Word]) -> Result<Option<(Duration, Span)>, (Problem, Span)> {
    let mut found = None;
    for (comment, value) in caching(comments) {
        let mut words = value.split_whitespace();
        let first = words.next().unwrap_or_default();
        match duration::parse_with_days(first) {
            Some(time) => found = Some((time, comment.span)),
            None if first == BY_READS => {}
            None if words.next().is_some() && !first.starts_with(|ch: char| ch.is_ascii_digit()) => {}
            None => return Err((Problem::TimeToLive(first.to_owned()), comment.span)),
        }
    }
    Ok(found)
}

/// Where the comments above an instruction say that it is looked up by what it reads: `# cache=reads`, and text may follow.
pub(super) fn by_reads(comments: &[Word]) -> Option<Span> {
    let mut said = caching(comments).filter(|(_, value)| value.split_whitespace().next() == Some(BY_READS));
    said.next().map(|(comment, _)| comment.span)
}

const BY_READS: &str = "reads";

/// The comments `cache=…`, each with what follows.
fn caching(comments: &[Word]) -> impl Iterator<Item = (&Word, &str)> {
    comments.iter().filter_map(|comment| {
        // Of an indented comment the `#` is still there.
        let text = comment.text.strip_prefix('#').unwrap_or(&comment.text);
        let (key, value) = text.split_once('=')?;
        key.trim().eq_ignore_ascii_case("cache").then_some((comment, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_above_the_first_instruction() {
        let check = |text, expected: bool| {
            let own = read(text, 0);
            assert!(own.errors.is_empty(), "{text:?}");
            assert_eq!(own.heredoc_errexit, expected, "{text:?}");
        };
        check("# rbuild: heredoc=errexit\nFROM a", true);
        check("# a comment\n\n  #rbuild:heredoc=errexit\r\nFROM a", true);
        check("FROM a\n# rbuild: heredoc=errexit\n", false);
        check("# rbuild: builds this\n", false);
        check("# rbuild:\n", false);
        check("# Rbuild: heredoc=errexit\n", false);
    }

    // Rows: D16.
    #[test]
    fn comments_that_say_how_long_a_result_counts() {
        let read = |lines: &[&str]| {
            let words: Vec<Word> = lines.iter().map(|line| Word::new(*line, Span::new(0, line.len()))).collect();
            time_to_live(&words).map(|found| found.map(|(time, _)| time.as_secs())).map_err(|(problem, _)| problem)
        };
        let check = |lines: &[&str], seconds| assert_eq!(read(lines), Ok(seconds), "{lines:?}");
        check(&["cache=12h"], Some(43200));
        check(&["# Cache = 7d  the mirror changes"], Some(604_800));
        check(&["cache=1h", "cache=0s", "more"], Some(0));
        check(&["a cache=1h", "caches=x", "cache", "cache=the directory of apt", "cache 1h"], None);
        check(&["cache=reads", "cache=1h"], Some(3600));
        check(&["cache=reads"], None);
        for wrong in ["cache=soon", "cache=", "cache=12 hours", "cache=12", "cache=-1h"] {
            assert!(matches!(read(&[wrong]), Err(Problem::TimeToLive(_))), "{wrong}");
        }
    }

    #[test]
    fn comments_that_ask_for_a_second_lookup() {
        let check = |lines: &[&str], expected: bool| {
            let words: Vec<Word> = lines.iter().map(|line| Word::new(*line, Span::new(0, line.len()))).collect();
            assert_eq!(by_reads(&words).is_some(), expected, "{lines:?}");
        };
        check(&["cache=1h", "# Cache = reads  it compiles one file", "more"], true);
        check(&["cache=1h", "cache=read", "a cache=reads", "cache reads"], false);
    }

    #[test]
    fn unknown_options() {
        let errors = read("# rbuild: heredoc=errexit heredoc=strict\n", 0).errors;
        assert_eq!(errors, [(Problem::OwnOption("heredoc=strict".to_owned()), Span::new(26, 40))]);
    }
}
