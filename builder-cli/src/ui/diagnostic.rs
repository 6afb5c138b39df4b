//! How errors look: message, place, the line with a caret, hint.
//!
//! ```text
//! error: unknown instruction `RNU`
//!  --> Dockerfile:7:1
//! 7 | RNU apt-get update
//!   | ^^^
//! hint: did you mean `RUN`?
//! ```

use builder_core::diagnostic::{Diagnostic, Location};

use super::escape;
use super::style::{Paint, Style};

/// Lines of an excerpt that are shown of an instruction that has many.
const MAX_LINES: usize = 12;

/// Widest part of a source line that is shown, in columns; a generated line can have megabytes.
const MAX_COLUMNS: usize = 160;

/// Columns kept before the caret of a line that is cut.
const LEAD: usize = 40;

/// Renders one message with everything that is known about it; ends with a line end.
pub(crate) fn render(label: &str, style: Style, diagnostic: &dyn Diagnostic, paint: Paint) -> String {
    let message = diagnostic.to_string();
    let mut out = format!("{} {}\n", paint.on(style, &format!("{label}:")), escape::block(&message));
    if let Some(location) = diagnostic.location() {
        out.push_str(&excerpt(&location, paint));
    }
    if let Some(origin) = diagnostic.origin() {
        out.push_str(&format!("{} it comes from the base image named here\n", paint.on(Style::Dim, "note:")));
        out.push_str(&excerpt(&origin, paint));
    }
    if let Some(hint) = diagnostic.hint() {
        out.push_str(&format!("{} {}\n", paint.on(Style::Hint, "hint:"), escape::block(&hint)));
    }
    out
}

/// The place and the lines of it: one line with a caret, or several with `>>>`.
pub(crate) fn excerpt(location: &Location, paint: Paint) -> String {
    let source = &location.source;
    let text = source.text();
    let start = location.span.start.min(text.len());
    // A span that ends with its line end does not touch the next line.
    let mut end = location.span.end.clamp(start, text.len());
    while end > start && matches!(text[end - 1], b'\n' | b'\r') {
        end -= 1;
    }
    let (first, last) = (source.line(start), source.line(end));
    let gutter = last.min(first + MAX_LINES).to_string().len();
    let mut out = format!(
        "{:gutter$}{} {}:{first}:{}\n",
        "",
        paint.on(Style::Dim, "-->"),
        escape::line(source.name()),
        source.column(start)
    );
    let bar = paint.on(Style::Dim, "|");
    let number = |n: usize| paint.on(Style::Dim, &format!("{n:>gutter$}"));
    let mut offset = start - (source.column(start) - 1);
    for n in first..=last {
        let line = text[offset..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if first == last {
            let (shown, before, marked) = cut(line, start - offset, end - offset);
            out.push_str(&format!("{} {bar} {shown}\n", number(n)));
            let caret = paint.on(Style::Error, &"^".repeat(marked.max(1)));
            out.push_str(&format!("{:gutter$} {bar} {:before$}{caret}\n", "", ""));
        } else if n - first < MAX_LINES {
            let (shown, _, _) = cut(line, 0, 0);
            let mark = paint.on(Style::Error, ">>>");
            out.push_str(&format!("{} {bar} {mark} {shown}\n", number(n)));
        } else {
            out.push_str(&format!("{:gutter$} {bar} ... and {} more lines\n", "", last - n + 1));
            break;
        }
        offset =
            (offset + text[offset..].iter().position(|b| *b == b'\n').map_or(text.len(), |at| at + 1)).min(text.len());
    }
    out
}

/// A source line as shown, with the columns before the mark and the columns that it marks. Long lines are cut around
/// the mark.
fn cut(line: &[u8], mark_start: usize, mark_end: usize) -> (String, usize, usize) {
    // Characters as shown, each with the offset of its first byte.
    let mut cells: Vec<(usize, String)> = Vec::new();
    let mut at = 0;
    for chunk in line.utf8_chunks() {
        for c in chunk.valid().chars() {
            cells.push((at, if c == '\t' { "    ".to_owned() } else { escape::character(c) }));
            at += c.len_utf8();
        }
        for byte in chunk.invalid() {
            cells.push((at, format!("\\x{byte:02x}")));
            at += 1;
        }
    }
    let columns = |cells: &[(usize, String)]| cells.iter().map(|(_, shown)| escape::width(shown)).sum::<usize>();
    let from = cells.iter().position(|(offset, _)| *offset >= mark_start).unwrap_or(cells.len());
    let to = cells.iter().position(|(offset, _)| *offset >= mark_end).unwrap_or(cells.len()).max(from);
    let mut left = 0;
    if columns(&cells) > MAX_COLUMNS {
        left = from.saturating_sub(LEAD);
    }
    let mut shown = String::new();
    let prefix = if left > 0 { "..." } else { "" };
    shown.push_str(prefix);
    let mut used = prefix.len();
    let mut right = left;
    while right < cells.len() && used < MAX_COLUMNS {
        used += escape::width(&cells[right].1);
        shown.push_str(&cells[right].1);
        right += 1;
    }
    if right < cells.len() {
        shown.push_str("...");
    }
    let before = prefix.len() + columns(&cells[left..from.min(right)]);
    let marked = columns(&cells[from.min(right)..to.min(right)]);
    (shown, before, marked)
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use builder_core::diagnostic::{Source, Span};

    use super::*;

    struct Example(Location);

    impl fmt::Display for Example {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("it is wrong")
        }
    }

    impl Diagnostic for Example {
        fn location(&self) -> Option<Location> {
            Some(self.0.clone())
        }

        fn hint(&self) -> Option<String> {
            Some("write `RUN`".to_owned())
        }
    }

    fn check(text: &[u8], span: Span, expected: &str) {
        let example = Example(Location { source: Source::new("Dockerfile", text), span });
        let shown = render("error", Style::Error, &example, Paint::plain());
        let expected = format!("error: it is wrong\n{expected}hint: write `RUN`\n");
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_line_and_a_caret_show_the_place() {
        check(b"FROM a\nRNU x\n", Span::new(7, 10), " --> Dockerfile:2:1\n2 | RNU x\n  | ^^^\n");
        check("RUN é漢 x".as_bytes(), Span::new(6, 9), " --> Dockerfile:1:7\n1 | RUN é漢 x\n  |      ^^\n");
        check(
            b"\tRUN \x1b[2J\xff",
            Span::new(5, 6),
            " --> Dockerfile:1:6\n1 |     RUN \\x1b[2J\\xff\n  |         ^^^^\n",
        );
        check(b"FROM a", Span::new(6, 6), " --> Dockerfile:1:7\n1 | FROM a\n  |       ^\n");
        check(b"", Span::new(0, 0), " --> Dockerfile:1:1\n1 | \n  | ^\n");
        check(b"A\n", Span::new(99, 99), " --> Dockerfile:2:1\n2 | \n  | ^\n");
        check(b"FROM a\r\nRUN b\r\n", Span::new(8, 15), " --> Dockerfile:2:1\n2 | RUN b\n  | ^^^^^\n");
    }

    #[test]
    fn several_lines_are_marked_and_limited() {
        check(
            b"FROM a\nRUN x \\\n  y\nCMD z\n",
            Span::new(7, 19),
            " --> Dockerfile:2:1\n2 | >>> RUN x \\\n3 | >>>   y\n",
        );
        let text = b"x\n".repeat(20);
        let shown = excerpt(&Location { source: Source::new("D", &text[..]), span: Span::new(0, 40) }, Paint::plain());
        assert!(shown.ends_with("12 | >>> x\n   | ... and 8 more lines\n"), "{shown}");
    }

    #[test]
    fn a_huge_line_is_cut_around_the_mark() {
        let mut text = b"RUN ".to_vec();
        text.extend(b"a".repeat(1 << 20));
        let at = 1 << 19;
        let shown =
            excerpt(&Location { source: Source::new("D", &text[..]), span: Span::new(at, at + 2) }, Paint::plain());
        assert!(shown.len() < 600);
        let carets = shown.lines().last().expect("a caret line");
        assert_eq!(carets.find('^'), Some(4 + 3 + LEAD));
    }
}
