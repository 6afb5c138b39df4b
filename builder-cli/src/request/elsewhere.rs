//! [`Bring`]: what a request needs from elsewhere before it is complete, because the Dockerfile may be there.

use builder_core::build::{FetchOptions, FetchedContext, RemoteContext};
use builder_core::diagnostic::Source;

use super::Result;
use crate::ui::Mode;

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Display {
    /// `--progress`
    pub(crate) mode: Mode,
    /// `BUILDKIT_TTY_LOG_LINES`
    pub(crate) log_lines: Option<usize>,
    /// `--debug`
    pub(crate) debug: bool,
}

/// Brings contexts and Dockerfiles from elsewhere.
pub(crate) trait Bring {
    /// A context at an address.
    fn context(
        &mut self,
        remote: &RemoteContext,
        options: FetchOptions<'_>,
        display: Display,
    ) -> Result<FetchedContext>;

    /// The archive on standard input, which begins with `first`.
    fn archive(&mut self, first: Vec<u8>, display: Display) -> Result<FetchedContext>;

    /// A Dockerfile at an address.
    fn dockerfile(&mut self, address: &str, options: FetchOptions<'_>, display: Display) -> Result<Source>;
}

/// A [`Bring`] with what it needs to know.
pub(super) struct Elsewhere<'a> {
    pub(super) bring: &'a mut dyn Bring,
    pub(super) options: FetchOptions<'a>,
    pub(super) display: Display,
}

impl Elsewhere<'_> {
    pub(super) fn context(&mut self, remote: &RemoteContext) -> Result<FetchedContext> {
        self.bring.context(remote, self.options, self.display)
    }

    pub(super) fn archive(&mut self, first: Vec<u8>) -> Result<FetchedContext> {
        self.bring.archive(first, self.display)
    }

    pub(super) fn dockerfile(&mut self, address: &str) -> Result<Source> {
        self.bring.dockerfile(address, self.options, self.display)
    }
}
