//! Everything that is shown: results on standard output, all else on standard error. No other module prints.

pub(crate) mod base64;
pub(crate) mod diagnostic;
pub(crate) mod escape;
pub(crate) mod excerpt;
mod plain;
mod progress;
mod rawjson;
mod state;
pub(crate) mod style;
pub(crate) mod table;
mod tty;
pub(crate) mod units;

use std::io::{self, IsTerminal as _, Write as _};

pub(crate) use progress::{Mode, Progress};
pub(crate) use rawjson::RawJson;
use style::{Paint, Style};

/// Writes a result to standard output, as it is.
///
/// # Errors
/// When it cannot be written: a closed pipe, a full disk.
pub(crate) fn result(bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes.as_ref())?;
    out.flush()
}

/// Says something that is no result: a one-line note.
pub(crate) fn note(text: &str) {
    message("note:", Style::Hint, text);
}

/// Says that something is doubtful.
pub(crate) fn warning(text: &str) {
    message("warning:", Style::Warning, text);
}

/// Writes text to standard error as it is; the caller has escaped what others wrote.
pub(crate) fn print_error(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn message(label: &str, style: Style, text: &str) {
    print_error(&format!("{} {}\n", paint().on(style, label), escape::block(text)));
}

/// Colours for standard error: only on a terminal that understands them, and not against `NO_COLOR` (no-color.org).
pub(crate) fn paint() -> Paint {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Paint::new(!unwanted && !dumb && io::stderr().is_terminal())
}
