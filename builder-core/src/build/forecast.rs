//! [`Engine::forecast`]: what a build would do, without doing it (`--dry-run`).
//!
//! Nothing is run, fetched or written, no registry is asked. COPY is planned from trees, so what it results in is known, and
//! with it the keys of what follows; what a RUN would result in is not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::base;
use super::contexts::Contexts;
use super::engine::{Engine, Known, seconds_now};
use super::error::{BuildError, StepError};
use super::events::{Events, TaskNumbers};
use super::explain::{ExplainedStep, Past, Reason};
use super::filesystem::Access;
use super::git_files::Answers;
use super::recorder::Recorder;
use super::remote_cache::RemoteCache;
use super::request::{BuildRequest, ContextSource, PullPolicy};
use super::run_options::BuildNetwork;
use super::solve::{self, Session};
use super::sources;
use crate::cancel::CancelToken;
use crate::dockerfile::{self, Dockerfile};
use crate::graph::{self, ContextId, Graph, KnownImage, Op, ResolvedEpoch, VertexId};
use crate::history::{Build, Step, Verdict};
use crate::pins::Pins;
use crate::progress::Silent;

/// What a build would do.
#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
    /// Its steps, base images left out.
    pub steps: Vec<ForecastStep>,
    /// Predicted milliseconds if only the steps run that certainly do: those of the longest chain of steps.
    pub at_least: u64,
    /// Predicted milliseconds if everything runs that may.
    pub at_most: u64,
    /// Steps that run, or may, and of which no time is known.
    pub without_time: usize,
}

/// What one step would do.
#[derive(Debug, Clone, Serialize)]
pub struct ForecastStep {
    /// What is predicted.
    pub prediction: Prediction,
    /// How long it would take, in milliseconds; `None` if it never ran.
    pub milliseconds: Option<u64>,
    /// Why.
    #[serde(flatten)]
    pub why: ExplainedStep,
}

/// What a step would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prediction {
    /// Its result is known.
    Hit,
    /// It runs.
    Run,
    /// It gets the result of another step that runs, and is the same.
    Shared,
    /// It runs if one of its inputs is another than before, which only running those tells.
    Unknown,
}

impl Engine {
    /// Says what a build would do. Base images that are not in the store count as unknown, and `--pull` is left out.
    ///
    /// # Errors
    /// As [`Engine::build`], for what is wrong with the Dockerfile and for files that are missing.
    pub fn forecast(&self, request: &BuildRequest, cancel: &CancelToken) -> Result<Forecast, BuildError> {
        let resolve = |parsed: &Dockerfile, options: &graph::Options, known: &mut Known| {
            self.known_images(parsed, options, &request.pins, known, cancel)
        };
        let Foreseen { build, graph } = self.foresee(request, None, &resolve, cancel)?;
        Ok(forecast(&build, &self.past(&build)?, &graph))
    }

    /// Earlier builds of the same thing.
    pub(super) fn past(&self, build: &Build) -> Result<Past<'_>, BuildError> {
        Past::of(self, build).map_err(|error| {
            let what = error.to_string();
            BuildError::Store(Box::new(StepError::Io { what, source: std::io::Error::other(error) }))
        })
    }

    /// Finds out what is known of each step, here and in `remote`; nothing is written. `resolve` says what images mean.
    pub(super) fn foresee(
        &self,
        request: &BuildRequest,
        remote: Option<Arc<RemoteCache>>,
        resolve: &Resolve<'_>,
        cancel: &CancelToken,
    ) -> Result<Foreseen, BuildError> {
        let parsed = dockerfile::parse(&request.dockerfile).map_err(BuildError::Parse)?;
        // A time that something fetched would give changes nothing that a key sees.
        let epoch = graph::epoch_source(&parsed, &request.options).map_err(BuildError::Graph)?;
        let resolved_epoch = epoch.map(|_| ResolvedEpoch::Unset);
        let (mut known, mut joined) = (Known::default(), None::<Graph>);
        for options in request.options_by_platform() {
            let options = graph::Options { resolved_epoch, ..options };
            resolve(&parsed, &options, &mut known)?;
            let graph = graph::lower(&parsed, &options, &known.images).map_err(BuildError::Graph)?;
            match &mut joined {
                Some(joined) => joined.join(graph),
                None => joined = Some(graph),
            }
        }
        let graph = joined.expect("there is at least one platform");
        request.run.entitlements.check_all(&graph)?;
        if let Some(violations) = graph.violations() {
            return Err(BuildError::Graph(violations));
        }
        sources::check_locked(&graph, &request.pins)?;
        let recorder = Recorder::new(&self.history, request, &Silent, false);
        let numbers = TaskNumbers::default();
        let events = Events::Direct(&recorder);
        let tasks: Vec<_> =
            graph.vertices.iter().map(|vertex| numbers.declare(&events, &vertex.name, Vec::new())).collect();
        recorder.plan(&graph, &tasks);
        let contexts = Contexts::new(request, self.content.state());
        let now = graph.source_date_epoch.unwrap_or_else(seconds_now);
        let access = Access { engine: self, events, cancel: cancel.clone(), remote, dry: true };
        let (network, answers) = (BuildNetwork::default(), Answers::default());
        let session = Session {
            access,
            request,
            recorder: &recorder,
            contexts: &contexts,
            bases: &known.bases,
            answers: &answers,
            network: &network,
            now,
        };
        solve::foresee(&session, &graph, &tasks, &|vertex| can_be_asked(&session, &graph, vertex))?;
        let build = recorder.build();
        Ok(Foreseen { build, graph })
    }

    /// The images as far as the store knows them. Others count as images that set nothing, and have no layers.
    fn known_images(
        &self,
        parsed: &Dockerfile,
        options: &graph::Options,
        pins: &Pins,
        known: &mut Known,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let store_exists = self.content.state().join("db.sqlite").exists();
        loop {
            let plan = graph::plan(parsed, options, &known.images).map_err(BuildError::Graph)?;
            if plan.missing.is_empty() {
                return Ok(());
            }
            for image in plan.missing.clone() {
                let found = if store_exists {
                    base::resolve(self, &image, PullPolicy::Never, pins, cancel)
                } else {
                    let locked = sources::image(self, &image.reference, PullPolicy::Never, pins, cancel);
                    locked.and_then(|_| Err(StepError::NotLocal(image.reference.clone())))
                };
                match found {
                    Ok(found) => {
                        known.images.insert(image.clone(), found.known);
                        known.bases.insert(image, found.layers);
                    }
                    Err(error) if error.is_cancelled() => return Err(BuildError::Cancelled(crate::cancel::Cancelled)),
                    Err(error @ StepError::NotLocked(_)) => {
                        return Err(base::cannot_be_had(None, &image, &plan, error));
                    }
                    Err(_) => {
                        let guess = KnownImage::guess(&image.platform);
                        known.images.insert(image, guess);
                    }
                }
            }
        }
    }
}

/// Finds out what every image means that the target needs.
pub(super) type Resolve<'a> = dyn Fn(&Dockerfile, &graph::Options, &mut Known) -> Result<(), BuildError> + 'a;

/// What is known of a build that was not done.
pub(super) struct Foreseen {
    /// Its steps; those whose result is known are hits, and have no preimage.
    pub(super) build: Build,
    pub(super) graph: Graph,
}

/// What a step waits for whose key is not known: steps without a result, and images that are not here.
pub(super) fn unknown_inputs(build: &Build, step: &Step, graph: &Graph) -> Reason {
    let inputs = step.root.iter().chain(&step.inputs);
    let unsure = inputs.filter_map(|input| build.step(*input)).filter(|input| input.result.is_none());
    let (mut steps, mut images) = (Vec::new(), Vec::new());
    for input in unsure {
        match &graph.vertices[input.number].op {
            Op::Image(image) => images.push(image.reference.familiar()),
            _ => steps.push(input.number + 1),
        }
    }
    Reason::InputUnknown { steps, images }
}

/// Whether a vertex needs nothing that would have to be fetched first: an image, or a context that is elsewhere.
fn can_be_asked(session: &Session<'_>, graph: &Graph, vertex: VertexId) -> bool {
    let op = &graph.vertices[vertex.0].op;
    if let Op::Image(image) = op {
        return session.bases.contains_key(&image.request());
    }
    let elsewhere = |id: &ContextId| {
        let source = match id {
            ContextId::Main => Some(&session.request.context),
            ContextId::Named(name) => session.request.named_contexts.get(name),
        };
        matches!(source, Some(ContextSource::Remote(_)))
    };
    !op.contexts().iter().any(elsewhere)
}

fn forecast(build: &Build, past: &Past<'_>, graph: &Graph) -> Forecast {
    let mut steps = Vec::new();
    let mut times: BTreeMap<usize, (Prediction, Option<u64>)> = BTreeMap::new();
    // By key; and by the number of a step, that of the one that it waits for.
    let (mut running, mut waits) = (HashMap::<&str, &Step>::new(), HashMap::new());
    for step in build.steps.iter().filter(|step| step.op != "image") {
        let no_cache = graph.vertices[step.number].no_cache;
        // Of two commands with one key the second waits for the first. Copies are made by each.
        let key = step.key.as_deref().filter(|_| step.op == "run" && !no_cache);
        let same = key.and_then(|key| running.get(key).copied());
        let prediction = match step.verdict {
            Verdict::Hit => Prediction::Hit,
            _ if same.is_some() => Prediction::Shared,
            _ if step.preimage.is_some() || no_cache => Prediction::Run,
            _ => Prediction::Unknown,
        };
        if let (Prediction::Run, Some(key)) = (prediction, key) {
            running.insert(key, step);
        }
        let milliseconds = match prediction {
            Prediction::Hit | Prediction::Shared => Some(0),
            Prediction::Run | Prediction::Unknown => past.predicted(build, step),
        };
        times.insert(step.number, (prediction, milliseconds));
        let mut why = past.explained(build, step);
        if prediction == Prediction::Run && step.preimage.is_none() {
            why.reasons = vec![Reason::NoCache];
        }
        if let (Prediction::Shared, Some(same)) = (prediction, same) {
            waits.insert(step.number, same.number);
            why.compared_with = None;
            why.reasons = vec![Reason::SameStep { step: same.number + 1, name: same.name.clone() }];
        }
        if prediction == Prediction::Unknown {
            why.reasons = vec![unknown_inputs(build, step, graph)];
        }
        why.verdict = if prediction == Prediction::Hit { Verdict::Hit } else { Verdict::NotReached };
        steps.push(ForecastStep { prediction, milliseconds, why });
    }
    let longest = |counts: &dyn Fn(Prediction) -> bool| longest(&build.steps, &times, &waits, counts);
    Forecast {
        at_least: longest(&|prediction| prediction == Prediction::Run),
        at_most: longest(&|_| true),
        without_time: times.values().filter(|(_, milliseconds)| milliseconds.is_none()).count(),
        steps,
    }
}

/// The time of the longest chain of steps, each waiting for the one before it.
fn longest(
    steps: &[Step],
    times: &BTreeMap<usize, (Prediction, Option<u64>)>,
    waits: &HashMap<usize, usize>,
    counts: &dyn Fn(Prediction) -> bool,
) -> u64 {
    let mut ends: Vec<u64> = Vec::with_capacity(steps.len());
    for step in steps {
        let own = times.get(&step.number).filter(|(prediction, _)| counts(*prediction));
        let own = own.and_then(|(_, milliseconds)| *milliseconds).unwrap_or(0);
        let inputs = step.root.iter().chain(&step.inputs).chain(waits.get(&step.number));
        let begin = inputs.filter_map(|input| ends.get(*input)).max().copied();
        ends.push(begin.unwrap_or(0) + own);
    }
    ends.into_iter().max().unwrap_or(0)
}
