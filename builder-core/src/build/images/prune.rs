//! [`prune`], [`collect`] and [`usage`]: what the store keeps, and what it need not.

use std::collections::HashSet;

use super::ImageError;
use super::list::{ListFilter, list};
use super::remove::{Removed, blobs_of, delete};
use crate::content::{Collected, ContentStore, ExclusiveLease, ImageRecord};
use crate::export::ExportContext;
use crate::oci::{DiffId, Digest, chain_id};
use crate::tree::TreeId;

/// Which images are pruned.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// All images, and not only those without a name.
    pub all: bool,
    /// Only images with these labels, `KEY` or `KEY=VALUE`.
    pub labels: Vec<String>,
    /// Only images that were made before this time.
    pub until: Option<jiff::Timestamp>,
}

/// What the build cache and running containers still need.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Blobs.
    pub blobs: HashSet<Digest>,
    /// Trees.
    pub trees: HashSet<TreeId>,
    /// Snapshots, by their trees.
    pub snapshots: HashSet<TreeId>,
}

/// What [`collect`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Blobs and unfinished files.
    pub blobs: Collected,
    /// Snapshots.
    pub snapshots: Collected,
    /// Trees.
    pub trees: usize,
}

impl Reclaimed {
    /// Bytes of everything together.
    pub fn bytes(&self) -> u64 {
        self.blobs.bytes + self.snapshots.bytes
    }
}

/// Forgets images that have no name, or all of them (`docker image prune`). Their bytes go with the next [`collect`].
///
/// # Errors
/// [`ImageError::Content`] if the store cannot be read or written.
pub fn prune(content: &ContentStore, options: &PruneOptions) -> Result<Vec<Removed>, ImageError> {
    let filter = ListFilter {
        dangling: (!options.all).then_some(true),
        labels: options.labels.clone(),
        until: options.until,
        ..ListFilter::default()
    };
    let mut removed = Vec::new();
    for image in list(content, &filter)? {
        if let Some(record) = content.database().image(&image.id)? {
            removed.extend(delete(content, &record)?);
        }
    }
    Ok(removed)
}

/// Removes blobs, snapshots and trees that neither an image nor `keep` needs. The lease shows that no build runs.
///
/// # Errors
/// [`ImageError::Content`] and [`ImageError::Export`] if something cannot be removed; what is gone stays gone.
pub fn collect(context: &ExportContext<'_>, alone: &ExclusiveLease, keep: &Keep) -> Result<Reclaimed, ImageError> {
    let needed = needed(context, &context.content.database().images()?, keep)?;
    let mut reclaimed = Reclaimed { blobs: context.content.collect(alone, &needed.blobs)?, ..Reclaimed::default() };
    let mut snapshots = context.snapshots.list().map_err(crate::export::ExportError::from)?;
    // What is derived from another goes before it, so that none is ever without its base.
    snapshots.sort_by_cached_key(|id| context.snapshots.base_of(id).is_none());
    for id in snapshots {
        if !needed.snapshots.contains(&id) {
            let bytes = context.snapshots.usage(&id).map_err(crate::export::ExportError::from)?;
            context.snapshots.remove(&id).map_err(crate::export::ExportError::from)?;
            reclaimed.snapshots.files += 1;
            reclaimed.snapshots.bytes += bytes;
        }
    }
    context.snapshots.sweep().map_err(crate::export::ExportError::from)?;
    for id in context.trees.list().map_err(crate::export::ExportError::from)? {
        if !needed.trees.contains(&id) {
            context.trees.remove(&id).map_err(crate::export::ExportError::from)?;
            reclaimed.trees += 1;
        }
    }
    Ok(reclaimed)
}

/// Everything that images and `keep` name.
pub(in crate::build) fn needed(
    context: &ExportContext<'_>,
    images: &[ImageRecord],
    keep: &Keep,
) -> Result<Keep, ImageError> {
    let mut needed = keep.clone();
    let database = context.content.database();
    for image in images {
        needed.blobs.extend(blobs_of(image));
        let diff_ids: Vec<DiffId> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        for name in layer_names(&diff_ids).into_iter().flatten() {
            if let Some(tree) = database.layer_tree(&name)?.map(TreeId::new) {
                needed.trees.insert(tree);
                needed.snapshots.insert(tree);
            }
        }
    }
    for known in database.all_repo_digests()? {
        needed.blobs.insert(known.digest);
    }
    // A snapshot needs the one that it is derived from, and that one is verified with its tree.
    let mut pending: Vec<TreeId> = needed.snapshots.iter().copied().collect();
    while let Some(base) = pending.pop().map(|id| context.snapshots.base_of(&id)) {
        pending.extend(base.filter(|base| needed.snapshots.insert(*base)));
        needed.trees.extend(base);
    }
    Ok(needed)
}

/// The names under which the tree of each layer may be remembered: one that depends on the layers below has their chain id.
pub(in crate::build) fn layer_names(diff_ids: &[DiffId]) -> Vec<Vec<DiffId>> {
    let names = |(index, diff_id): (usize, &DiffId)| {
        let chain = chain_id(&diff_ids[..=index]).map(|chain| DiffId::new(chain.digest().clone()));
        chain.into_iter().chain([diff_id.clone()]).collect()
    };
    diff_ids.iter().enumerate().map(names).collect()
}

/// A part of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Usage {
    /// How many there are.
    pub total: usize,
    /// How many of them are needed.
    pub active: usize,
    /// Bytes on disk.
    pub size: u64,
    /// Bytes that would be free if what is not needed were removed.
    pub reclaimable: u64,
}

/// What images occupy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// All of them; those with a name count as needed. Shared layers count once.
    pub all: Usage,
    /// Each image with the bytes of its layers and how many of them no other image has (by the sizes in its record).
    pub each: Vec<(ImageRecord, u64)>,
}

/// Measures the images of the store on disk; [`Engine::disk_usage`](crate::build::Engine::disk_usage) measures the rest.
///
/// # Errors
/// [`ImageError::Content`] and [`ImageError::Export`] if the store cannot be read.
pub fn usage(context: &ExportContext<'_>) -> Result<ImageUsage, ImageError> {
    let database = context.content.database();
    let images = database.images()?;
    let named: HashSet<_> = database.tags()?.into_iter().map(|(_, image)| image).collect();
    let with_names: Vec<ImageRecord> = images.iter().filter(|image| named.contains(&image.id)).cloned().collect();
    let of_images = needed(context, &images, &Keep::default())?;
    let of_named = needed(context, &with_names, &Keep::default())?;
    let mut all = Usage { total: images.len(), active: with_names.len(), ..Usage::default() };
    let mut add = |is_needed: bool, bytes: u64| {
        all.size += bytes;
        all.reclaimable += if is_needed { 0 } else { bytes };
    };
    for (digest, bytes) in context.content.blobs()? {
        if of_images.blobs.contains(&digest) {
            add(of_named.blobs.contains(&digest), bytes);
        }
    }
    for id in context.snapshots.list().map_err(crate::export::ExportError::from)? {
        if of_images.trees.contains(&id) {
            let bytes = context.snapshots.usage(&id).map_err(crate::export::ExportError::from)?;
            add(of_named.trees.contains(&id), bytes);
        }
    }
    let each = images.iter().map(|image| (image.clone(), unique_size(image, &images))).collect();
    Ok(ImageUsage { all, each })
}

/// Bytes of the layers that only this image has.
fn unique_size(image: &ImageRecord, all: &[ImageRecord]) -> u64 {
    let others: HashSet<&DiffId> = all
        .iter()
        .filter(|other| other.id != image.id)
        .flat_map(|other| other.layers.iter().map(|layer| &layer.diff_id))
        .collect();
    image.layers.iter().filter(|layer| !others.contains(&layer.diff_id)).map(|layer| layer.size).sum()
}
