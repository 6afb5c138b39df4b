//! [`Progress`]: takes the events of a build and shows them in the way that was asked for.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use builder_core::progress::{Event, Sink};

use super::plain::{self, Plain};
use super::state::State;
use super::style::Paint;
use super::tty::{Size, Tty};
use super::{print_error, rawjson};

/// Time between frames of the live view.
const FRAME: Duration = Duration::from_millis(100);

/// `--progress`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// `tty` on a terminal, else `plain`
    #[default]
    Auto,
    /// A live view, redrawn in place
    Tty,
    /// Lines that only get added
    Plain,
    /// Errors and the result only
    #[value(alias = "none")]
    Quiet,
    /// One JSON object a line, as BuildKit's `SolveStatus`
    Rawjson,
}

/// Shows a build; a [`Sink`].
#[derive(Debug)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Debug)]
struct Inner {
    view: View,
    state: State,
    finished: bool,
    expanded: bool,
}

#[derive(Debug)]
enum View {
    Tty(Tty),
    Plain(Plain),
    Quiet,
    RawJson,
}

impl Progress {
    /// Shows nothing before the first event. `log_lines` is `BUILDKIT_TTY_LOG_LINES`.
    pub(crate) fn new(mode: Mode, paint: Paint, log_lines: Option<usize>) -> Self {
        let terminal = io::stderr().is_terminal();
        let capable = terminal && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let view = match mode {
            Mode::Tty => View::Tty(Tty::new(paint, log_lines.unwrap_or(super::tty::LOG_LINES))),
            Mode::Auto if capable => View::Tty(Tty::new(paint, log_lines.unwrap_or(super::tty::LOG_LINES))),
            Mode::Auto | Mode::Plain => View::Plain(Plain::new(paint, terminal)),
            Mode::Quiet => View::Quiet,
            Mode::Rawjson => View::RawJson,
        };
        let inner = Inner { view, state: State::default(), finished: false, expanded: false };
        Self { shared: Arc::new(Shared { inner: Mutex::new(inner), wake: Condvar::new() }), ticker: Mutex::new(None) }
    }

    /// Shows all that is known of warnings at the end (`--debug`).
    #[must_use]
    pub(crate) fn expanded(self, expanded: bool) -> Self {
        self.shared.lock().expanded = expanded;
        self
    }

    /// The warnings as BuildKit has them in JSON.
    pub(crate) fn warnings(&self) -> Vec<serde_json::Value> {
        let inner = self.shared.lock();
        inner.state.warnings.iter().map(|warning| super::rawjson::warning(warning, &inner.state)).collect()
    }

    /// Draws the final state, then warnings and, if a step failed, its last lines. Further events are dropped.
    pub(crate) fn finish(&self, paint: Paint) {
        let mut inner = self.shared.lock();
        if std::mem::replace(&mut inner.finished, true) {
            return;
        }
        let Inner { view, state, expanded, .. } = &mut *inner;
        match view {
            View::Tty(tty) if !state.order.is_empty() => {
                print_error(&tty.frame(state, size(), SystemTime::now(), true));
            }
            View::Plain(plain) => {
                let mut out = Vec::new();
                plain.finish(state, &mut out);
                write(&out);
            }
            View::Tty(_) | View::Quiet | View::RawJson => {}
        }
        if !matches!(view, View::RawJson) {
            if !matches!(view, View::Quiet) {
                print_error(&plain::warnings(state, *expanded, paint));
            }
            if let Some(task) = state.failed() {
                print_error(&plain::failed_output(task, paint));
            }
        }
        drop(inner);
        self.shared.wake.notify_all();
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ticker) = ticker {
            // A panic of the ticker has been reported on standard error; the build is not affected.
            let _ = ticker.join();
        }
    }

    /// Starts the thread that redraws while no event comes, once.
    fn tick(&self) {
        let mut ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner);
        if ticker.is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Without the thread the view moves with events only.
        *ticker = std::thread::Builder::new().name("progress".to_owned()).spawn(move || shared.run()).ok();
    }
}

impl Sink for Progress {
    fn event(&self, event: Event) {
        let mut inner = self.shared.lock();
        if inner.finished {
            return;
        }
        let Inner { view, state, .. } = &mut *inner;
        let needs_ticker = match view {
            View::Tty(_) => {
                let starts = matches!(event, Event::Started { .. });
                state.apply(event);
                starts
            }
            View::Plain(plain) => {
                let lines = state.apply(event.clone());
                let mut out = Vec::new();
                plain.event(&event, &lines, state, &mut out);
                write(&out);
                plain.is_waiting()
            }
            View::Quiet => {
                if let Event::Warning(warning) = &event
                    && warning.undone
                {
                    super::warning(&warning.short);
                }
                state.apply(event);
                false
            }
            View::RawJson => {
                state.apply(event.clone());
                if let Some(line) = rawjson::line(&event, state) {
                    print_error(&line);
                }
                false
            }
        };
        drop(inner);
        if needs_ticker {
            self.tick();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut inner = self.lock();
        while !inner.finished {
            inner = self.wake.wait_timeout(inner, FRAME).unwrap_or_else(PoisonError::into_inner).0;
            if inner.finished {
                break;
            }
            let Inner { view, state, .. } = &mut *inner;
            match view {
                View::Tty(tty) => print_error(&tty.frame(state, size(), SystemTime::now(), false)),
                View::Plain(plain) => {
                    let mut out = Vec::new();
                    plain.tick(state, &mut out);
                    write(&out);
                }
                View::Quiet | View::RawJson => {}
            }
        }
    }
}

fn write(bytes: &[u8]) {
    if !bytes.is_empty() {
        // Nobody is left to tell when standard error is closed.
        let _ = io::stderr().lock().write_all(bytes);
    }
}

/// Size of the terminal now; 80 × 24 where it does not say.
fn size() -> Size {
    let known = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let or = |value: Option<u16>, default| value.filter(|value| *value > 0).map_or(default, usize::from);
    Size { columns: or(known.map(|size| size.ws_col), 80), rows: or(known.map(|size| size.ws_row), 24) }
}
