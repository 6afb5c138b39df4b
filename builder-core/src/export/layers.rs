//! [`Layers`]: the layers of one image as diff ids and as blobs, each made at most once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::context::Progress;
use super::root::clamp;
use super::{ExportContext, ExportError, ImageFormat};
use crate::cancel::CancelToken;
use crate::content::{BlobWriter, ContentError};
use crate::image::{ImageLayer, LayerSource, UnassembledImage};
use crate::layer::{self, Compressor, Decompressor, Files, LayerFormat, Level, PackOptions, Resume, ResumeError};
use crate::lock::{lock, unlocked};
use crate::oci::{Compression, Descriptor, DiffId, Digest, Hasher, MediaKind, MediaType, Reference};
use crate::tree::{Entry, Tree, TreeId};

/// Version of the bytes that packing and compressing give; raised whenever they change, so that nothing remembered
/// is taken for what would be made now.
pub(crate) const FORMAT: &str = "1";

/// Blobs that are fetched at the same time.
const FETCHES: usize = 4;

/// The layers of an image.
pub(crate) struct Layers<'a> {
    context: &'a ExportContext<'a>,
    all: Vec<Layer<'a>>,
    packed: Mutex<Packed>,
}

/// Blobs by the number of their layer, compression and level.
type Packed = HashMap<(usize, Compression, Option<i32>), LayerBlob>;

struct Layer<'a> {
    source: &'a ImageLayer,
    /// The tree of a layer that was made here, its times already bounded.
    tree: Option<Tree>,
    diff_id: OnceLock<DiffId>,
}

/// A layer as a blob.
#[derive(Debug, Clone)]
pub(crate) struct LayerBlob {
    /// The blob.
    pub(crate) descriptor: Descriptor,
    /// Where its bytes are.
    pub(crate) place: Place,
    /// Where it came from.
    pub(crate) origin: Option<Reference>,
}

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In the content store.
    Store,
    /// In a file that goes away with the last of its users.
    Temporary(Arc<Mutex<BlobWriter>>),
    /// In a registry.
    Origin(Reference),
    /// Nowhere yet: they were made before, and would be the same again.
    Remembered,
}

/// Whether the bytes of a blob are wanted, or just what they would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Bytes,
    Descriptor,
}

impl<'a> Layers<'a> {
    /// The layers of `image`; no file of a new one is younger than `epoch`, seconds since 1970.
    pub(crate) fn new(context: &'a ExportContext<'a>, image: &'a UnassembledImage, epoch: Option<i64>) -> Self {
        let layers = image.layers.iter().enumerate().map(|(index, source)| {
            let bounded = epoch.filter(|_| index >= image.base_layers);
            let tree = match &source.source {
                LayerSource::Tree { tree, .. } => {
                    Some(bounded.map_or_else(|| tree.clone(), |epoch| clamp(tree, epoch)))
                }
                LayerSource::Stored { .. } => None,
            };
            let same = match (&source.source, &tree) {
                (LayerSource::Tree { tree: before, .. }, Some(tree)) => before.id() == tree.id(),
                _ => true,
            };
            let diff_id = source.diff_id.clone().filter(|_| same).map_or_else(OnceLock::new, OnceLock::from);
            Layer { source, tree, diff_id }
        });
        Self { context, all: layers.collect(), packed: Mutex::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The tree of a layer that was made here, and what opens its files.
    pub(crate) fn built(&self, index: usize) -> Option<(&Tree, &Arc<dyn Files + Send + Sync>)> {
        match (&self.all[index].source.source, &self.all[index].tree) {
            (LayerSource::Tree { files, .. }, Some(tree)) => Some((tree, files)),
            _ => None,
        }
    }

    /// The blob of a layer as it was pulled.
    pub(crate) fn pulled(&self, index: usize) -> Option<&Descriptor> {
        match &self.all[index].source.source {
            LayerSource::Stored { descriptor, .. } => descriptor.as_ref(),
            LayerSource::Tree { .. } => None,
        }
    }

    /// Where a layer came from.
    pub(crate) fn origin(&self, index: usize) -> Option<&Reference> {
        match &self.all[index].source.source {
            LayerSource::Stored { origin, .. } => origin.as_ref(),
            LayerSource::Tree { .. } => None,
        }
    }

    /// All diff ids, lowest first; files are read only for layers that were never packed.
    pub(crate) fn diff_ids(&self) -> Result<Vec<DiffId>, ExportError> {
        (0..self.all.len()).map(|index| self.diff_id(index)).collect()
    }

    /// Says whether no layer has to be read for its diff id.
    pub(crate) fn all_known(&self) -> bool {
        (0..self.all.len()).all(|index| matches!(self.known_diff_id(index), Ok(Some(_))))
    }

    pub(crate) fn diff_id(&self, index: usize) -> Result<DiffId, ExportError> {
        if let Some(known) = self.known_diff_id(index)? {
            return Ok(known);
        }
        let (tree, files) = self.files(index)?;
        let resume = Resume { database: self.context.database(), format: FORMAT, cancel: self.context.cancel };
        let diff_id = match resume.diff_id(&tree, &*files, &PackOptions::default()) {
            Err(ResumeError::Pack(error)) => return Err(self.pack_error(index, error)),
            Err(ResumeError::Content(error)) => return Err(error.into()),
            Ok(diff_id) => diff_id,
        };
        self.learn_diff_id(index, &diff_id)?;
        Ok(diff_id)
    }

    fn known_diff_id(&self, index: usize) -> Result<Option<DiffId>, ExportError> {
        let layer = &self.all[index];
        if let Some(known) = layer.diff_id.get() {
            return Ok(Some(known.clone()));
        }
        let Some(tree) = &layer.tree else { return Ok(None) };
        let known = self.context.database().packed_tree(tree.id().as_bytes(), FORMAT)?;
        if let Some(known) = &known {
            let _ = layer.diff_id.set(known.clone());
        }
        Ok(known)
    }

    /// Remembers the diff id that packing gave; one that was known has to be the same.
    fn learn_diff_id(&self, index: usize, actual: &DiffId) -> Result<(), ExportError> {
        let layer = &self.all[index];
        let expected = layer.diff_id.get_or_init(|| actual.clone());
        let tree = match &layer.tree {
            Some(tree) => Some(tree.clone()),
            None if expected == actual => None,
            None => self.stored_tree(index)?,
        };
        if let Some(tree) = tree {
            self.context.database().put_packed_tree(tree.id().as_bytes(), FORMAT, actual)?;
        }
        if expected == actual {
            return Ok(());
        }
        if layer.tree.is_some() && layer.source.diff_id.is_none() {
            // No config with the other one has left.
            return Err(ExportError::Outdated { layer: index });
        }
        let (expected, actual) = (expected.clone(), actual.clone());
        Err(ExportError::DiffId { layer: index, expected, actual })
    }

    /// Length of the files of a layer together, in bytes, as far as it is known.
    pub(crate) fn size(&self, index: usize) -> Result<u64, ExportError> {
        if let Some(tree) = &self.all[index].tree {
            return Ok(tree.content_size());
        }
        Ok(match self.stored_tree(index)? {
            Some(tree) => tree.content_size(),
            None => self.pulled(index).map_or(0, |descriptor| descriptor.size),
        })
    }

    /// The layer as a blob in a format.
    pub(crate) fn blob(&self, index: usize, format: &ImageFormat, want: Want) -> Result<LayerBlob, ExportError> {
        if let Some(descriptor) = self.pulled(index) {
            let fits = descriptor.media_type.kind() == MediaKind::Layer(format.compression);
            if fits || !format.force_compression || is_foreign(descriptor) {
                return self.pulled_blob(index, descriptor, want);
            }
        }
        let key = (index, format.compression, format.level);
        if let Some(known) = self.packed().get(&key).filter(|blob| blob.is_enough(want)) {
            return Ok(known.clone());
        }
        let blob = match self.remembered(index, format)? {
            Some(blob) if blob.is_enough(want) => blob,
            _ if self.pulled(index).is_some() => self.recompress(index, format)?,
            _ => self.pack(index, format)?,
        };
        self.packed().insert(key, blob.clone());
        Ok(blob)
    }

    fn packed(&self) -> std::sync::MutexGuard<'_, Packed> {
        lock(&self.packed)
    }

    fn pulled_blob(&self, index: usize, descriptor: &Descriptor, want: Want) -> Result<LayerBlob, ExportError> {
        let origin = self.origin(index);
        let blob = |place| LayerBlob { descriptor: descriptor.clone(), place, origin: origin.cloned() };
        if self.context.content.has(&descriptor.digest)?.is_some() {
            return Ok(blob(Place::Store));
        }
        let origin = origin.ok_or_else(|| self.gone(index))?;
        if want == Want::Bytes && !is_foreign(descriptor) {
            fetch(self.context, &[(descriptor.clone(), origin.clone())])?;
            return Ok(blob(Place::Store));
        }
        Ok(blob(Place::Origin(origin.clone())))
    }

    /// The blob that was made of this layer before.
    fn remembered(&self, index: usize, format: &ImageFormat) -> Result<Option<LayerBlob>, ExportError> {
        let Some(diff_id) = self.known_diff_id(index)? else { return Ok(None) };
        let found = self.context.database().layer_blob(&diff_id, format.compression, &label(format))?;
        let Some(descriptor) = found else { return Ok(None) };
        let there = self.context.content.has(&descriptor.digest)? == Some(descriptor.size);
        let place = if there { Place::Store } else { Place::Remembered };
        Ok(Some(LayerBlob { descriptor, place, origin: None }))
    }

    /// Packs and compresses a layer, reading each file once.
    fn pack(&self, index: usize, format: &ImageFormat) -> Result<LayerBlob, ExportError> {
        let (tree, files) = self.files(index)?;
        let mut writer = self.context.content.writer()?;
        let layer_format =
            LayerFormat { compression: format.compression, level: level(format), docker_media_types: false };
        let out = self.checked(index, &mut writer);
        let made = layer::write_layer(&tree, &*files, &layer_format, &PackOptions::default(), out)
            .map_err(|error| self.pack_error(index, error))?;
        self.packed_layer(index, made.descriptor.size);
        self.learn_diff_id(index, &made.diff_id)?;
        let database = self.context.database();
        let remembered = database.layer_blob(&made.diff_id, format.compression, &label(format))?;
        let outdated = remembered.is_some_and(|remembered| remembered.digest != made.descriptor.digest);
        let blob = self.settle(&made.diff_id, format, made.descriptor, writer)?;
        // A manifest may have the other one already.
        if outdated { Err(ExportError::Outdated { layer: index }) } else { Ok(blob) }
    }

    /// Compresses a layer that was pulled in another way.
    fn recompress(&self, index: usize, format: &ImageFormat) -> Result<LayerBlob, ExportError> {
        let read = |source| self.read_error(index, source);
        let pulled = self.pulled(index).expect("only pulled layers are compressed again").clone();
        self.pulled_blob(index, &pulled, Want::Bytes)?;
        let mut tar = Decompressor::new(self.context.content.open_blob(&pulled.digest)?).map_err(read)?;
        let mut writer = self.context.content.writer()?;
        let mut hashed = HashedWrite { hasher: Hasher::default(), out: &mut writer, size: 0 };
        let out = self.checked(index, &mut hashed);
        let mut compressor = Compressor::new(format.compression, level(format), out).map_err(read)?;
        let mut tar_hash = Hasher::default();
        copy(&mut tar, |bytes| {
            tar_hash.update(bytes);
            compressor.write_all(bytes)
        })
        .map_err(read)?;
        compressor.finish().map_err(read)?;
        let (digest, size) = (hashed.hasher.finish(), hashed.size);
        let diff_id = DiffId::new(tar_hash.finish());
        self.packed_layer(index, size);
        self.learn_diff_id(index, &diff_id)?;
        let descriptor = Descriptor::new(MediaType::layer(format.compression, false), digest, size);
        self.settle(&diff_id, format, descriptor, writer)
    }

    fn checked<W>(&self, index: usize, out: W) -> Checked<'_, W> {
        let progress = self.context.moving(self.packing(index));
        Checked { out, cancel: self.context.cancel, progress, written: 0 }
    }

    fn packing(&self, index: usize) -> String {
        format!("packing layer {} of {}", index + 1, self.len())
    }

    fn packed_layer(&self, index: usize, size: u64) {
        self.context.status(self.packing(index), size, Some(size), true);
    }

    fn settle(
        &self,
        diff_id: &DiffId,
        format: &ImageFormat,
        descriptor: Descriptor,
        writer: BlobWriter,
    ) -> Result<LayerBlob, ExportError> {
        self.context.database().put_layer_blob(diff_id, format.compression, &label(format), &descriptor)?;
        // The snapshot holds the same files: a second copy in the store would outlive its only use.
        let place = Place::Temporary(Arc::new(Mutex::new(writer)));
        Ok(LayerBlob { descriptor, place, origin: None })
    }

    /// The tree of a layer, and what opens its files.
    fn files(&self, index: usize) -> Result<(Tree, Arc<dyn Files + Send + Sync>), ExportError> {
        if let Some((tree, files)) = self.built(index) {
            return Ok((tree.clone(), Arc::clone(files)));
        }
        let tree = self.stored_tree(index)?.ok_or_else(|| self.gone(index))?;
        if tree.is_empty() {
            return Ok((tree, Arc::new(NoFiles)));
        }
        let snapshot = self.context.snapshots.get_verified(&tree)?.ok_or_else(|| self.gone(index))?;
        Ok((tree, Arc::new(snapshot)))
    }

    /// The tree of a layer that existed before, if it was ever unpacked or built here.
    pub(crate) fn stored_tree(&self, index: usize) -> Result<Option<Tree>, ExportError> {
        let Some(diff_id) = self.all[index].diff_id.get() else { return Ok(None) };
        stored_tree(self.context, diff_id)
    }

    fn gone(&self, index: usize) -> ExportError {
        let nothing = || DiffId::new(Digest::sha256(b""));
        ExportError::LayerGone { layer: index, diff_id: self.all[index].diff_id.get().cloned().unwrap_or_else(nothing) }
    }

    fn pack_error(&self, index: usize, source: layer::PackError) -> ExportError {
        match self.context.cancel.check() {
            Err(cancelled) => cancelled.into(),
            Ok(()) => ExportError::Pack { layer: index, source },
        }
    }

    fn read_error(&self, index: usize, source: io::Error) -> ExportError {
        if let Err(cancelled) = self.context.cancel.check() {
            return cancelled.into();
        }
        match ContentError::from_io(source) {
            Ok(error) => error.into(),
            Err(source) => ExportError::Read { layer: index, source },
        }
    }
}

/// Whether a layer is fetched from elsewhere by whoever runs the image, and never passed on (image-spec `layer.md`,
/// Non-Distributable Layers).
fn is_foreign(descriptor: &Descriptor) -> bool {
    !descriptor.urls.is_empty()
}

impl LayerBlob {
    /// Whether the bytes are to be passed on with the image.
    pub(crate) fn is_distributable(&self) -> bool {
        !is_foreign(&self.descriptor) || matches!(self.place, Place::Store)
    }

    fn is_enough(&self, want: Want) -> bool {
        want == Want::Descriptor || matches!(self.place, Place::Store | Place::Temporary(_))
    }

    /// Opens the bytes from their beginning, if they are on this machine.
    pub(crate) fn open(&self, context: &ExportContext<'_>) -> Result<Box<dyn Read + Send>, ExportError> {
        match &self.place {
            Place::Store => Ok(Box::new(context.content.open_blob(&self.descriptor.digest)?)),
            Place::Temporary(writer) => Ok(Box::new(lock(writer).reopen()?)),
            Place::Origin(origin) => {
                Ok(Box::new(context.registry.open_blob(origin, &self.descriptor, context.cancel)?))
            }
            Place::Remembered => Err(ContentError::Missing { digest: self.descriptor.digest.clone() }.into()),
        }
    }
}

/// The tree that a diff id is known to unpack to.
pub(crate) fn stored_tree(context: &ExportContext<'_>, diff_id: &DiffId) -> Result<Option<Tree>, ExportError> {
    match context.database().layer_tree(diff_id)? {
        Some(id) => Ok(context.trees.get(&TreeId::new(id))?),
        None => Ok(None),
    }
}

/// Fetches blobs that are not in the store, several at a time.
pub(crate) fn fetch(context: &ExportContext<'_>, blobs: &[(Descriptor, Reference)]) -> Result<(), ExportError> {
    let mut missing = Vec::new();
    for blob in blobs {
        if context.content.has(&blob.0.digest)?.is_none() {
            missing.push(blob.clone());
        }
    }
    if missing.is_empty() { Ok(()) } else { fetch_and(context, &missing, &|_| Ok(())) }
}

/// Fetches blobs that are not in the store, several at a time; `then` is called with the number of each that came.
pub(crate) fn fetch_and<E: From<ExportError> + Send>(
    context: &ExportContext<'_>,
    blobs: &[(Descriptor, Reference)],
    then: &(dyn Fn(usize) -> Result<(), E> + Sync),
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<E>> = Mutex::new(None);
    let stop = context.cancel.child();
    let one = |index: usize| -> Result<(), E> {
        let (descriptor, origin) = &blobs[index];
        if context.content.has(&descriptor.digest).map_err(ExportError::from)?.is_none() {
            let progress = context.progress("", descriptor);
            let fetched =
                context.registry.fetch_blob(origin, descriptor, context.content, &|at| progress.at(at), &stop);
            fetched.map_err(ExportError::from)?;
            progress.finish();
        }
        then(index)
    };
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= blobs.len() || stop.is_cancelled() {
                return;
            }
            if let Err(error) = one(index) {
                lock(&failure).get_or_insert(error);
                stop.cancel();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..blobs.len().min(FETCHES) {
            scope.spawn(work);
        }
        work();
    });
    context.cancel.check().map_err(ExportError::from)?;
    unlocked(failure).map_or(Ok(()), Err)
}

/// What else than tar and compression decides the bytes of a blob.
fn label(format: &ImageFormat) -> String {
    label_of(format.level)
}

/// What else than tar and compression decides the bytes of a blob with this level.
pub(crate) fn label_of(level: Option<i32>) -> String {
    match level {
        Some(level) => format!("{FORMAT} level={level}"),
        None => FORMAT.to_owned(),
    }
}

fn level(format: &ImageFormat) -> Option<Level> {
    format.level.and_then(|level| Level::new(format.compression, u8::try_from(level).ok()?))
}

/// The files of a tree that has none.
struct NoFiles;

impl Files for NoFiles {
    fn open(&self, _: &Entry) -> io::Result<File> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Ends a stream when the build is cancelled.
struct Checked<'a, W> {
    out: W,
    cancel: &'a CancelToken,
    progress: Progress<'a>,
    written: u64,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        self.progress.at(self.written);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Hashes and counts what is written on.
struct HashedWrite<W> {
    hasher: Hasher,
    out: W,
    size: u64,
}

impl<W: Write> Write for HashedWrite<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads to the end, handing over pieces.
pub(crate) fn copy(from: &mut dyn Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                to(&buffer[..count])?;
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
