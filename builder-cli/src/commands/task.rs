//! Commands that are one piece of work on the store, with progress.

use std::error::Error;
use std::io::{self, IsTerminal as _};
use std::time::SystemTime;

use builder_core::build::Engine;
use builder_core::cancel::CancelToken;
use builder_core::diagnostic::Diagnostic;
use builder_core::export::ExportContext;
use builder_core::progress::{Event, Outcome, Sink as _, TaskId};

use crate::command_error::CommandError;
use crate::signals::Signals;
use crate::ui::{self, Mode, Progress};

/// Does `work` as a task of this name. On a terminal its progress is shown; otherwise its results say enough.
pub(super) fn run<T, E: Error + Diagnostic + 'static>(
    engine: &Engine,
    name: &str,
    quiet: bool,
    work: impl FnOnce(&ExportContext<'_>) -> Result<T, E>,
) -> Result<T, CommandError> {
    let cancel = CancelToken::new();
    let signals = Signals::watch(&cancel)?;
    let paint = ui::paint();
    let mode = if quiet || !io::stderr().is_terminal() { Mode::Quiet } else { Mode::Tty };
    let progress = Progress::new(mode, paint, None);
    let task = TaskId(1);
    progress.event(Event::Declared { task, name: name.to_owned(), inputs: Vec::new(), digest: String::new() });
    progress.event(Event::Started { task, at: SystemTime::now() });
    let done = work(&engine.context(&progress, task, &cancel, None));
    let done = done.map_err(|error| CommandError::diagnostic(&error));
    let outcome = match &done {
        Ok(_) => Outcome::Done,
        Err(error) if error.is_cancelled() => Outcome::Cancelled,
        Err(error) => Outcome::Failed(error.to_string()),
    };
    progress.event(Event::Finished { task, at: SystemTime::now(), outcome });
    progress.finish(paint);
    done.map_err(|error| signals.explain(error))
}
