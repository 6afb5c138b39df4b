//! [`StoredImage`]: an image of the store, on its way out.

use std::collections::BTreeMap;

use super::{ImageError, MAX_CONFIG, config, find};
use crate::content::ImageRecord;
use crate::export::layers::{Layers, Want};
use crate::export::packed::{PackedImage, PackedSet, with_manifest};
use crate::export::{ExportContext, ImageFormat};
use crate::image::{Document, Image, ImageLayer, LayerSource, UnassembledImage};
use crate::oci::{Compression, Descriptor, Reference};

/// An image of the store with its config.
#[derive(Debug)]
pub(super) struct StoredImage {
    pub(super) record: ImageRecord,
    image: Image,
    layers: UnassembledImage,
}

impl StoredImage {
    pub(super) fn open(context: &ExportContext<'_>, record: ImageRecord) -> Result<Self, ImageError> {
        let id = record.id.clone();
        let config_bytes = context.content.read(id.digest(), MAX_CONFIG)?;
        let image = Image { config: config(context.content, &id)?, config_bytes, id };
        let mut layers = Vec::with_capacity(record.layers.len());
        for layer in &record.layers {
            let origin = layer.descriptor.as_ref().map(|blob| origin(context, blob)).transpose()?.flatten();
            let source = LayerSource::Stored { descriptor: layer.descriptor.clone(), origin };
            layers.push(ImageLayer { diff_id: Some(layer.diff_id.clone()), source });
        }
        Ok(Self { record, image, layers: UnassembledImage { layers, ..UnassembledImage::default() } })
    }

    /// The images of a name, one for each platform; or the image with an id.
    pub(super) fn open_all(context: &ExportContext<'_>, text: &str) -> Result<Vec<Self>, ImageError> {
        let database = context.content.database();
        let found = find(context.content, text)?;
        let ids = match text.parse::<Reference>() {
            Ok(name) => database.images_of(&name)?,
            Err(_) => Vec::new(),
        };
        if !ids.contains(&found.id) {
            return Ok(vec![Self::open(context, found)?]);
        }
        let records = ids.iter().filter_map(|id| database.image(id).transpose());
        records.map(|record| Self::open(context, record?)).collect()
    }

    /// Brings images into a form in which they can leave: several together with an index.
    pub(super) fn pack_all(
        context: &ExportContext<'_>,
        images: &[Self],
        compression: Compression,
        want: Want,
    ) -> Result<PackedSet, ImageError> {
        let packed =
            images.iter().map(|image| image.pack(context, compression, want)).collect::<Result<Vec<_>, _>>()?;
        Ok(PackedSet::new(packed, &ImageFormat::default(), false))
    }

    /// Brings the image into a form in which it can leave. One that was pulled leaves as it came.
    fn pack(
        &self,
        context: &ExportContext<'_>,
        compression: Compression,
        want: Want,
    ) -> Result<PackedImage, ImageError> {
        let format = ImageFormat { compression, ..ImageFormat::default() };
        let layers = Layers::new(context, &self.layers, None);
        let blobs = (0..layers.len()).map(|index| layers.blob(index, &format, want)).collect::<Result<Vec<_>, _>>()?;
        let platform = self.image.config.platform();
        Ok(match self.manifest(context)? {
            Some(mut manifest) => {
                manifest.descriptor.platform.get_or_insert(platform);
                PackedImage { image: self.image.clone(), manifest, layers: blobs }
            }
            None => with_manifest(self.image.clone(), blobs, &format, BTreeMap::new(), platform),
        })
    }

    /// Makes the blob of one layer that is nowhere yet.
    pub(super) fn blob(
        &self,
        context: &ExportContext<'_>,
        index: usize,
        compression: Compression,
    ) -> Result<crate::export::layers::LayerBlob, crate::export::ExportError> {
        let format = ImageFormat { compression, ..ImageFormat::default() };
        Layers::new(context, &self.layers, None).blob(index, &format, Want::Bytes)
    }

    /// The manifest that it was pulled with.
    fn manifest(&self, context: &ExportContext<'_>) -> Result<Option<Document>, ImageError> {
        let Some(descriptor) = &self.record.manifest else { return Ok(None) };
        let complete = self.record.layers.iter().all(|layer| layer.descriptor.is_some());
        if !complete || context.content.has(&descriptor.digest)?.is_none() {
            return Ok(None);
        }
        let bytes = context.content.read(&descriptor.digest, MAX_CONFIG)?;
        Ok(Some(Document { bytes, descriptor: descriptor.clone() }))
    }
}

/// A repository that a blob can be fetched from.
fn origin(context: &ExportContext<'_>, blob: &Descriptor) -> Result<Option<Reference>, ImageError> {
    let sources = context.content.database().blob_sources(&blob.digest)?;
    Ok(sources.iter().find_map(|repository| repository.parse().ok()))
}
