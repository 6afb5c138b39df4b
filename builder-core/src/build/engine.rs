//! [`Engine`]: the store and everything that works on it.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use super::base::{self, BaseLayers};
use super::contexts::{Contexts, OpenContext};
use super::early_export;
use super::epoch;
use super::error::{BuildError, StepError};
use super::events::{Events, TaskNumbers};
use super::filesystem::Access;
use super::git_files::{Answers, GitUse};
use super::mend::{self, Mended};
use super::misses;
use super::recorder::Recorder;
use super::remote::Bring;
use super::remote_cache::{self, RemoteCache};
use super::request::{BuildRequest, BuildResult, PullPolicy};
use super::result;
use super::run_options::BuildNetwork;
use super::solve::{self, Session};
use super::sources;
use super::verify;
use crate::cache::{CacheMounts, CacheStore};
use crate::cancel::CancelToken;
use crate::content::ContentStore;
use crate::diagnostic::{Location, nearest};
use crate::dockerfile::{self, Dockerfile, LintWarning};
use crate::executor::{Executor, Sandbox, SandboxOptions};
use crate::export::ExportContext;
use crate::git::{GitEnvironment, Repositories};
use crate::graph::{self, ContextId, Graph, ImageRequest, Images, KnownImage, NoCache};
use crate::history::{HistoryStore, Retention};
use crate::pins::Pins;
use crate::progress::{Lines, Outcome, Sink, TaskId, Warning};
use crate::registry::{Registry, RegistryConfig};
use crate::snapshot::{self, SnapshotError, SnapshotStore, Snapshotter};
use crate::tree::TreeStore;

/// What an engine needs to know.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The directory of the store; made when something is first written.
    pub state: PathBuf,
    /// Registries, mirrors, credentials.
    pub registry: RegistryConfig,
    /// What git sees of the host.
    pub git: GitEnvironment,
}

/// A store with everything that works on it. Any number of engines, in any number of processes, share one store.
///
/// An engine has no state of its own beyond what it remembers of the store: two builds may run in it at once.
pub struct Engine {
    pub(super) content: ContentStore,
    pub(super) trees: TreeStore,
    pub(super) snapshots: SnapshotStore,
    snapshotter: OnceLock<Box<dyn Snapshotter>>,
    pub(super) cache: CacheStore,
    pub(super) cache_mounts: CacheMounts,
    pub(super) history: HistoryStore,
    pub(super) registry: Registry,
    pub(super) executor: Box<dyn Executor>,
    pub(super) repositories: Repositories,
    pub(super) git: GitEnvironment,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("content", &self.content).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the store. Nothing is written, no connection is made.
    ///
    /// # Errors
    /// [`BuildError::Store`] if the directory cannot be used, or belongs to a newer version of this program.
    pub fn open(options: EngineOptions) -> Result<Self, BuildError> {
        Self::with_executor(options, Box::new(Sandbox::new(SandboxOptions::default())))
    }

    /// The same with another way to run commands.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn with_executor(options: EngineOptions, executor: Box<dyn Executor>) -> Result<Self, BuildError> {
        let state = &options.state;
        let store = |error: crate::content::ContentError| BuildError::Store(Box::new(error.into()));
        Ok(Self {
            content: ContentStore::open(state).map_err(store)?,
            trees: TreeStore::new(state),
            snapshots: SnapshotStore::new(state),
            snapshotter: OnceLock::new(),
            cache: CacheStore::new(state),
            cache_mounts: CacheMounts::new(state),
            history: HistoryStore::new(state),
            registry: Registry::new(options.registry),
            executor,
            repositories: Repositories::new(state),
            git: options.git,
        })
    }

    /// The same, keeping more or fewer builds in its history.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { history: self.history.with_retention(retention), ..self }
    }

    /// Blobs, images and tags.
    pub fn content(&self) -> &ContentStore {
        &self.content
    }

    /// Trees of layers.
    pub fn trees(&self) -> &TreeStore {
        &self.trees
    }

    /// Files of layers.
    pub fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    /// Records of steps.
    pub fn cache(&self) -> &CacheStore {
        &self.cache
    }

    /// Directories of `RUN --mount=type=cache`.
    pub fn cache_mounts(&self) -> &CacheMounts {
        &self.cache_mounts
    }

    /// What was built.
    pub fn history(&self) -> &HistoryStore {
        &self.history
    }

    /// Registries.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What puts layers on top of each other here: overlayfs where it can be mounted. Found out at the first use.
    pub(super) fn snapshotter(&self) -> Result<&dyn Snapshotter, SnapshotError> {
        if self.snapshotter.get().is_none() {
            let found = snapshot::probe(self.snapshots.clone())?;
            // Another thread may have been first; it found the same.
            let _ = self.snapshotter.set(found);
        }
        Ok(&**self.snapshotter.get().expect("set just above"))
    }

    /// What the functions of [`images`](super::images) work with. Progress is told as that of `task`, which the caller
    /// declares.
    pub fn context<'a>(
        &'a self,
        sink: &'a dyn Sink,
        task: TaskId,
        cancel: &'a CancelToken,
        stdout: Option<&'a Mutex<dyn std::io::Write + Send>>,
    ) -> ExportContext<'a> {
        ExportContext {
            content: &self.content,
            snapshots: &self.snapshots,
            trees: &self.trees,
            registry: &self.registry,
            cancel,
            sink,
            task,
            source_date_epoch: None,
            multi_platform: false,
            stdout,
        }
    }

    /// Builds an image and sends it where the request says.
    ///
    /// # Errors
    /// Every case of [`BuildError`]. Whatever happens, the store stays usable and keeps the steps that were done.
    pub fn build(
        &self,
        request: &BuildRequest,
        sink: &dyn Sink,
        cancel: &CancelToken,
    ) -> Result<BuildResult, BuildError> {
        self.build_to(request, sink, cancel, None)
    }

    /// The same with a place for outputs that go to standard output.
    ///
    /// # Errors
    /// As [`Engine::build`].
    pub fn build_to(
        &self,
        request: &BuildRequest,
        sink: &dyn Sink,
        cancel: &CancelToken,
        stdout: Option<&Mutex<dyn std::io::Write + Send>>,
    ) -> Result<BuildResult, BuildError> {
        let recorder = Recorder::new(&self.history, request, sink, true);
        let mut built = self.build_recorded(request, &recorder, cancel, stdout);
        if let Ok(built) = &mut built {
            // buildx names builder and node before the build.
            built.metadata.insert("buildx.build.ref".to_owned(), recorder.id().reference().into());
        }
        let trouble = recorder.finish(&built);
        if let (Ok(built), None) = (&mut built, &trouble) {
            built.build = Some(recorder.id());
        }
        if let Some(trouble) = trouble.filter(|_| built.is_ok()) {
            Events::Direct(sink).warning(None, format!("this build is not recorded in the history: {trouble}"));
        }
        built
    }

    fn build_recorded(
        &self,
        request: &BuildRequest,
        recorder: &Recorder<'_>,
        cancel: &CancelToken,
        stdout: Option<&Mutex<dyn std::io::Write + Send>>,
    ) -> Result<BuildResult, BuildError> {
        let sink: &dyn Sink = recorder;
        let store = |error: StepError| BuildError::of(error, |error| BuildError::Store(Box::new(error)));
        let events = Events::Direct(sink);
        let numbers = TaskNumbers::default();
        let _lease = self.content.lease(cancel).map_err(|error| store(error.into()))?;

        let (parsed, reading) = parse(request, &events, &numbers)?;
        let mut contexts = Contexts::new(request, self.content.state());
        let answers = Answers::default();
        let (ssh, ssh_agent) = (request.run.ssh.get("default"), self.git.ssh_agent.as_deref());
        let git = GitUse { answers: &answers, pins: &request.pins, pull: request.pull, ssh, ssh_agent };
        let bring = Bring { engine: self, git, secrets: &request.secrets, events: events.clone(), cancel };
        let resolved_epoch = epoch::resolve(&parsed, request, &mut contexts, &bring, &numbers)?;
        let mut known = Known::default();
        let mut joined: Option<Graph> = None;
        for options in request.options_by_platform() {
            let options = graph::Options { resolved_epoch, ..options };
            self.resolve(&parsed, &options, (request.pull, &request.pins), &mut known, (&events, &numbers), cancel)?;
            let graph = graph::lower(&parsed, &options, &known.images).map_err(BuildError::Graph)?;
            match &mut joined {
                Some(joined) => joined.join(graph),
                None => joined = Some(graph),
            }
        }
        let Known { bases, .. } = known;
        let mut graph = joined.expect("there is at least one platform");
        request.check_secrets(&mut graph, &parsed);
        request.run.entitlements.check_all(&graph)?;
        let warn = |graph: &Graph, from: usize| warn(&graph.warnings[from..], &parsed, reading, &events);
        warn(&graph, 0);
        warn_of_options(&graph, &parsed, request, &events);
        no_violations(&graph)?;
        sources::check_locked(&graph, &request.pins)?;
        let tasks = declare(&graph, &events, &numbers);
        bases_belong_to(&graph, &bases, &tasks);
        recorder.plan(&graph, &tasks);

        let network = BuildNetwork::default();
        contexts.fetch(&graph, &bring, &numbers)?;
        let found = graph.warnings.len();
        check_ignored(&mut graph, &parsed, &contexts);
        warn(&graph, found);
        no_violations(&graph)?;
        let now = graph.source_date_epoch.unwrap_or_else(seconds_now);
        let remote = RemoteCache::new(self, request, cancel);
        let access = Access { engine: self, events, cancel: cancel.clone(), remote, dry: false };
        let session = Session {
            access,
            request,
            recorder,
            contexts: &contexts,
            bases: &bases,
            answers: &answers,
            network: &network,
            now,
        };
        let needed = result::needs_files(request);
        let solved = early_export::while_building(&session, || {
            let mut mended = Mended::default();
            loop {
                let solution = match solve::solve(&session, &graph, &tasks, needed) {
                    Ok(solution) => solution,
                    Err(error) => break Err(error),
                };
                for base in bases.values() {
                    base.finish(&session);
                }
                contexts.save();
                if !needed {
                    break Ok((solution, BuildResult::default()));
                }
                let lost = session.remote.as_ref().map(|remote| remote.lost());
                let task =
                    numbers.declare(&session.events, "exporting to image", tasks.last().copied().into_iter().collect());
                session.events.started(task);
                let exported = result::export(&session, &graph, &solution, task, sink, stdout);
                // Files that a cache had promised are gone, or those of the store are damaged: their steps run, and everything
                // starts over. What went to standard output cannot be taken back.
                let again = exported.as_ref().is_err_and(|error| {
                    session.remote.as_ref().map(|remote| remote.lost()) != lost
                        || (mended.drop_damaged(&session, mend::of_result(error)) && stdout.is_none())
                });
                let outcome = match &exported {
                    Ok(_) => Outcome::Done,
                    Err(BuildError::Cancelled(_)) => Outcome::Cancelled,
                    Err(_) if again => Outcome::Cancelled,
                    Err(error) => Outcome::Failed(crate::diagnostic::chain(error)),
                };
                session.events.finished(task, outcome);
                if !again {
                    break exported.map(|exported| (solution, exported));
                }
            }
        });
        // Before an export takes away what the sources have.
        misses::note(&session);
        let (solution, mut built) = solved?;
        remote_cache::export(&session, &graph, &solution, &numbers, sink)?;
        if let Some(percent) = request.verify_cache {
            built.verified = verify::verify(&session, &graph, &solution, &numbers, percent)?;
        }
        built.steps = graph.vertices.iter().filter(|vertex| !matches!(vertex.op, graph::Op::Image(_))).count();
        built.cached = solution.cached;
        Ok(built)
    }

    /// Finds out what every image that the target needs means, until no more turn up.
    pub(super) fn resolve(
        &self,
        parsed: &Dockerfile,
        options: &graph::Options,
        asked: (PullPolicy, &Pins),
        known: &mut Known,
        shown: (&Events<'_>, &TaskNumbers),
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        self.resolve_or(parsed, options, asked, known, shown, cancel, &mut |_, error| Err(error))
    }

    /// The same; `otherwise` says what takes the place of an image that cannot be had.
    #[expect(clippy::too_many_arguments, reason = "those of `resolve`, and one more")]
    pub(super) fn resolve_or(
        &self,
        parsed: &Dockerfile,
        options: &graph::Options,
        (pull, pins): (PullPolicy, &Pins),
        known: &mut Known,
        (events, numbers): (&Events<'_>, &TaskNumbers),
        cancel: &CancelToken,
        otherwise: &mut dyn FnMut(&ImageRequest, BuildError) -> Result<KnownImage, BuildError>,
    ) -> Result<(), BuildError> {
        loop {
            let plan = graph::plan(parsed, options, &known.images).map_err(BuildError::Graph)?;
            if plan.missing.is_empty() {
                return Ok(());
            }
            for image in &plan.missing {
                let platform = if options.name_platform { format!("{} ", image.platform) } else { String::new() };
                let name = format!("[{platform}internal] load metadata for {}", image.reference);
                let task = numbers.declare(events, &name, Vec::new());
                events.started(task);
                match base::resolve(self, image, pull, pins, cancel) {
                    Ok(found) => {
                        events.finished(task, Outcome::Done);
                        found.mark_used(self);
                        known.images.insert(image.clone(), found.known);
                        known.bases.insert(image.clone(), found.layers);
                    }
                    Err(error) if error.is_cancelled() => {
                        events.finished(task, Outcome::Cancelled);
                        return Err(BuildError::Cancelled(crate::cancel::Cancelled));
                    }
                    Err(error) => {
                        events.finished(task, Outcome::Failed(crate::diagnostic::chain(&error)));
                        let instead = otherwise(image, base::cannot_be_had(Some(self), image, &plan, error))?;
                        known.images.insert(image.clone(), instead);
                    }
                }
            }
        }
    }
}

/// The images that were resolved so far.
#[derive(Default)]
pub(super) struct Known {
    pub(super) images: Images,
    pub(super) bases: HashMap<ImageRequest, Arc<BaseLayers>>,
}

/// The Dockerfile, and the task of reading it, which its warnings belong to.
fn parse(
    request: &BuildRequest,
    events: &Events<'_>,
    numbers: &TaskNumbers,
) -> Result<(Dockerfile, TaskId), BuildError> {
    let source = &request.dockerfile;
    let task = numbers.declare(events, &format!("[internal] load build definition from {}", source.name()), Vec::new());
    events.started(task);
    match dockerfile::parse(source) {
        Ok(parsed) => {
            events.finished(task, Outcome::Done);
            Ok((parsed, task))
        }
        Err(errors) => {
            events.finished(task, Outcome::Failed(errors.to_string()));
            Err(BuildError::Parse(errors))
        }
    }
}

/// Finds copies of what the ignore file excludes. The context is opened for them anyway.
fn check_ignored(graph: &mut Graph, parsed: &Dockerfile, contexts: &Contexts<'_>) {
    if !graph.copies_from_context() {
        return;
    }
    // What is wrong with the context is reported by the step that needs it.
    let Ok(OpenContext::Directory(context)) = contexts.get(&ContextId::Main) else { return };
    let Some(ignore) = context.ignore_file() else { return };
    graph.check_ignored(parsed, ignore);
}

fn warn(warnings: &[(LintWarning, Location)], parsed: &Dockerfile, reading: TaskId, events: &Events<'_>) {
    for (warning, _) in warnings {
        let (rule, detail, line) = (warning.rule.name(), &warning.detail, warning.line);
        events.emit(crate::progress::Event::Warning(Warning {
            task: Some(reading),
            short: format!("{rule}: {detail} (line {line})"),
            detail: vec![warning.rule.text().to_owned()],
            url: warning.rule.url().map(str::to_owned),
            place: Some(Lines { source: parsed.source.clone(), first: line, last: warning.last_line }),
            undone: false,
        }));
    }
}

fn warn_unused(graph: &Graph, events: &Events<'_>) {
    if !graph.unused_build_args.is_empty() {
        let names = graph.unused_build_args.join(" ");
        events.warning(None, format!("one or more build-args [{names}] were not consumed"));
    }
}

/// `# check=error=true`: that there are findings is an error.
fn no_violations(graph: &Graph) -> Result<(), BuildError> {
    graph.violations().map_or(Ok(()), |violations| Err(BuildError::Graph(violations)))
}

/// Options that name what is not there.
fn warn_of_options(graph: &Graph, parsed: &Dockerfile, request: &BuildRequest, events: &Events<'_>) {
    warn_unused(graph, events);
    warn_unknown_stages(parsed, request, events);
    warn_unknown_mounts(graph, request, events);
}

/// Names of stages that only say for which the cache counts less: a wrong one would go unnoticed.
fn warn_unknown_stages(parsed: &Dockerfile, request: &BuildRequest, events: &Events<'_>) {
    let ignored = match &request.options.no_cache {
        NoCache::Stages(names) => names.as_slice(),
        NoCache::Never | NoCache::Always => &[],
    };
    let wanted: Vec<&String> = ignored.iter().chain(request.cache_ttl.stages.keys()).collect();
    if wanted.is_empty() {
        return;
    }
    let stages = graph::targets(parsed).into_iter().enumerate();
    let stages: Vec<String> = stages.flat_map(|(at, stage)| stage.name.into_iter().chain([at.to_string()])).collect();
    for name in wanted.into_iter().filter(|name| !stages.iter().any(|stage| stage.eq_ignore_ascii_case(name))) {
        let hint = nearest(name, stages.iter().map(String::as_str));
        let hint = hint.map_or_else(String::new, |stage| format!("; did you mean `{stage}`?"));
        events.warning(None, format!("there is no stage `{name}` whose cache could be ignored{hint}"));
    }
}

/// The same for ids of cache mounts that somebody limits in this build.
fn warn_unknown_mounts(graph: &Graph, request: &BuildRequest, events: &Events<'_>) {
    if request.expected_mounts.is_empty() {
        return;
    }
    let mounts = graph.vertices.iter().flat_map(|vertex| match &vertex.op {
        graph::Op::Run(run) => run.mounts.as_slice(),
        _ => &[],
    });
    let ids: BTreeSet<&str> = mounts
        .filter_map(|mount| match &mount.kind {
            graph::MountTarget::Cache(cache) => Some(cache.id.as_str()),
            _ => None,
        })
        .collect();
    let list = |ids: &mut dyn Iterator<Item = &str>| ids.map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
    let unknown = list(&mut request.expected_mounts.iter().map(String::as_str).filter(|id| !ids.contains(id)));
    if !unknown.is_empty() {
        let known = match ids.len() {
            0 => "none has one".to_owned(),
            1 => format!("there is {}", list(&mut ids.into_iter())),
            _ => format!("there are {}", list(&mut ids.into_iter())),
        };
        let what =
            format!("no step of the build has a cache mount {unknown} that could be kept within a size; {known}");
        events.warning(None, what);
    }
}

fn declare(graph: &Graph, events: &Events<'_>, numbers: &TaskNumbers) -> Vec<TaskId> {
    let mut tasks: Vec<TaskId> = Vec::with_capacity(graph.vertices.len());
    for vertex in &graph.vertices {
        let inputs = vertex.root.into_iter().chain(vertex.op.inputs()).map(|input| tasks[input.0]).collect();
        tasks.push(numbers.declare(events, &vertex.name, inputs));
    }
    tasks
}

fn bases_belong_to(graph: &Graph, bases: &HashMap<ImageRequest, Arc<BaseLayers>>, tasks: &[TaskId]) {
    for (vertex, task) in graph.vertices.iter().zip(tasks) {
        if let graph::Op::Image(op) = &vertex.op
            && let Some(base) = bases.get(&op.request())
        {
            base.belongs_to(*task);
        }
    }
}

/// The time, in seconds since 1970.
pub(super) fn seconds_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
