//! [`Bring`]: what a request needs from elsewhere before it is complete, because the Dockerfile may be there.

use std::collections::BTreeMap;

use builder_core::build::{FetchedContext, RemoteContext, SecretSource};
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
}

/// Values of `--secret`, by id.
pub(crate) type Secrets = BTreeMap<String, SecretSource>;

/// Brings contexts and Dockerfiles from elsewhere.
pub(crate) trait Bring {
    /// A context at an address.
    fn context(&mut self, remote: &RemoteContext, secrets: &Secrets, display: Display) -> Result<FetchedContext>;

    /// The archive on standard input, which begins with `first`.
    fn archive(&mut self, first: Vec<u8>, display: Display) -> Result<FetchedContext>;

    /// A Dockerfile at an address.
    fn dockerfile(&mut self, address: &str, secrets: &Secrets, display: Display) -> Result<Source>;
}

/// A [`Bring`] with what it needs to know.
pub(super) struct Elsewhere<'a> {
    pub(super) bring: &'a mut dyn Bring,
    pub(super) secrets: &'a Secrets,
    pub(super) display: Display,
}

impl Elsewhere<'_> {
    pub(super) fn context(&mut self, remote: &RemoteContext) -> Result<FetchedContext> {
        self.bring.context(remote, self.secrets, self.display)
    }

    pub(super) fn archive(&mut self, first: Vec<u8>) -> Result<FetchedContext> {
        self.bring.archive(first, self.display)
    }

    pub(super) fn dockerfile(&mut self, address: &str) -> Result<Source> {
        self.bring.dockerfile(address, self.secrets, self.display)
    }
}
