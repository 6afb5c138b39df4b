//! `--verify-cache`: runs a share of the known steps again, and compares.
//!
//! 1. The share is chosen by a digest of the build's id and the step's key: another one in each build. It is one hit at
//!    least, if there is one and the share is not nothing.
//! 2. A COPY or WORKDIR is planned again in every build anyway: the record is compared with what its key says.
//! 3. A RUN runs again on the same root with the same mounts. An equal tree is what is hoped for.
//! 4. If the tree differs, the step runs once more, in another second of the clock. Two fresh runs that differ from each other
//!    say that the step is not deterministic; two that agree say that the hit was wrong.
//!
//! Whatever comes out, the image has the result of the cache. A wrong hit by what a step reads takes with it all that is known of
//! the step in this way.

use std::time::Duration;

use super::error::{BuildError, StepError};
use super::events::TaskNumbers;
use super::solve::{self, Session, Solution};
use crate::cache::CacheKey;
use crate::cache::explain::trees;
use crate::graph::{Graph, Op, VertexId};
use crate::history::{Step, Verdict, Verified, VerifiedAs};
use crate::progress::{Outcome, TaskId};
use crate::tree::Tree;

/// Paths that are kept for a step.
const MAX_PATHS: usize = 100;

/// A clock that steps read shows whole seconds.
const ANOTHER_SECOND: Duration = Duration::from_millis(1100);

/// Verifies `percent` of the hits of a solved graph.
pub(super) fn verify(
    session: &Session<'_>,
    graph: &Graph,
    solution: &Solution,
    numbers: &TaskNumbers,
    percent: u8,
) -> Result<Vec<Verified>, BuildError> {
    let build = session.recorder.build();
    let hits: Vec<(&Step, &str)> = build
        .steps
        .iter()
        .filter(|step| step.op != "image" && step.verdict == Verdict::Hit)
        .filter_map(|step| Some((step, step.key.as_deref()?)))
        .collect();
    let keys: Vec<&str> = hits.iter().map(|(_, key)| *key).collect();
    let chosen = choose(build.id.as_str(), &keys, percent);
    let mut found = Vec::new();
    let what = format!("verifying {} of {} known results", chosen.len(), hits.len());
    let task = numbers.declare(&session.events, &what, Vec::new());
    session.events.started(task);
    for (step, _) in chosen.into_iter().map(|at| hits[at]) {
        let outcome = match one(session, graph, solution, task, step) {
            Ok(outcome) => outcome,
            Err(error) if error.is_cancelled() => {
                session.events.finished(task, Outcome::Cancelled);
                return Err(BuildError::Cancelled(crate::cancel::Cancelled));
            }
            Err(StepError::Lost(_)) => {
                VerifiedAs::Failed { reason: "the files that it starts from were pruned".to_owned() }
            }
            Err(error) => VerifiedAs::Failed { reason: error.to_string() },
        };
        let verified = Verified { step: step.number, name: step.name.clone(), outcome };
        warn(session, task, &verified);
        if let (VerifiedAs::WrongHit { .. }, Some(definition)) = (&verified.outcome, found_by_reads(step)) {
            forget(session, task, &definition)
                .map_err(|error| solve::step_error(graph, VertexId(step.number), error))?;
        }
        session.recorder.verified(verified.clone());
        found.push(verified);
    }
    session.events.finished(task, Outcome::Done);
    Ok(found)
}

/// Which of the keys belong to the share of a build; in a small build with a small share one does.
fn choose(build: &str, keys: &[&str], percent: u8) -> Vec<usize> {
    let number = |key: &str| {
        let hash = blake3::hash(format!("{build} {key}").as_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
    };
    let share = |at: &usize| number(keys[*at]) % 100 < u64::from(percent);
    let chosen: Vec<usize> = (0..keys.len()).filter(share).collect();
    if chosen.is_empty() && percent > 0 {
        return (0..keys.len()).min_by_key(|at| number(keys[*at])).into_iter().collect();
    }
    chosen
}

fn one(
    session: &Session<'_>,
    graph: &Graph,
    solution: &Solution,
    task: TaskId,
    step: &Step,
) -> Result<VerifiedAs, StepError> {
    let vertex = VertexId(step.number);
    let Some(layer) = solution.filesystems[step.number].built.iter().find(|layer| layer.vertex == vertex) else {
        return Ok(VerifiedAs::Failed { reason: "its layer is not part of the result".to_owned() });
    };
    let cached = &layer.tree;
    if !matches!(graph.vertices[step.number].op, Op::Run(_)) {
        return Ok(if is_what_the_key_says(session, step, cached)? {
            VerifiedAs::Equal
        } else {
            VerifiedAs::WrongHit { changes: Vec::new() }
        });
    }
    let first = solve::run_again(session, graph, solution, vertex, task)?;
    if first.semantic() == cached.semantic() {
        return Ok(VerifiedAs::Equal);
    }
    let begun = std::time::Instant::now();
    while begun.elapsed() < ANOTHER_SECOND {
        session.cancel.check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = solve::run_again(session, graph, solution, vertex, task)?;
    Ok(if first.semantic() == second.semantic() {
        VerifiedAs::WrongHit { changes: trees(cached, &first, MAX_PATHS).0 }
    } else {
        VerifiedAs::NotDeterministic { changes: trees(&first, &second, MAX_PATHS).0 }
    })
}

/// The definition of a command whose result was found by what it reads.
fn found_by_reads(step: &Step) -> Option<CacheKey> {
    let found = step.by_reads.as_ref().filter(|found| found.is_hit())?;
    found.definition.as_ref()?.parse().ok()
}

/// Drops everything that is known of a command by what it reads: one of its runs was taken for another.
fn forget(session: &Session<'_>, task: TaskId, definition: &CacheKey) -> Result<(), StepError> {
    let dropped = session.engine.cache.drop_read_sets(definition)?;
    let runs = if dropped == 1 { "one run".to_owned() } else { format!("{dropped} runs") };
    let text = format!("that result was found by what the step reads; what {runs} of it read is forgotten");
    session.events.warning(Some(task), text);
    Ok(())
}

/// The key of a copy says what it results in.
fn is_what_the_key_says(session: &Session<'_>, step: &Step, tree: &Tree) -> Result<bool, StepError> {
    let key = step.key.as_ref().and_then(|key| key.parse::<CacheKey>().ok());
    let record = key.map(|key| session.engine.cache.get(&key)).transpose()?.flatten();
    let said = record.and_then(|record| record.preimage.fields.into_iter().find(|field| field.name == "result"));
    Ok(said.is_some_and(|field| field.value == tree.semantic().to_string()))
}

fn warn(session: &Session<'_>, task: TaskId, verified: &Verified) {
    let name = &verified.name;
    let text = match &verified.outcome {
        VerifiedAs::Equal => return,
        VerifiedAs::NotDeterministic { changes } => {
            format!("{name} is not deterministic: two runs differ in {}", paths(changes))
        }
        VerifiedAs::WrongHit { changes } => {
            format!("the cached result of {name} is not what the step gives now: {}", paths(changes))
        }
        VerifiedAs::Failed { reason } => format!("{name} cannot be verified: {reason}"),
    };
    session.events.warning(Some(task), text);
}

fn paths(changes: &[crate::cache::explain::TreeChange]) -> String {
    let mut shown: Vec<&str> = changes.iter().take(5).map(|change| change.path.as_str()).collect();
    if changes.len() > shown.len() {
        shown.push("…");
    }
    if shown.is_empty() { "its digest".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_as_large_as_asked_and_differs_between_builds() {
        let keys: Vec<String> = (0..1000).map(|key| key.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let count = |percent| choose("a", &keys, percent).len();
        assert_eq!((count(0), count(100)), (0, 1000));
        assert!((200..300).contains(&count(25)), "{}", count(25));
        assert_ne!(choose("a", &keys, 50), choose("b", &keys, 50));
    }

    #[test]
    fn a_small_share_of_a_small_build_is_one_step_which_differs_between_builds() {
        let mut chosen = [0; 3];
        for build in 0..300 {
            let found = choose(&build.to_string(), &["x", "y", "z"], 1);
            assert!(!found.is_empty(), "{build}");
            for at in found {
                chosen[at] += 1;
            }
        }
        assert!(chosen.iter().all(|count| *count > 50), "{chosen:?}");
        assert_eq!(choose("a", &["x", "y", "z"], 0), [0; 0]);
        assert_eq!(choose("a", &[], 100), [0; 0]);
    }
}
