//! Base images: where a tag ends ([`Bases::resolve`]), and their layers, fetched when a step reads them
//! ([`BaseLayers`]).

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::engine::{Engine, seconds_now};
use super::error::{BuildError, StepError};
use super::filesystem::{Access, Work};
use super::layout;
use super::request::PullPolicy;
use super::sources;
use crate::cancel::{CancelToken, Cancelled};
use crate::content::{ContentError, ImageRecord, LayerRecord, ResolvedTag};
use crate::graph::{ImageRequest, KnownImage, Plan};
use crate::image::{ImageLayer, LayerSource};
use crate::layer::{self, UnpackError, UnpackOptions, Unpacked};
use crate::lock::{lock, unlocked};
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, ImageId, Manifest, MediaKind, Reference, chain_id};
use crate::pins::{Pins, SourceName};
use crate::progress::{Outcome, TaskId};
use crate::registry::RegistryError;
use crate::small_file;
use crate::snapshot::{Active, Snapshot};
use crate::tree::{Stack, Tree, TreeId};

/// Largest image config that is read, in bytes.
const MAX_CONFIG: u64 = 8 << 20;

/// Layers that are fetched and unpacked at the same time: enough to fill a link, few enough to share a disk.
const PARALLEL_LAYERS: usize = 4;

/// An image that steps can start from.
pub(super) struct BaseImage {
    pub(super) known: KnownImage,
    pub(super) layers: Arc<BaseLayers>,
    /// Its manifest and config, where no image of the store keeps them.
    documents: Vec<Digest>,
}

impl BaseImage {
    /// Says for whatever removes what nobody uses that a build is based on it.
    pub(super) fn mark_used(&self, engine: &Engine) {
        for digest in &self.documents {
            small_file::mark_used(&engine.content.blob_path(digest));
        }
    }
}

/// The layers of an image, on disk or not.
pub(super) struct BaseLayers {
    /// What the Dockerfile calls the image.
    name: Reference,
    /// Where the image comes from, pinned to its manifest where it has one.
    reference: Reference,
    layers: Vec<BaseLayer>,
    /// Its layers came from a directory: no registry has them under this name.
    is_foreign: bool,
    /// The vertex that its progress belongs to.
    task: Mutex<Option<TaskId>>,
    /// Whether its task has said that it is done.
    shown: AtomicBool,
    loaded: Mutex<Option<Vec<(TreeId, Tree)>>>,
}

struct BaseLayer {
    diff_id: DiffId,
    /// Its blob; `None` for a layer that was built here.
    descriptor: Option<Descriptor>,
    /// Under what its tree is remembered: its diff id or, if its tree depends on the layers below, their chain id.
    chain: DiffId,
}

/// Finds out what `request` means now, or what it meant when it was locked.
pub(super) fn resolve(
    engine: &Engine,
    request: &ImageRequest,
    pull: PullPolicy,
    pins: &Pins,
    cancel: &CancelToken,
) -> Result<BaseImage, StepError> {
    if let Some(layout) = &request.layout {
        let descriptor = layout::bring(engine, layout, &request.platform, cancel)?;
        return pinned(engine, request, descriptor)?.ok_or_else(|| vanished(request));
    }
    let Some(digest) = sources::image(engine, &request.reference, pull, pins, cancel)? else {
        return find(engine, request, pull, cancel);
    };
    let locked = ImageRequest { reference: request.reference.with_digest(digest), ..request.clone() };
    // What has a digest means the same whenever it is asked for.
    let pull = if pull == PullPolicy::Never { pull } else { PullPolicy::Missing };
    let found = find(engine, &locked, pull, cancel);
    found.map_err(|error| sources::of_pin(pins, SourceName::image(&request.reference), error))
}

fn find(
    engine: &Engine,
    request: &ImageRequest,
    pull: PullPolicy,
    cancel: &CancelToken,
) -> Result<BaseImage, StepError> {
    match pull {
        PullPolicy::Always => ask(engine, request, cancel),
        PullPolicy::Newer => match ask(engine, request, cancel) {
            Err(error) if !error.is_cancelled() => match known(engine, request) {
                Ok(Some(image)) => Ok(image),
                Ok(None) | Err(_) => Err(error),
            },
            asked => asked,
        },
        PullPolicy::Never => known(engine, request)?.ok_or_else(|| StepError::NotLocal(request.reference.clone())),
        PullPolicy::Missing => match known(engine, request) {
            Ok(Some(image)) => Ok(image),
            // Reading took a damaged document out of the store; the registry has a good one.
            Ok(None) | Err(StepError::Content(ContentError::DigestMismatch { .. })) => ask(engine, request, cancel),
            Err(error) => Err(error),
        },
    }
}

/// Whether the store knows what the name led to before.
pub(super) fn is_remembered(engine: &Engine, request: &ImageRequest) -> Result<bool, StepError> {
    Ok(remembered(engine, request)?.is_some())
}

/// The error of an image that `plan` needs. If the store has it for other platforms, that is said.
pub(super) fn cannot_be_had(
    engine: Option<&Engine>,
    image: &ImageRequest,
    plan: &Plan,
    error: StepError,
) -> BuildError {
    let used = plan.first_use(image);
    // What a lock file says is no slip.
    let hinted = !matches!(error, StepError::NotLocked(_) | StepError::Pinned { .. });
    BuildError::Base {
        location: used.map(|used| used.location.clone()),
        origin: used.and_then(|used| used.origin.clone()).map(Box::new),
        suggestion: used
            .and_then(|used| used.hint.clone())
            .or_else(|| other_platforms(engine?, image))
            .filter(|_| hinted),
        error: Box::new(error),
    }
}

/// That the store has an image for other platforms only.
pub(super) fn other_platforms(engine: &Engine, image: &ImageRequest) -> Option<String> {
    let known = engine.known_platforms(image).ok().filter(|_| image.layout.is_none())?;
    if known.is_empty() || known.iter().any(|known| known.distance(&image.platform).is_some()) {
        return None;
    }
    let mut names: Vec<String> = known.iter().map(ToString::to_string).collect();
    names.sort();
    let (names, wanted) = (names.join(", "), &image.platform);
    Some(format!("the store has this image for {names}, and {wanted} is wanted: see `--platform`"))
}

/// What the store knows.
fn known(engine: &Engine, request: &ImageRequest) -> Result<Option<BaseImage>, StepError> {
    match local(engine, request)? {
        Some(image) => Ok(Some(image)),
        None => remembered(engine, request),
    }
}

/// What a registry says now.
fn ask(engine: &Engine, request: &ImageRequest, cancel: &CancelToken) -> Result<BaseImage, StepError> {
    let descriptor = engine.fetch_manifest(&request.reference, &request.platform, cancel)?;
    let tag = ResolvedTag { descriptor, at: seconds_now() };
    engine.content.database().put_resolved_tag(&request.reference, &request.platform, &tag)?;
    remembered(engine, request)?.ok_or_else(|| vanished(request))
}

fn vanished(request: &ImageRequest) -> StepError {
    let reason = "its manifest or config vanished from the store".to_owned();
    StepError::MalformedImage { image: request.reference.familiar(), reason }
}

/// The image of the local store with this name.
fn local(engine: &Engine, request: &ImageRequest) -> Result<Option<BaseImage>, StepError> {
    let database = engine.content.database();
    let mut ids = database.images_of(&request.reference)?;
    if ids.is_empty() {
        ids.extend(id_in(&request.reference).map(|id| database.find_image(id)).transpose()?.flatten());
    }
    let mut nearest: Option<(u32, ImageId, Vec<LayerRecord>, ImageConfig)> = None;
    for id in ids {
        let Some(ImageRecord { layers, .. }) = database.image(&id)? else { continue };
        let config = read_config(engine, &request.reference, id.digest())?;
        let Some(distance) = config.platform().distance(&request.platform) else { continue };
        if nearest.as_ref().is_none_or(|(found, ..)| distance < *found) {
            nearest = Some((distance, id, layers, config));
        }
    }
    let Some((_, id, layers, config)) = nearest else { return Ok(None) };
    let layers = layers.into_iter().map(|layer| (layer.diff_id, layer.descriptor)).collect();
    let known = KnownImage::new(config, id.digest().clone());
    let layers = Arc::new(BaseLayers::new(request, request.reference.clone(), layers));
    Ok(Some(BaseImage { known, layers, documents: Vec::new() }))
}

/// The beginning of an image id that a reference may be, as in docker: at least 12 hexadecimal digits.
pub(super) fn id_in(reference: &Reference) -> Option<&str> {
    let name = reference.path().strip_prefix("library/")?;
    let plain = reference.domain() == "docker.io" && reference.tag() == Some("latest") && reference.digest().is_none();
    (plain && name.len() >= 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// The image that this name led to before, as long as its manifest and config are in the store.
fn remembered(engine: &Engine, request: &ImageRequest) -> Result<Option<BaseImage>, StepError> {
    let Some(tag) = engine.content.database().resolved_tag(&request.reference, &request.platform)? else {
        return Ok(None);
    };
    pinned(engine, request, tag.descriptor)
}

/// The image with this manifest, as long as that and its config are in the store.
fn pinned(engine: &Engine, request: &ImageRequest, descriptor: Descriptor) -> Result<Option<BaseImage>, StepError> {
    if engine.content.has(&descriptor.digest)?.is_none() {
        return Ok(None);
    }
    let image = || request.reference.familiar();
    let bytes = engine.content.read(&descriptor.digest, MAX_CONFIG)?;
    let manifest = Manifest::parse(&bytes, &descriptor.media_type)
        .map_err(|error| StepError::Manifest { image: image(), error })?;
    if engine.content.has(&manifest.config.digest)?.is_none() {
        return Ok(None);
    }
    let config = read_config(engine, &request.reference, &manifest.config.digest)?;
    let layers = layers_of(&image(), &manifest, &config)?;
    let pinned = request.reference.with_digest(descriptor.digest.clone());
    let documents = vec![descriptor.digest.clone(), manifest.config.digest];
    let known = KnownImage::new(config, descriptor.digest);
    Ok(Some(BaseImage { known, layers: Arc::new(BaseLayers::new(request, pinned, layers)), documents }))
}

fn read_config(engine: &Engine, reference: &Reference, digest: &Digest) -> Result<ImageConfig, StepError> {
    let bytes = engine.content.read(digest, MAX_CONFIG)?;
    ImageConfig::parse(&bytes).map_err(|error| StepError::Manifest { image: reference.familiar(), error })
}

/// Pairs the layers of a manifest with the diff ids of its config.
pub(super) fn layers_of(
    image: &str,
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<Vec<(DiffId, Option<Descriptor>)>, StepError> {
    let malformed = |reason: String| StepError::MalformedImage { image: image.to_owned(), reason };
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(malformed(format!("its manifest has {layers} layers and its config {ids} diff ids")));
    }
    for layer in &manifest.layers {
        if !matches!(layer.media_type.kind(), MediaKind::Layer(_)) {
            return Err(malformed(format!("layer {} has the unknown media type `{}`", layer.digest, layer.media_type)));
        }
    }
    Ok(diff_ids.iter().cloned().zip(manifest.layers.iter().cloned().map(Some)).collect())
}

impl BaseLayers {
    fn new(request: &ImageRequest, reference: Reference, layers: Vec<(DiffId, Option<Descriptor>)>) -> Self {
        let name = request.reference.clone();
        let diff_ids: Vec<DiffId> = layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
        let layer = |(index, (diff_id, descriptor))| {
            let chain = chain_id(&diff_ids[..=index]).expect("not empty");
            BaseLayer { diff_id, descriptor, chain: DiffId::new(chain.digest().clone()) }
        };
        let layers = layers.into_iter().enumerate().map(layer).collect();
        let (shown, loaded) = (AtomicBool::new(false), Mutex::default());
        let is_foreign = request.layout.is_some();
        Self { name, reference, layers, is_foreign, task: Mutex::default(), shown, loaded }
    }

    /// Says which vertex the progress of fetching belongs to.
    pub(super) fn belongs_to(&self, task: TaskId) {
        lock(&self.task).get_or_insert(task);
    }

    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }

    /// The layers as they go into an image that is built on this one.
    pub(super) fn image_layers(&self) -> Vec<ImageLayer> {
        self.layers.iter().map(|layer| self.image_layer(layer)).collect()
    }

    fn image_layer(&self, layer: &BaseLayer) -> ImageLayer {
        let origin = (!self.is_foreign).then(|| self.reference.clone());
        let source = LayerSource::Stored { descriptor: layer.descriptor.clone(), origin };
        ImageLayer { diff_id: Some(layer.diff_id.clone()), source }
    }

    /// The trees; `None` if some are not known and no work is allowed.
    pub(super) fn trees(&self, access: &Access<'_>, work: Work) -> Result<Option<Vec<Tree>>, StepError> {
        let mut loaded = lock(&self.loaded);
        if loaded.is_none() {
            *loaded = self.known_trees(access)?;
        }
        if loaded.is_none() && work == Work::Allowed {
            *loaded = Some(self.load(access)?);
        }
        Ok(loaded.as_ref().map(|trees| trees.iter().map(|(_, tree)| tree.clone()).collect()))
    }

    /// The snapshots, fetched and unpacked if they are not there.
    pub(super) fn snapshots(&self, access: &Access<'_>) -> Result<Vec<Snapshot>, StepError> {
        let trees = self.trees(access, Work::Allowed)?.expect("with work allowed there is always a result");
        let mut snapshots = Vec::new();
        for tree in trees.iter().filter(|tree| !tree.is_empty()) {
            if let Some(snapshot) = access.engine.snapshots.get_verified(tree)? {
                snapshots.push(snapshot);
                continue;
            }
            let mut loaded = lock(&self.loaded);
            let before = loaded.replace(self.load(access)?);
            let ids = |all: &[(TreeId, Tree)]| all.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            // A cache elsewhere said something else, and keys were made of it.
            if before.as_deref().map(ids) != loaded.as_deref().map(ids) {
                return Err(StepError::OtherBase);
            }
            drop(loaded);
            return self.snapshots(access);
        }
        Ok(snapshots)
    }

    /// The snapshot of one layer.
    pub(super) fn snapshot(&self, access: &Access<'_>, layer: usize) -> Result<Snapshot, StepError> {
        let trees = self.trees(access, Work::Allowed)?.expect("with work allowed there is always a result");
        if access.engine.snapshots.get(&trees[layer].id())?.is_none() {
            self.snapshots(access)?;
        }
        self.snapshot_of(access, &trees[layer])
    }

    fn snapshot_of(&self, access: &Access<'_>, tree: &Tree) -> Result<Snapshot, StepError> {
        access.engine.snapshots.get_verified(tree)?.ok_or_else(|| StepError::MalformedImage {
            image: self.reference.familiar(),
            reason: format!("layer {} vanished from the store", tree.id()),
        })
    }

    fn known_trees(&self, access: &Access<'_>) -> Result<Option<Vec<(TreeId, Tree)>>, StepError> {
        let mut trees = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let known = match (known_tree(access.engine, layer)?, &access.remote) {
                (None, Some(remote)) => {
                    remote.base_tree(access, [&layer.chain, &layer.diff_id])?.map(|tree| (tree.id(), tree))
                }
                (known, _) => known,
            };
            match known {
                Some(tree) => trees.push(tree),
                None => return Ok(None),
            }
        }
        if !access.dry {
            for (id, _) in &trees {
                small_file::mark_used(&access.engine.trees.path(id));
            }
        }
        Ok(Some(trees))
    }

    /// The trees by the names under which they are remembered, as far as they are known.
    pub(super) fn remembered_trees(&self, engine: &Engine) -> Result<Vec<(DiffId, Tree)>, StepError> {
        let mut trees = Vec::new();
        for layer in &self.layers {
            for name in [&layer.chain, &layer.diff_id] {
                if let Some(bytes) = engine.content.database().layer_tree(name)?
                    && let Some(tree) = engine.trees.get(&TreeId::new(bytes))?
                {
                    trees.push((name.clone(), tree));
                    break;
                }
            }
        }
        Ok(trees)
    }

    /// Fetches and unpacks what is not on disk, and tells about it.
    fn load(&self, access: &Access<'_>) -> Result<Vec<(TreeId, Tree)>, StepError> {
        if access.dry {
            return Err(StepError::NeedsWork);
        }
        let task = *lock(&self.task);
        let first = !self.shown.swap(true, Ordering::Relaxed);
        if let Some(task) = task.filter(|_| first) {
            access.events.started(task);
        }
        let loaded = self.bring(access);
        if let Some(task) = task.filter(|_| first) {
            access.events.finished(
                task,
                match &loaded {
                    Ok(_) => Outcome::Done,
                    Err(error) if error.is_cancelled() => Outcome::Cancelled,
                    Err(error) => Outcome::Failed(crate::diagnostic::chain(error)),
                },
            );
        }
        loaded
    }

    /// Whether everything about its layers is known without fetching anything.
    pub(super) fn is_known(&self, access: &Access<'_>) -> bool {
        let loaded = lock(&self.loaded).is_some();
        loaded || self.layers.iter().all(|layer| matches!(known_tree(access.engine, layer), Ok(Some(_))))
    }

    /// Tells that nobody needed its files, if that is so.
    pub(super) fn finish(&self, access: &Access<'_>) {
        let task = *lock(&self.task);
        if let Some(task) = task.filter(|_| !self.shown.swap(true, Ordering::Relaxed)) {
            access.events.finished(task, Outcome::Cached);
        }
    }

    /// Fetches and unpacks what is not on disk, several layers at a time.
    fn bring(&self, access: &Access<'_>) -> Result<Vec<(TreeId, Tree)>, StepError> {
        let mut missing = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let known = known_tree(access.engine, layer)?;
            let there = match &known {
                Some((_, tree)) => tree.is_empty() || access.engine.snapshots.get_verified(tree)?.is_some(),
                None => false,
            };
            if !there {
                missing.push(index);
            }
        }
        let mut unpacked = self.unpack_all(access, &missing)?;
        let mut stack = Stack::default();
        let mut trees = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let (id, tree) = match unpacked.remove(&index) {
                Some((active, unpacked)) => self.settle(access, layer, active, &unpacked, &stack, &trees)?,
                None => known_tree(access.engine, layer)?.expect("it was known just now"),
            };
            stack.push(tree.clone());
            trees.push((id, tree));
        }
        Ok(trees)
    }

    fn unpack_all(
        &self,
        access: &Access<'_>,
        missing: &[usize],
    ) -> Result<std::collections::BTreeMap<usize, (Active, Unpacked)>, StepError> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(std::collections::BTreeMap::new());
        let failure = Mutex::new(None);
        let stop = access.cancel.child();
        let work = || {
            while let Some(index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.unpack(access, *index, &stop) {
                    Ok(done) => drop(lock(&results).insert(*index, done)),
                    Err(error) => {
                        lock(&failure).get_or_insert(error);
                        stop.cancel();
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..missing.len().min(PARALLEL_LAYERS) {
                scope.spawn(work);
            }
            work();
        });
        match unlocked(failure) {
            Some(error) => Err(error),
            None => Ok(unlocked(results)),
        }
    }

    /// Unpacks one layer while it is fetched; the blob stays in the store, for whoever wants the image as it was.
    fn unpack(&self, access: &Access<'_>, index: usize, cancel: &CancelToken) -> Result<(Active, Unpacked), StepError> {
        let engine = access.engine;
        let layer = &self.layers[index];
        let vanished = || StepError::MalformedImage {
            image: self.reference.familiar(),
            reason: format!("the files of layer {} vanished from the store", layer.diff_id),
        };
        let Some(descriptor) = &layer.descriptor else { return Err(vanished()) };
        let task = *lock(&self.task);
        let report = |current: u64, finished: bool| {
            if let Some(task) = task {
                access.events.status(task, descriptor.digest.as_str(), current, Some(descriptor.size), finished);
            }
        };
        let stored = if engine.content.has(&descriptor.digest)?.is_some() {
            match unpack_stored(engine, &descriptor.digest) {
                // Reading took the damaged blob out of the store: a good one may be where it came from.
                Err(StepError::Content(ContentError::DigestMismatch { .. } | ContentError::Missing { .. })) => None,
                other => Some(other),
            }
        } else {
            None
        };
        if stored.is_none() && self.is_foreign {
            return Err(vanished());
        }
        let unpacked =
            stored.unwrap_or_else(|| self.unpack_fetched(engine, descriptor, &|read| report(read, false), cancel));
        let (active, unpacked) = match unpacked {
            Ok(unpacked) => unpacked,
            Err(_) if cancel.is_cancelled() => return Err(Cancelled.into()),
            Err(error) => {
                let (image, digest, error) = (self.name.clone(), descriptor.digest.clone(), Box::new(error));
                return Err(StepError::BaseLayer { image, digest, error });
            }
        };
        report(descriptor.size, true);
        if unpacked.diff_id != layer.diff_id {
            return Err(StepError::DiffId {
                image: self.reference.familiar(),
                index,
                expected: layer.diff_id.clone(),
                actual: unpacked.diff_id,
            });
        }
        Ok((active, unpacked))
    }

    /// Unpacks one layer while it is fetched.
    fn unpack_fetched(
        &self,
        engine: &Engine,
        descriptor: &Descriptor,
        report: &dyn Fn(u64),
        cancel: &CancelToken,
    ) -> Result<(Active, Unpacked), StepError> {
        let active = engine.snapshots.begin()?;
        let origin = self.origin(engine, descriptor)?;
        let stream = engine.registry.open_and_store_blob(&origin, descriptor, &engine.content, cancel)?;
        let mut blob = Counted { inner: stream, read: 0, report };
        let unpacked = layer::unpack(&mut blob, &active, &UnpackOptions::default()).map_err(of_blob);
        match unpacked {
            // Only the rest of the blob tells whether its bytes were wrong, or what is in it.
            Ok(_) | Err(StepError::Unpack(_)) => blob.inner.finish()?,
            Err(_) => {}
        }
        Ok((active, unpacked?))
    }

    /// Where a blob can be fetched. The name of an image that was built or loaded here says nothing about that.
    fn origin(&self, engine: &Engine, descriptor: &Descriptor) -> Result<Reference, StepError> {
        if self.reference.digest().is_some() {
            return Ok(self.reference.clone());
        }
        let sources = engine.content.database().blob_sources(&descriptor.digest)?;
        Ok(sources.iter().find_map(|repository| repository.parse().ok()).unwrap_or_else(|| self.reference.clone()))
    }

    /// Completes a layer with what it takes from the layers below, and commits it.
    fn settle(
        &self,
        access: &Access<'_>,
        layer: &BaseLayer,
        active: Active,
        unpacked: &Unpacked,
        below: &Stack,
        trees: &[(TreeId, Tree)],
    ) -> Result<(TreeId, Tree), StepError> {
        let engine = access.engine;
        let alone = unpacked.implied.is_empty() && unpacked.lower_links.is_empty();
        let mut tree = layer::fix_implied(&active, &unpacked.tree, &unpacked.implied, below)?;
        if !unpacked.lower_links.is_empty() {
            let lower = trees.iter().map(|(_, tree)| self.snapshot_of(access, tree)).collect::<Result<Vec<_>, _>>()?;
            let lower: Vec<&Snapshot> = lower.iter().collect();
            tree = layer::resolve_lower_links(&active, &tree, &unpacked.lower_links, below, &lower)?;
        }
        let id = engine.trees.put(&tree)?;
        if tree.is_empty() {
            drop(active);
        } else {
            engine.snapshots.commit(active, &tree)?;
        }
        let remembered_as = if alone { &layer.diff_id } else { &layer.chain };
        engine.content.database().put_layer_tree(remembered_as, id.as_bytes())?;
        Ok((id, tree))
    }
}

fn known_tree(engine: &Engine, layer: &BaseLayer) -> Result<Option<(TreeId, Tree)>, StepError> {
    let database = engine.content.database();
    for name in [&layer.chain, &layer.diff_id] {
        if let Some(bytes) = database.layer_tree(name)? {
            let id = TreeId::new(bytes);
            if let Some(tree) = engine.trees.get(&id)? {
                return Ok(Some((id, tree)));
            }
        }
    }
    Ok(None)
}

/// A stream that tells how far it is.
struct Counted<'a, R> {
    inner: R,
    read: u64,
    report: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read += length as u64;
        (self.report)(self.read);
        Ok(length)
    }
}

/// Unpacks a layer whose blob is in the store.
fn unpack_stored(engine: &Engine, digest: &Digest) -> Result<(Active, Unpacked), StepError> {
    let active = engine.snapshots.begin()?;
    let mut blob = engine.content.open_blob(digest)?;
    let unpacked = layer::unpack(&mut blob, &active, &UnpackOptions::default()).map_err(of_blob);
    match unpacked {
        // Only the rest of the blob tells whether its bytes were wrong, or what is in it.
        Ok(_) | Err(StepError::Unpack(_)) => drain(&mut blob)?,
        Err(_) => {}
    }
    Ok((active, unpacked?))
}

/// What was really wrong when a layer could not be unpacked: its blob, or where that comes from.
fn of_blob(error: UnpackError) -> StepError {
    match error {
        UnpackError::Read { source } => match RegistryError::from_io(source) {
            Ok(RegistryError::Content(error)) => error.into(),
            Ok(error) => error.into(),
            Err(source) => UnpackError::Read { source }.into(),
        },
        error => error.into(),
    }
}

/// Reads to the end, where a blob's digest is checked.
fn drain(blob: &mut impl Read) -> Result<(), StepError> {
    std::io::copy(blob, &mut std::io::sink()).map(drop).map_err(|error| match RegistryError::from_io(error) {
        Ok(RegistryError::Content(error)) => error.into(),
        Ok(error) => error.into(),
        Err(source) => StepError::Io { what: "cannot read a layer from the store".to_owned(), source },
    })
}

impl Engine {
    /// Asks a registry what a reference means for a platform; manifest and config are in the store afterwards.
    pub(super) fn fetch_manifest(
        &self,
        reference: &Reference,
        platform: &crate::oci::Platform,
        cancel: &CancelToken,
    ) -> Result<Descriptor, StepError> {
        let resolved = self.registry.resolve(reference, cancel)?;
        let selected = self.registry.select_platform(reference, &resolved, platform, cancel)?;
        let manifest = selected.manifest;
        if manifest.config.size > MAX_CONFIG || manifest.config.media_type.kind() != MediaKind::Config {
            return Err(StepError::MalformedImage {
                image: reference.familiar(),
                reason: format!("its config is no image config: `{}`", manifest.config.media_type),
            });
        }
        if self.content.has(&manifest.config.digest)?.is_none() {
            let pinned = reference.with_digest(selected.descriptor.digest.clone());
            let mut config = self.registry.open_and_store_blob(&pinned, &manifest.config, &self.content, cancel)?;
            drain(&mut config)?;
            config.finish()?;
        }
        self.content.put(&selected.bytes)?;
        Ok(selected.descriptor)
    }
}
