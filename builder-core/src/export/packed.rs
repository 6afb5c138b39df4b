//! [`PackedImage`]: an image with everything that its manifest names.

use super::layers::{LayerBlob, Layers, Want};
use super::{AnnotationLevel, ExportError, ImageFormat};
use crate::image::{self, Document, Image, UnassembledImage};
use crate::oci::{Descriptor, Platform};

/// An image in one format.
#[derive(Debug, Clone)]
pub(crate) struct PackedImage {
    /// The config and its id.
    pub(crate) image: Image,
    /// The manifest; its descriptor names the platform.
    pub(crate) manifest: Document,
    /// The layers, lowest first, as the manifest has them.
    pub(crate) layers: Vec<LayerBlob>,
}

/// The document at the top: the only manifest, or an index of several.
#[derive(Debug, Clone)]
pub(crate) struct PackedSet {
    /// The images, in the order in which they were given.
    pub(crate) images: Vec<PackedImage>,
    /// The index, if there is one.
    pub(crate) index: Option<Document>,
}

impl PackedSet {
    /// What the names of the images stand for.
    pub(crate) fn top(&self) -> &Document {
        self.index.as_ref().unwrap_or(&self.images[0].manifest)
    }

    /// Makes the index of images if there are several, or if one is wanted anyway.
    pub(crate) fn new(images: Vec<PackedImage>, format: &ImageFormat, index: bool) -> Self {
        let index = (index || images.len() > 1).then(|| {
            let manifests = images.iter().map(|image| image.manifest.descriptor.clone()).collect();
            let annotations = format.annotations.at(AnnotationLevel::Index, None);
            image::index(manifests, format.docker_media_types, annotations)
        });
        Self { images, index }
    }
}

/// Brings the layers of an image into a format, and writes its manifest.
pub(super) fn packed_image(
    unassembled: &UnassembledImage,
    image: Image,
    layers: &Layers<'_>,
    format: &ImageFormat,
    want: Want,
) -> Result<PackedImage, ExportError> {
    let blobs = (0..layers.len()).map(|index| layers.blob(index, format, want)).collect::<Result<Vec<_>, _>>()?;
    let platform = image.config.platform();
    let mut annotations = format.annotations.at(AnnotationLevel::Manifest, Some(&platform));
    if let Some((name, digest)) = &unassembled.base {
        annotations.entry("org.opencontainers.image.base.name".to_owned()).or_insert_with(|| name.to_string());
        annotations.entry("org.opencontainers.image.base.digest".to_owned()).or_insert_with(|| digest.to_string());
    }
    Ok(with_manifest(image, blobs, format, annotations, platform))
}

/// Writes the manifest of an image whose layers are blobs.
pub(crate) fn with_manifest(
    image: Image,
    layers: Vec<LayerBlob>,
    format: &ImageFormat,
    annotations: std::collections::BTreeMap<String, String>,
    platform: Platform,
) -> PackedImage {
    let descriptors: Vec<Descriptor> = layers.iter().map(|blob| blob.descriptor.clone()).collect();
    let mut manifest = image::manifest(&image.config_bytes, descriptors, format.docker_media_types, annotations);
    manifest.descriptor.annotations = format.annotations.at(AnnotationLevel::ManifestDescriptor, Some(&platform));
    manifest.descriptor.platform = Some(platform);
    PackedImage { image, manifest, layers }
}
