//! `type=image`: images in the local store, with their names.

use std::collections::HashSet;
use std::time::SystemTime;

use super::layers::{Layers, fetch};
use super::{ExportContext, ExportError};
use crate::content::{ImageRecord, LayerRecord};
use crate::image::Image;
use crate::layer::Keep;
use crate::oci::{ImageId, Platform, Reference};

/// Puts an image into the store. What is there already is not written again.
///
/// The record is written after what it names. Files of layers that were made here become snapshots, because
/// the image must outlive the build context; blobs of base layers are fetched.
pub(super) fn store(context: &ExportContext<'_>, layers: &Layers<'_>, image: &Image) -> Result<(), ExportError> {
    if !is_stored(context, layers, image)? {
        store_layers(context, layers)?;
        context.content.put(&image.config_bytes)?;
        context.database().put_image(&record(layers, image)?)?;
    }
    Ok(())
}

/// Gives images of the store, one for each platform, their names. Without a platform a name means the image for this
/// machine, or the first one.
pub(super) fn name(context: &ExportContext<'_>, images: &[Image], names: &[Reference]) -> Result<(), ExportError> {
    let host = Platform::host();
    let mut ids: Vec<(bool, ImageId)> =
        images.iter().map(|image| (image.config.platform() != host, image.id.clone())).collect();
    ids.sort_by_key(|(foreign, _)| *foreign);
    let mut seen = HashSet::new();
    ids.retain(|(_, id)| seen.insert(id.clone()));
    for (_, id) in &ids {
        context.done(format!("writing image {id}"));
    }
    let ids: Vec<ImageId> = ids.into_iter().map(|(_, id)| id).collect();
    for name in names.iter().filter(|name| name.tag().is_some()) {
        context.database().tag_all(name, &ids)?;
        context.done(format!("naming to {name}"));
    }
    Ok(())
}

/// Whether the record of this very image exists, and so everything that it names but what was found damaged since.
fn is_stored(context: &ExportContext<'_>, layers: &Layers<'_>, image: &Image) -> Result<bool, ExportError> {
    let known = context.database().image(&image.id)?.is_some();
    for (tree, _) in (0..layers.len()).filter_map(|index| layers.built(index)).filter(|(tree, _)| !tree.is_empty()) {
        let id = tree.id();
        // A tree of this build is known without reading; one whose times were rewritten may be gone by itself.
        if known && (context.snapshots.get(&id)?.is_none() || context.trees.get(&id)?.is_none()) {
            return Ok(false);
        }
    }
    Ok(known && context.content.has(image.id.digest())? == Some(image.config_bytes.len() as u64))
}

fn store_layers(context: &ExportContext<'_>, layers: &Layers<'_>) -> Result<(), ExportError> {
    let mut missing = Vec::new();
    for index in 0..layers.len() {
        context.cancel.check()?;
        if let Some((tree, files)) = layers.built(index) {
            let id = context.trees.put(tree)?;
            if !tree.is_empty() && context.snapshots.get_verified(tree)?.is_none() {
                let keep = Keep { content: context.content, snapshots: context.snapshots, trees: context.trees };
                keep.snapshot(tree, &**files).map_err(|error| ExportError::of_layer(index, error))?;
            }
            context.database().put_layer_tree(&layers.diff_id(index)?, id.as_bytes())?;
        } else if let (Some(descriptor), Some(origin)) = (layers.pulled(index), layers.origin(index)) {
            context.database().put_blob_source(&descriptor.digest, &origin.repository())?;
            missing.push((descriptor.clone(), origin.clone()));
        }
    }
    fetch(context, &missing)
}

fn record(layers: &Layers<'_>, image: &Image) -> Result<ImageRecord, ExportError> {
    let mut records = Vec::with_capacity(layers.len());
    for index in 0..layers.len() {
        records.push(LayerRecord {
            diff_id: layers.diff_id(index)?,
            descriptor: layers.pulled(index).cloned(),
            size: layers.size(index)?,
        });
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(ImageRecord {
        id: image.id.clone(),
        created: i64::try_from(now).unwrap_or(i64::MAX),
        size: records.iter().map(|layer| layer.size).sum(),
        platform: image.config.platform(),
        layers: records,
        manifest: None,
    })
}
