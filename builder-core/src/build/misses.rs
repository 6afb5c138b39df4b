//! Why caches elsewhere had nothing for a step: noted when a build is done, while it is known what they hold, so that
//! [`Engine::explain`](super::Engine::explain) can say it on a store that has never seen anything like it.
//!
//! Of a source its index is known, and records are fetched, if they are not many; of copies trees, for a few seconds. Of the
//! files of layers nothing is. Where an earlier build of the same thing is here, explanations compare with that, and of the
//! caches only how much they have is noted.

use std::time::{Duration, Instant};

use super::remote_cache::RemoteCache;
use super::solve::Session;
use crate::graph::VertexId;
use crate::history::{Build, Elsewhere, Miss, Step, Verdict};
use crate::remote::{Condition, Imports};

/// How long it may take to find what is nearest to the steps.
const PATIENCE: Duration = Duration::from_secs(3);

/// Notes what the sources of a build have that is nearest to the steps that ran.
pub(super) fn note(session: &Session<'_>) {
    let Some(imports) = session.remote.as_deref().map(RemoteCache::imports).filter(|imports| !imports.is_empty())
    else {
        return;
    };
    // Who cancels does not wait for answers.
    if session.cancel.is_cancelled() {
        return;
    }
    let build = session.recorder.build();
    let missed: Vec<&Step> = build.steps.iter().filter(|step| is_missed(step)).collect();
    let compare = !missed.is_empty() && !was_built_before(session, &build);
    let begun = Instant::now();
    for step in missed {
        let is_left = || compare && begun.elapsed() < PATIENCE && !session.cancel.is_cancelled();
        let ask = |source| elsewhere(session, imports, source, step, is_left());
        let found = (0..imports.names().len()).map(ask).collect();
        session.recorder.note_late(VertexId(step.number), |step| step.elsewhere = found);
    }
}

/// Whether a step ran although every place was asked for it.
fn is_missed(step: &Step) -> bool {
    let ran = matches!(step.verdict, Verdict::Run | Verdict::Adopted | Verdict::Failed);
    ran && step.asked_elsewhere && step.miss == Some(Miss::NoRecord)
}

/// Whether a build is here with which this one will be compared.
fn was_built_before(session: &Session<'_>, build: &Build) -> bool {
    let Ok(mut others) = session.engine.history.builds_newest_first() else { return false };
    others.any(|other| {
        other.id < build.id && (other.inputs.same_build(&build.inputs) || other.inputs.same_dockerfile(&build.inputs))
    })
}

fn elsewhere(session: &Session<'_>, imports: &Imports, source: usize, step: &Step, compare: bool) -> Elsewhere {
    let results = match imports.condition(source, &session.cancel) {
        Condition::Found(results) => Some(results),
        Condition::Empty => Some(0),
        Condition::Failed(_) => None,
    };
    let trees = &session.engine.trees;
    let nearest = step.preimage.as_ref().filter(|_| compare).and_then(|preimage| {
        let copied = step.tree.and_then(|tree| trees.get(&tree).ok().flatten());
        imports.nearest_of_few(source, preimage, copied.as_ref(), &session.cancel)
    });
    let (nearest, tree) = nearest.map_or((None, None), |(record, tree)| {
        // Only to say which files are others: without it that is not said.
        (Some(record.preimage), tree.and_then(|tree| trees.put(&tree).ok()))
    });
    Elsewhere { name: imports.names().swap_remove(source), results, nearest, tree }
}
