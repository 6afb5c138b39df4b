//! Ctrl-C and SIGTERM: the first one cancels, the second one ends this process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::command_error::{CommandError, Kind};
use builder_core::cancel::CancelToken;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Which signal came, if one did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals(Arc<AtomicI32>);

impl Signals {
    /// Cancels `token` at the first SIGINT, SIGTERM or SIGHUP; the second one ends the process. Nothing is left behind
    /// then but what the next command cleans up: the store is crash-only.
    ///
    /// # Errors
    /// When there are no descriptors or threads left.
    pub(crate) fn watch(token: &CancelToken) -> Result<Self, CommandError> {
        Self::start(token.clone()).map_err(|error| CommandError::io("cannot watch for signals", &error))
    }

    fn start(token: CancelToken) -> io::Result<Self> {
        let signals = Self::default();
        let first = Arc::clone(&signals.0);
        let mut pending = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in pending.forever() {
                if first.swap(signal, Ordering::SeqCst) != 0 {
                    signal_hook::low_level::exit(128 + signal);
                }
                token.cancel();
            }
        })?;
        Ok(signals)
    }

    /// The error of a command that a signal cancelled; any other error as it is.
    pub(crate) fn explain(&self, error: CommandError) -> CommandError {
        let signal = self.0.load(Ordering::SeqCst);
        let code = u8::try_from(128 + signal).ok().filter(|_| signal != 0 && error.is_cancelled());
        let Some(code) = code else { return error };
        let name = match signal {
            SIGINT => "interrupted",
            SIGTERM => "terminated",
            _ => "hung up",
        };
        CommandError::failed(name).with_kind(Kind::Code(code))
    }
}
