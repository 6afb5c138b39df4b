//! [`Imports`]: what `--cache-from` knows, fetched as far as somebody asks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backend::{self, Backend, Backends};
use super::deadline::{Activity, Limits};
use super::format::{self, Index, LayerFact};
use super::inline::Inline;
use super::mounts::MountIdentity;
use super::{CacheSource, RemoteError};
use crate::cache::{CacheKey, Record};
use crate::cancel::CancelToken;
use crate::content::ContentStore;
use crate::diagnostic;
use crate::lock::lock;
use crate::oci::{DiffId, Digest, Manifest, MediaKind, MediaType, Platform};
use crate::snapshot::{Active, SnapshotStore};
use crate::tree::{ContentDigest, SemanticDigest, Stack, StateDigest, Tree, TreeId};

/// Largest index or chunk that is fetched, in bytes.
pub(super) const MOST: u64 = 128 << 20;

/// Largest config of an image that is read, in bytes.
const MOST_CONFIG: u64 = 16 << 20;

/// Slowest transfer that is waited for, in bytes per second: running a step is mostly quicker.
const SLOWEST: u64 = 128 << 10;

/// The caches that a build may use, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct Imports {
    pub(super) sources: Vec<Source>,
    warnings: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Source {
    backend: Box<dyn Backend>,
    /// Those of the build.
    platforms: Vec<Platform>,
    timeout: Duration,
    stall: Option<Duration>,
    activity: Arc<Activity>,
    pub(super) state: Mutex<State>,
    /// Blobs that turned out to be missing or wrong.
    bad: Mutex<HashSet<Digest>>,
}

#[derive(Debug)]
pub(super) enum State {
    /// Nobody asked yet.
    Unasked,
    Loaded(Arc<Loaded>),
    /// There is no cache.
    Empty,
    /// It is not asked again, for this reason.
    Failed(String),
}

/// An index, made ready for questions, and the chunks that were fetched.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) index: Index,
    /// Numbers of chunks, by the short form of a key.
    keys: HashMap<String, usize>,
    /// Numbers of chunk and span.
    trees: HashMap<TreeId, (usize, usize)>,
    /// Numbers of layers.
    pub(super) layers: HashMap<TreeId, Vec<usize>>,
    records: Mutex<HashMap<usize, Arc<Vec<Record>>>>,
    chunks: Mutex<HashMap<usize, Arc<Vec<u8>>>>,
}

/// A layer that a source has as a blob.
#[derive(Debug, Clone)]
pub(crate) struct RemoteLayer<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) limits: Limits<'a>,
    /// What is known of it.
    pub(crate) fact: LayerFact,
    source: usize,
}

impl RemoteLayer<'_> {
    /// The repository (`domain/path`) that has it.
    pub(crate) fn repository(&self) -> Option<String> {
        self.backend.repository()
    }
}

impl Imports {
    /// Names the sources; nothing is fetched.
    ///
    /// Where an image carries a cache it is that of one of these platforms which is read.
    pub(crate) fn new(backends: Backends<'_>, sources: &[CacheSource], platforms: &[Platform]) -> Self {
        let source = |source: &CacheSource| {
            let activity = Arc::default();
            Source {
                backend: backends.source(&source.place, source.timeout, &activity),
                platforms: platforms.to_vec(),
                timeout: source.timeout,
                stall: source.stall,
                activity,
                state: Mutex::new(State::Unasked),
                bad: Mutex::default(),
            }
        };
        Self { sources: sources.iter().map(source).collect(), warnings: Mutex::default() }
    }

    /// Whether there is nobody to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// What went wrong since the last call.
    pub(crate) fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.warnings))
    }

    /// Looks a key up.
    pub(crate) fn record(&self, key: &CacheKey, cancel: &CancelToken) -> Option<(Record, Tree)> {
        self.first(cancel, |source, loaded, cancel| source.record(loaded, key, cancel))
    }

    /// The record that gave this result on this root filesystem, in a source whose index is loaded already.
    pub(crate) fn first_result(
        &self,
        root: &StateDigest,
        result: &SemanticDigest,
        cancel: &CancelToken,
    ) -> Option<(Record, Tree)> {
        self.first(cancel, |source, loaded, cancel| {
            for chunk in 0..loaded.index.records.len() {
                let records = source.records(loaded, chunk, cancel)?;
                let found = records.iter().find(|record| record.semantic == *result && root_of(record) == *root);
                if let Some(record) = found {
                    return source.with_tree(loaded, record, cancel);
                }
            }
            Ok(None)
        })
    }

    /// The tree of a layer of a base image, under the first of its names that is known.
    pub(crate) fn base_tree(&self, names: [&DiffId; 2], cancel: &CancelToken) -> Option<(DiffId, Tree)> {
        self.first(cancel, |source, loaded, cancel| {
            let named = |name: &DiffId| loaded.index.bases.iter().find(|base| base.layer == *name);
            let Some(base) = names.into_iter().find_map(named) else { return Ok(None) };
            Ok(source.tree(loaded, &base.tree, cancel)?.map(|tree| (base.layer.clone(), tree)))
        })
    }

    /// Makes the files of a cache mount in a new directory, if a source has it.
    pub(crate) fn mount(
        &self,
        mount: &MountIdentity,
        content: &ContentStore,
        snapshots: &SnapshotStore,
        cancel: &CancelToken,
    ) -> Option<Active> {
        self.first(cancel, |source, loaded, cancel| {
            let Some(fact) = loaded.index.mounts.iter().find(|fact| fact.mount == *mount) else { return Ok(None) };
            let Some(tree) = source.tree(loaded, &fact.tree, cancel)? else { return Ok(None) };
            let bytes: u64 = fact.packs.iter().map(|pack| pack.size).sum();
            let restored = source.limits(bytes).within(cancel, |cancel| {
                super::mounts::restore(&*source.backend, fact, &tree, content, snapshots, cancel)
            });
            match restored {
                Err(error) if error.is_about_blob() => {
                    let name = source.backend.name();
                    let warning =
                        format!("cache mount `{}` of cache `{name}` is not used: {}", mount.id, chain(&error));
                    lock(&self.warnings).push(warning);
                    Ok(None)
                }
                other => other.map(Some),
            }
        })
    }

    /// A small file.
    pub(crate) fn file(&self, digest: &ContentDigest, cancel: &CancelToken) -> Option<Vec<u8>> {
        self.first(cancel, |_, loaded, _| {
            let found = loaded.index.files.get(&digest.to_string());
            Ok(found.and_then(|text| format::file(digest, text)))
        })
    }

    /// The sources that have the files of a tree, in order.
    pub(crate) fn layers(&self, tree: &TreeId, cancel: &CancelToken) -> Vec<RemoteLayer<'_>> {
        let mut found = Vec::new();
        for (number, source) in self.sources.iter().enumerate() {
            let Some(loaded) = self.load(source, cancel) else { continue };
            let facts = loaded.layers.get(tree).into_iter().flatten().map(|number| &loaded.index.layers[*number]);
            let facts = facts.filter(|fact| !lock(&source.bad).contains(&fact.blob.digest));
            found.extend(facts.map(|fact| RemoteLayer {
                backend: &*source.backend,
                limits: source.limits(fact.blob.size),
                fact: fact.clone(),
                source: number,
            }));
        }
        found
    }

    /// Gives up a layer or, if it is not the layer's fault, its source; for the rest of the build, and says why once.
    pub(super) fn give_up(&self, layer: &RemoteLayer<'_>, error: &RemoteError) {
        let source = &self.sources[layer.source];
        if !error.is_about_blob() {
            return self.fail(source, error);
        }
        lock(&source.bad).insert(layer.fact.blob.digest.clone());
        let warning = format!("a layer of cache `{}` is not used: {}", source.backend.name(), chain(error));
        lock(&self.warnings).push(warning);
    }

    pub(super) fn fail(&self, source: &Source, error: &RemoteError) {
        *lock(&source.state) = State::Failed(chain(error));
        if !error.is_cancelled() {
            let warning = format!("cache `{}` is not used any further: {}", source.backend.name(), chain(error));
            lock(&self.warnings).push(warning);
        }
    }

    /// Asks the sources one after the other; one that fails is not asked again.
    fn first<T>(
        &self,
        cancel: &CancelToken,
        ask: impl Fn(&Source, &Loaded, &CancelToken) -> Result<Option<T>, RemoteError>,
    ) -> Option<T> {
        for source in &self.sources {
            let Some(loaded) = self.load(source, cancel) else { continue };
            match ask(source, &loaded, cancel) {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(error) => self.fail(source, &error),
            }
        }
        None
    }

    /// The index of a source, fetched at the first call; others wait meanwhile.
    pub(super) fn load(&self, source: &Source, cancel: &CancelToken) -> Option<Arc<Loaded>> {
        source.loaded(cancel).unwrap_or_else(|error| {
            self.fail(source, &error);
            None
        })
    }

    /// The source that is asked first.
    pub(super) fn first_source(&self) -> Option<&Source> {
        self.sources.first()
    }
}

/// The root filesystem that a step started from: its key has it only where it matters.
pub(crate) fn root_of(record: &Record) -> StateDigest {
    let field = record.preimage.fields.iter().rev().find(|field| field.name == "root");
    field.and_then(|field| field.value.parse().ok()).unwrap_or_else(|| Stack::default().state())
}

impl Source {
    pub(super) fn reach(&self) -> (&dyn Backend, Limits<'_>) {
        (&*self.backend, self.limits(0))
    }

    /// How long it may take to bring so many bytes of files.
    fn limits(&self, bytes: u64) -> Limits<'_> {
        let whole = self.timeout.saturating_add(Duration::from_secs(bytes / SLOWEST));
        Limits { whole: Some(whole), stall: self.stall, activity: &self.activity }
    }

    /// The index, fetched at the first call; `None` for a place without a cache, or one that failed.
    pub(super) fn loaded(&self, cancel: &CancelToken) -> Result<Option<Arc<Loaded>>, RemoteError> {
        let mut state = lock(&self.state);
        if matches!(*state, State::Unasked) {
            *state = self.load(cancel)?.map_or(State::Empty, |loaded| State::Loaded(Arc::new(loaded)));
        }
        Ok(match &*state {
            State::Loaded(loaded) => Some(Arc::clone(loaded)),
            State::Unasked | State::Empty | State::Failed(_) => None,
        })
    }

    fn load(&self, cancel: &CancelToken) -> Result<Option<Loaded>, RemoteError> {
        self.limits(0).within(cancel, |cancel| load(&*self.backend, &self.platforms, cancel))
    }

    /// Looks a key up.
    pub(super) fn record(
        &self,
        loaded: &Loaded,
        key: &CacheKey,
        cancel: &CancelToken,
    ) -> Result<Option<(Record, Tree)>, RemoteError> {
        let Some(chunk) = loaded.keys.get(&format::short(key)) else { return Ok(None) };
        let records = self.records(loaded, *chunk, cancel)?;
        let Some(record) = records.iter().find(|record| record.preimage.key() == *key) else { return Ok(None) };
        self.with_tree(loaded, record, cancel)
    }

    pub(super) fn records(
        &self,
        loaded: &Loaded,
        number: usize,
        cancel: &CancelToken,
    ) -> Result<Arc<Vec<Record>>, RemoteError> {
        if let Some(known) = loaded.known_records(number) {
            return Ok(known);
        }
        let chunk = &loaded.index.records[number].chunk;
        let bytes = self.fetch(chunk, cancel)?;
        let records = Arc::new(format::records(&bytes, chunk)?);
        lock(&loaded.records).insert(number, Arc::clone(&records));
        Ok(records)
    }

    /// A record with its tree; one whose tree is missing or another one is useless.
    pub(super) fn with_tree(
        &self,
        loaded: &Loaded,
        record: &Record,
        cancel: &CancelToken,
    ) -> Result<Option<(Record, Tree)>, RemoteError> {
        let Some(tree) = self.tree(loaded, &record.tree, cancel)? else { return Ok(None) };
        if tree.semantic() != record.semantic {
            return Err(RemoteError::malformed("a record names another tree than its own"));
        }
        Ok(Some((record.clone(), tree)))
    }

    fn tree(&self, loaded: &Loaded, id: &TreeId, cancel: &CancelToken) -> Result<Option<Tree>, RemoteError> {
        let Some((number, span)) = loaded.trees.get(id) else { return Ok(None) };
        let of_chunk = &loaded.index.trees[*number];
        let raw = if let Some(known) = loaded.known_trees(*number) {
            known
        } else {
            let raw = Arc::new(format::exact(&self.fetch(&of_chunk.chunk, cancel)?, &of_chunk.chunk)?);
            lock(&loaded.chunks).insert(*number, Arc::clone(&raw));
            raw
        };
        format::tree(&raw, &of_chunk.trees[*span]).map(Some)
    }

    fn fetch(&self, chunk: &format::Chunk, cancel: &CancelToken) -> Result<Vec<u8>, RemoteError> {
        self.limits(0).within(cancel, |cancel| backend::read(&*self.backend, &chunk.blob, MOST, cancel))
    }
}

/// Fetches the index of a place, or what its images carry; `None` if there is nothing.
fn load(backend: &dyn Backend, platforms: &[Platform], cancel: &CancelToken) -> Result<Option<Loaded>, RemoteError> {
    let mut inline = Inline::default();
    for manifest in backend.manifests(platforms, cancel)? {
        backend::refuse_buildkit_manifest(&manifest)?;
        if manifest.config.media_type.kind() != MediaKind::Config {
            return read_index(backend, &manifest, cancel).map(Loaded::new).map(Some);
        }
        inline.add(&backend::read(backend, &manifest.config, MOST_CONFIG, cancel)?, &manifest)?;
    }
    Ok(if inline.is_empty() { None } else { Some(Loaded::with(inline)) })
}

/// Fetches the index that a manifest names.
pub(super) fn index_of(backend: &dyn Backend, manifest: &[u8], cancel: &CancelToken) -> Result<Index, RemoteError> {
    read_index(backend, &Manifest::parse(manifest, &MediaType::OCI_MANIFEST)?, cancel)
}

fn read_index(backend: &dyn Backend, manifest: &Manifest, cancel: &CancelToken) -> Result<Index, RemoteError> {
    if manifest.config.media_type.as_str() != format::INDEX {
        return Err(RemoteError::malformed(format!("its config is of type `{}`", manifest.config.media_type)));
    }
    Index::decode(&backend::read(backend, &manifest.config, MOST, cancel)?)
}

impl Loaded {
    /// A chunk of records that was fetched already.
    pub(super) fn known_records(&self, number: usize) -> Option<Arc<Vec<Record>>> {
        lock(&self.records).get(&number).map(Arc::clone)
    }

    /// A chunk of trees that was fetched already.
    pub(super) fn known_trees(&self, number: usize) -> Option<Arc<Vec<u8>>> {
        lock(&self.chunks).get(&number).map(Arc::clone)
    }

    /// What images carry: nothing but layers is left to fetch.
    fn with(inline: Inline) -> Self {
        let loaded = Self::new(inline.index);
        lock(&loaded.records).extend(inline.records.into_iter().map(Arc::new).enumerate());
        lock(&loaded.chunks).extend(inline.trees.into_iter().map(Arc::new).enumerate());
        loaded
    }

    fn new(index: Index) -> Self {
        let mut keys = HashMap::new();
        for (number, chunk) in index.records.iter().enumerate() {
            keys.extend(chunk.keys.iter().map(|key| (key.clone(), number)));
        }
        let mut trees = HashMap::new();
        for (number, chunk) in index.trees.iter().enumerate() {
            trees.extend(chunk.trees.iter().enumerate().map(|(span, tree)| (tree.id, (number, span))));
        }
        let mut layers: HashMap<TreeId, Vec<usize>> = HashMap::new();
        for (number, layer) in index.layers.iter().enumerate() {
            layers.entry(layer.tree).or_default().push(number);
        }
        Self { index, keys, trees, layers, records: Mutex::default(), chunks: Mutex::default() }
    }
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &RemoteError) -> String {
    diagnostic::chain(error)
}

#[cfg(test)]
mod tests {
    use super::super::tree_with;
    use super::*;
    use crate::cache::Preimage;
    use crate::export::{ExportContext, ExportError};
    use crate::oci::{Compression, Digest};
    use crate::progress::{Silent, TaskId};
    use crate::registry::{Registry, RegistryConfig};
    use crate::remote::format::Base;
    use crate::remote::{CacheDestination, Contents, Exporter, MountToExport};
    use crate::tree::TreeStore;

    fn record(number: usize, root: Option<StateDigest>) -> (Record, Tree) {
        let tree = tree_with(&format!("/{number}"));
        let mut preimage = Preimage::new("run");
        preimage.add("argument 0", number);
        if let Some(root) = root {
            preimage.add("root", root);
        }
        (
            Record {
                preimage,
                tree: tree.id(),
                semantic: tree.semantic(),
                created: 1,
                milliseconds: Some(2),
                ran: None,
            },
            tree,
        )
    }

    /// Writes a cache into a directory.
    fn export(state: &std::path::Path, contents: &Contents, mounts: &[MountToExport]) -> Result<(), ExportError> {
        let content = ContentStore::open(&state.join("store"))?;
        let (snapshots, trees) = (SnapshotStore::new(state), TreeStore::new(state));
        let (registry, cancel) = (Registry::new(RegistryConfig::default()), CancelToken::new());
        let context = ExportContext {
            content: &content,
            snapshots: &snapshots,
            trees: &trees,
            registry: &registry,
            cancel: &cancel,
            sink: &Silent,
            task: TaskId(1),
            source_date_epoch: None,
            multi_platform: false,
            stdout: None,
        };
        let backends = Backends { registry: &registry };
        let exporter = Exporter { context: &context, backends, compression: Compression::Gzip };
        let text = format!("type=local,dest={}", state.join("cache").display());
        let destination = CacheDestination::parse(&text, &|_| None).expect("valid");
        exporter.export(&destination, contents, &[], mounts).expect("written");
        Ok(())
    }

    #[test]
    fn what_was_written_is_found_by_every_question() {
        let state = tempfile::tempdir().expect("temporary directory");
        let root = Stack::new(vec![tree_with("/root")]).state();
        let mut contents = Contents::default();
        for number in 0..1000 {
            let (record, tree) = record(number, (number % 2 == 0).then_some(root));
            contents.records.push(record);
            contents.trees.push(tree);
        }
        let (layer, base) = (DiffId::new(Digest::sha256(b"layer")), tree_with("/base"));
        contents.bases.push(Base { layer: layer.clone(), tree: base.id() });
        contents.trees.push(base.clone());
        contents.files.insert(ContentDigest::of(b"root:x:0:0"), b"root:x:0:0".to_vec());
        export(state.path(), &contents, &[]).expect("a store");

        let registry = Registry::new(RegistryConfig::default());
        let source = |name: &str| {
            let text = format!("type=local,src={}", state.path().join(name).display());
            CacheSource::parse(&text, &|_| None).expect("valid")
        };
        let cancel = CancelToken::new();
        // A place without a cache is asked first, and is no reason to warn.
        let imports =
            Imports::new(Backends { registry: &registry }, &[source("nothing"), source("cache")], &[Platform::host()]);
        for expected in &contents.records {
            let (found, tree) = imports.record(&expected.preimage.key(), &cancel).expect("known");
            assert_eq!((&found, tree.id()), (expected, expected.tree));
        }
        assert!(imports.record(&Preimage::new("other").key(), &cancel).is_none());
        let expected = &contents.records[4];
        assert_eq!(imports.first_result(&root, &expected.semantic, &cancel).expect("known").0, *expected);
        assert!(imports.first_result(&Stack::default().state(), &expected.semantic, &cancel).is_none());
        let plain = &contents.records[5];
        assert!(imports.first_result(&Stack::default().state(), &plain.semantic, &cancel).is_some());
        let other = DiffId::new(Digest::sha256(b"other"));
        assert_eq!(imports.base_tree([&other, &layer], &cancel), Some((layer, base)));
        assert!(imports.base_tree([&other, &other], &cancel).is_none());
        assert_eq!(imports.file(&ContentDigest::of(b"root:x:0:0"), &cancel).as_deref(), Some(&b"root:x:0:0"[..]));
        assert_eq!(imports.warnings(), [""; 0]);
    }

    #[test]
    fn a_source_that_lies_is_given_up_with_one_warning() {
        let state = tempfile::tempdir().expect("temporary directory");
        let (first, tree) = record(1, None);
        let (second, _) = record(2, None);
        // The record of one key with the tree of another one.
        let lie = Record { semantic: second.semantic, ..first.clone() };
        let contents = Contents { records: vec![lie, second.clone()], trees: vec![tree], ..Contents::default() };
        export(state.path(), &contents, &[]).expect("a store");
        let registry = Registry::new(RegistryConfig::default());
        let text = format!("type=local,src={}", state.path().join("cache").display());
        let source = CacheSource::parse(&text, &|_| None).expect("valid");
        let imports = Imports::new(Backends { registry: &registry }, &[source], &[Platform::host()]);
        let cancel = CancelToken::new();
        assert!(imports.record(&second.preimage.key(), &cancel).is_none(), "its tree is not there");
        assert_eq!(imports.warnings(), [""; 0]);
        assert!(imports.record(&first.preimage.key(), &cancel).is_none());
        let warnings = imports.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].ends_with("a record names another tree than its own"), "{warnings:?}");
        assert!(imports.record(&first.preimage.key(), &cancel).is_none());
        assert_eq!(imports.warnings(), [""; 0], "it is not asked again");
    }
}
