//! `rbuild cache mounts`: the directories of `RUN --mount=type=cache`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::time::SystemTime;

use builder_core::build::Engine;
use builder_core::cache::StoredMount;
use builder_core::cancel::CancelToken;
use builder_core::diagnostic::{self, Diagnostic as _};

use super::format::{self, Columns, Row};
use super::{Outcome, print};
use crate::args::CacheMountsCommand;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::signals::Signals;
use crate::ui::{self, units};

const COLUMNS: Columns = &[("ID", "ID"), ("SIZE", "Size"), ("LAST USED", "LastUsedSince")];
const HEADINGS: Columns = &[
    ("ID", "ID"),
    ("SIZE", "Size"),
    ("LAST USED", "LastUsedSince"),
    ("LAST USED AT", "LastUsedAt"),
    ("MODE", "Mode"),
    ("OWNER", "Owner"),
];

pub(super) fn run(session: &Session, command: CacheMountsCommand) -> Outcome {
    let engine = session.engine()?;
    match command {
        CacheMountsCommand::Ls { format } => list(&engine, format.as_deref()),
        CacheMountsCommand::Rm { ids } => remove(&engine, &ids),
        CacheMountsCommand::Export { id, output } => match output {
            None if io::stdout().is_terminal() => {
                Err(CommandError::usage("an archive would be written to the terminal")
                    .with_hint("redirect standard output, or name a file with `--output`"))
            }
            None => export(&engine, &id, &mut io::stdout().lock()),
            Some(file) => {
                let path = session.environment.absolute(&file);
                let fail = |error: io::Error| CommandError::io(&format!("cannot write `{}`", file.display()), &error);
                let directory = path.parent().unwrap_or(&path);
                let mut made = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
                export(&engine, &id, made.as_file_mut())?;
                made.persist(&path).map_err(|failed| fail(failed.error))?;
                Ok(0)
            }
        },
        CacheMountsCommand::Import { file } => {
            let mut input: Box<dyn Read> = if file.as_os_str() == "-" {
                Box::new(io::stdin())
            } else {
                let fail = |error: io::Error| CommandError::io(&format!("cannot read `{}`", file.display()), &error);
                Box::new(File::open(session.environment.absolute(&file)).map_err(fail)?)
            };
            let cancel = CancelToken::new();
            let signals = Signals::watch(&cancel)?;
            let id = engine.import_cache_mount(&mut input, &cancel);
            let id = id.map_err(|error| {
                let what = format!("cannot import `{}`: {}", file.display(), diagnostic::chain(&error));
                let made = CommandError::failed(what);
                signals.explain(match error.hint() {
                    Some(hint) => made.with_hint(hint),
                    None => made,
                })
            })?;
            print(format!("{id}\n"))
        }
    }
}

fn mounts(engine: &Engine) -> Result<Vec<StoredMount>, CommandError> {
    engine.cache_mounts().list().map_err(|error| CommandError::io("cannot list cache mounts", &io::Error::other(error)))
}

/// The directories of a mount.
fn named(engine: &Engine, id: &str) -> Result<Vec<StoredMount>, CommandError> {
    let found: Vec<StoredMount> = mounts(engine)?.into_iter().filter(|mount| mount.id == id).collect();
    if found.is_empty() {
        return Err(CommandError::failed(format!("there is no cache mount `{id}`"))
            .with_hint("`rbuild cache mounts ls` lists them"));
    }
    Ok(found)
}

fn list(engine: &Engine, format: Option<&str>) -> Outcome {
    let now = SystemTime::now();
    let row = |mount: &StoredMount| -> Row {
        let used = jiff::Timestamp::try_from(mount.used).ok();
        format::row([
            ("ID", mount.id.clone()),
            ("Size", units::size(engine.cache_mount_size(mount))),
            ("LastUsedSince", units::ago(Some(mount.used), now)),
            ("LastUsedAt", units::created_at(used)),
            ("Mode", format!("{:04o}", mount.mode)),
            ("Owner", format!("{}:{}", mount.uid, mount.gid)),
        ])
    };
    let rows: Vec<Row> = mounts(engine)?.iter().map(row).collect();
    print(format::write(format, COLUMNS, HEADINGS, &rows)?)
}

fn remove(engine: &Engine, ids: &[String]) -> Outcome {
    let mut errors = Vec::new();
    for id in ids {
        match remove_one(engine, id) {
            Ok(()) => drop(print(format!("{id}\n"))?),
            Err(error) => errors.push(error),
        }
    }
    CommandError::all(errors).map(|()| 0)
}

fn remove_one(engine: &Engine, id: &str) -> Result<(), CommandError> {
    for mount in named(engine, id)? {
        let removed = engine.cache_mounts().remove(&mount);
        let removed = removed.map_err(|error| {
            CommandError::io(&format!("cannot remove cache mount `{id}`"), &io::Error::other(error))
        })?;
        if !removed {
            return Err(CommandError::failed(format!("cache mount `{id}` is in use"))
                .with_hint("try again when the build is over"));
        }
    }
    Ok(())
}

fn export(engine: &Engine, id: &str, out: &mut dyn Write) -> Outcome {
    let found = named(engine, id)?;
    if found.iter().any(|mount| mount.identity() != found[0].identity()) {
        ui::note(&format!("`{id}` has directories for several owners or modes; the first one is exported"));
    }
    let cancel = CancelToken::new();
    let signals = Signals::watch(&cancel)?;
    let exported = engine.export_cache_mount(&found[0], out, &cancel);
    exported.map_err(|error| signals.explain(CommandError::from(error)))?;
    Ok(0)
}
