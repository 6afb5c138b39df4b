//! Text that others wrote, made safe for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Replaces control characters and characters that reorder text by escapes (`\x1b`, `\u{202e}`); tabs too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) { Cow::Borrowed(text) } else { Cow::Owned(text.chars().map(character).collect()) }
}

/// As [`line()`], but keeps line ends.
pub(crate) fn block(text: &str) -> Cow<'_, str> {
    let fine = |c: char| c == '\n' || is_harmless(c);
    if text.chars().all(fine) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if c == '\n' { "\n".to_owned() } else { character(c) }).collect())
}

/// One character as it may be shown.
pub(crate) fn character(c: char) -> String {
    if is_harmless(c) {
        return c.to_string();
    }
    let mut escaped = String::new();
    // Writing to a string cannot fail.
    let _ = if (c as u32) < 0x100 {
        write!(escaped, "\\x{:02x}", c as u32)
    } else {
        write!(escaped, "{}", c.escape_unicode())
    };
    escaped
}

/// Output of a step for the live view: escape sequences dropped, tabs widened, of `a\rb` the `b`.
pub(crate) fn output(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\r');
    let visible = text.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(visible.len());
    let mut chars = visible.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_sequence(&mut chars),
            '\t' => out.push_str(&" ".repeat(8 - width(&out) % 8)),
            c if is_harmless(c) => out.push(c),
            _ => {}
        }
    }
    out
}

/// Drops what follows an escape: `[ … letter`, `] … BEL`, or one character.
fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => {
            chars.find(|c| ('\x40'..='\x7e').contains(c));
        }
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

/// Columns that a text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The longest start of `text` that fits in `columns`; `...` marks a cut.
pub(crate) fn fit(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let room = columns.saturating_sub(3);
    let mut used = 0;
    let mut out = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        out.push(c);
    }
    out.push_str(&"..."[..columns.min(3)]);
    Cow::Owned(out)
}

fn is_harmless(c: char) -> bool {
    // Bidirectional controls make a line read differently from what it says (CVE-2021-42574).
    !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_of_others_never_reach_the_terminal() {
        assert_eq!(line("plain é 漢"), "plain é 漢");
        assert_eq!(line("a\x1b[2Jb\n"), "a\\x1b[2Jb\\x0a");
        assert_eq!(line("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(line("\u{9b}31m"), "\\x9b31m");
        assert_eq!(block("a\nb\x07"), "a\nb\\x07");
    }

    #[test]
    fn output_of_steps_keeps_its_text_only() {
        for (raw, shown) in [
            (&b"\x1b[31mred\x1b[0m"[..], "red"),
            (b"10%\r50%\r100%", "100%"),
            (b"line\r", "line"),
            (b"a\tb", "a       b"),
            (b"\x1b]0;title\x07x", "x"),
            (b"\x1b]0;title\x1b\\x", "x"),
            (b"bad \xff", "bad \u{fffd}"),
        ] {
            assert_eq!(output(raw), shown);
        }
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(fit("漢字漢字", 8), "漢字漢字");
        assert_eq!(fit("漢字漢字", 7), "漢字...");
        assert_eq!(fit("abcdef", 5), "ab...");
        assert_eq!(fit("abcdef", 2), "..");
    }
}
