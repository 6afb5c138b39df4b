//! What `--verify-cache` found, in words.

use builder_core::cache::explain::{Change, TreeChange};
use builder_core::history::{Verified, VerifiedAs};

use crate::command_error::CommandError;

/// Paths that are named.
const SHOWN: usize = 5;

/// One line about a step that was run again.
pub(super) fn sentence(found: &Verified) -> String {
    let name = &found.name;
    match &found.outcome {
        VerifiedAs::Equal => format!("{name}: same result"),
        VerifiedAs::NotDeterministic { changes } => {
            format!("{name}: not deterministic, two runs differ in {}", paths(changes))
        }
        VerifiedAs::WrongHit { changes } => {
            format!("{name}: the cached result is not what the step gives now: {}", paths(changes))
        }
        VerifiedAs::Failed { reason } => format!("{name}: cannot be run again: {reason}"),
    }
}

/// `--verify-cache=N%,strict`: whatever was not the same is an error.
pub(super) fn strictly(verified: &[Verified]) -> Result<(), CommandError> {
    let wrong = verified.iter().filter(|found| found.outcome != VerifiedAs::Equal).count();
    if wrong == 0 {
        return Ok(());
    }
    let (are, results) = if wrong == 1 { ("was", "result") } else { ("were", "results") };
    Err(CommandError::failed(format!("{wrong} {results} of the cache {are} not confirmed"))
        .with_hint("the image has what the cache says; `rbuild history inspect` lists the differences"))
}

/// The first few paths that differ.
fn paths(changes: &[TreeChange]) -> String {
    let mut shown: Vec<String> = changes.iter().take(SHOWN).map(path).collect();
    if changes.len() > SHOWN {
        shown.push(format!("{} more", changes.len() - SHOWN));
    }
    shown.join(", ")
}

/// A path with what became of it.
pub(super) fn path(change: &TreeChange) -> String {
    path_with(change, "")
}

/// The same, with more to be said.
pub(super) fn path_with(change: &TreeChange, more: &str) -> String {
    match change.change {
        Change::Added if change.details.is_empty() => format!("{} (new{more})", change.path),
        Change::Removed if change.details.is_empty() => format!("{} (gone{more})", change.path),
        _ => format!("{} ({}{more})", change.path, change.details.join(", ")),
    }
}
