//! Files of the store that turn out to be damaged while a build reads them: they are dropped, and made again.

use super::engine::Engine;
use super::error::{BuildError, StepError};
use super::solve::Session;
use crate::export::ExportError;
use crate::layer::PackError;
use crate::tree::TreeId;

/// How often a build starts over for it: a disk that damages whatever is written is not waited for.
const MOST: usize = 16;

/// Counts what was mended in a build.
#[derive(Debug, Default)]
pub(super) struct Mended(usize);

impl Mended {
    /// Drops what an error says is damaged; `false` if it says no such thing, or nothing is.
    pub(super) fn drop_damaged(&mut self, session: &Session<'_>, error: Option<&PackError>) -> bool {
        let Some(PackError::Damaged { path, snapshot, .. }) = error.filter(|_| self.0 < MOST) else { return false };
        // A store that cannot be mended has the error that was found first.
        if !session.engine.drop_if_damaged(snapshot).unwrap_or(false) {
            return false;
        }
        self.0 += 1;
        let warning = format!("`{path}` was damaged in the store: the files of its layer are made again");
        session.events.warning(None, warning);
        true
    }
}

/// What was wrong with files of a step.
pub(super) fn of_step(error: &StepError) -> Option<&PackError> {
    match error {
        StepError::Pack(error) => Some(error),
        _ => None,
    }
}

/// What was wrong with files of the result.
pub(super) fn of_result(error: &BuildError) -> Option<&PackError> {
    match error {
        BuildError::Export(error) => match &**error {
            ExportError::Pack { source, .. } => Some(source),
            _ => None,
        },
        BuildError::Step { error, .. } => of_step(error),
        _ => None,
    }
}

impl Engine {
    /// Takes a snapshot out of the store if it, or what it is derived from, is not what its tree says; says whether there
    /// was anything to take out.
    fn drop_if_damaged(&self, id: &TreeId) -> Result<bool, StepError> {
        let mut found = false;
        let mut next = Some(*id);
        while let Some(id) = next {
            next = self.snapshots.base_of(&id);
            if self.is_sound(&id)? {
                continue;
            }
            found = true;
            for derived in self.snapshots.list()? {
                if self.snapshots.base_of(&derived) == Some(id) && !self.is_sound(&derived)? {
                    self.snapshots.set_aside(&derived)?;
                }
            }
            self.snapshots.detach(&id)?;
            self.snapshots.set_aside(&id)?;
        }
        Ok(found)
    }

    /// Without its tree nobody can tell.
    fn is_sound(&self, id: &TreeId) -> Result<bool, StepError> {
        let Some(tree) = self.trees.get(id)? else { return Ok(false) };
        Ok(self.snapshots.is_sound(&tree)?)
    }
}
