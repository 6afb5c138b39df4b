//! [`Engine::probe`]: which steps of a build are known where (`rbuild cache probe`), and what of their keys is not.
//!
//! ```text
//! foresee (here and in every source) ──▶ the key of each step ──▶ each place by itself: hit, or a miss and what is nearest to it
//! ```
//!
//! Of base images manifest and config are fetched, as a build does; of the sources index, records and trees. No layer
//! is fetched, nothing is run, and what is found is not kept.

use std::sync::Arc;

use serde::Serialize;

use super::engine::{Engine, Known};
use super::error::{BuildError, StepError};
use super::events::{Events, TaskNumbers};
use super::explain::{Earlier, Past, Reason, chain};
use super::forecast::{Foreseen, Resolve, unknown_inputs};
use super::remote_cache::RemoteCache;
use super::request::BuildRequest;
use super::solve::expired;
use crate::cache::{CacheKey, Looked, Preimage, Record};
use crate::cancel::CancelToken;
use crate::graph::{Graph, Vertex};
use crate::history::{Build, Miss, Step, Verdict};
use crate::progress::Silent;
use crate::remote::{Condition, Imports};

/// What places know of a build.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// The local store, and every `--cache-from` in the order in which a build asks them.
    pub places: Vec<Place>,
    /// The steps, base images left out.
    pub steps: Vec<ProbedStep>,
}

/// Where results may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// `local`, or what people call it.
    pub name: String,
    /// Whether it can be used.
    #[serde(flatten)]
    pub condition: PlaceCondition,
}

/// What became of asking a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "condition", rename_all = "kebab-case")]
pub enum PlaceCondition {
    /// It has results.
    Found {
        /// How many; not counted for the local store.
        records: Option<usize>,
    },
    /// It has none.
    Empty,
    /// It cannot be used.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What the places know of one step.
#[derive(Debug, Clone, Serialize)]
pub struct ProbedStep {
    /// Its number, from 1 as people count.
    pub number: usize,
    /// What is shown: `[build 2/4] RUN make`.
    pub name: String,
    /// The stage that it belongs to.
    pub stage: String,
    /// Line of the Dockerfile, from 1.
    pub line: Option<usize>,
    /// Its key; `None` if that depends on something that only a build finds out.
    pub key: Option<String>,
    /// The answer of each place, in their order.
    pub answers: Vec<Answer>,
}

/// What a place says of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// It has the result.
    Hit {
        /// The files are there as well, or can be had from the inputs of the step. Without them the step runs if
        /// somebody reads them.
        files: bool,
    },
    /// It has not.
    Miss {
        /// The nearest thing that it has.
        compared_with: Option<Earlier>,
        /// What of the key has no match there; `before` is what is there.
        reasons: Vec<Reason>,
    },
    /// Nobody can say, as the key is not known.
    Unknown {
        /// What it depends on.
        reasons: Vec<Reason>,
    },
    /// The place has nothing, or cannot be used.
    Unavailable,
}

impl ProbedStep {
    /// Whether a build finds its result somewhere.
    pub fn is_known(&self) -> bool {
        self.answers.iter().any(|answer| matches!(answer, Answer::Hit { .. }))
    }
}

impl Engine {
    /// Asks the local store and every source of `request` for each step.
    ///
    /// # Errors
    /// As [`Engine::build`], for what is wrong with the Dockerfile, for files that are missing, and for base images that
    /// cannot be resolved. A source that cannot be used is no error: see [`PlaceCondition::Failed`].
    pub fn probe(&self, request: &BuildRequest, cancel: &CancelToken) -> Result<Probe, BuildError> {
        let store = |error: StepError| BuildError::of(error, |error| BuildError::Store(Box::new(error)));
        let _lease = self.content.lease(cancel).map_err(|error| store(error.into()))?;
        let (events, numbers) = (Events::Direct(&Silent), TaskNumbers::default());
        let resolve: &Resolve<'_> = &|parsed, options, known: &mut Known| {
            self.resolve(parsed, options, (request.pull, &request.pins), known, (&events, &numbers), cancel)
        };
        let remote = RemoteCache::new(self, request, cancel);
        let Foreseen { build, graph } = self.foresee(request, remote.clone(), resolve, cancel)?;
        let past = self.past(&build)?;
        let prober = Prober { engine: self, request, graph: &graph, build: &build, past, remote, cancel };
        let mut steps = Vec::new();
        for step in build.steps.iter().filter(|step| step.op != "image") {
            cancel.check().map_err(BuildError::Cancelled)?;
            steps.push(prober.step(step).map_err(store)?);
        }
        let mut probe = Probe { places: prober.places().map_err(store)?, steps };
        cancel.check().map_err(BuildError::Cancelled)?;
        probe.settle(&build);
        Ok(probe)
    }
}

impl Probe {
    /// Says of places that are no use that they are none, and which steps before it make a step miss.
    fn settle(&mut self, build: &Build) {
        for (at, place) in self.places.iter().enumerate() {
            let is_found = matches!(place.condition, PlaceCondition::Found { .. });
            let hits: Vec<bool> =
                self.steps.iter().map(|step| matches!(step.answers[at], Answer::Hit { .. })).collect();
            let missed: Vec<usize> =
                self.steps.iter().zip(hits).filter(|(_, hit)| !hit).map(|(step, _)| step.number).collect();
            for step in &mut self.steps {
                match &mut step.answers[at] {
                    Answer::Hit { .. } => {}
                    answer if !is_found => *answer = Answer::Unavailable,
                    Answer::Miss { reasons, .. } => {
                        for reason in reasons.iter_mut().filter(|reason| **reason == Reason::Root) {
                            *reason = first_missed(build, step.number, &missed).unwrap_or(Reason::Root);
                        }
                    }
                    Answer::Unknown { .. } | Answer::Unavailable => {}
                }
            }
        }
    }
}

/// The first step that another one starts from and that missed.
fn first_missed(build: &Build, number: usize, missed: &[usize]) -> Option<Reason> {
    let below = chain(build, build.step(number - 1)?);
    let first = below.into_iter().find(|step| step.op != "image" && missed.contains(&(step.number + 1)))?;
    let change = super::explain::ParentChange::Result;
    Some(Reason::Parent { step: first.number + 1, name: first.name.clone(), change })
}

/// Everything that the answers are made of.
struct Prober<'a> {
    engine: &'a Engine,
    request: &'a BuildRequest,
    graph: &'a Graph,
    build: &'a Build,
    past: Past<'a>,
    remote: Option<Arc<RemoteCache>>,
    cancel: &'a CancelToken,
}

impl Prober<'_> {
    fn imports(&self) -> Option<&Imports> {
        self.remote.as_deref().map(RemoteCache::imports)
    }

    fn places(&self) -> Result<Vec<Place>, StepError> {
        let records = self.engine.cache.has_records()?;
        let condition = if records { PlaceCondition::Found { records: None } } else { PlaceCondition::Empty };
        let mut places = vec![Place { name: "local".to_owned(), condition }];
        let Some(imports) = self.imports() else { return Ok(places) };
        for (at, name) in imports.names().into_iter().enumerate() {
            let condition = match imports.condition(at, self.cancel) {
                Condition::Found(records) => PlaceCondition::Found { records: Some(records) },
                Condition::Empty => PlaceCondition::Empty,
                Condition::Failed(reason) => PlaceCondition::Failed { reason },
            };
            places.push(Place { name, condition });
        }
        Ok(places)
    }

    fn step(&self, step: &Step) -> Result<ProbedStep, StepError> {
        let sources = self.imports().map_or(0, |imports| imports.names().len());
        let key = step.key.as_ref().and_then(|key| key.parse::<CacheKey>().ok());
        let answers = if let Some(key) = key {
            let vertex = &self.graph.vertices[step.number];
            let local = self.local(vertex, &key)?;
            let elsewhere: Vec<_> = (0..sources).map(|source| self.elsewhere(source, vertex, &key)).collect();
            let records = elsewhere.iter().flatten().chain([&local]).flatten().map(|(record, _)| record);
            // Of a hit nothing is noted but the key.
            let preimage = step.preimage.clone().or_else(|| records.map(|record| record.preimage.clone()).next());
            let step = Step { verdict: Verdict::NotReached, preimage, asked_elsewhere: false, ..step.clone() };
            let mut answers = vec![self.local_answer(vertex, &step, local)];
            answers
                .extend((0..sources).zip(elsewhere).map(|(source, found)| self.answer(source, vertex, &step, found)));
            answers
        } else if self.graph.vertices[step.number].no_cache {
            vec![Answer::Miss { compared_with: None, reasons: vec![Reason::NoCache] }; 1 + sources]
        } else {
            vec![Answer::Unknown { reasons: vec![unknown_inputs(self.build, step, self.graph)] }; 1 + sources]
        };
        let Step { number, name, stage, line, key, .. } = step.clone();
        Ok(ProbedStep { number: number + 1, name, stage, line, key, answers })
    }

    /// What the store has under a key, and whether it has the files; else why that is no use.
    fn local(&self, vertex: &Vertex, key: &CacheKey) -> Result<Result<(Record, bool), Miss>, StepError> {
        let record = match self.engine.cache.peek(key)? {
            Looked::Nothing => return Ok(Err(Miss::NoRecord)),
            Looked::Damaged => return Ok(Err(Miss::Damaged)),
            Looked::Found(record) => record,
        };
        if let Some(expired) = expired(self.request, vertex, &record) {
            return Ok(Err(expired));
        }
        let Some(tree) = self.engine.trees.get(&record.tree)? else { return Ok(Err(Miss::TreeGone)) };
        let files = tree.is_empty() || self.engine.snapshots.get(&record.tree)?.is_some();
        Ok(Ok((*record, files)))
    }

    /// The same for a source; `None` if it has nothing.
    fn elsewhere(&self, source: usize, vertex: &Vertex, key: &CacheKey) -> Option<Result<(Record, bool), Miss>> {
        let found = self.imports()?.answer(source, key, self.cancel)?;
        Some(expired(self.request, vertex, &found.0).map_or(Ok(found), Err))
    }

    fn local_answer(&self, vertex: &Vertex, step: &Step, found: Result<(Record, bool), Miss>) -> Answer {
        match found {
            Ok((_, files)) if !vertex.no_cache => Answer::Hit { files: files || step.op != "run" },
            found => {
                let miss = if vertex.no_cache { Some(Miss::NoCache) } else { found.err() };
                let why = self.past.explained(self.build, &Step { miss, ..step.clone() });
                Answer::Miss { compared_with: why.compared_with, reasons: why.reasons }
            }
        }
    }

    fn answer(
        &self,
        source: usize,
        vertex: &Vertex,
        step: &Step,
        found: Option<Result<(Record, bool), Miss>>,
    ) -> Answer {
        let only = |reason| Answer::Miss { compared_with: None, reasons: vec![reason] };
        match (found, &step.preimage) {
            _ if vertex.no_cache => only(Reason::NoCache),
            (Some(Ok((_, files))), _) => Answer::Hit { files: files || step.op != "run" },
            (Some(Err(Miss::ExpiredByFile)), _) => only(Reason::ExpiredByFile),
            (Some(Err(_)), _) => only(Reason::Expired),
            (None, None) => only(Reason::NeverBuilt { asked_elsewhere: true, places: Vec::new() }),
            (None, Some(preimage)) => self.miss(source, step, preimage),
        }
    }

    fn miss(&self, source: usize, step: &Step, preimage: &Preimage) -> Answer {
        let copied = step.tree.and_then(|tree| self.engine.trees.get(&tree).ok().flatten());
        let nearest =
            self.imports().and_then(|imports| imports.nearest(source, preimage, copied.as_ref(), self.cancel));
        let Some((record, tree)) = nearest else {
            return Answer::Miss {
                compared_with: None,
                reasons: vec![Reason::NeverBuilt { asked_elsewhere: true, places: Vec::new() }],
            };
        };
        let key = record.preimage.key();
        self.engine.trees.hold(&tree);
        let reasons = self.past.compared(self.build, step, record);
        Answer::Miss { compared_with: Some(Earlier { build: None, place: None, key: key.to_string() }), reasons }
    }
}
