//! [`Exporter`]: a build's records, trees and layers go where `--cache-to` says.
//!
//! 1. The manifest that is there names what need not be sent.
//! 2. Layers that the store remembers as blobs, or the destination has, are not read.
//! 3. The rest is packed and sent, a few at a time; then the index; then the manifest.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::backend::{self, Backend, Backends, BlobToPut};
use super::deadline::{Activity, Limits};
use super::format::{self, Contents, Encoded, Index, LayerFact};
use super::import::{MOST, index_of};
use super::mounts::{MountIdentity, chunks, pack};
use super::options::PATIENCE;
use super::{CacheDestination, RemoteError};
use crate::content::BlobWriter;
use crate::export::layers::{FORMAT, label_of};
use crate::export::{ExportContext, ExportError};
use crate::layer::{self, Files, LayerFormat, Level, PackOptions};
use crate::lock::{lock, unlocked};
use crate::oci::{Compression, Digest, Manifest, MediaType};
use crate::tree::{Tree, TreeId};

/// Opens the files of a layer, which may take work.
pub(crate) type OpenFiles<'a> = dyn Fn() -> Result<Arc<dyn Files + Send + Sync>, RemoteError> + Send + Sync + 'a;

/// A layer that a cache is to have.
pub(crate) struct LayerToExport<'a> {
    pub(crate) tree: Tree,
    pub(crate) files: Box<OpenFiles<'a>>,
}

/// A cache mount that a cache is to have.
#[derive(Debug, Clone)]
pub(crate) struct MountToExport {
    pub(crate) mount: MountIdentity,
    /// Its files here, if there are any and a step of this build used them: else what the destination has stays.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) used: bool,
}

/// What an export came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    /// Blobs that were sent.
    pub(crate) sent: usize,
    /// Their bytes.
    pub(crate) sent_bytes: u64,
    /// Blobs that the cache has now.
    pub(crate) blobs: usize,
    /// Layers that the cache has now.
    pub(crate) layers: usize,
    /// Layers whose files could not be read, and that are not part of the cache.
    pub(crate) left_out: usize,
}

/// Writes caches.
pub(crate) struct Exporter<'a> {
    pub(crate) context: &'a ExportContext<'a>,
    pub(crate) backends: Backends<'a>,
    /// Compression where the destination does not say.
    pub(crate) compression: Compression,
}

/// One export: what does not change while it goes on.
struct Job<'a> {
    context: &'a ExportContext<'a>,
    backend: Box<dyn Backend>,
    destination: &'a CacheDestination,
    compression: Compression,
    /// Blobs that the manifest at the destination names.
    present: HashSet<Digest>,
    /// Bytes that were packed or read for sending.
    moved: Arc<AtomicU64>,
}

/// How long a destination may take to say what it has.
fn patience<'a>(destination: &CacheDestination, activity: &'a Activity) -> Limits<'a> {
    let whole = destination.timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
    Limits { whole: Some(whole), stall: None, activity }
}

/// What was sent so far.
#[derive(Debug, Default)]
struct Sent {
    blobs: AtomicUsize,
    bytes: AtomicU64,
}

/// A layer as a blob that is at the destination, or can be sent there.
struct Ready {
    fact: LayerFact,
    bytes: Option<Mutex<BlobWriter>>,
}

impl Exporter<'_> {
    /// Brings `contents` and `layers` to a destination.
    ///
    /// # Errors
    /// Every case of [`RemoteError`] but those about reading. What was sent stays and is found by the next export.
    pub(crate) fn export(
        &self,
        destination: &CacheDestination,
        contents: &Contents,
        layers: &[LayerToExport<'_>],
        mounts: &[MountToExport],
    ) -> Result<Exported, RemoteError> {
        let activity = Arc::default();
        let limits = Limits { whole: destination.timeout, stall: destination.stall, activity: &activity };
        limits.within(self.context.cancel, |cancel| {
            let context = &ExportContext { cancel, ..*self.context };
            let (job, old) = self.open(destination, &activity, context)?;
            let (mut contents, sent) = (contents.clone(), Sent::default());
            if !mounts.is_empty() {
                job.mounts(&mut contents, mounts, old.as_deref(), &sent)?;
            }
            job.run(&contents, layers, old.as_deref(), &sent)
        })
    }
}

/// An export that has begun, while the build still runs.
pub(crate) struct EarlyExport<'a> {
    job: Job<'a>,
    /// Trees whose layers the destination has.
    there: HashSet<TreeId>,
}

impl<'a> Exporter<'a> {
    /// Begins an export before it is known what belongs to it. `moved` grows as long as something is packed or sent.
    ///
    /// # Errors
    /// Every case of [`RemoteError`].
    pub(crate) fn early(
        &self,
        destination: &'a CacheDestination,
        moved: &Arc<AtomicU64>,
    ) -> Result<EarlyExport<'a>, RemoteError> {
        let activity = Arc::default();
        let (mut job, old) = self.open(destination, &activity, self.context)?;
        job.moved = Arc::clone(moved);
        let limits = patience(destination, &activity);
        let read =
            |old: Vec<u8>| limits.within(self.context.cancel, |cancel| index_of(&*job.backend, &old, cancel)).ok();
        let index = old.and_then(read).unwrap_or_default();
        let there = index.layers.iter().filter(|layer| job.present.contains(&layer.blob.digest));
        Ok(EarlyExport { there: there.map(|layer| layer.tree).collect(), job })
    }

    /// Asks what is at a destination.
    fn open<'b>(
        &self,
        destination: &'b CacheDestination,
        activity: &Arc<Activity>,
        context: &'b ExportContext<'b>,
    ) -> Result<(Job<'b>, Option<Vec<u8>>), RemoteError> {
        let cancel = context.cancel;
        let backend = self.backends.destination(&destination.place, destination.stall, activity);
        backend.begin(cancel)?;
        let old = match patience(destination, activity).within(cancel, |cancel| backend.manifest(cancel)) {
            // Whatever else is under this name is replaced, as a push replaces it.
            Err(error) if error.is_about_blob() || matches!(error, RemoteError::Malformed { .. }) => None,
            other => other?,
        };
        let parsed = old.as_ref().and_then(|bytes| Manifest::parse(bytes, &MediaType::OCI_MANIFEST).ok());
        let named = parsed.iter().flat_map(|manifest| manifest.layers.iter().chain([&manifest.config]));
        let present = named.filter(|blob| backend.keeps(blob)).map(|blob| blob.digest.clone()).collect();
        let compression = destination.compression.unwrap_or(self.compression);
        Ok((Job { context, backend, destination, compression, present, moved: Arc::default() }, old))
    }
}

impl EarlyExport<'_> {
    /// Sends a layer, unless the destination has it.
    ///
    /// # Errors
    /// Every case of [`RemoteError`].
    pub(crate) fn send(&self, layer: &LayerToExport<'_>) -> Result<(), RemoteError> {
        if self.there.contains(&layer.tree.id()) {
            return Ok(());
        }
        let known = self.job.remembered(&layer.tree)?;
        self.job.bring(layer, known.as_ref(), &Sent::default(), &AtomicBool::new(false)).map(drop)
    }
}

impl Job<'_> {
    fn run(
        &self,
        contents: &Contents,
        layers: &[LayerToExport<'_>],
        old: Option<&[u8]>,
        sent: &Sent,
    ) -> Result<Exported, RemoteError> {
        let mut facts = layers.iter().map(|layer| self.remembered(&layer.tree)).collect::<Result<Vec<_>, _>>()?;
        let complete = |facts: &[Option<LayerFact>]| {
            let layers = facts.iter().flatten().cloned().collect();
            Contents { layers, ..contents.clone() }.encode()
        };
        let left_out = AtomicUsize::new(0);
        let exported = |manifest: &Manifest, facts: &[Option<LayerFact>]| Exported {
            sent: sent.blobs.load(Ordering::Relaxed),
            sent_bytes: sent.bytes.load(Ordering::Relaxed),
            blobs: manifest.layers.len() + 1,
            layers: facts.iter().flatten().count(),
            left_out: left_out.load(Ordering::Relaxed),
        };
        // Nothing has to be asked or sent where nothing that is named gets lost.
        let is_known = |encoded: &Encoded| old.is_some_and(|old| encoded.manifest == old);
        let is_all_there = |encoded: &Encoded, manifest: &Manifest| {
            let mut named = manifest.layers.iter().chain([&manifest.config]);
            is_known(encoded) && named.all(|blob| self.present.contains(&blob.digest))
        };
        if facts.iter().all(Option::is_some) {
            let encoded = complete(&facts);
            let manifest = Manifest::parse(&encoded.manifest, &MediaType::OCI_MANIFEST)?;
            if is_all_there(&encoded, &manifest) {
                return Ok(exported(&manifest, &facts));
            }
        }
        self.ask_destination(layers, &mut facts, old);
        let facts = Mutex::new(facts);
        self.in_parallel(layers.len(), &|number, stop| {
            let known = lock(&facts)[number].clone();
            let fact = match self.bring(&layers[number], known.as_ref(), sent, stop) {
                Ok(fact) => Some(fact),
                Err(error) if is_local(&error) => {
                    left_out.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Err(error) => return Err(error),
            };
            lock(&facts)[number] = fact;
            Ok(())
        })?;
        let facts = unlocked(facts);
        let encoded = complete(&facts);
        let manifest = Manifest::parse(&encoded.manifest, &MediaType::OCI_MANIFEST)?;
        if is_all_there(&encoded, &manifest) {
            return Ok(exported(&manifest, &facts));
        }
        self.in_parallel(encoded.documents.len(), &|number, stop| {
            let (descriptor, bytes) = &encoded.documents[number];
            let source = || Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
            self.send(&BlobToPut { descriptor, source: &source, mount_from: Vec::new() }, sent, stop)
        })?;
        if self.backend.forgets() || !is_known(&encoded) {
            self.backend.put_manifest(&manifest, &encoded.manifest, self.context.cancel)?;
        }
        Ok(exported(&manifest, &facts))
    }

    /// Sends what is new in cache mounts, and adds them to `contents`.
    fn mounts(
        &self,
        contents: &mut Contents,
        mounts: &[MountToExport],
        old: Option<&[u8]>,
        sent: &Sent,
    ) -> Result<(), RemoteError> {
        let (content, cancel) = (self.context.content, self.context.cancel);
        let index = old.map(|old| index_of(&*self.backend, old, cancel).unwrap_or_default()).unwrap_or_default();
        let stop = AtomicBool::new(false);
        for mount in mounts {
            let there = index.mounts.iter().find(|fact| fact.mount == mount.mount);
            let there = there.filter(|fact| self.present.contains(&fact.list.blob.digest));
            let directory = mount.directory.as_ref().filter(|_| mount.used || there.is_none());
            let packed = match directory {
                Some(directory) => {
                    let known = there.and_then(|fact| Some((fact, chunks(&*self.backend, fact, cancel).ok()?)));
                    pack(&mount.mount, directory, known, content, cancel)?
                }
                None => None,
            };
            let Some(packed) = packed else {
                // Unchanged, or not here: what is there stays.
                if let Some(fact) = there
                    && let Some(tree) = self.tree_there(&index, &fact.tree)
                {
                    contents.trees.push(tree);
                    contents.mounts.push(fact.clone());
                }
                continue;
            };
            for (descriptor, writer) in &packed.packs {
                let source = || {
                    let file = lock(writer).reopen();
                    file.map(|file| Box::new(file) as Box<dyn Read + Send>).map_err(io::Error::other)
                };
                self.send(&BlobToPut { descriptor, source: &source, mount_from: Vec::new() }, sent, &stop)?;
            }
            let (descriptor, bytes) = &packed.list;
            let source = || Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
            self.send(&BlobToPut { descriptor, source: &source, mount_from: Vec::new() }, sent, &stop)?;
            contents.trees.push(packed.tree);
            contents.mounts.push(packed.fact);
        }
        Ok(())
    }

    /// A tree that the destination has.
    fn tree_there(&self, index: &Index, id: &TreeId) -> Option<Tree> {
        let chunk = index.trees.iter().find(|chunk| chunk.trees.iter().any(|span| span.id == *id))?;
        let span = chunk.trees.iter().find(|span| span.id == *id)?;
        let bytes = backend::read(&*self.backend, &chunk.chunk.blob, MOST, self.context.cancel).ok()?;
        format::tree(&format::exact(&bytes, &chunk.chunk).ok()?, span).ok()
    }

    /// The blob that a tree was packed into before.
    fn remembered(&self, tree: &Tree) -> Result<Option<LayerFact>, RemoteError> {
        let database = self.context.content.database();
        let Some(diff_id) = database.packed_tree(tree.id().as_bytes(), FORMAT)? else { return Ok(None) };
        let (compression, format) = (self.compression, self.label());
        let blob = database.layer_blob(&diff_id, compression, &format)?;
        Ok(blob.map(|blob| LayerFact { tree: tree.id(), diff_id, compression, format, blob }))
    }

    fn label(&self) -> String {
        label_of(self.destination.level)
    }

    /// Takes what the destination says of layers that it has.
    fn ask_destination(&self, layers: &[LayerToExport<'_>], facts: &mut [Option<LayerFact>], old: Option<&[u8]>) {
        let present =
            |fact: &Option<LayerFact>| fact.as_ref().is_some_and(|fact| self.present.contains(&fact.blob.digest));
        let Some(old) = old.filter(|_| !facts.iter().all(present)) else { return };
        // An index that cannot be read is no reason not to write a better one.
        let index = index_of(&*self.backend, old, self.context.cancel).unwrap_or_else(|_| Index::default());
        for (layer, fact) in layers.iter().zip(facts) {
            if present(fact) {
                continue;
            }
            let tree = layer.tree.id();
            let same = |there: &&LayerFact| there.compression == self.compression && there.format == self.label();
            let fits = |there: &&LayerFact| same(there) || !self.destination.force_compression;
            let mut there = index.layers.iter().filter(|there| there.tree == tree && fits(there));
            if let Some(found) = there.find(|there| self.present.contains(&there.blob.digest)) {
                *fact = Some(found.clone());
            }
        }
    }

    /// Sees to it that the destination has a layer.
    fn bring(
        &self,
        layer: &LayerToExport<'_>,
        known: Option<&LayerFact>,
        sent: &Sent,
        stop: &AtomicBool,
    ) -> Result<LayerFact, RemoteError> {
        let cancel = self.context.cancel;
        if let Some(fact) = known
            && (self.present.contains(&fact.blob.digest) || self.backend.has(&fact.blob, cancel)?)
        {
            return Ok(fact.clone());
        }
        // Packed only if it cannot be mounted.
        let ready = Mutex::new(None);
        let make = || -> Result<Box<dyn Read + Send>, RemoteError> {
            let mut ready = lock(&ready);
            if ready.is_none() {
                *ready = Some(self.pack(layer, known)?);
            }
            let made = ready.as_ref().expect("made just now");
            if known.is_some_and(|fact| fact.blob.digest != made.fact.blob.digest) {
                let reason = "packing it again gave other bytes".to_owned();
                return Err(RemoteError::Damaged { digest: made.fact.blob.digest.clone(), reason });
            }
            self.open(made)
        };
        let fact = if let Some(fact) = known {
            fact.clone()
        } else {
            make()?;
            lock(&ready).as_ref().expect("made just now").fact.clone()
        };
        let source = || make().map_err(io::Error::other);
        let mount_from = self.context.content.database().blob_sources(&fact.blob.digest)?;
        let result = self.send(&BlobToPut { descriptor: &fact.blob, source: &source, mount_from }, sent, stop);
        let made = unlocked(ready);
        match (result, made) {
            (Ok(()), _) => Ok(fact),
            // A cache that was read had said something wrong of it.
            (Err(_), Some(made)) if made.fact.blob.digest != fact.blob.digest => {
                let source = || self.open(&made).map_err(io::Error::other);
                let blob = BlobToPut { descriptor: &made.fact.blob, source: &source, mount_from: Vec::new() };
                self.send(&blob, sent, stop)?;
                Ok(made.fact)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Packs a layer, or finds the blob that it was packed into.
    fn pack(&self, layer: &LayerToExport<'_>, known: Option<&LayerFact>) -> Result<Ready, RemoteError> {
        let content = self.context.content;
        if let Some(fact) = known
            && content.has(&fact.blob.digest)? == Some(fact.blob.size)
        {
            return Ok(Ready { fact: fact.clone(), bytes: None });
        }
        let files = (layer.files)()?;
        let mut writer = content.writer()?;
        let level = self.destination.level.and_then(|level| Level::new(self.compression, u8::try_from(level).ok()?));
        let format = LayerFormat { compression: self.compression, level, docker_media_types: false };
        let out = Cancellable { out: &mut writer, cancel: self.context.cancel, moved: &self.moved };
        let made = layer::write_layer(&layer.tree, &*files, &format, &PackOptions::default(), out)
            .map_err(|source| ExportError::Pack { layer: 0, source })?;
        let (tree, database) = (layer.tree.id(), content.database());
        let (compression, format) = (self.compression, self.label());
        database.put_packed_tree(tree.as_bytes(), FORMAT, &made.diff_id)?;
        database.put_layer_blob(&made.diff_id, compression, &format, &made.descriptor)?;
        let fact = LayerFact { tree, diff_id: made.diff_id, compression, format, blob: made.descriptor };
        Ok(Ready { fact, bytes: Some(Mutex::new(writer)) })
    }

    fn open(&self, ready: &Ready) -> Result<Box<dyn Read + Send>, RemoteError> {
        Ok(match &ready.bytes {
            Some(writer) => Box::new(lock(writer).reopen()?),
            None => Box::new(self.context.content.open_blob(&ready.fact.blob.digest)?),
        })
    }

    /// Sends a blob that the destination lacks.
    fn send(&self, blob: &BlobToPut<'_>, sent: &Sent, stop: &AtomicBool) -> Result<(), RemoteError> {
        let cancel = self.context.cancel;
        let descriptor = blob.descriptor;
        if stop.load(Ordering::Relaxed) || self.present.contains(&descriptor.digest) {
            return Ok(());
        }
        if !self.backend.has(descriptor, cancel)? {
            let source = || Ok(Box::new(Moving { bytes: (blob.source)()?, moved: Arc::clone(&self.moved) }) as Box<_>);
            let moving = BlobToPut { descriptor, source: &source, mount_from: blob.mount_from.clone() };
            self.backend.put(&moving, cancel).map_err(unwrapped)?;
            let size = descriptor.size;
            sent.blobs.fetch_add(1, Ordering::Relaxed);
            sent.bytes.fetch_add(size, Ordering::Relaxed);
            self.context.status(format!("sending {}", descriptor.digest), size, Some(size), true);
        }
        if let Some(repository) = self.backend.repository() {
            self.context.content.database().put_blob_source(&descriptor.digest, &repository)?;
        }
        Ok(())
    }

    /// Does something for each number with a few threads; the first error stops the others.
    fn in_parallel(
        &self,
        count: usize,
        work: &(dyn Fn(usize, &AtomicBool) -> Result<(), RemoteError> + Sync),
    ) -> Result<(), RemoteError> {
        let (stop, next, first) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(None));
        let run = || {
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let done = self.context.cancel.check().map_err(RemoteError::from).and_then(|()| work(number, &stop));
                if let Err(error) = done
                    && !stop.swap(true, Ordering::Relaxed)
                {
                    *lock(&first) = Some(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.backend.workers().min(count) {
                scope.spawn(run);
            }
            run();
        });
        unlocked(first).map_or(Ok(()), Err)
    }
}

/// An error of a source is what it was before it went through a backend.
fn unwrapped(error: RemoteError) -> RemoteError {
    use crate::registry::RegistryError;
    let source = match error {
        RemoteError::Registry(RegistryError::Source { source, .. }) | RemoteError::Access { source, .. }
            if source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<RemoteError>) =>
        {
            source
        }
        other => return other,
    };
    match source.downcast::<RemoteError>() {
        Ok(inner) => inner,
        Err(source) => RemoteError::Access { path: std::path::PathBuf::new(), source },
    }
}

/// Whether the files of a layer cannot be read here; then the cache goes without it.
fn is_local(error: &RemoteError) -> bool {
    !error.is_cancelled()
        && matches!(error, RemoteError::Export(_) | RemoteError::NoFiles { .. } | RemoteError::Damaged { .. })
}

/// Counts what is read.
struct Moving {
    bytes: Box<dyn Read + Send>,
    moved: Arc<AtomicU64>,
}

impl Read for Moving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.moved.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Ends a stream when the build is cancelled, and counts it.
struct Cancellable<'a, W> {
    out: W,
    moved: &'a AtomicU64,
    cancel: &'a crate::cancel::CancelToken,
}

impl<W: io::Write> io::Write for Cancellable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let count = self.out.write(bytes)?;
        self.moved.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The layers of `trees` by their ids, each once.
pub(crate) fn distinct(layers: Vec<LayerToExport<'_>>) -> Vec<LayerToExport<'_>> {
    let mut seen: HashSet<TreeId> = HashSet::new();
    layers.into_iter().filter(|layer| !layer.tree.is_empty() && seen.insert(layer.tree.id())).collect()
}
