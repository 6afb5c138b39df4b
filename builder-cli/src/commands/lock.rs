//! `rbuild lock`: what sources stand for now, beside what they stood for when they were locked.

use builder_core::diagnostic::nearest;
use builder_core::pins::{LockFile, Pin, PinReport, Selection, SourceName};

use super::{Outcome, print};
use crate::args::LockAction;
use crate::command_error::CommandError;
use crate::request::{Lock, is_same};
use crate::ui::{self, escape};

/// What became of one source.
enum Change<'a> {
    /// It was not locked.
    New(&'a Pin),
    /// It stands for something else now.
    Other { before: &'a Pin, now: &'a Pin },
    /// The Dockerfile does not use it.
    Unused,
    /// It is not locked, and cannot be.
    Left(&'static str),
}

/// Compares what was found with the lock file, and writes it if asked to; nothing is written if some sources failed.
pub(super) fn run(lock: &Lock, action: LockAction, only: &[String], failed: Vec<CommandError>) -> Outcome {
    let report = lock.pins.report();
    let locked = lock.pins.locked();
    let mut changes = changes(locked, &report);
    if !failed.is_empty() {
        // What a source that failed leads to would be used as well.
        changes.retain(|(_, change)| !matches!(change, Change::Unused));
    }
    let mut text = String::new();
    match action {
        LockAction::Check => {
            for (name, change) in &changes {
                text += &line(name, change, action);
            }
            print(text)?;
            CommandError::all(failed)?;
            let differs = changes.iter().any(|(_, change)| matches!(change, Change::New(_) | Change::Other { .. }));
            Ok(u8::from(differs))
        }
        LockAction::Update { prune } => {
            CommandError::all(failed)?;
            if let Some(word) = only.iter().find(|word| !is_word_for_any(word, locked, &report)) {
                let names = locked.iter().map(|(name, _)| name.as_str());
                let names = names.flat_map(|name| [name, repository(name)]);
                let error = CommandError::failed(format!("no source of the Dockerfile is called `{word}`"));
                return Err(match nearest(word, names) {
                    Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                    None => error,
                });
            }
            let mut found = LockFile::default();
            let mut unused = Vec::new();
            for (name, change) in &changes {
                match change {
                    Change::New(pin) | Change::Other { now: pin, .. } => {
                        drop(found.insert((*name).clone(), (*pin).clone()));
                    }
                    Change::Unused if prune => unused.push((*name).clone()),
                    Change::Unused | Change::Left(_) => {}
                }
                text += &line(name, change, action);
            }
            let written = lock.write(&found, &unused, true)?;
            print(text)?;
            if written.changed && found.is_empty() && locked.is_empty() {
                ui::note(&format!("`{}` is empty: nothing comes from outside", lock.pins.shown()));
            }
            if !written.changed {
                ui::note(&format!("`{}` stays as it is", lock.pins.shown()));
            }
            Ok(0)
        }
    }
}

/// What people call an image: the last part of its name, without its tag.
fn repository(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

fn is_word_for_any(word: &str, locked: &LockFile, report: &PinReport) -> bool {
    let selection = Selection(vec![word.to_owned()]);
    let found = report.found.iter().map(|(name, _)| name);
    let used = report.used.iter().filter(|name| locked.get(name).is_some());
    found.chain(used).any(|name| selection.has(name))
}

fn changes<'a>(locked: &'a LockFile, report: &'a PinReport) -> Vec<(&'a SourceName, Change<'a>)> {
    let mut changes = Vec::new();
    for (name, now) in &report.found {
        match locked.get(name) {
            None => changes.push((name, Change::New(now))),
            Some(before) if !is_same(before, now) => changes.push((name, Change::Other { before, now })),
            Some(_) => {}
        }
    }
    for (name, _) in locked {
        if !report.used.contains(name) {
            changes.push((name, Change::Unused));
        }
    }
    for (name, reason) in &report.unlocked {
        changes.push((name, Change::Left(reason.unwrap_or("it is not locked"))));
    }
    changes.sort_by_key(|(name, _)| *name);
    changes
}

fn line(name: &SourceName, change: &Change<'_>, action: LockAction) -> String {
    let what = match change {
        Change::New(pin) if action == LockAction::Check => format!("missing  {name}: {pin} now"),
        Change::New(pin) => format!("new      {name}: {pin}"),
        Change::Other { before, now } => format!("changed  {name}: {before} is {now} now"),
        Change::Unused if action == LockAction::Update { prune: true } => format!("removed  {name}"),
        Change::Unused => format!("unused   {name}"),
        Change::Left(reason) => format!("unlocked {name}: {reason}"),
    };
    format!("{}\n", escape::line(&what))
}
