//! What `--verify-cache` found, in words.

use builder_core::cache::explain::{Change, TreeChange};
use builder_core::history::{Verified, VerifiedAs};

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

/// The first few paths that differ.
pub(super) fn paths(changes: &[TreeChange]) -> String {
    let mut shown: Vec<String> = changes.iter().take(SHOWN).map(path).collect();
    if changes.len() > SHOWN {
        shown.push(format!("{} more", changes.len() - SHOWN));
    }
    shown.join(", ")
}

/// A path with what became of it.
pub(super) fn path(change: &TreeChange) -> String {
    match change.change {
        Change::Added => format!("{} (new)", change.path),
        Change::Removed => format!("{} (gone)", change.path),
        Change::Changed => format!("{} ({})", change.path, change.details.join(", ")),
    }
}
