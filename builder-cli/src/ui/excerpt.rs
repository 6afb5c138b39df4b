//! [`excerpt`]: lines of a Dockerfile as BuildKit shows them, which tools look for.
//!
//! ```text
//! Dockerfile:2
//! --------------------
//!    1 |     FROM scratch
//!    2 | >>> MAINTAINER me
//! --------------------
//! ```

use builder_core::diagnostic::Source;

use crate::ui::escape;

/// Longest part of a line that is shown, in characters.
const MAX_LINE: usize = 400;

/// Lines `first` to `last`, from 1, with some around them: the more the fewer there are.
pub(crate) fn excerpt(source: &Source, first: usize, last: usize) -> String {
    let lines: Vec<&[u8]> = source.text().split(|byte| *byte == b'\n').collect();
    let (marked, last) = (first, last.min(lines.len()));
    if first == 0 || first > last {
        return String::new();
    }
    let (mut from, mut to) = (first, last);
    let room = if first == last { 4 } else { 2 };
    let mut used = 0;
    while used < room {
        if from > 1 {
            from -= 1;
            used += 1;
        }
        if to < lines.len() {
            to += 1;
            used += 1;
        }
        used += 1;
    }
    let frame = "-".repeat(20);
    let mut out = format!("{}:{marked}\n{frame}\n", escape::line(source.name()));
    for (number, line) in (from..=to).zip(&lines[from - 1..]) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let text = String::from_utf8_lossy(line);
        let shown: String = text.trim_end_matches('\r').chars().take(MAX_LINE).collect();
        out.push_str(&format!(" {number:3} | {mark} {}\n", escape::line(&shown)));
    }
    out + &frame + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_around_are_shown() {
        let check = |text: &str, (first, last): (usize, usize), expected: &str| {
            let shown = excerpt(&Source::new("D", text.as_bytes()), first, last);
            let shown: Vec<&str> = shown.lines().filter(|line| line.contains('|')).collect();
            assert_eq!(shown.join("\n"), expected, "{text:?} {first} {last}");
        };
        check("a", (1, 1), "   1 | >>> a");
        check("a\nb\nc\nd\n", (1, 1), "   1 | >>> a\n   2 |     b\n   3 |     c");
        check("a\nb\nc\nd\ne", (3, 3), "   1 |     a\n   2 |     b\n   3 | >>> c\n   4 |     d\n   5 |     e");
        check("a\nb\nc\nd\ne", (2, 3), "   1 |     a\n   2 | >>> b\n   3 | >>> c\n   4 |     d");
        check("a\r\n\u{1b}\n", (1, 1), "   1 | >>> a\n   2 |     \\x1b\n   3 |     ");
        check("a", (0, 0), "");
        check("a", (7, 9), "");
    }
}
