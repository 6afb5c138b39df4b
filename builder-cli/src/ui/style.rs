//! Colours: few, and none where nobody sees them.

use anstyle::{AnsiColor, Style as Ansi};

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// The word `error:`, carets, failed steps.
    Error,
    /// The word `warning:`.
    Warning,
    /// The word `hint:`.
    Hint,
    /// Frames, line numbers.
    Dim,
    /// Steps that are done.
    Done,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Colours or not.
    pub(crate) fn new(colored: bool) -> Self {
        Self(colored)
    }

    /// Never colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self(false)
    }

    /// `text` in a style.
    pub(crate) fn on(self, style: Style, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let ansi = match style {
            Style::Error => AnsiColor::Red.on_default().bold(),
            Style::Warning => AnsiColor::Yellow.on_default().bold(),
            Style::Hint => AnsiColor::Cyan.on_default().bold(),
            Style::Dim => Ansi::new().dimmed(),
            Style::Done => AnsiColor::Blue.on_default(),
        };
        format!("{ansi}{text}{ansi:#}")
    }
}
