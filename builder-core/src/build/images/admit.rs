//! [`admit`]: an image from outside becomes one of the store.

use std::io;
use std::time::SystemTime;

use super::{ImageError, MAX_CONFIG};
use crate::content::{ContentError, ImageRecord, LayerRecord};
use crate::export::layers::copy;
use crate::export::{ExportContext, ExportError};
use crate::layer::Decompressor;
use crate::oci::{Descriptor, DiffId, Digest, Hasher, ImageConfig, ImageId, MediaKind, Reference};

/// Under which format the blobs of layers from outside are remembered.
const PULLED: &str = "pulled";

/// An image whose blobs are in the store.
#[derive(Debug)]
pub(super) struct Admission {
    /// What to call it in errors.
    pub(super) name: String,
    /// Digest of its config.
    pub(super) config: Digest,
    /// Its layers, lowest first.
    pub(super) layers: Vec<Descriptor>,
    /// Its manifest, if its bytes are in the store.
    pub(super) manifest: Option<Descriptor>,
}

/// Reads the config of an image and compares the number and types of its layers.
pub(super) fn check(context: &ExportContext<'_>, admission: &Admission) -> Result<ImageConfig, ImageError> {
    let malformed = |reason: String| ImageError::Malformed { image: admission.name.clone(), reason };
    let bytes = context.content.read(&admission.config, MAX_CONFIG)?;
    let config = ImageConfig::parse(&bytes)
        .map_err(|source| ImageError::Config { id: ImageId::new(admission.config.clone()), source })?;
    let (layers, diff_ids) = (admission.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(malformed(format!("it has {layers} layers and its config {diff_ids} diff ids")));
    }
    let unknown = |layer: &&Descriptor| !matches!(layer.media_type.kind(), MediaKind::Layer(_));
    if let Some(layer) = admission.layers.iter().find(unknown) {
        return Err(malformed(format!("layer {} has the unknown media type `{}`", layer.digest, layer.media_type)));
    }
    Ok(config)
}

/// Compares a layer with its diff id; returns the length of its uncompressed tar in bytes.
///
/// A blob that was compared before is not read again: then the length is that of its files, as far as it is known.
pub(super) fn verify(
    context: &ExportContext<'_>,
    image: &str,
    index: usize,
    layer: &Descriptor,
    expected: &DiffId,
) -> Result<u64, ImageError> {
    let database = context.content.database();
    if database.diff_id_of_blob(&layer.digest)?.as_ref() == Some(expected) {
        let tree = crate::export::layers::stored_tree(context, expected)?;
        return Ok(tree.map_or(layer.size, |tree| tree.content_size()));
    }
    let read = |source: io::Error| match ContentError::from_io(source) {
        Ok(error) => ImageError::Content(error),
        Err(source) => ExportError::Read { layer: index, source }.into(),
    };
    let mut tar = Decompressor::new(context.content.open_blob(&layer.digest)?).map_err(read)?;
    let mut hasher = Hasher::new(expected.digest().algorithm());
    let size = copy(&mut tar, |bytes| {
        context.cancel.check().map_err(io::Error::other)?;
        hasher.update(bytes);
        Ok(())
    });
    context.cancel.check().map_err(ExportError::from)?;
    let size = size.map_err(read)?;
    let actual = DiffId::new(hasher.finish());
    if actual != *expected {
        let (image, expected) = (image.to_owned(), expected.clone());
        return Err(ImageError::DiffId { image, layer: index, expected, actual });
    }
    if let MediaKind::Layer(compression) = layer.media_type.kind() {
        database.put_layer_blob(expected, compression, PULLED, layer)?;
    }
    Ok(size)
}

/// Writes the record of an image, and then its names.
pub(super) fn admit(
    context: &ExportContext<'_>,
    admission: &Admission,
    config: &ImageConfig,
    sizes: &[u64],
    names: &[Reference],
) -> Result<ImageId, ImageError> {
    let id = ImageId::new(admission.config.clone());
    let database = context.content.database();
    let layers: Vec<LayerRecord> = config
        .rootfs
        .diff_ids
        .iter()
        .zip(&admission.layers)
        .zip(sizes)
        .map(|((diff_id, layer), size)| LayerRecord {
            diff_id: diff_id.clone(),
            descriptor: Some(layer.clone()),
            size: *size,
        })
        .collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let record = ImageRecord {
        id: id.clone(),
        created: i64::try_from(now).unwrap_or(i64::MAX),
        size: sizes.iter().sum(),
        platform: config.platform(),
        layers,
        manifest: admission.manifest.clone(),
    };
    database.put_image(&record)?;
    for name in names.iter().filter(|name| name.tag().is_some()) {
        database.tag(name, &id)?;
    }
    Ok(id)
}
