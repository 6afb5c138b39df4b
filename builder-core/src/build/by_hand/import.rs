//! [`Engine::import_cache`].

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::cache_mounts::move_into;
use super::super::engine::Engine;
use super::super::error::StepError;
use super::super::remote_cache::{adopt, fetch_files, identity_of};
use super::{CacheImport, CacheImported, CacheTransferError, store};
use crate::cache::Record;
use crate::cancel::{CancelToken, Cancelled};
use crate::export::ExportContext;
use crate::lock::{lock, unlocked};
use crate::oci::Platform;
use crate::remote::{Backends, CacheSource, Imports, MountIdentity, RemoteError, Whole, chain, root_of};
use crate::tree::{SemanticDigest, TreeId};

/// Layers that are fetched and unpacked at the same time.
const PARALLEL_LAYERS: usize = 4;

/// One import: what does not change while it goes on.
struct Job<'a> {
    engine: &'a Engine,
    place: String,
    imports: &'a Imports,
    whole: Whole<'a>,
    context: &'a ExportContext<'a>,
}

impl Engine {
    /// Brings everything that a place has into the store: records and trees, and if asked for files of layers and cache
    /// mounts. What the store knows already stays as it is.
    ///
    /// A part that is damaged is left out, and named in the result; the index and each part have to come within the time of
    /// the source.
    ///
    /// # Errors
    /// Every case of [`CacheTransferError`] about reading. What had come stays.
    pub fn import_cache(
        &self,
        source: &CacheSource,
        options: &CacheImport,
        context: &ExportContext<'_>,
    ) -> Result<CacheImported, CacheTransferError> {
        let cancel = context.cancel;
        let _lease = self.content.lease(cancel).map_err(store)?;
        let backends = Backends { registry: &self.registry };
        let host = [Platform::host()];
        let platforms = if options.platforms.is_empty() { &host[..] } else { &options.platforms };
        let imports = Imports::new(backends, std::slice::from_ref(source), platforms);
        let place = source.place.to_string();
        let whole = imports.whole(cancel).and_then(|whole| whole.ok_or(RemoteError::Nothing));
        let whole = whole.map_err(|source| failed(&place, source, cancel))?;
        let job = Job { engine: self, place, imports: &imports, whole, context };
        let mut imported = CacheImported::default();
        let trees = job.trees(&mut imported)?;
        let layers = job.records(&trees, &mut imported)?;
        if options.layers {
            job.layers(&layers, &mut imported)?;
        }
        for mount in job.whole.mounts().filter(|mount| options.mounts.has(&mount.id)) {
            job.mount(mount, &mut imported)?;
        }
        imported.damaged.extend(imports.warnings());
        Ok(imported)
    }
}

fn failed(place: &str, source: RemoteError, cancel: &CancelToken) -> CacheTransferError {
    if source.is_cancelled() || cancel.is_cancelled() {
        return Cancelled.into();
    }
    CacheTransferError::Read { place: place.to_owned(), source: Box::new(source) }
}

impl Job<'_> {
    /// A part; `None` if it is damaged. A place that fails in another way is not asked for the rest.
    fn part<T>(
        &self,
        what: &str,
        part: Result<T, RemoteError>,
        imported: &mut CacheImported,
    ) -> Result<Option<T>, CacheTransferError> {
        match part {
            Ok(part) => Ok(Some(part)),
            Err(error) if error.is_damage() => {
                imported.damaged.push(format!("{what} of the cache {} is left out: {}", self.place, chain(&error)));
                Ok(None)
            }
            Err(error) => Err(failed(&self.place, error, self.context.cancel)),
        }
    }

    /// Brings all trees, and what is known by them.
    fn trees(&self, imported: &mut CacheImported) -> Result<HashMap<TreeId, SemanticDigest>, CacheTransferError> {
        let (engine, cancel) = (self.engine, self.context.cancel);
        let mut known = HashMap::new();
        for number in 0..self.whole.tree_chunks() {
            let trees = self.part("a chunk of trees", self.whole.trees(number, cancel), imported)?;
            for tree in trees.into_iter().flatten() {
                adopt(engine, self.imports, &tree, cancel).map_err(store)?;
                known.insert(tree.id(), tree.semantic());
            }
        }
        let database = engine.content.database();
        for (layer, tree) in self.whole.bases().filter(|(_, tree)| known.contains_key(tree)) {
            // What unpacking gave here is worth more than what somebody says.
            if database.layer_tree(layer).map_err(store)?.is_none() {
                database.put_layer_tree(layer, tree.as_bytes()).map_err(store)?;
            }
        }
        for file in self.whole.files() {
            engine.cache.put_file(&file).map_err(store)?;
        }
        Ok(known)
    }

    /// Brings all records whose trees are here; gives those trees that are layers.
    fn records(
        &self,
        trees: &HashMap<TreeId, SemanticDigest>,
        imported: &mut CacheImported,
    ) -> Result<Vec<TreeId>, CacheTransferError> {
        let (mut layers, mut seen) = (Vec::new(), HashSet::new());
        for number in 0..self.whole.record_chunks() {
            let records = self.whole.records(number, self.context.cancel);
            let Some(records) = self.part("a chunk of results", records, imported)? else { continue };
            for record in records.iter().filter(|record| record.preimage.may_travel()) {
                if trees.get(&record.tree) != Some(&record.semantic) {
                    imported.useless += 1;
                    continue;
                }
                let is_new = self.record(record).map_err(store)?;
                *(if is_new { &mut imported.results } else { &mut imported.known_results }) += 1;
                if seen.insert(record.tree) {
                    layers.push(record.tree);
                }
            }
        }
        Ok(layers)
    }

    /// Keeps a record, unless the store has one whose result is here; says whether it did.
    fn record(&self, record: &Record) -> Result<bool, StepError> {
        let engine = self.engine;
        if let Some(known) = engine.cache.get(&record.preimage.key())?
            && engine.trees.get(&known.tree)?.is_some()
        {
            return Ok(false);
        }
        engine.cache.put_first_result(&root_of(record), record)?;
        engine.cache.put(record)?;
        Ok(true)
    }

    /// Brings the files of layers, several at a time.
    fn layers(&self, layers: &[TreeId], imported: &mut CacheImported) -> Result<(), CacheTransferError> {
        let stop = self.context.cancel.child();
        let (next, brought, known) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let failure = Mutex::new(None);
        let work = || {
            while let Some(id) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.layer(id, &stop) {
                    Ok(None) => {}
                    Ok(Some(is_new)) => drop((if is_new { &brought } else { &known }).fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        lock(&failure).get_or_insert(error);
                        stop.cancel();
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..layers.len().min(PARALLEL_LAYERS) {
                scope.spawn(work);
            }
            work();
        });
        (imported.layers, imported.known_layers) = (brought.into_inner(), known.into_inner());
        unlocked(failure).map_or(Ok(()), |error| Err(store(error)))
    }

    /// Brings the files of a layer; says whether they are new, `None` if there are none to be had.
    fn layer(&self, id: &TreeId, cancel: &CancelToken) -> Result<Option<bool>, StepError> {
        let engine = self.engine;
        cancel.check()?;
        let Some(tree) = engine.trees.get(id)?.filter(|tree| !tree.is_empty()) else { return Ok(None) };
        if engine.snapshots.get_verified(&tree)?.is_some() {
            return Ok(Some(false));
        }
        if !self.imports.has_layer(id, cancel) {
            return Ok(None);
        }
        let (name, size) = (format!("layer {id}"), tree.content_size());
        self.context.status(&name, 0, Some(size), false);
        let fetched = fetch_files(self.imports, &engine.content, &engine.snapshots, &tree, cancel)?;
        self.context.status(&name, size, Some(size), true);
        Ok(fetched.map(|_| true))
    }

    /// Brings a cache mount that is not here.
    fn mount(&self, mount: &MountIdentity, imported: &mut CacheImported) -> Result<(), CacheTransferError> {
        let (engine, cancel) = (self.engine, self.context.cancel);
        let id = mount.id.clone();
        if engine.cache_mounts.list().map_err(store)?.iter().any(|known| identity_of(known) == *mount) {
            imported.known_mounts.push(id);
            return Ok(());
        }
        let restored = self.imports.mount(mount, &engine.content, &engine.snapshots, cancel);
        cancel.check()?;
        let Some(active) = restored else { return Ok(()) };
        let opened = engine.open_alone(mount, cancel).map_err(store)?;
        if opened.is_new {
            move_into(&active, &opened).map_err(store)?;
            opened.filled().map_err(store)?;
            imported.mounts.push(id);
        } else {
            imported.known_mounts.push(id);
        }
        Ok(())
    }
}
