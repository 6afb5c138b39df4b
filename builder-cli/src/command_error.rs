//! [`CommandError`]: how a command fails, as a person sees it, and the exit code.
//!
//! The codes are docker's. `docs/reference/exit-codes.md` explains each, and a test checks that.

use std::error::Error;
use std::fmt;
use std::io;

use builder_core::build::BuildError;
use builder_core::cancel::Cancelled;
use builder_core::diagnostic::{self, Diagnostic, Location};

use crate::template::TemplateError;
use crate::ui;
use crate::ui::style::{Paint, Style};

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command could not do what it was asked to.
    Failed,
    /// The command line, a variable or the configuration file is wrong; for `run`, the container did not start.
    Usage,
    /// `run`: the program exists and cannot be executed.
    NotExecutable,
    /// `run`: the program does not exist.
    NotFound,
    /// Nobody reads standard output any more.
    BrokenPipe,
    /// A signal cancelled the command, or the program of `run` ended with this code.
    Code(u8),
}

impl Kind {
    /// The exit code of the process.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::BrokenPipe => 141,
            Self::Code(code) => code,
        }
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: Kind,
    reports: Vec<Report>,
    cancelled: bool,
}

/// One message with everything that helps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// What is wrong, in one line.
    pub(crate) message: String,
    /// Where.
    pub(crate) location: Option<Location>,
    /// For an ONBUILD trigger, the `FROM` that brought it.
    pub(crate) origin: Option<Location>,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl CommandError {
    fn of(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, reports: vec![Report { message: message.into(), ..Report::default() }], cancelled: false }
    }

    /// The command cannot do what it was asked to.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::of(Kind::Failed, message)
    }

    /// The command line or the configuration is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::of(Kind::Usage, message)
    }

    /// Ends with an exit code and says nothing.
    pub(crate) fn silent(kind: Kind) -> Self {
        Self { kind, reports: Vec::new(), cancelled: false }
    }

    /// A file or stream of the command itself.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("free some space on that disk".to_owned())
            }
            _ => None,
        };
        let mut made = Self::failed(format!("{what}: {}", diagnostic::chain(error)));
        made.reports[0].hint = hint;
        made
    }

    /// Writing a result to standard output.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(Kind::BrokenPipe);
        }
        Self::io("cannot write to standard output", error)
    }

    /// Several messages at once, for commands that go on after a failure.
    pub(crate) fn all(errors: Vec<Self>) -> Result<(), Self> {
        let Some(kind) = errors.first().map(|error| error.kind) else { return Ok(()) };
        let cancelled = errors.iter().any(Self::is_cancelled);
        Err(Self { kind, reports: errors.into_iter().flat_map(|error| error.reports).collect(), cancelled })
    }

    /// An error of the library that knows hints.
    pub(crate) fn diagnostic<E: Error + Diagnostic + 'static>(error: &E) -> Self {
        Self { kind: Kind::Failed, reports: vec![Report::new(error)], cancelled: is_cancelled(error) }
    }

    /// Several errors of one text.
    pub(crate) fn diagnostics<'a, E: Error + Diagnostic + 'static>(errors: impl IntoIterator<Item = &'a E>) -> Self {
        Self { kind: Kind::Failed, reports: errors.into_iter().map(Report::new).collect(), cancelled: false }
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(report) = self.reports.last_mut() {
            report.hint = Some(hint.into());
        }
        self
    }

    /// The same error of another kind.
    #[must_use]
    pub(crate) fn with_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }

    /// Whether it is the echo of a cancel.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// Each message by itself.
    pub(crate) fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Everything to show, ready for standard error.
    pub(crate) fn render(&self, paint: Paint) -> String {
        self.reports.iter().map(|report| ui::diagnostic::render("error", Style::Error, report, paint)).collect()
    }
}

impl Report {
    fn new<E: Error + Diagnostic + 'static>(error: &E) -> Self {
        Self {
            message: diagnostic::chain(error),
            location: error.location(),
            origin: error.origin(),
            hint: error.hint(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Diagnostic for Report {
    fn location(&self) -> Option<Location> {
        self.location.clone()
    }

    fn origin(&self) -> Option<Location> {
        self.origin.clone()
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reports.first().map_or(Ok(()), |report| report.fmt(f))
    }
}

/// Whether an error, or what it comes from, is a cancel.
fn is_cancelled(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error.is::<Cancelled>() || error.to_string() == Cancelled.to_string() {
            return true;
        }
        at = error.source();
    }
    false
}

impl From<BuildError> for CommandError {
    fn from(error: BuildError) -> Self {
        let reports = match &error {
            BuildError::Parse(errors) => errors.iter().map(Report::new).collect(),
            BuildError::Graph(errors) => errors.iter().map(Report::new).collect(),
            BuildError::Step { error: inner, .. } | BuildError::Base { error: inner, .. } => {
                vec![Report { message: diagnostic::chain(&**inner), ..Report::new(&error) }]
            }
            _ => vec![Report::new(&error)],
        };
        let cancelled = matches!(error, BuildError::Cancelled(_));
        Self { kind: Kind::Failed, reports, cancelled }
    }
}

impl From<TemplateError> for CommandError {
    fn from(error: TemplateError) -> Self {
        Self::usage(error.to_string()).with_hint("templates are those of Go: `{{.ID}}`, `{{json .}}`, `table {{.ID}}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Example {
        #[error("cannot write `x`")]
        Write(#[source] io::Error),
        #[error("gave up: {0}")]
        Shown(#[source] io::Error),
    }

    #[test]
    fn sources_are_told_once_and_without_numbers() {
        let full = || io::Error::from_raw_os_error(28);
        assert_eq!(diagnostic::chain(&Example::Write(full())), "cannot write `x`: No space left on device");
        let other = io::Error::other("nothing there");
        assert_eq!(diagnostic::chain(&Example::Shown(other)), "gave up: nothing there");
    }

    #[test]
    fn every_exit_code_is_documented() {
        let text = include_str!("../../docs/reference/exit-codes.md");
        for kind in [
            Kind::Failed,
            Kind::Usage,
            Kind::NotExecutable,
            Kind::NotFound,
            Kind::BrokenPipe,
            Kind::Code(130),
            Kind::Code(143),
        ] {
            let row = format!("| {} |", kind.exit_code());
            assert!(text.contains(&row), "{row}");
        }
    }
}
