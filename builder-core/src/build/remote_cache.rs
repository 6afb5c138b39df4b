//! [`RemoteCache`]: `--cache-from` and `--cache-to` in one build.
//!
//! What is found elsewhere becomes part of the local store as it is found: records, trees, what is known of layers.
//! Files of layers follow when somebody reads them; if they cannot be had then, their step runs again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock};

use super::cache_mounts::move_into;
use super::engine::Engine;
use super::error::{BuildError, StepError};
use super::events::TaskNumbers;
use super::filesystem::{Access, BuiltLayer};
use super::op::run::set_times_of;
use super::request::BuildRequest;
use super::result::layer_files;
use super::solve::{Session, Solution};
use crate::cache::{CacheKey, MountedCache, Record, StoredMount};
use crate::cancel::CancelToken;
use crate::content::ContentStore;
use crate::export::layers::FORMAT;
use crate::export::{ExportContext, Output};
use crate::graph::{CacheMount, Graph, MountTarget, Op, VertexId};
use crate::layer::Files;
use crate::lock::lock;
use crate::oci::{Compression, DiffId};
use crate::progress::{Outcome, Sink, TaskId};
use crate::remote::{
    Backends, Base, CacheDestination, CacheMode, Contents, Exporter, Imports, LayerToExport, MountIdentity,
    MountToExport, RemoteError, distinct,
};
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::tree::{ContentDigest, Entry, SemanticDigest, StateDigest, Tree, TreeId};

/// Longest wait for other builds that use a cache mount.
const MOUNT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Largest file that travels with the records, in bytes: users and groups of an image, as a rule.
const MAX_FILE: usize = 64 << 10;

/// The caches that a build reads from, and what it will write to others.
pub(super) struct RemoteCache {
    imports: Imports,
    content: ContentStore,
    snapshots: SnapshotStore,
    cancel: CancelToken,
    /// Whether something is written afterwards.
    is_exported: bool,
    noted: Mutex<Noted>,
    /// Who is told of each step as soon as it is known.
    announced: Mutex<Option<Sender<TreeId>>>,
    /// Held while the files of a tree are fetched.
    fetching: Mutex<HashMap<TreeId, Arc<Mutex<()>>>>,
    /// Vertices whose files turned out to be gone while the result was exported.
    lost: Mutex<BTreeSet<VertexId>>,
}

/// What a cache that is written afterwards holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Noted {
    pub(super) steps: BTreeMap<VertexId, Record>,
    pub(super) files: BTreeMap<ContentDigest, Vec<u8>>,
    pub(super) mounts: HashSet<MountIdentity>,
}

fn identity(mount: &CacheMount) -> MountIdentity {
    MountIdentity { id: mount.id.clone(), mode: mount.mode, uid: mount.uid, gid: mount.gid }
}

impl RemoteCache {
    /// The caches of a request; `None` if it names none. Nobody is asked yet.
    pub(super) fn new(engine: &Engine, request: &BuildRequest, cancel: &CancelToken) -> Option<Arc<Self>> {
        let is_exported = !request.cache_to.is_empty() || request.wants_inline_cache();
        if request.cache_from.is_empty() && !is_exported {
            return None;
        }
        let platforms: Vec<_> = request.options_by_platform().into_iter().map(|options| options.platform).collect();
        Some(Arc::new(Self {
            imports: Imports::new(Backends { registry: &engine.registry }, &request.cache_from, &platforms),
            content: engine.content.clone(),
            snapshots: engine.snapshots.clone(),
            cancel: cancel.clone(),
            is_exported,
            noted: Mutex::default(),
            announced: Mutex::default(),
            fetching: Mutex::default(),
            lost: Mutex::default(),
        }))
    }

    /// Looks a key up that the local store does not know; it does afterwards, but for a dry run.
    pub(super) fn record(&self, access: &Access<'_>, key: &CacheKey) -> Result<Option<(Tree, Record)>, StepError> {
        let found = self.imports.record(key, &access.cancel);
        self.warn(access);
        let Some((record, tree)) = found else { return Ok(None) };
        if access.dry {
            access.engine.trees.hold(&tree);
        } else {
            self.adopt(access, &tree)?;
            access.engine.cache.put(&record)?;
        }
        Ok(Some((tree, record)))
    }

    /// What is asked, one source after the other.
    pub(super) fn imports(&self) -> &Imports {
        &self.imports
    }

    /// The record that gave this result on this root elsewhere.
    pub(super) fn first_result(
        &self,
        access: &Access<'_>,
        root: &StateDigest,
        result: &SemanticDigest,
    ) -> Result<Option<(Tree, Record)>, StepError> {
        let found = self.imports.first_result(root, result, &access.cancel);
        self.warn(access);
        let Some((record, tree)) = found else { return Ok(None) };
        self.adopt(access, &tree)?;
        access.engine.cache.put_first_result(root, &record)?;
        Ok(Some((tree, record)))
    }

    /// The tree of a layer of a base image; afterwards the store knows it as well, but for a dry run.
    pub(super) fn base_tree(&self, access: &Access<'_>, names: [&DiffId; 2]) -> Result<Option<Tree>, StepError> {
        let found = self.imports.base_tree(names, &access.cancel);
        self.warn(access);
        let Some((name, tree)) = found else { return Ok(None) };
        if access.dry {
            access.engine.trees.hold(&tree);
            return Ok(Some(tree));
        }
        let id = access.engine.trees.put(&tree)?;
        access.engine.content.database().put_layer_tree(&name, id.as_bytes())?;
        Ok(Some(tree))
    }

    /// A small file whose layer need not be fetched for it.
    pub(super) fn file(&self, access: &Access<'_>, digest: &ContentDigest) -> Option<Vec<u8>> {
        let found = self.imports.file(digest, &access.cancel);
        self.warn(access);
        found
    }

    /// Keeps a small file for the cache that is written afterwards.
    pub(super) fn note_file(&self, content: &[u8]) {
        if self.is_exported && content.len() <= MAX_FILE {
            lock(&self.noted).files.entry(ContentDigest::of(content)).or_insert_with(|| content.to_vec());
        }
    }

    /// Keeps what a step came to for the cache that is written afterwards.
    pub(super) fn note_step(&self, vertex: VertexId, record: &Record, cached: bool) {
        if self.is_exported && record.preimage.may_travel() {
            if let Some(announced) = &*lock(&self.announced)
                && !cached
            {
                // Whoever listened may have had enough.
                let _ = announced.send(record.tree);
            }
            lock(&self.noted).steps.insert(vertex, record.clone());
        }
    }

    /// From now on every step that runs is told to the receiver.
    pub(super) fn announce_steps(&self) -> Receiver<TreeId> {
        let (sender, receiver) = std::sync::mpsc::channel();
        *lock(&self.announced) = Some(sender);
        receiver
    }

    /// Ends what [`RemoteCache::announce_steps`] began.
    pub(super) fn stop_announcing(&self) {
        lock(&self.announced).take();
    }

    /// Whether somebody is told of steps.
    pub(super) fn is_announcing(&self) -> bool {
        lock(&self.announced).is_some()
    }

    /// Fills a new cache mount with what a cache has of it; `false` if none has.
    pub(super) fn restore_mount(
        &self,
        access: &Access<'_>,
        mount: &CacheMount,
        opened: &MountedCache,
    ) -> Result<bool, StepError> {
        let restored = self.imports.mount(&identity(mount), &self.content, &self.snapshots, &access.cancel);
        self.warn(access);
        access.cancel.check()?;
        match restored {
            Some(active) => move_into(&active, opened).map(|()| true),
            None => Ok(false),
        }
    }

    /// Remembers that a step used a cache mount.
    pub(super) fn note_mount(&self, mount: &CacheMount) {
        lock(&self.noted).mounts.insert(identity(mount));
    }

    /// What was kept.
    pub(super) fn noted(&self) -> Noted {
        lock(&self.noted).clone()
    }

    /// Whether the files of a layer can probably be fetched.
    pub(super) fn has_files(&self, access: &Access<'_>, layer: &BuiltLayer) -> bool {
        let found = !lock(&self.lost).contains(&layer.vertex) && self.imports.has_layer(&layer.id, &self.cancel);
        self.warn(access);
        found
    }

    /// Fetches the files of a layer; `None` if they cannot be had.
    pub(super) fn snapshot(&self, access: &Access<'_>, tree: &Tree) -> Result<Option<Snapshot>, StepError> {
        let fetched = self.fetch(tree);
        self.warn(access);
        fetched
    }

    /// A layer whose files are fetched when the first of them is opened.
    pub(super) fn lazy(self: &Arc<Self>, layer: &BuiltLayer) -> LazyFiles {
        let (remote, tree, vertex) = (Arc::clone(self), layer.tree.clone(), layer.vertex);
        LazyFiles { remote, tree, vertex, opened: OnceLock::new() }
    }

    /// The vertices whose files were found to be gone since the last call.
    pub(super) fn lost(&self) -> BTreeSet<VertexId> {
        lock(&self.lost).clone()
    }

    fn fetch(&self, tree: &Tree) -> Result<Option<Snapshot>, StepError> {
        let turn = Arc::clone(lock(&self.fetching).entry(tree.id()).or_default());
        let _turn = lock(&turn);
        // Another thread may have fetched them while this one waited.
        if let Some(snapshot) = self.snapshots.get_verified(tree)? {
            return Ok(Some(snapshot));
        }
        fetch_files(&self.imports, &self.content, &self.snapshots, tree, &self.cancel)
    }

    fn adopt(&self, access: &Access<'_>, tree: &Tree) -> Result<(), StepError> {
        adopt(access.engine, &self.imports, tree, &access.cancel)
    }

    fn warn(&self, access: &Access<'_>) {
        for warning in self.imports.warnings() {
            access.events.warning(None, warning);
        }
    }
}

/// Fetches the files of a tree; `None` if they cannot be had.
pub(super) fn fetch_files(
    imports: &Imports,
    content: &ContentStore,
    snapshots: &SnapshotStore,
    tree: &Tree,
    cancel: &CancelToken,
) -> Result<Option<Snapshot>, StepError> {
    let fetched = imports.fetch(tree, content, snapshots, cancel);
    cancel.check()?;
    let Some(active) = fetched else { return Ok(None) };
    set_times_of(&active, tree)?;
    Ok(Some(snapshots.commit(active, tree)?))
}

/// Keeps a tree, and what is known of it as a layer.
pub(super) fn adopt(engine: &Engine, imports: &Imports, tree: &Tree, cancel: &CancelToken) -> Result<(), StepError> {
    let id = engine.trees.put(tree)?;
    let database = engine.content.database();
    for layer in imports.layers(&id, cancel) {
        let fact = &layer.fact;
        // What packing gave here is worth more than what somebody says.
        if fact.format.split(' ').next() == Some(FORMAT) && database.packed_tree(id.as_bytes(), FORMAT)?.is_none() {
            database.put_packed_tree(id.as_bytes(), FORMAT, &fact.diff_id)?;
            database.put_layer_blob(&fact.diff_id, fact.compression, &fact.format, &fact.blob)?;
            if let Some(repository) = layer.repository() {
                database.put_blob_source(&fact.blob.digest, &repository)?;
            }
        }
    }
    Ok(())
}

/// The files of a layer that are elsewhere.
pub(super) struct LazyFiles {
    remote: Arc<RemoteCache>,
    tree: Tree,
    vertex: VertexId,
    opened: OnceLock<Option<Snapshot>>,
}

impl Files for LazyFiles {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        let opened = self.opened.get_or_init(|| {
            let fetched = self.remote.fetch(&self.tree).ok().flatten();
            if fetched.is_none() {
                lock(&self.remote.lost).insert(self.vertex);
            }
            fetched
        });
        let Some(snapshot) = opened else {
            return Err(io::Error::other("its layer cannot be fetched from the cache"));
        };
        snapshot.open(entry)
    }

    fn snapshot(&self, _: &Entry) -> Option<TreeId> {
        self.opened.get()?.as_ref().map(Snapshot::id)
    }
}

/// Brings the cache of a build to every destination. One that fails costs a warning, unless it is
/// strict.
pub(super) fn export(
    session: &Session<'_>,
    graph: &Graph,
    solution: &Solution,
    numbers: &TaskNumbers,
    sink: &dyn Sink,
) -> Result<(), BuildError> {
    if session.request.inline_cache && !session.request.outputs.iter().any(makes_image) {
        session.events.warning(None, "no output of the build is an image: there is no place for an inline cache");
    }
    let Some(remote) = session.remote.as_ref().filter(|_| !session.request.cache_to.is_empty()) else { return Ok(()) };
    let noted = remote.noted();
    let contents = contents(session, solution, &noted).map_err(|error| BuildError::Store(Box::new(error)))?;
    for destination in &session.request.cache_to {
        let name = format!("exporting cache to {}", destination.place.kind());
        let task = numbers.declare(&session.events, &name, Vec::new());
        session.events.started(task);
        let context =
            ExportContext { source_date_epoch: None, ..session.engine.context(sink, task, &session.cancel, None) };
        let backends = Backends { registry: &session.engine.registry };
        let exporter = Exporter { context: &context, backends, compression: compression(session.request) };
        let layers = layers(session, graph, solution, &noted, destination);
        let exported = held_mounts(session, graph, &noted, destination, task)
            .and_then(|(mounts, _held)| exporter.export(destination, &contents, &layers, &mounts));
        match exported {
            Ok(exported) => {
                if exported.left_out > 0 {
                    let warning = match exported.left_out {
                        1 => "1 layer is not in the cache: its files are gone".to_owned(),
                        count => format!("{count} layers are not in the cache: their files are gone"),
                    };
                    session.events.warning(Some(task), warning);
                }
                session.events.finished(task, Outcome::Done);
            }
            Err(error) if error.is_cancelled() || session.cancel.is_cancelled() => {
                session.events.finished(task, Outcome::Cancelled);
                return Err(BuildError::Cancelled(crate::cancel::Cancelled));
            }
            Err(error) if destination.strict => {
                session.events.finished(task, Outcome::Failed(crate::diagnostic::chain(&error)));
                return Err(BuildError::CacheExport { name: destination.place.to_string(), error: Box::new(error) });
            }
            Err(error) => {
                let reason = crate::remote::chain(&error);
                session.events.undone(task, format!("the cache was not written to {}: {reason}", destination.place));
                session.events.finished(task, Outcome::Done);
            }
        }
    }
    Ok(())
}

fn makes_image(output: &Output) -> bool {
    matches!(output, Output::Image(_) | Output::Oci(_) | Output::Docker(_))
}

/// Everything but layers.
fn contents(session: &Session<'_>, solution: &Solution, noted: &Noted) -> Result<Contents, StepError> {
    let mut contents = Contents { files: noted.files.clone(), ..Contents::default() };
    let mut bases: Vec<_> = session.bases.iter().collect();
    bases.sort_by_key(|(request, _)| (request.reference.to_string(), request.platform.to_string()));
    for (_, base) in bases {
        for (layer, tree) in base.remembered_trees(session.engine)? {
            contents.bases.push(Base { layer, tree: tree.id() });
            contents.trees.push(tree);
        }
    }
    for (vertex, record) in &noted.steps {
        let layer = solution.filesystems[vertex.0].built.iter().find(|layer| layer.vertex == *vertex);
        if let Some(layer) = layer {
            contents.records.push(record.clone());
            contents.trees.push(layer.tree.clone());
        }
    }
    Ok(contents)
}

/// The layers that a destination is to have.
fn layers<'a>(
    session: &'a Session<'a>,
    graph: &Graph,
    solution: &'a Solution,
    noted: &Noted,
    destination: &CacheDestination,
) -> Vec<LayerToExport<'a>> {
    let all: Vec<&Arc<BuiltLayer>> = match destination.mode {
        CacheMode::Min => {
            let roots = graph.targets().filter_map(|target| target.root);
            roots.flat_map(|root| &solution.filesystems[root.0].built).collect()
        }
        CacheMode::Max => noted
            .steps
            .keys()
            .filter_map(|vertex| solution.filesystems[vertex.0].built.iter().find(|layer| layer.vertex == *vertex))
            .collect(),
    };
    let one = |layer: &'a Arc<BuiltLayer>| LayerToExport {
        tree: layer.tree.clone(),
        files: Box::new(move || {
            layer_files(session, layer).map_err(|error| match error {
                error if error.is_cancelled() => RemoteError::Cancelled(crate::cancel::Cancelled),
                error => RemoteError::NoFiles { reason: error.to_string() },
            })
        }),
    };
    distinct(all.into_iter().map(one).collect())
}

/// The cache mounts that a destination is to have. As long as the second part lives no step changes them.
fn held_mounts(
    session: &Session<'_>,
    graph: &Graph,
    noted: &Noted,
    destination: &CacheDestination,
    task: TaskId,
) -> Result<(Vec<MountToExport>, Vec<MountedCache>), RemoteError> {
    let mut wanted: Vec<MountIdentity> = Vec::new();
    for vertex in &graph.vertices {
        let Op::Run(run) = &vertex.op else { continue };
        for mount in &run.mounts {
            if let MountTarget::Cache(cache) = &mount.kind
                && destination.mounts.has(&cache.id)
                && !wanted.contains(&identity(cache))
            {
                wanted.push(identity(cache));
            }
        }
    }
    let used = |mount: MountIdentity| (noted.mounts.contains(&mount), mount);
    hold_mounts(session.engine, wanted.into_iter().map(used).collect(), &session.cancel, &mut |id| {
        let warning = format!("cache mount `{id}` is not in the cache: another build uses it");
        session.events.warning(Some(task), warning);
    })
}

/// Keeps steps off cache mounts that are to be sent, as long as the second part lives; `busy` is told of those that another
/// build uses. Of each mount it is known whether it was used.
pub(super) fn hold_mounts(
    engine: &Engine,
    wanted: Vec<(bool, MountIdentity)>,
    cancel: &CancelToken,
    busy: &mut dyn FnMut(&str),
) -> Result<(Vec<MountToExport>, Vec<MountedCache>), RemoteError> {
    let (mut mounts, mut held) = (Vec::new(), Vec::new());
    if wanted.is_empty() {
        return Ok((mounts, held));
    }
    let unusable = |error: crate::cache::CacheMountError| RemoteError::NoFiles { reason: error.to_string() };
    let stored = engine.cache_mounts.list().map_err(unusable)?;
    for (used, mount) in wanted {
        let here = stored.iter().find(|stored| identity_of(stored) == mount);
        let mut directory = None;
        if let Some(here) = here {
            match engine.cache_mounts.hold(here, MOUNT_PATIENCE, cancel).map_err(unusable)? {
                Some(kept) => {
                    directory = Some(kept.content.clone());
                    held.push(kept);
                }
                None => busy(&mount.id),
            }
        }
        mounts.push(MountToExport { mount, directory, used });
    }
    Ok((mounts, held))
}

/// What names a mount of the store.
pub(super) fn identity_of(mount: &StoredMount) -> MountIdentity {
    MountIdentity { id: mount.id.clone(), mode: mount.mode, uid: mount.uid, gid: mount.gid }
}

/// The compression of the first image that the build makes: its layers and those of the cache are the same blobs then.
pub(super) fn compression(request: &BuildRequest) -> Compression {
    let of = |output: &Output| match output {
        Output::Image(image) => Some(image.format.compression),
        Output::Oci(layout) | Output::Docker(layout) => Some(layout.format.compression),
        Output::Local { .. } | Output::Tar { .. } | Output::CacheOnly => None,
    };
    request.outputs.iter().find_map(of).unwrap_or_default()
}
