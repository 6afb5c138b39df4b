//! Solves a graph: every vertex gets its [`Filesystem`], from the cache or by executing its op.
//!
//! 1. [`Solver::known`]: one thread asks for each vertex in order whether its result is known. A cached build ends
//!    here: no thread is started, nothing is mounted, nothing is fetched.
//! 2. [`Solver::execute`]: the rest runs on a few threads. A vertex starts as soon as its inputs are there; a
//!    coordinator hands out vertices and passes events on.
//! 3. If files of a known result turn out to be gone ([`StepError::Lost`]), its vertex is marked to run again and
//!    everything starts over: what ran meanwhile hits.

use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::base::BaseLayers;
use super::contexts::Contexts;
use super::engine::seconds_now;
use super::error::{BuildError, StepError};
use super::events::{Events, Message};
use super::filesystem::{Access, BuiltLayer, Filesystem, Source, Work};
use super::git_files::Answers;
use super::mend::{self, Mended};
use super::op;
use super::recorder::Recorder;
use super::request::BuildRequest;
use super::run_options::BuildNetwork;
use crate::cache::{CacheKey, Looked, Preimage, Record};
use crate::cancel::CancelToken;
use crate::context::BuildContext;
use crate::diagnostic;
use crate::graph::{CopyOp, Graph, ImageRequest, Op, Vertex, VertexId};
use crate::history::{Miss, Verdict};
use crate::oci::Digest;
use crate::progress::{Outcome, TaskId};
use crate::tree::{SemanticDigest, StateDigest, Tree};

/// What every op may use.
#[derive(Clone)]
pub(super) struct Session<'a> {
    pub(super) access: Access<'a>,
    pub(super) request: &'a BuildRequest,
    pub(super) recorder: &'a Recorder<'a>,
    pub(super) contexts: &'a Contexts<'a>,
    pub(super) bases: &'a HashMap<ImageRequest, Arc<BaseLayers>>,
    pub(super) network: &'a BuildNetwork,
    /// What servers of git said in this build.
    pub(super) answers: &'a Answers,
    /// Seconds since 1970 for what is made now: the build's start, or the epoch that the user gave.
    pub(super) now: i64,
}

impl<'a> Deref for Session<'a> {
    type Target = Access<'a>;

    fn deref(&self) -> &Access<'a> {
        &self.access
    }
}

/// A vertex with what its op needs to know.
pub(super) struct Job<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) vertex: VertexId,
    pub(super) task: TaskId,
    /// The root filesystem that it starts from.
    pub(super) root: Filesystem,
    /// Ignore what is known, and why.
    rerun: Option<Miss>,
    solver: &'a Solver<'a>,
}

impl Job<'_> {
    /// The filesystem of an input.
    pub(super) fn input(&self, vertex: Option<VertexId>) -> Filesystem {
        vertex.map(|vertex| self.solver.result(vertex)).unwrap_or_default()
    }

    /// The vertex as it was planned.
    pub(super) fn planned(&self) -> &Vertex {
        &self.solver.graph.vertices[self.vertex.0]
    }

    /// Whether what is known of it is to be ignored.
    pub(super) fn is_rerun(&self) -> bool {
        self.rerun.is_some()
    }

    /// What made a layer of the root.
    pub(super) fn op_of(&self, vertex: VertexId) -> &Op {
        &self.solver.graph.vertices[vertex.0].op
    }

    /// Notes which ignore file decided what the vertex sees of a context, for explanations.
    pub(super) fn note_ignore_file(&self, context: &BuildContext) {
        let ignore = context.ignore_file().map_or_else(
            || "none".to_owned(),
            |file| format!("{} {}", file.source().name(), Digest::sha256(file.source().text())),
        );
        self.session.recorder.note(self.vertex, |step| step.ignore = Some(ignore));
    }

    /// Looks a result up, unless the vertex has to run.
    pub(super) fn lookup(&self, preimage: &Preimage) -> Result<Option<(Tree, Record)>, StepError> {
        let key = preimage.key();
        let found = match self.rerun {
            Some(why) => Err(why),
            None => self.find(&key)?,
        };
        self.session.recorder.note(self.vertex, |step| {
            step.key = Some(key.to_string());
            // What was damaged is gone when it is asked for again.
            let worse = matches!(
                (step.miss, &found),
                (Some(Miss::Damaged | Miss::TreeGone | Miss::Expired | Miss::ExpiredByFile), Err(Miss::NoRecord))
            );
            step.miss = if worse { step.miss } else { found.as_ref().err().copied() };
            step.preimage = found.is_err().then(|| preimage.clone());
            step.asked_elsewhere = self.rerun.is_none() && found.is_err() && self.session.asks_elsewhere();
            if let Ok((_, record)) = &found {
                (step.tree, step.result, step.bytes) = (Some(record.tree), Some(record.semantic), None);
            }
        });
        Ok(found.ok())
    }

    fn find(&self, key: &CacheKey) -> Result<Result<(Tree, Record), Miss>, StepError> {
        let cache = &self.session.engine.cache;
        let looked = if self.session.dry { cache.peek(key)? } else { cache.look(key)? };
        let miss = match looked {
            Looked::Found(record) => match (self.expired(&record), self.session.engine.trees.get(&record.tree)?) {
                (Some(expired), _) => expired,
                (None, Some(tree)) => return Ok(Ok((tree, *record))),
                (None, None) => Miss::TreeGone,
            },
            Looked::Nothing => Miss::NoRecord,
            Looked::Damaged => Miss::Damaged,
        };
        let elsewhere = match &self.session.remote {
            Some(remote) => remote.record(self.session, key)?,
            None => None,
        };
        Ok(match elsewhere {
            Some((tree, record)) => self.expired(&record).map_or(Ok((tree, record)), Err),
            None => Err(miss),
        })
    }

    /// Why the result of a record does not count any more, if so.
    pub(super) fn expired(&self, record: &Record) -> Option<Miss> {
        expired(self.session.request, self.planned(), record)
    }

    /// Stores the layer that a step gave. If the same step or another one gave an equal layer on this root before,
    /// that older layer is the result, so that everything after it hits (early cutoff).
    pub(super) fn remember(
        &self,
        preimage: Preimage,
        root: &StateDigest,
        tree: Tree,
        milliseconds: u64,
    ) -> Result<(Tree, Record), StepError> {
        let engine = self.session.engine;
        let semantic = tree.semantic();
        if self.session.dry {
            return self.foreseen(preimage, root, tree, semantic);
        }
        engine.cache.remember_similar(&preimage);
        let older = match engine.cache.first_result(root, &semantic)? {
            Some(older) => engine.trees.get(&older.tree)?.map(|tree| (tree, older)),
            None => None,
        };
        let older = match (older, &self.session.remote) {
            (None, Some(remote)) => remote.first_result(self.session, root, &semantic)?,
            (older, _) => older,
        };
        if let Some((older_tree, older)) = older {
            let (milliseconds, ran) = (Some(milliseconds), Some(seconds_now()));
            let record = Record { preimage, milliseconds, ran, ..older };
            engine.cache.put(&record)?;
            self.note_result(&older_tree, &record, true);
            return Ok((older_tree, record));
        }
        let id = engine.trees.put(&tree)?;
        // The real time, so that an epoch of this build does not show in others.
        let milliseconds = Some(milliseconds);
        let record = Record { preimage, tree: id, semantic, created: seconds_now(), milliseconds, ran: None };
        engine.cache.put_first_result(root, &record)?;
        engine.cache.put(&record)?;
        self.note_result(&tree, &record, false);
        Ok((tree, record))
    }

    /// What [`Job::remember`] would come to, with nothing written.
    fn foreseen(
        &self,
        preimage: Preimage,
        root: &StateDigest,
        tree: Tree,
        semantic: SemanticDigest,
    ) -> Result<(Tree, Record), StepError> {
        let engine = self.session.engine;
        let older = engine.cache.first_result(root, &semantic)?;
        let id = engine.trees.hold(&tree);
        let record =
            Record { preimage, tree: id, semantic, created: self.session.now, milliseconds: Some(0), ran: None };
        let found = match older {
            Some(older) => {
                engine.trees.get(&older.tree)?.map(|tree| (tree, Record { preimage: record.preimage.clone(), ..older }))
            }
            None => None,
        };
        let (tree, record) = found.unwrap_or((tree, record));
        self.note_result(&tree, &record, false);
        Ok((tree, record))
    }

    fn note_result(&self, tree: &Tree, record: &Record, adopted: bool) {
        self.session.recorder.note(self.vertex, |step| {
            (step.tree, step.result) = (Some(record.tree), Some(record.semantic));
            (step.bytes, step.milliseconds) = (Some(tree.content_size()), record.milliseconds.unwrap_or(0));
            // Every step that changes nothing gives the same: that says nothing about this one.
            step.verdict = if adopted && !tree.is_empty() { Verdict::Adopted } else { Verdict::Run };
        });
    }
}

/// Why a result does not count any more, if so (`--cache-ttl`, `# cache=12h`): only that of a command can be another one
/// the next time.
pub(super) fn expired(request: &BuildRequest, vertex: &Vertex, record: &Record) -> Option<Miss> {
    let ttl = request.cache_ttl.of(&vertex.stage).filter(|_| matches!(vertex.op, Op::Run(_)));
    let limits = [(ttl, Miss::Expired), (vertex.time_to_live, Miss::ExpiredByFile)];
    let over = |limit: Option<Duration>| limit.is_some_and(|limit| !record.is_fresh(limit, seconds_now()));
    limits.into_iter().find(|(limit, _)| over(*limit)).map(|(_, miss)| miss)
}

/// What a vertex came to.
pub(super) struct Solved {
    pub(super) filesystem: Filesystem,
    pub(super) cached: bool,
}

impl Solved {
    /// The root with the layer that a record describes, of which caches elsewhere are told.
    pub(super) fn layer(job: &Job<'_>, found: (Tree, Record), source: Source, cached: bool) -> Self {
        if let Some(remote) = &job.session.remote {
            remote.note_step(job.vertex, &found.1, cached);
        }
        Self::untold(job, found, source, cached)
    }

    /// The same, and nobody is told.
    pub(super) fn untold(job: &Job<'_>, (tree, record): (Tree, Record), source: Source, cached: bool) -> Self {
        let layer = BuiltLayer { vertex: job.vertex, tree, id: record.tree, created: record.created, source };
        Self { filesystem: job.root.with(layer), cached }
    }
}

/// The result of a graph.
pub(super) struct Solution {
    /// The filesystem of each vertex.
    pub(super) filesystems: Vec<Filesystem>,
    /// How many results were known.
    pub(super) cached: usize,
}

pub(super) struct Solver<'a> {
    graph: &'a Graph,
    tasks: &'a [TaskId],
    results: Vec<OnceLock<Filesystem>>,
    /// Vertices whose known results have lost their files.
    lost: BTreeSet<VertexId>,
    cached: AtomicUsize,
}

/// Solves `graph`; `tasks` has the number of each vertex for events.
///
/// With `files_needed` the layers of the target can be read afterwards: a known result whose files are gone is made
/// again.
pub(super) fn solve(
    session: &Session<'_>,
    graph: &Graph,
    tasks: &[TaskId],
    files_needed: bool,
) -> Result<Solution, BuildError> {
    // The files of these were not to be had elsewhere when an earlier solution was exported.
    let mut lost = session.remote.as_ref().map(|remote| remote.lost()).unwrap_or_default();
    let mut misled = 0;
    let mut mended = Mended::default();
    loop {
        let mut solver = Solver::new(graph, tasks, lost.clone());
        match solver.run(session).and_then(|()| solver.check_files(session, files_needed)) {
            Ok(()) => {
                let cached = solver.cached.load(Ordering::Relaxed);
                let filesystems = solver.results.iter_mut().map(|cell| cell.take().unwrap_or_default()).collect();
                return Ok(Solution { filesystems, cached });
            }
            // The trees are the right ones from now on.
            Err((_, StepError::OtherBase)) if misled < session.bases.len() => misled += 1,
            // Each round adds a vertex, so there are at most as many rounds as vertices.
            Err((_, StepError::Lost(vertex))) if lost.insert(vertex) => {}
            Err((_, error)) if mended.drop_damaged(session, mend::of_step(&error)) => {}
            Err((vertex, error)) => return Err(step_error(graph, vertex, error)),
        }
    }
}

/// Finds out what is known of a graph without doing anything. Only vertices of which `can_be_asked` holds are looked at.
pub(super) fn foresee(
    session: &Session<'_>,
    graph: &Graph,
    tasks: &[TaskId],
    can_be_asked: &dyn Fn(VertexId) -> bool,
) -> Result<(), BuildError> {
    let solver = Solver::new(graph, tasks, BTreeSet::new());
    for vertex in (0..graph.vertices.len()).map(VertexId) {
        session.cancel.check().map_err(|error| step_error(graph, vertex, error.into()))?;
        if !solver.is_ready(vertex) || !can_be_asked(vertex) {
            continue;
        }
        match solver.evaluate(session, vertex, Work::Known) {
            Ok(Some(solved)) => solver.finish(session, vertex, solved),
            Ok(None) => {}
            Err(error) if error.needs_work() => {}
            Err(error) => return Err(step_error(graph, vertex, error)),
        }
    }
    Ok(())
}

/// Runs a RUN of a solved graph once more, as part of `task`; gives what it makes now.
pub(super) fn run_again(
    session: &Session<'_>,
    graph: &Graph,
    solution: &Solution,
    vertex: VertexId,
    task: TaskId,
) -> Result<Tree, StepError> {
    let mut solver = Solver::new(graph, &[], BTreeSet::new());
    solver.results = solution.filesystems.iter().cloned().map(OnceLock::from).collect();
    let planned = &graph.vertices[vertex.0];
    let root = planned.root.map(|root| solver.result(root)).unwrap_or_default();
    let job = Job { session, vertex, task, root, rerun: None, solver: &solver };
    match &planned.op {
        Op::Run(run) => op::run::again(&job, run),
        _ => Err(StepError::Unsupported("only commands run again".to_owned())),
    }
}

/// Puts the place of a vertex around an error.
pub(super) fn step_error(graph: &Graph, vertex: VertexId, error: StepError) -> BuildError {
    // What is wrong with an image is wrong with its FROM, and not with the first step that wants its files.
    let of_image = |vertex: &&Vertex| match (&vertex.op, &error) {
        (Op::Image(op), StepError::BaseLayer { image, .. }) => op.reference == *image,
        _ => false,
    };
    let vertex = graph.vertices.iter().find(of_image).unwrap_or(&graph.vertices[vertex.0]);
    BuildError::of(error, |error| BuildError::Step {
        name: vertex.name.clone(),
        location: vertex.location.clone(),
        origin: vertex.origin.clone().map(Box::new),
        error: Box::new(error),
    })
}

type Failure = (VertexId, StepError);

impl<'a> Solver<'a> {
    fn new(graph: &'a Graph, tasks: &'a [TaskId], lost: BTreeSet<VertexId>) -> Self {
        let results = graph.vertices.iter().map(|_| OnceLock::new()).collect();
        Self { graph, tasks, results, lost, cached: AtomicUsize::new(0) }
    }
}

impl Solver<'_> {
    fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let pending = self.known(session)?;
        if pending.is_empty() {
            return Ok(());
        }
        session.recorder.begin();
        self.execute(session, pending)
    }

    /// Whether every layer of every target has its files somewhere.
    fn check_files(&self, session: &Session<'_>, needed: bool) -> Result<(), Failure> {
        for target in self.graph.targets().filter_map(|target| target.root).filter(|_| needed) {
            for layer in self.result(target).built.iter().filter(|layer| !layer.tree.is_empty()) {
                let failed = |error| (layer.vertex, error);
                let there = session.engine.snapshots.get(&layer.id).map_err(|error| failed(error.into()))?.is_some();
                match &layer.source {
                    Source::Files(_) => {}
                    Source::Rerun | Source::Layers(_) if there => {}
                    Source::Rerun | Source::Layers(_) if session.has_remote_files(layer) => {}
                    // Made now, while a vertex whose files are gone can still run again.
                    Source::Rerun | Source::Layers(_) => drop(layer.snapshot(session).map_err(failed)?),
                }
            }
        }
        Ok(())
    }

    fn result(&self, vertex: VertexId) -> Filesystem {
        self.results[vertex.0].get().cloned().expect("inputs are solved before their users")
    }

    fn is_ready(&self, vertex: VertexId) -> bool {
        let vertex = &self.graph.vertices[vertex.0];
        let solved = |input: &VertexId| self.results[input.0].get().is_some();
        vertex.root.iter().all(solved) && vertex.op.inputs().iter().all(solved)
    }

    /// Sets every result that is known; returns the vertices that are left.
    fn known(&self, session: &Session<'_>) -> Result<BTreeSet<VertexId>, Failure> {
        let mut pending = BTreeSet::new();
        for vertex in (0..self.graph.vertices.len()).map(VertexId) {
            session.cancel.check().map_err(|error| (vertex, error.into()))?;
            let solved = if self.is_ready(vertex) { self.evaluate(session, vertex, Work::Known) } else { Ok(None) };
            match solved.map_err(|error| (vertex, error))? {
                Some(solved) => self.finish(session, vertex, solved),
                None => drop(pending.insert(vertex)),
            }
        }
        Ok(pending)
    }

    fn finish(&self, session: &Session<'_>, vertex: VertexId, solved: Solved) {
        // An image is brought when somebody needs its files; until then it counts as known.
        let quiet = matches!(self.graph.vertices[vertex.0].op, Op::Image(_));
        if solved.cached && !quiet {
            self.cached.fetch_add(1, Ordering::Relaxed);
        }
        if !quiet {
            let outcome = if solved.cached { Outcome::Cached } else { Outcome::Done };
            session.events.finished(self.tasks[vertex.0], outcome);
        } else if let Some(base) = &solved.filesystem.base
            && base.is_known(session)
        {
            base.finish(session);
        }
        let first = self.results[vertex.0].set(solved.filesystem).is_ok();
        debug_assert!(first, "a vertex is solved once");
    }

    fn evaluate(&self, session: &Session<'_>, id: VertexId, work: Work) -> Result<Option<Solved>, StepError> {
        let vertex = &self.graph.vertices[id.0];
        let root = vertex.root.map(|root| self.result(root)).unwrap_or_default();
        let rerun = match () {
            () if vertex.no_cache => Some(Miss::NoCache),
            () => self.lost.contains(&id).then_some(Miss::FilesGone),
        };
        let job = Job { session, vertex: id, task: self.tasks[id.0], root, rerun, solver: self };
        match &vertex.op {
            Op::Image(image) => Ok(Some(op::image::solve(session, image))),
            Op::Run(run) => op::run::solve(&job, run, work),
            Op::Copy(copy) => op::transfer::solve(&job, copy, work),
            Op::Workdir(workdir) => op::workdir::solve(&job, workdir, work),
        }
    }

    /// Runs the pending vertices on threads.
    fn execute(&self, session: &Session<'_>, mut pending: BTreeSet<VertexId>) -> Result<(), Failure> {
        let threads = session.request.jobs.unwrap_or_else(processors).clamp(1, pending.len());
        let (messages_in, messages) = channel();
        let (work_in, work) = channel();
        let work = Mutex::new(work);
        let access = Access {
            engine: session.engine,
            events: Events::Channel(messages_in.clone()),
            cancel: session.cancel.child(),
            remote: session.remote.clone(),
            dry: session.dry,
        };
        let worker = Session { access, ..session.clone() };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (worker, work, messages) = (&worker, &work, messages_in.clone());
                scope.spawn(move || self.work(worker, work, &messages));
            }
            self.coordinate(&mut pending, work_in, &messages, session, &worker.cancel)
        })
    }

    /// One thread: takes vertices until there are no more.
    fn work(&self, session: &Session<'_>, work: &Mutex<Receiver<VertexId>>, messages: &Sender<Message>) {
        loop {
            let next = work.lock().expect("no holder of the lock panics").recv();
            let Ok(vertex) = next else { return };
            let result = self.attempt(session, vertex);
            if messages.send(Message::Done { vertex, result }).is_err() {
                return;
            }
        }
    }

    fn attempt(&self, session: &Session<'_>, vertex: VertexId) -> Result<(), StepError> {
        let task = self.tasks[vertex.0];
        // First, so that the time of a download is the base image's and not the step's.
        let brought = self.bring_bases(session, vertex);
        session.events.started(task);
        let solved = match session.cancel.check() {
            Ok(()) => brought.and_then(|()| self.evaluate(session, vertex, Work::Allowed)),
            Err(cancelled) => Err(cancelled.into()),
        };
        match solved {
            Ok(solved) => {
                self.finish(session, vertex, solved.expect("with work allowed there is always a result"));
                Ok(())
            }
            Err(error) => {
                let outcome = match &error {
                    StepError::Lost(_) | StepError::OtherBase => Outcome::Cancelled,
                    error if error.is_cancelled() => Outcome::Cancelled,
                    error => Outcome::Failed(diagnostic::chain(error)),
                };
                session.events.finished(task, outcome);
                Err(error)
            }
        }
    }

    /// Fetches the base images whose files a vertex is going to look at.
    fn bring_bases(&self, session: &Session<'_>, id: VertexId) -> Result<(), StepError> {
        let vertex = &self.graph.vertices[id.0];
        let looks_at_root = !matches!(&vertex.op, Op::Image(_) | Op::Copy(CopyOp { link: true, chown: None, .. }));
        let root = vertex.root.filter(|_| looks_at_root);
        for input in root.into_iter().chain(vertex.op.inputs()) {
            if let Some(base) = self.result(input).base {
                base.trees(session, Work::Allowed)?;
            }
        }
        Ok(())
    }

    /// Hands out vertices as they become ready, and passes events on, until nothing runs any more.
    fn coordinate(
        &self,
        pending: &mut BTreeSet<VertexId>,
        work: Sender<VertexId>,
        messages: &Receiver<Message>,
        session: &Session<'_>,
        stop: &CancelToken,
    ) -> Result<(), Failure> {
        let mut running = 0_usize;
        let mut failure: Option<Failure> = None;
        loop {
            if failure.is_none() {
                let ready: Vec<VertexId> = pending.iter().copied().filter(|vertex| self.is_ready(*vertex)).collect();
                for vertex in ready {
                    pending.remove(&vertex);
                    running += usize::from(work.send(vertex).is_ok());
                }
            }
            if running == 0 {
                break;
            }
            match messages.recv().expect("this function's caller holds a sender") {
                Message::Event(event) => session.events.emit(event),
                Message::Done { result: Ok(()), .. } => running -= 1,
                Message::Done { vertex, result: Err(error) } => {
                    running -= 1;
                    // What has lost its files is run again in the next round; nothing that runs now is in vain.
                    if !matches!(error, StepError::Lost(_) | StepError::OtherBase) {
                        stop.cancel();
                    }
                    // The echoes of the cancel come after the error that caused it, unless the user cancelled.
                    failure.get_or_insert((vertex, error));
                }
            }
        }
        while let Ok(Message::Event(event)) = messages.try_recv() {
            session.events.emit(event);
        }
        // The threads end when there is no more work to come.
        drop(work);
        failure.map_or(Ok(()), Err)
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
