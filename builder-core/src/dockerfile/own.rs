//! `# rbuild: key=value`: options that only rbuild knows. To others they are comments.

use super::Problem;
use super::lines::Lines;
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

    #[test]
    fn unknown_options() {
        let errors = read("# rbuild: heredoc=errexit heredoc=strict\n", 0).errors;
        assert_eq!(errors, [(Problem::OwnOption("heredoc=strict".to_owned()), Span::new(26, 40))]);
    }
}
