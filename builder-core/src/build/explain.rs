//! [`Engine::explain`]: why each step of a build ran, or did not.
//!
//! A step is compared with the nearest earlier one: the same step of the newest earlier build of the same Dockerfile,
//! context, target and platform that has a key for it; else the record of the same command that has most in common.
//! Keys come with their preimages, so the difference is a list of fields; trees say which files differ.

use std::collections::BTreeMap;

use serde::Serialize;

use super::engine::Engine;
use crate::cache::explain::{TreeChange, fields, likeness, trees};
use crate::cache::{CacheKey, Preimage};
use crate::history::{Build, BuildId, HistoryError, Miss, Step, Verdict, is_proxy};
use crate::tree::{Tree, TreeId};

/// Paths that are listed for one step and input.
const MAX_PATHS: usize = 100;

/// Why the steps of a build ran.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The build.
    pub build: BuildId,
    /// Its steps, base images left out.
    pub steps: Vec<ExplainedStep>,
}

/// Why one step ran, or did not.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedStep {
    /// Its number, from 1 as people count.
    pub number: usize,
    /// What is shown: `[build 2/4] RUN make`.
    pub name: String,
    /// The stage that it belongs to.
    pub stage: String,
    /// Line of the Dockerfile, from 1.
    pub line: Option<usize>,
    /// How it ended.
    pub verdict: Verdict,
    /// Its key, where it is known.
    pub key: Option<String>,
    /// What it is compared with.
    pub compared_with: Option<Earlier>,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// The nearest earlier step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Earlier {
    /// Its build; `None` for a record that no build in the history has.
    pub build: Option<BuildId>,
    /// Its key.
    pub key: String,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// The result was known.
    Hit,
    /// The build ended before the step.
    NotReached,
    /// In a dry run: the key depends on what these steps (numbers from 1) result in.
    InputUnknown {
        /// The steps; none if something has to be fetched first.
        steps: Vec<usize>,
    },
    /// `--no-cache` or `--no-cache-filter`
    NoCache,
    /// Its result is older than `--cache-ttl`.
    Expired,
    /// The same key had a result in an earlier build, whose record is gone.
    Pruned,
    /// The same key was tried in an earlier build and gave no result.
    FailedBefore,
    /// The record of the key was damaged.
    Damaged,
    /// The record was there, and what it says about the result was not.
    ResultGone,
    /// The files of the result were pruned, and something needed them.
    FilesGone,
    /// Nothing like it was built before.
    NeverBuilt,
    /// An input is another: `env A`, `command`, `workdir`.
    Input {
        /// Its name.
        name: String,
        /// Its value before; not given for proxies.
        before: Option<String>,
        /// Its value now; not given for proxies.
        after: Option<String>,
    },
    /// Files are others.
    Files {
        /// Which: `copied`, or `mount /src`.
        input: String,
        /// The paths, at most a hundred; as the step sees them.
        changes: Vec<TreeChange>,
        /// How many there are; `None` if the trees of the earlier step are gone.
        count: Option<usize>,
    },
    /// The base image is another.
    Base {
        /// Name and digest before.
        before: String,
        /// Name and digest now.
        after: String,
    },
    /// A step before it gave another result, is new, or is gone.
    Parent {
        /// Its number, from 1; for one that is gone its number in the earlier build.
        step: usize,
        /// Its name.
        name: String,
        /// What is different.
        change: ParentChange,
    },
    /// The root filesystem is another, and it is not known any more how the earlier one was made.
    Root,
}

/// How a step before differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParentChange {
    /// Its result is another.
    Result,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

impl Engine {
    /// Says why each step of a build ran, or did not.
    ///
    /// # Errors
    /// [`HistoryError::Access`] if the history cannot be read. What is missing or damaged makes the answer less exact.
    pub fn explain(&self, build: &Build) -> Result<Explanation, HistoryError> {
        let past = Past::of(self, build)?;
        let steps = build.steps.iter().filter(|step| step.op != "image");
        Ok(Explanation { build: build.id.clone(), steps: steps.map(|step| past.explained(build, step)).collect() })
    }
}

/// Earlier builds of the same thing, newest first.
pub(super) struct Past<'a> {
    engine: &'a Engine,
    builds: Vec<Build>,
}

/// A step of an earlier build, or a record.
struct Nearest<'a> {
    from: Option<(&'a Build, &'a Step)>,
    preimage: Preimage,
    key: String,
    shown: BTreeMap<String, TreeId>,
    tree: Option<TreeId>,
}

impl<'a> Past<'a> {
    pub(super) fn of(engine: &'a Engine, build: &Build) -> Result<Self, HistoryError> {
        let earlier = engine.history.builds_newest_first()?.filter(|other| other.id < build.id);
        let builds = earlier.filter(|other| other.inputs.same_build(&build.inputs)).collect();
        Ok(Self { engine, builds })
    }

    /// How long a step took when it last ran, in milliseconds; of another step with the same command if it never did.
    pub(super) fn predicted(&self, build: &Build, step: &Step) -> Option<u64> {
        for earlier in &self.builds {
            let Some(found) = matching(build, step, earlier) else { continue };
            if matches!(found.verdict, Verdict::Run | Verdict::Adopted) {
                return Some(found.milliseconds);
            }
        }
        let known = self.builds.iter().find_map(|earlier| {
            let key = matching(build, step, earlier)?.key.as_ref()?.parse::<CacheKey>().ok()?;
            self.engine.cache.get(&key).ok().flatten()
        });
        let similar = || self.engine.cache.similar(step.preimage.as_ref()?).ok()?.into_iter().next();
        known.or_else(similar).and_then(|record| record.milliseconds)
    }

    pub(super) fn explained(&self, build: &Build, step: &Step) -> ExplainedStep {
        let (compared_with, reasons) = self.reasons(build, step);
        ExplainedStep {
            number: step.number + 1,
            name: step.name.clone(),
            stage: step.stage.clone(),
            line: step.line,
            verdict: step.verdict,
            key: step.key.clone(),
            compared_with,
            reasons,
        }
    }

    fn reasons(&self, build: &Build, step: &Step) -> (Option<Earlier>, Vec<Reason>) {
        let only = |reason| (None, vec![reason]);
        if step.verdict == Verdict::Hit {
            return only(Reason::Hit);
        }
        let Some((preimage, key)) = step.preimage.as_ref().zip(step.key.as_ref()) else {
            return only(Reason::NotReached);
        };
        match step.miss {
            Some(Miss::NoCache) => return only(Reason::NoCache),
            Some(Miss::Expired) => return only(Reason::Expired),
            Some(Miss::Damaged) => return only(Reason::Damaged),
            Some(Miss::TreeGone) => return only(Reason::ResultGone),
            Some(Miss::FilesGone) => return only(Reason::FilesGone),
            Some(Miss::NoRecord) | None => {}
        }
        if let Some((earlier, before)) = self.with_key(build, step, key) {
            let had_result = matches!(before.verdict, Verdict::Hit | Verdict::Run | Verdict::Adopted);
            let reason = if had_result { Reason::Pruned } else { Reason::FailedBefore };
            let compared = Earlier { build: Some(earlier.id.clone()), key: key.clone() };
            return (Some(compared), vec![reason]);
        }
        let Some(nearest) = self.nearest(build, step, preimage) else { return only(Reason::NeverBuilt) };
        let compared = Earlier { build: nearest.from.map(|(build, _)| build.id.clone()), key: nearest.key.clone() };
        let mut reasons = self.differences(build, step, preimage, &nearest);
        if reasons.is_empty() {
            reasons.push(Reason::NeverBuilt);
        }
        (Some(compared), reasons)
    }

    /// The same step of the newest earlier build that reached it, if it had this key there.
    fn with_key(&self, build: &Build, step: &Step, key: &str) -> Option<(&Build, &Step)> {
        let found = self.builds.iter().filter_map(|earlier| Some((earlier, matching(build, step, earlier)?)));
        found.filter(|(_, step)| step.key.is_some()).find(|(_, step)| step.key.as_deref() == Some(key))
    }

    fn nearest(&self, build: &Build, step: &Step, preimage: &Preimage) -> Option<Nearest<'_>> {
        for earlier in &self.builds {
            let Some(found) = matching(build, step, earlier) else { continue };
            let has_result = matches!(found.verdict, Verdict::Hit | Verdict::Run | Verdict::Adopted);
            if let Some(key) = found.key.as_ref().filter(|_| has_result)
                && let Some((before, shown)) = self.facts(found, key)
            {
                let tree = found.tree;
                return Some(Nearest { from: Some((earlier, found)), preimage: before, key: key.clone(), shown, tree });
            }
        }
        let records = self.engine.cache.similar(preimage).unwrap_or_default();
        let own = preimage.key();
        let best = records.into_iter().filter(|record| record.preimage.key() != own);
        // Of equally near ones the first, which is the newest.
        let best = best.rev().max_by_key(|record| likeness(&record.preimage, preimage))?;
        Some(Nearest {
            from: None,
            key: best.preimage.key().to_string(),
            tree: Some(best.tree),
            shown: BTreeMap::new(),
            preimage: best.preimage,
        })
    }

    /// What a key was made of, and what its mounts showed: from the build in which it ran, or from its record.
    fn facts(&self, step: &Step, key: &str) -> Option<(Preimage, BTreeMap<String, TreeId>)> {
        let ran = |step: &&Step| step.key.as_deref() == Some(key) && step.preimage.is_some();
        let found = Some(step).filter(ran).or_else(|| self.builds.iter().flat_map(|build| &build.steps).find(ran));
        if let Some(found) = found {
            return Some((found.preimage.clone()?, found.shown.clone()));
        }
        let record = self.engine.cache.get(&key.parse().ok()?).ok()??;
        Some((record.preimage, BTreeMap::new()))
    }

    fn differences(&self, build: &Build, step: &Step, preimage: &Preimage, nearest: &Nearest<'_>) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = Vec::new();
        for change in fields(&nearest.preimage, preimage) {
            let reason = match change.name.as_str() {
                "root" => {
                    reasons.extend(parents(build, step, nearest));
                    continue;
                }
                "result" => self.files("copied", nearest.tree, step.tree),
                name if name.starts_with("argument ") || name == "script" => command(&nearest.preimage, preimage),
                name if same_but_content(change.before.as_deref(), change.after.as_deref()) => {
                    self.files(name, nearest.shown.get(name).copied(), step.shown.get(name).copied())
                }
                name => {
                    let hidden = name.strip_prefix("env ").is_some_and(is_proxy);
                    let shown = |value: Option<String>| value.filter(|_| !hidden);
                    Reason::Input { name: name.to_owned(), before: shown(change.before), after: shown(change.after) }
                }
            };
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons
    }

    fn files(&self, input: &str, before: Option<TreeId>, after: Option<TreeId>) -> Reason {
        let tree = |id: Option<TreeId>| self.engine.trees.get(&id?).ok()?;
        let (changes, count) = match (tree(before), tree(after)) {
            (Some(before), Some(after)) => {
                let (changes, count) = trees(&before, &after, MAX_PATHS);
                (changes, Some(count))
            }
            _ => (Vec::new(), None),
        };
        Reason::Files { input: input.to_owned(), changes, count }
    }
}

/// Which of the steps that a root filesystem was made by are different.
fn parents(build: &Build, step: &Step, nearest: &Nearest<'_>) -> Vec<Reason> {
    let Some((earlier, before)) = nearest.from else { return vec![Reason::Root] };
    let (now, old) = (chain(build, step), chain(earlier, before));
    let mut reasons = Vec::new();
    if let (Some(before), Some(after)) = (base(&old), base(&now))
        && before != after
    {
        reasons.push(Reason::Base { before, after });
    }
    let empty = Tree::empty().semantic();
    let parent = |step: &Step, change| Reason::Parent { step: step.number + 1, name: step.name.clone(), change };
    let mut matched = Vec::new();
    for made in now.iter().filter(|step| step.op != "image") {
        match matching(build, made, earlier).filter(|found| old.iter().any(|old| old.number == found.number)) {
            Some(found) => {
                matched.push(found.number);
                if found.result != made.result {
                    reasons.push(parent(made, ParentChange::Result));
                }
            }
            None if made.result != Some(empty) => reasons.push(parent(made, ParentChange::Added)),
            None => {}
        }
    }
    for gone in old.iter().filter(|step| step.op != "image" && !matched.contains(&step.number)) {
        if gone.result != Some(empty) {
            reasons.push(parent(gone, ParentChange::Removed));
        }
    }
    if reasons.is_empty() {
        reasons.push(Reason::Root);
    }
    reasons
}

/// The step of an earlier build that is the same: of the same stage and kind, with the same instruction; else the one at
/// the same place, unless its instruction is somewhere else now.
fn matching<'a>(build: &Build, step: &Step, earlier: &'a Build) -> Option<&'a Step> {
    let peers = |step: &Step, other: &Step| {
        (&step.stage, &step.op, step.platform()) == (&other.stage, &other.op, other.platform())
    };
    let same = earlier.steps.iter().filter(|other| peers(step, other) && other.instruction() == step.instruction());
    if let Some(nearest) = same.min_by_key(|other| other.position.abs_diff(step.position)) {
        return Some(nearest);
    }
    let there = earlier.steps.iter().find(|other| peers(step, other) && other.position == step.position)?;
    let moved = build.steps.iter().any(|own| peers(own, there) && own.instruction() == there.instruction());
    (!moved).then_some(there)
}

/// The steps that a step starts from, the first one first.
fn chain<'a>(build: &'a Build, step: &Step) -> Vec<&'a Step> {
    let mut chain = Vec::new();
    let mut root = step.root;
    while let Some(found) = root.and_then(|number| build.step(number)) {
        // Inputs have smaller numbers; a file that says otherwise must not make this endless.
        root = found.root.filter(|number| *number < found.number);
        chain.push(found);
    }
    chain.reverse();
    chain
}

fn base(chain: &[&Step]) -> Option<String> {
    chain.first().and_then(|first| first.image.clone())
}

fn command(before: &Preimage, after: &Preimage) -> Reason {
    let text = |preimage: &Preimage| {
        let parts =
            preimage.fields.iter().filter(|field| field.name.starts_with("argument ") || field.name == "script");
        Some(parts.map(|field| field.value.as_str()).collect::<Vec<_>>().join(" "))
    };
    Reason::Input { name: "command".to_owned(), before: text(before), after: text(after) }
}

/// Whether two values of a mount differ in the digest of its content only.
fn same_but_content(before: Option<&str>, after: Option<&str>) -> bool {
    let rest = |text: &str| {
        let at = ["content=", "seed="].iter().filter_map(|key| text.rfind(key)).max()?;
        let end = text[at..].find(' ').map_or(text.len(), |end| at + end);
        Some(format!("{}{}", &text[..at], &text[end..]))
    };
    match (before.and_then(rest), after.and_then(rest)) {
        (Some(before), Some(after)) => before == after && before.len() > 5,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Inputs, Status};

    fn build(steps: &[&str]) -> Build {
        let step = |(number, name): (usize, &&str)| Step {
            number,
            position: number,
            name: format!("[{}/9] {name}", number + 1),
            op: name.split(' ').next().unwrap_or_default().to_lowercase(),
            ..Step::default()
        };
        Build {
            id: BuildId::new(std::time::UNIX_EPOCH, 0),
            started: 0,
            inputs: Inputs::default(),
            steps: steps.iter().enumerate().map(step).collect(),
            end: None,
            status: Status::Completed,
        }
    }

    fn check(now: &[&str], earlier: &[&str], expected: &[Option<usize>]) {
        let (now, earlier) = (build(now), build(earlier));
        let found = now.steps.iter().map(|step| matching(&now, step, &earlier).map(|found| found.number));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn steps_are_found_again_by_what_they_say_and_else_by_their_place() {
        check(&["RUN a", "RUN b"], &["RUN a", "RUN c"], &[Some(0), Some(1)]);
        check(&["RUN new", "RUN a", "RUN b"], &["RUN a", "RUN b"], &[None, Some(0), Some(1)]);
        check(&["RUN a"], &["COPY a"], &[None]);
        check(&["RUN a", "RUN b", "RUN a"], &["RUN a", "RUN b", "RUN a"], &[Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_mount_whose_content_alone_differs_is_told_from_another_mount() {
        let check = |before: &str, after: &str, expected| {
            assert_eq!(same_but_content(Some(before), Some(after)), expected, "{before} {after}");
        };
        check("bind writable=false content=aa", "bind writable=false content=bb", true);
        check("bind writable=false content=aa", "bind writable=true content=bb", false);
        check("cache id=x owner=0:0 seed=aa", "cache id=x owner=0:0 seed=bb", true);
        check("secret id=x", "secret id=y", false);
        check("1", "2", false);
    }
}
