//! `rbuild.lock`: which file, what is in it, and what becomes of it after a build.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use builder_core::build::ContextSource;
use builder_core::diagnostic::Source;
use builder_core::pins::{LockFile, Pin, PinMode, Pins, Selection, SourceName};
use rustix::fs::{FlockOperation, flock};

use super::dockerfile::{Loaded, is_web_address, read};
use super::{Context, Display, Result};
use crate::args::{BuildArgs, Call, LockAction};
use crate::command_error::CommandError;
use crate::environment::Environment;
use crate::ui::{Mode, units};
use crate::user_file;

/// The file beside the Dockerfile.
const NAME: &str = "rbuild.lock";

/// The lock file of a build.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Where it is written; `None` if there is no such place.
    path: Option<PathBuf>,
    /// Whether it exists.
    exists: bool,
    /// What is in it, and what becomes of that.
    pub(crate) pins: Arc<Pins>,
}

/// The file that is known before the Dockerfile is: one that was named, or beside a Dockerfile of this machine whose
/// context is elsewhere.
pub(super) fn named(
    args: &BuildArgs,
    call: Call,
    context: &Context,
    environment: &Environment,
) -> Result<Option<Lock>> {
    if args.lock && call != Call::Build {
        return Err(
            CommandError::usage("--lock is for builds").with_hint("`rbuild lock update` writes without a build")
        );
    }
    if args.lock_action.is_some() && (args.lock || args.locked || args.no_lock) {
        return Err(CommandError::usage("--lock, --locked and --no-lock are for builds, and `rbuild lock` is none"));
    }
    if args.no_lock {
        return Ok(Some(Lock { path: None, exists: false, pins: Arc::default() }));
    }
    let file = args.file.as_deref();
    let is_address = file.and_then(Path::to_str).is_some_and(is_web_address);
    let is_elsewhere = matches!(context, Context::Remote(_));
    if let Some(given) = &args.lock_file {
        let shown = given.display().to_string();
        let path = environment.absolute(given);
        let text = if path.exists() { Some(read(&path, &shown)?) } else { None };
        return lock(args, call, Some(path), &shown, text.as_ref()).map(Some);
    }
    if let Some(file) = file.filter(|file| is_elsewhere && file.is_absolute()) {
        let path = file.with_file_name(NAME);
        let text = read_beside(&path)?;
        return lock(args, call, Some(path), NAME, text.as_ref()).map(Some);
    }
    if (is_elsewhere || is_address) && (args.lock || args.locked || args.lock_action.is_some()) {
        return Err(CommandError::usage("the lock file is needed before what it is beside of is fetched")
            .with_hint("name it with `--lock-file`"));
    }
    Ok(None)
}

/// The file beside the Dockerfile, or beside it in a context that was fetched.
pub(super) fn beside(args: &BuildArgs, call: Call, loaded: &Loaded) -> Result<Lock> {
    if let Some(path) = loaded.file.as_ref().map(|file| file.with_file_name(NAME)) {
        let text = read_beside(&path)?;
        return lock(args, call, Some(path), NAME, text.as_ref());
    }
    let file = args.file.as_deref().unwrap_or(Path::new(""));
    let is_in_context = file != Path::new("-") && !file.to_str().is_some_and(is_web_address);
    let text = match &loaded.context {
        ContextSource::Fetched(fetched) if is_in_context => match file.with_file_name(NAME).to_str() {
            Some(name) => fetched.text(name).map_err(CommandError::from)?,
            None => None,
        },
        _ => None,
    };
    lock(args, call, None, NAME, text.as_ref())
}

/// The text of a file that nobody named.
fn read_beside(path: &Path) -> Result<Option<Source>> {
    match std::fs::symlink_metadata(path) {
        // It may come from a stranger, and what it leads to would be shown in messages, or written over.
        Ok(found) if found.is_symlink() => Err(CommandError::failed(format!("`{NAME}` is a link"))
            .with_hint("name the file that you mean with `--lock-file`")),
        Ok(_) => read(path, NAME).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CommandError::io(&format!("cannot read `{NAME}`"), &error)),
    }
}

fn lock(args: &BuildArgs, call: Call, path: Option<PathBuf>, shown: &str, text: Option<&Source>) -> Result<Lock> {
    let mode = match args.lock_action {
        Some(LockAction::Update { .. }) => PinMode::Renew(Selection(args.lock_only.clone())),
        Some(LockAction::Check) => PinMode::Renew(Selection::default()),
        None if args.lock => PinMode::Add,
        None if args.locked => PinMode::Only,
        None => PinMode::Free,
    };
    let writes = args.lock || matches!(call, Call::Lock(LockAction::Update { .. }));
    if writes && path.is_none() {
        return Err(CommandError::usage("there is no Dockerfile beside which the lock file could be")
            .with_hint("name the lock file with `--lock-file`"));
    }
    if text.is_none() && !writes && (args.locked || args.lock_file.is_some() || call == Call::Lock(LockAction::Check)) {
        let place = if args.lock_file.is_some() { "" } else { " beside the Dockerfile" };
        return Err(CommandError::failed(format!("there is no `{shown}`{place}"))
            .with_hint("write it with `rbuild build --lock`, or with `rbuild lock update`"));
    }
    let exists = text.is_some();
    let locked = match text {
        Some(text) => LockFile::parse(text).map_err(|error| CommandError::diagnostic(&error))?,
        None => LockFile::default(),
    };
    Ok(Lock { path, exists, pins: Arc::new(Pins::new(shown, locked, mode)) })
}

/// What writing a lock file came to.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The file is another than before.
    pub(crate) changed: bool,
    /// What is in it now although the build found something else: another build was first.
    pub(crate) others: Vec<SourceName>,
}

impl Lock {
    /// That a lock file decides what names stand for.
    pub(super) fn is_used(&self, call: Call, display: Display) -> Option<String> {
        let sources = self.pins.locked().iter().count();
        let said = sources > 0 && call == Call::Build && display.mode != Mode::Quiet;
        said.then(|| {
            let stand = if sources == 1 { "stands" } else { "stand" };
            format!("`{}` says what its {} {stand} for", self.pins.shown(), units::count(sources, "source"))
        })
    }

    /// After a build: writes what it found; gives notes for people. One that failed before it found anything writes
    /// nothing.
    pub(crate) fn finish(&self, built: bool) -> Result<Vec<String>> {
        let report = self.pins.report();
        if !built && report.found.is_empty() {
            return Ok(Vec::new());
        }
        let shown = self.pins.shown();
        let mut notes = Vec::new();
        if self.pins.collects() {
            let written = self.write(&report.found, &[], false)?;
            let added = report.found.iter().count();
            notes.push(if written.changed {
                format!("{} added to `{shown}`", units::count(added, "source"))
            } else {
                format!("`{shown}` has every source already")
            });
            notes.extend(written.others.iter().map(|name| {
                format!("{name}: another build wrote something else into `{shown}` meanwhile; build again to use that")
            }));
        }
        if self.exists || self.pins.collects() {
            let names = report.unlocked.iter().map(|(name, reason)| match reason {
                Some(reason) => format!("{name} ({reason})"),
                None => name.to_string(),
            });
            let names: Vec<String> = names.collect();
            let addable = report.unlocked.values().any(Option::is_none);
            let hint = if addable { "; `--lock` adds what can be locked" } else { "" };
            if !names.is_empty() {
                notes.push(format!("not in `{shown}`: {}{hint}", names.join(", ")));
            }
        }
        Ok(notes)
    }

    /// Adds pins to the file as it is now, and takes some out. One that is there already stays, unless it is to be
    /// replaced. Who writes at the same time waits.
    pub(crate) fn write(&self, found: &LockFile, removed: &[SourceName], replace: bool) -> Result<Written> {
        let Some(path) = &self.path else { return Ok(Written::default()) };
        let shown = self.pins.shown();
        let fail = |error: &io::Error| CommandError::io(&format!("cannot write `{shown}`"), error);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The directory is locked and not the file, which is replaced. A file system without locks does not keep anybody
        // from writing.
        let held = File::open(directory).map_err(|error| fail(&error))?;
        let _ = rustix::io::retry_on_intr(|| flock(&held, FlockOperation::LockExclusive));
        let before = if path.exists() { Some(read(path, shown)?) } else { None };
        let mut file = match &before {
            Some(text) => LockFile::parse(text).map_err(|error| CommandError::diagnostic(&error))?,
            None => LockFile::default(),
        };
        let mut written = Written::default();
        for (name, pin) in found {
            match file.get(name) {
                Some(other) if !replace => {
                    if !is_same(other, pin) {
                        written.others.push(name.clone());
                    }
                }
                _ => drop(file.insert(name.clone(), pin.clone())),
            }
        }
        for name in removed {
            file.remove(name);
        }
        let text = file.to_string();
        written.changed = before.as_ref().is_none_or(|before| before.text() != text.as_bytes());
        if !written.changed {
            return Ok(written);
        }
        user_file::replace(path, text.as_bytes()).map_err(|error| fail(&error))?;
        Ok(written)
    }
}

/// Whether two pins mean the same. The time of a content that did not change is no change.
pub(crate) fn is_same(one: &Pin, other: &Pin) -> bool {
    match (one, other) {
        (Pin::Url(one), Pin::Url(other)) => one.digest == other.digest,
        (one, other) => one == other,
    }
}
