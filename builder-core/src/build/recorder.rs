//! [`Recorder`]: writes what happens during a build into the history, on its way to the sink.
//!
//! A cached build is recorded with one write at its end. A build that runs something has its journal from the moment
//! at which its first step may start, so that others see it, and so that what it did is known even if it is killed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime};

use super::error::BuildError;
use super::request::{BuildRequest, BuildResult, ContextSource};
use crate::diagnostic;
use crate::graph::{Graph, Op, Vertex, VertexId};
use crate::history::{
    Build, BuildId, End, HistoryStore, Inputs, Journal, Line, LogWriter, Mask, Status, Step, Verdict, Verified,
    is_proxy, platform_in, without_credentials,
};
use crate::lock::lock;
use crate::oci::Digest;
use crate::pins::{Pins, SourceName};
use crate::progress::{Event, Outcome, Sink, TaskId};

/// Of so many cached builds, one on average looks whether old builds have to go.
const TRIM_EVERY: u8 = 16;

/// Passes events on, and keeps what history wants to know.
pub(super) struct Recorder<'a> {
    sink: &'a dyn Sink,
    history: &'a HistoryStore,
    begun: (SystemTime, Instant),
    inputs: Inputs,
    pins: Arc<Pins>,
    state: Mutex<State>,
}

struct State {
    journal: Journal,
    /// Whether anything is written at all: not for a dry run, and not after something could not be written.
    writes: bool,
    trouble: Option<String>,
    steps: Vec<Step>,
    vertices: HashMap<TaskId, usize>,
    logs: HashMap<usize, (LogWriter, SystemTime)>,
    mask: Mask,
    verified: Vec<Verified>,
}

impl Sink for Recorder<'_> {
    fn event(&self, event: Event) {
        self.take(&event);
        self.sink.event(event);
    }
}

impl<'a> Recorder<'a> {
    /// Records `request`; with `writes` unset it only remembers.
    pub(super) fn new(history: &'a HistoryStore, request: &BuildRequest, sink: &'a dyn Sink, writes: bool) -> Self {
        let now = SystemTime::now();
        let state = State {
            journal: history.start(now),
            writes,
            trouble: None,
            steps: Vec::new(),
            vertices: HashMap::new(),
            logs: HashMap::new(),
            mask: Mask::default(),
            verified: Vec::new(),
        };
        let (inputs, pins, state) = (inputs(request), Arc::clone(&request.pins), Mutex::new(state));
        Self { sink, history, begun: (now, Instant::now()), inputs, pins, state }
    }

    /// Says which steps there are; `tasks` has the number of each for events.
    pub(super) fn plan(&self, graph: &Graph, tasks: &[TaskId]) {
        let mut state = self.state();
        let mut positions: HashMap<(&str, Option<&str>), usize> = HashMap::new();
        for (number, (vertex, task)) in graph.vertices.iter().zip(tasks).enumerate() {
            let position = positions.entry((&vertex.stage, platform_in(&vertex.name))).or_default();
            let locked = self.locks(vertex).then(|| self.pins.shown().to_owned());
            state.steps.push(Step { locked, ..step(number, *position, vertex) });
            state.vertices.insert(*task, number);
            *position += 1;
        }
    }

    /// Whether a lock file says what a base image is.
    fn locks(&self, vertex: &Vertex) -> bool {
        match &vertex.op {
            Op::Image(image) if image.layout.is_none() && image.reference.digest().is_none() => {
                self.pins.holds(&SourceName::image(&image.reference))
            }
            _ => false,
        }
    }

    /// Notes facts about a step.
    pub(super) fn note(&self, vertex: VertexId, facts: impl FnOnce(&mut Step)) {
        if let Some(step) = self.state().steps.get_mut(vertex.0) {
            facts(step);
        }
    }

    /// Notes facts about a step that is done.
    pub(super) fn note_late(&self, vertex: VertexId, facts: impl FnOnce(&mut Step)) {
        self.note(vertex, facts);
        let mut state = self.state();
        if let Some(step) = state.steps.get(vertex.0).cloned().filter(|_| state.journal.is_begun()) {
            state.write(&[Line::Step(Box::new(step))]);
        }
    }

    /// Keeps a value out of the logs.
    pub(super) fn hide(&self, secret: &[u8]) {
        self.state().mask.hide(secret);
    }

    /// Notes what running a known step again came to.
    pub(super) fn verified(&self, verified: Verified) {
        self.state().verified.push(verified);
    }

    /// Under which id the build is recorded.
    pub(super) fn id(&self) -> BuildId {
        self.state().journal.id().clone()
    }

    /// The steps as they stand now.
    pub(super) fn build(&self) -> Build {
        let state = self.state();
        Build {
            id: state.journal.id().clone(),
            started: millis(self.begun.0),
            inputs: self.inputs.clone(),
            steps: state.steps.clone(),
            end: None,
            status: Status::Running,
        }
    }

    /// Says that steps may run from now on: the journal begins.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        if !state.journal.is_begun() {
            let done = state.steps.iter().filter(|step| step.verdict != Verdict::NotReached).cloned();
            let lines: Vec<Line> = self.first_line().chain(done.map(|step| Line::Step(Box::new(step)))).collect();
            state.write(&lines);
        }
    }

    /// Writes how the build ended. Returns why it could not be recorded, if so.
    pub(super) fn finish(&self, result: &Result<BuildResult, BuildError>) -> Option<String> {
        let mut state = self.state();
        let (status, error) = match result {
            Ok(_) => (Status::Completed, None),
            Err(BuildError::Cancelled(_)) => (Status::Canceled, None),
            Err(error) => (Status::Error, Some(without_credentials(&diagnostic::chain(error)))),
        };
        let end = Line::Ended(End {
            status,
            error,
            milliseconds: u64::try_from(self.begun.1.elapsed().as_millis()).unwrap_or(u64::MAX),
            image: result.as_ref().ok().and_then(|built| built.image_id.as_ref()).map(ToString::to_string),
            verified: std::mem::take(&mut state.verified),
        });
        let early = state.journal.is_begun();
        let mut steps = std::mem::take(&mut state.steps);
        if early {
            steps.retain(|step| step.verdict == Verdict::NotReached);
        }
        let first = self.first_line().filter(|_| !early);
        let steps = steps.into_iter().map(|step| Line::Step(Box::new(step)));
        let lines: Vec<Line> = first.chain(steps).chain([end]).collect();
        state.write(&lines);
        let last = state.journal.id().as_str().bytes().last().unwrap_or_default();
        if state.writes && (early || last.is_multiple_of(TRIM_EVERY)) {
            // Old builds that cannot be removed now go another time.
            let _ = self.history.trim(SystemTime::now());
        }
        state.trouble.take()
    }

    fn first_line(&self) -> impl Iterator<Item = Line> {
        std::iter::once(Line::Begun { started: millis(self.begun.0), inputs: self.inputs.clone() })
    }

    fn take(&self, event: &Event) {
        match event {
            Event::Started { task, at } => {
                self.of(*task, |_, step| {
                    step.started = Some(millis(*at));
                });
            }
            Event::Output { task, stream, at, bytes } => {
                self.of(*task, |state, step| {
                    if !state.writes {
                        return;
                    }
                    let journal = &state.journal;
                    let (log, since) =
                        state.logs.entry(step.number).or_insert_with(|| (journal.log(step.number), SystemTime::now()));
                    let wrote = log.write(*stream, elapsed(step, *since, *at), bytes, &state.mask);
                    state.check(wrote.map_err(|error| error.to_string()));
                });
            }
            Event::Finished { task, at, outcome } => self.of(*task, |state, step| state.finished(step, *at, outcome)),
            _ => {}
        }
    }

    /// Does something with the step of a task.
    fn of(&self, task: TaskId, work: impl FnOnce(&mut State, &mut Step)) {
        let mut state = self.state();
        let Some(number) = state.vertices.get(&task).copied() else { return };
        let mut step = std::mem::take(&mut state.steps[number]);
        work(&mut state, &mut step);
        state.steps[number] = step;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn finished(&mut self, step: &mut Step, at: SystemTime, outcome: &Outcome) {
        // A step that ran said so itself, and whether its result was adopted.
        step.verdict = match outcome {
            Outcome::Done if step.verdict == Verdict::Adopted => Verdict::Adopted,
            Outcome::Done => Verdict::Run,
            Outcome::Cached => Verdict::Hit,
            Outcome::Cancelled => Verdict::Cancelled,
            Outcome::Failed(_) => Verdict::Failed,
        };
        step.error = match outcome {
            Outcome::Failed(error) => Some(without_credentials(error)),
            _ => None,
        };
        if step.verdict == Verdict::Hit {
            step.started = None;
        } else if step.started.is_some() {
            step.milliseconds = elapsed(step, at, at);
        }
        if let Some((log, since)) = self.logs.remove(&step.number) {
            match log.finish(elapsed(step, since, at), &self.mask) {
                Ok(size) => step.log = Some(size),
                Err(error) => self.check(Err(error.to_string())),
            }
        }
        if self.journal.is_begun() {
            self.write(&[Line::Step(Box::new(step.clone()))]);
        }
    }

    fn write(&mut self, lines: &[Line]) {
        if self.writes {
            let written = self.journal.write(lines);
            self.check(written.map_err(|error| diagnostic::chain(&error)));
        }
    }

    /// A build that cannot be recorded is built nevertheless.
    fn check(&mut self, result: Result<(), String>) {
        if let Err(trouble) = result {
            self.writes = false;
            self.trouble = Some(trouble);
        }
    }
}

/// Milliseconds since the step began.
fn elapsed(step: &Step, since: SystemTime, at: SystemTime) -> u64 {
    u64::try_from(millis(at) - step.started.unwrap_or_else(|| millis(since))).unwrap_or(0)
}

fn millis(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

fn step(number: usize, position: usize, vertex: &Vertex) -> Step {
    let op = match &vertex.op {
        Op::Image(_) => "image",
        Op::Run(_) => "run",
        Op::Copy(copy) if copy.add => "add",
        Op::Copy(_) => "copy",
        Op::Workdir(_) => "workdir",
    };
    Step {
        number,
        name: without_credentials(&vertex.name),
        stage: vertex.stage.clone(),
        position,
        op: op.to_owned(),
        line: vertex.location.as_ref().map(|location| location.source.line(location.span.start)),
        root: vertex.root.map(|root| root.0),
        inputs: vertex.op.inputs().into_iter().map(|input| input.0).collect(),
        image: match &vertex.op {
            Op::Image(image) => Some(format!("{} {}", image.reference.familiar(), image.digest)),
            _ => None,
        },
        ..Step::default()
    }
}

fn inputs(request: &BuildRequest) -> Inputs {
    let options = &request.options;
    let platforms: Vec<String> =
        request.options_by_platform().iter().map(|options| options.platform.to_string()).collect();
    let arguments = options.build_args.iter().filter(|(name, _)| !is_proxy(name));
    Inputs {
        dockerfile: request.dockerfile.name().to_owned(),
        dockerfile_digest: Digest::sha256(request.dockerfile.text()).to_string(),
        context: describe(&request.context),
        named_contexts: request.named_contexts.iter().map(|(name, from)| (name.clone(), describe(from))).collect(),
        context_mode: request.context_mode,
        target: options.target.clone(),
        platform: platforms.join(","),
        build_args: arguments.map(|(name, value)| (name.clone(), without_credentials(value))).collect(),
        trace_reads: request.trace_reads,
        secrets: request.secrets.keys().cloned().collect(),
        names: request.tags.iter().map(crate::oci::Reference::familiar).collect(),
    }
}

fn describe(context: &ContextSource) -> String {
    match context {
        ContextSource::Directory { path, .. } => path.display().to_string(),
        ContextSource::Remote(remote) => remote.to_string(),
        // Standard input, or an address whose Dockerfile the caller has read.
        ContextSource::Fetched(_) | ContextSource::Empty => "-".to_owned(),
    }
}
