//! [`Engine::explain`]: why each step of a build ran, or did not.
//!
//! A step is compared with the nearest earlier one: of the same step in the newest earlier builds of the same Dockerfile,
//! context, target and platform the one whose key has most in common with it; else the record of the same command that has.
//! Keys come with their preimages, so the difference is a list of fields; trees say which files differ.

use std::cmp::Reverse;
use std::collections::BTreeMap;

mod matching;
mod proposal;
mod reads;

use serde::Serialize;

pub(super) use self::matching::chain;
use self::matching::matching;
pub use self::proposal::Proposal;
pub use self::reads::{ReadCopy, StepReads};
use super::engine::Engine;
use crate::cache::explain::{Change, FieldChange, TreeChange, fields, likeness, trees};
use crate::cache::key::FINGERPRINT;
use crate::cache::{CacheKey, Looked, Preimage, Record};
use crate::history::{Build, BuildId, ByReads, Elsewhere, HistoryError, Inputs, Lookup, Miss, Step, Verdict, is_proxy};
use crate::tree::{Tree, TreeId};

/// Paths that are listed for one step and input.
const MAX_PATHS: usize = 100;

/// Earlier builds of which the one is taken whose step is most like a step.
const MAX_CANDIDATES: usize = 8;

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
    /// What it looked at, in a build with `--trace-reads`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<StepReads>,
    /// For a command whose key had nothing: what looking it up by what it reads gave, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_reads: Option<ByReads>,
}

/// The nearest earlier step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Earlier {
    /// Its build; `None` for a record that no build in the history has.
    pub build: Option<BuildId>,
    /// The cache elsewhere that has it, where it is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Its key.
    pub key: String,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// The result was known.
    Hit,
    /// The key had no result, and what the command looks at is as it was when it ran (`--cache-reads`).
    HitByReads {
        /// How many paths it looks at.
        paths: usize,
    },
    /// The build ended before the step.
    NotReached,
    /// In a dry run: the key depends on what these steps (numbers from 1) result in.
    InputUnknown {
        /// The steps; none if something has to be fetched first.
        steps: Vec<usize>,
        /// The images that have to be fetched first.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        images: Vec<String>,
    },
    /// In a dry run: another step is the same, and it gets the result of that.
    SameStep {
        /// Its number, from 1.
        step: usize,
        /// Its name.
        name: String,
    },
    /// `--no-cache` or `--no-cache-filter`
    NoCache,
    /// Its result is older than `--cache-ttl`.
    Expired,
    /// Its result is older than the comment above it allows (`# cache=12h`).
    ExpiredByFile,
    /// The same key had a result in an earlier build, whose record is gone.
    Pruned,
    /// The same step was tried in an earlier build and gave no result; what differs from then follows, if anything does.
    FailedBefore,
    /// The record of the key was damaged.
    Damaged,
    /// The record was there, and what it says about the result was not.
    ResultGone,
    /// The files of the result were pruned, and something needed them.
    FilesGone,
    /// Nothing like it was built before.
    NeverBuilt {
        /// Caches elsewhere were asked, and had nothing either, or did not answer.
        asked_elsewhere: bool,
        /// What was asked, where that is known.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        places: Vec<Asked>,
    },
    /// An input is another: `env A`, `command`, `workdir`.
    Input {
        /// Its name.
        name: String,
        /// Its value before; not given for proxies and secrets.
        before: Option<String>,
        /// Its value now; not given for proxies and secrets.
        after: Option<String>,
    },
    /// The instruction of a step that is no command is another.
    Instruction {
        /// How it was written before.
        before: String,
        /// How it is written now.
        after: String,
    },
    /// The ignore file of the context is another, and with it perhaps the files.
    IgnoreFile {
        /// Its name.
        name: String,
    },
    /// Files are others.
    Files {
        /// Which: `copied`, `directory` of a WORKDIR, or `mount /src`.
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
        /// What a lock file has to do with it.
        #[serde(flatten)]
        lock: Option<LockChange>,
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

/// What a lock file says of a base image that is another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "lock", content = "lock_file", rename_all = "kebab-case")]
pub enum LockChange {
    /// It was renewed.
    Renewed(String),
    /// It says what the name stands for; nothing did before.
    Added(String),
    /// It said what the name stood for, and nothing does now.
    Left(String),
}

/// A cache elsewhere that had nothing like a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// What people call it.
    pub name: String,
    /// How many results it had; `None` if it could not be used.
    pub results: Option<usize>,
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

impl Nearest<'_> {
    fn record(record: Record) -> Self {
        let (key, tree) = (record.preimage.key().to_string(), Some(record.tree));
        Self { from: None, preimage: record.preimage, key, shown: BTreeMap::new(), tree }
    }
}

impl<'a> Past<'a> {
    pub(super) fn of(engine: &'a Engine, build: &Build) -> Result<Self, HistoryError> {
        let earlier = engine.history.builds_newest_first()?.filter(|other| other.id < build.id);
        let (mut builds, mut elsewhere) = (Vec::new(), Vec::new());
        for other in earlier {
            if other.inputs.same_build(&build.inputs) {
                builds.push(other);
            } else if builds.is_empty() && other.inputs.same_dockerfile(&build.inputs) {
                elsewhere.push(other);
            }
        }
        // Nothing was built here before: another checkout may tell.
        if builds.is_empty() {
            builds = elsewhere;
        }
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
            self.record(&key)
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
            reads: self.reads(build, step),
            by_reads: step.by_reads.clone(),
        }
    }

    /// How a step differs from what is nearest to it somewhere else.
    pub(super) fn compared(&self, build: &Build, step: &Step, record: Record) -> Vec<Reason> {
        let Some(preimage) = &step.preimage else { return Vec::new() };
        self.differences(build, step, preimage, &Nearest::record(record))
    }

    fn reasons(&self, build: &Build, step: &Step) -> (Option<Earlier>, Vec<Reason>) {
        let only = |reason| (None, vec![reason]);
        if step.verdict == Verdict::Hit {
            return only(match step.by_reads.as_ref().map(|by_reads| &by_reads.outcome) {
                Some(Lookup::Hit { paths }) => Reason::HitByReads { paths: *paths },
                _ => Reason::Hit,
            });
        }
        let Some((preimage, key)) = step.preimage.as_ref().zip(step.key.as_ref()) else {
            return only(Reason::NotReached);
        };
        match step.miss {
            Some(Miss::NoCache) => return only(Reason::NoCache),
            Some(Miss::Expired) => return only(Reason::Expired),
            Some(Miss::ExpiredByFile) => return only(Reason::ExpiredByFile),
            Some(Miss::Damaged) => return only(Reason::Damaged),
            Some(Miss::TreeGone) => return only(Reason::ResultGone),
            Some(Miss::FilesGone) => return only(Reason::FilesGone),
            Some(Miss::NoRecord) | None => {}
        }
        if let Some((earlier, before)) = self.with_key(build, step, key) {
            let had_result = matches!(before.verdict, Verdict::Hit | Verdict::Run | Verdict::Adopted);
            let reason = if had_result { Reason::Pruned } else { Reason::FailedBefore };
            let compared = Earlier { build: Some(earlier.id.clone()), place: None, key: key.clone() };
            return (Some(compared), vec![reason]);
        }
        let Some(nearest) = self.nearest(build, step, preimage) else {
            let answer = self.elsewhere(build, step, preimage);
            return if answer.0.is_some() { answer } else { self.failed(build, step, preimage).unwrap_or(answer) };
        };
        let from = nearest.from.map(|(build, _)| build.id.clone());
        let compared = Earlier { build: from, place: None, key: nearest.key.clone() };
        let mut reasons = self.differences(build, step, preimage, &nearest);
        if reasons.is_empty() {
            reasons.push(never_built(step));
        }
        (Some(compared), reasons)
    }

    /// How a step differs from what is nearest to it in the caches that were asked for it.
    fn elsewhere(&self, build: &Build, step: &Step, preimage: &Preimage) -> (Option<Earlier>, Vec<Reason>) {
        let known = step.elsewhere.iter().filter_map(|place| Some((place, place.nearest.clone()?)));
        // Of equally near ones that of the place which is asked first.
        let nearest = known.rev().max_by_key(|(_, found)| likeness(found, preimage));
        let Some((place, found)) = nearest else { return (None, vec![never_built(step)]) };
        let key = found.key().to_string();
        let nearest =
            Nearest { from: None, preimage: found, key: key.clone(), shown: BTreeMap::new(), tree: place.tree };
        let mut reasons = self.differences(build, step, preimage, &nearest);
        for reason in reasons.iter_mut().filter(|reason| **reason == Reason::Root) {
            let missed = |step: &&&Step| step.op != "image" && step.verdict != Verdict::Hit;
            if let Some(first) = chain(build, step).iter().find(missed) {
                let change = ParentChange::Result;
                *reason = Reason::Parent { step: first.number + 1, name: first.name.clone(), change };
            }
        }
        if reasons.is_empty() {
            reasons.push(never_built(step));
        }
        (Some(Earlier { build: None, place: Some(place.name.clone()), key }), reasons)
    }

    /// How a step differs from what was tried in an earlier build and gave no result.
    fn failed(&self, build: &Build, step: &Step, preimage: &Preimage) -> Option<(Option<Earlier>, Vec<Reason>)> {
        let tried = |verdict| matches!(verdict, Verdict::Failed | Verdict::Cancelled);
        let nearest = self.likest(build, step, preimage, tried)?;
        let compared =
            Earlier { build: nearest.from.map(|(build, _)| build.id.clone()), place: None, key: nearest.key.clone() };
        let mut reasons = self.differences(build, step, preimage, &nearest);
        reasons.insert(0, Reason::FailedBefore);
        Some((Some(compared), reasons))
    }

    /// The same step of the newest earlier build that reached it, if it had this key there.
    fn with_key(&self, build: &Build, step: &Step, key: &str) -> Option<(&Build, &Step)> {
        let found = self.builds.iter().filter_map(|earlier| Some((earlier, matching(build, step, earlier)?)));
        found.filter(|(_, step)| step.key.is_some()).find(|(_, step)| step.key.as_deref() == Some(key))
    }

    /// Of the same steps of earlier builds that ended in such a way, the one with most in common.
    fn likest(
        &self,
        build: &Build,
        step: &Step,
        preimage: &Preimage,
        wanted: impl Fn(Verdict) -> bool,
    ) -> Option<Nearest<'_>> {
        let candidates = self.builds.iter().filter_map(|earlier| {
            let found = matching(build, step, earlier)?;
            let key = found.key.as_ref().filter(|_| wanted(found.verdict))?;
            let (before, shown) = self.facts(found, key)?;
            Some(Nearest { from: Some((earlier, found)), preimage: before, key: key.clone(), shown, tree: found.tree })
        });
        // Who builds two variants in turns wants to know what changed in this one. Of equally near ones the newest.
        let likest = candidates.take(MAX_CANDIDATES).enumerate();
        let likest = likest.max_by_key(|(at, found)| (likeness(&found.preimage, preimage), Reverse(*at)));
        likest.map(|(_, found)| found)
    }

    fn nearest(&self, build: &Build, step: &Step, preimage: &Preimage) -> Option<Nearest<'_>> {
        let has_result = |verdict| matches!(verdict, Verdict::Hit | Verdict::Run | Verdict::Adopted);
        if let Some(found) = self.likest(build, step, preimage, has_result) {
            return Some(found);
        }
        let records = self.engine.cache.similar(preimage).unwrap_or_default();
        let own = preimage.key();
        let best = records.into_iter().filter(|record| record.preimage.key() != own);
        // Of equally near ones the first, which is the newest.
        let best = best.rev().max_by_key(|record| likeness(&record.preimage, preimage))?;
        Some(Nearest::record(best))
    }

    /// What a key was made of, and what its mounts showed: from the build in which it ran, or from its record.
    fn facts(&self, step: &Step, key: &str) -> Option<(Preimage, BTreeMap<String, TreeId>)> {
        let ran = |step: &&Step| step.key.as_deref() == Some(key) && step.preimage.is_some();
        let found = Some(step).filter(ran).or_else(|| self.builds.iter().flat_map(|build| &build.steps).find(ran));
        if let Some(found) = found {
            return Some((found.preimage.clone()?, found.shown.clone()));
        }
        Some((self.record(&key.parse().ok()?)?.preimage, BTreeMap::new()))
    }

    /// The record of a key, which does not count as used by this.
    fn record(&self, key: &CacheKey) -> Option<Record> {
        match self.engine.cache.peek(key).ok()? {
            Looked::Found(record) => Some(*record),
            Looked::Nothing | Looked::Damaged => None,
        }
    }

    fn differences(&self, build: &Build, step: &Step, preimage: &Preimage, nearest: &Nearest<'_>) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = Vec::new();
        if let Some((_, before)) = nearest.from
            && step.op != "run"
            && before.instruction() != step.instruction()
        {
            let [before, after] = [before, step].map(|step| step.instruction().to_owned());
            reasons.push(Reason::Instruction { before, after });
        }
        for change in fields(&nearest.preimage, preimage) {
            for reason in self.reasons_of(change, build, step, preimage, nearest) {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
        // A WORKDIR at another place makes other directories.
        if reasons.len() > 1 && step.op == "workdir" {
            reasons.retain(|reason| !matches!(reason, Reason::Files { .. }));
        }
        let came_or_went = |reason: &Reason| match reason {
            Reason::Files { changes, .. } => changes.iter().any(|change| change.change != Change::Changed),
            _ => false,
        };
        if let (Some((_, before)), Some(at)) = (nearest.from, reasons.iter().position(came_or_went)) {
            let ignored = ignore_file(before.ignore.as_deref(), step.ignore.as_deref());
            reasons.splice(at..at, ignored);
        }
        reasons.extend(configured_by_base(build, step, nearest, &reasons));
        reasons
    }

    /// What one field that is another says.
    fn reasons_of(
        &self,
        change: FieldChange,
        build: &Build,
        step: &Step,
        preimage: &Preimage,
        nearest: &Nearest<'_>,
    ) -> Vec<Reason> {
        let FieldChange { name, before, after } = change;
        let shown = || self.files(&name, nearest.shown.get(&name).copied(), step.shown.get(&name).copied());
        match name.as_str() {
            "root" => parents(build, step, nearest),
            "result" => {
                let input = if step.op == "workdir" { "directory" } else { "copied" };
                vec![self.files(input, nearest.tree, step.tree)]
            }
            // The instruction says it, or the WORKDIR before it.
            "path" if step.op == "workdir" && nearest.from.is_some() => Vec::new(),
            text if text.starts_with("argument ") || text == "script" => vec![command(&nearest.preimage, preimage)],
            text if text.starts_with("mount ") => {
                let (before, after) = (before.as_deref().map(split_content), after.as_deref().map(split_content));
                let same = before.as_ref().map(|split| &split.0) == after.as_ref().map(|split| &split.0);
                let other_files = before.is_some()
                    && after.is_some()
                    && before.as_ref().map(|split| &split.1) != after.as_ref().map(|split| &split.1);
                let files = other_files.then(shown);
                let input = |split: Option<(String, Option<String>)>| split.map(|(rest, _)| rest);
                let options =
                    Reason::Input { name: name.clone(), before: input(before.clone()), after: input(after.clone()) };
                (!same).then_some(options).into_iter().chain(files).collect()
            }
            text => {
                if let Some(id) = text.strip_prefix(FINGERPRINT) {
                    return vec![Reason::Input { name: format!("secret{id}"), before: None, after: None }];
                }
                let hidden = text.strip_prefix("env ").is_some_and(is_proxy);
                let shown = |value: Option<String>| value.filter(|_| !hidden).map(|value| readable(text, value));
                vec![Reason::Input { before: shown(before), after: shown(after), name: text.to_owned() }]
            }
        }
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

fn never_built(step: &Step) -> Reason {
    let asked = |place: &Elsewhere| Asked { name: place.name.clone(), results: place.results };
    Reason::NeverBuilt { asked_elsewhere: step.asked_elsewhere, places: step.elsewhere.iter().map(asked).collect() }
}

/// Which of the steps that a root filesystem was made by are different.
fn parents(build: &Build, step: &Step, nearest: &Nearest<'_>) -> Vec<Reason> {
    let Some((earlier, before)) = nearest.from else { return vec![Reason::Root] };
    let (now, old) = (chain(build, step), chain(earlier, before));
    let mut reasons = Vec::new();
    reasons.extend(other_base(&old, &now));
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

/// Whether and which ignore file is another; nothing is said where it is not known.
fn ignore_file(before: Option<&str>, after: Option<&str>) -> Option<Reason> {
    let (before, after) = before.zip(after).filter(|(before, after)| before != after)?;
    let text = if after == "none" { before } else { after };
    let name = text.rsplit_once(' ').map_or(text, |(name, _)| name);
    Some(Reason::IgnoreFile { name: name.to_owned() })
}

/// The base image, where nothing but its config can be why a variable, the user or the directory is another.
fn configured_by_base(build: &Build, step: &Step, nearest: &Nearest<'_>, reasons: &[Reason]) -> Option<Reason> {
    let (earlier, before) = nearest.from?;
    let asked = |inputs: &Inputs| (inputs.dockerfile_digest.clone(), inputs.build_args.clone());
    let configured = |reason: &Reason| match reason {
        Reason::Input { name, .. } => name.starts_with("env ") || name == "user" || name == "workdir",
        _ => false,
    };
    let said = reasons.iter().any(|reason| matches!(reason, Reason::Base { .. }));
    if said || asked(&build.inputs) != asked(&earlier.inputs) || !reasons.iter().any(configured) {
        return None;
    }
    other_base(&chain(earlier, before), &chain(build, step))
}

/// That two chains begin with different images.
fn other_base(old: &[&Step], now: &[&Step]) -> Option<Reason> {
    let (old, now) = old.first().zip(now.first().copied())?;
    let (before, after) = old.image.clone().zip(now.image.clone())?;
    let name = |image: &str| image.split(' ').next().map(str::to_owned);
    // Another name is the Dockerfile's doing.
    let same_name = name(&before) == name(&after);
    let lock = match (old.locked.clone(), now.locked.clone()) {
        (Some(_), Some(file)) => Some(LockChange::Renewed(file)),
        (None, Some(file)) => Some(LockChange::Added(file)),
        (Some(file), None) => Some(LockChange::Left(file)),
        (None, None) => None,
    };
    let lock = lock.filter(|_| same_name);
    (before != after).then_some(Reason::Base { before, after, lock })
}

/// The command of a RUN; without the shell if that is the same in both.
fn command(before: &Preimage, after: &Preimage) -> Reason {
    let parts = |preimage: &Preimage| -> Vec<String> {
        let named = |name: &str| name.starts_with("argument ") || name == "script";
        preimage.fields.iter().filter(|field| named(&field.name)).map(|field| field.value.clone()).collect()
    };
    let (mut before, mut after) = (parts(before), parts(after));
    let shell = |parts: &[String]| parts.iter().position(|part| part == "-c").map(|at| at + 1);
    if let Some(end) = shell(&before).filter(|end| after.starts_with(&before[..*end])) {
        (before, after) = (before.split_off(end), after.split_off(end));
    }
    let text = |parts: Vec<String>| Some(parts.join(" "));
    Reason::Input { name: "command".to_owned(), before: text(before), after: text(after) }
}

/// A value as it is written in a Dockerfile.
fn readable(name: &str, value: String) -> String {
    match name {
        "network" | "security" => value.to_lowercase(),
        _ => value,
    }
}

/// What a mount is, and the digest of what it shows.
fn split_content(text: &str) -> (String, Option<String>) {
    // It comes last, after the values of the other options.
    let key = if text.starts_with("cache ") { " seed=" } else { " content=" };
    match text.rsplit_once(key) {
        Some((rest, digest)) => (rest.to_owned(), Some(digest.to_owned())),
        None => (text.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mount_is_is_told_from_what_it_shows() {
        let check = |text: &str, rest: &str, digest: Option<&str>| {
            assert_eq!(split_content(text), (rest.to_owned(), digest.map(str::to_owned)), "{text}");
        };
        check("bind writable=false content=aa", "bind writable=false", Some("aa"));
        check("cache id=x content=y owner=0:0 seed=aa", "cache id=x content=y owner=0:0", Some("aa"));
        check("secret id=x", "secret id=x", None);
    }

    #[test]
    fn commands_are_compared_without_the_shell_that_both_have() {
        let preimage = |arguments: &[&str]| {
            let mut preimage = Preimage::new("run");
            for (at, argument) in arguments.iter().enumerate() {
                preimage.add(format!("argument {at}"), argument);
            }
            preimage
        };
        let check = |before: &[&str], after: &[&str], expected: (&str, &str)| {
            let found = command(&preimage(before), &preimage(after));
            let (before, after) = (Some(expected.0.to_owned()), Some(expected.1.to_owned()));
            assert_eq!(found, Reason::Input { name: "command".to_owned(), before, after });
        };
        check(&["/bin/sh", "-c", "a"], &["/bin/sh", "-c", "b"], ("a", "b"));
        check(&["/bin/sh", "-c", "a"], &["/bin/bash", "-c", "a"], ("/bin/sh -c a", "/bin/bash -c a"));
        check(&["make"], &["make", "-c"], ("make", "make -c"));
    }

    #[test]
    fn another_ignore_file_is_named() {
        let check = |before, after, expected: Option<&str>| {
            let expected = expected.map(|name| Reason::IgnoreFile { name: name.to_owned() });
            assert_eq!(ignore_file(before, after), expected, "{before:?} {after:?}");
        };
        check(Some("none"), Some(".dockerignore sha256:a"), Some(".dockerignore"));
        check(Some("my file sha256:a"), Some("none"), Some("my file"));
        check(Some(".dockerignore sha256:a"), Some(".dockerignore sha256:b"), Some(".dockerignore"));
        check(Some("none"), Some("none"), None);
        check(None, Some(".dockerignore sha256:a"), None);
    }
}
