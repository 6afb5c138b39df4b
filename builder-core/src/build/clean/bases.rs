//! [`Engine::bases`]: the base images that results of the build cache stand on.

use std::collections::HashSet;
use std::path::PathBuf;

use super::super::engine::Engine;
use super::super::images::{self, Keep, MAX_CONFIG};
use crate::cache::Record;
use crate::content::ContentError;
use crate::history::Step;
use crate::oci::{DiffId, Digest, ImageConfig, ImageId};
use crate::tree::TreeId;

/// What an image is made of, as far as the store has its documents.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Its layers, lowest first.
    pub(super) diff_ids: Vec<DiffId>,
    /// Manifest, config and layers as they came.
    pub(super) blobs: Vec<Digest>,
}

impl Engine {
    /// What the store has of the images that builds of the history began with, where a result of such a build is there.
    ///
    /// Without its trees the key of no step on a base is known; without its files none can run.
    pub(super) fn bases(&self, records: &[(PathBuf, Record)]) -> Keep {
        let known: HashSet<String> = records.iter().map(|(_, record)| record.preimage.key().to_string()).collect();
        let is_known = |step: &Step| step.key.as_ref().is_some_and(|key| known.contains(key));
        let mut images = HashSet::new();
        // Nothing is kept for a history that cannot be read: what goes can be fetched again.
        for build in self.history.builds_newest_first().into_iter().flatten() {
            if build.steps.iter().any(is_known) {
                images.extend(build.steps.iter().filter_map(image_of));
            }
        }
        let mut keep = Keep::default();
        for parts in images.iter().filter_map(|image| self.parts_of(image).ok()) {
            let names = images::layer_names(&parts.diff_ids).into_iter().flatten();
            let trees = names.filter_map(|name| self.content.database().layer_tree(&name).ok()?).map(TreeId::new);
            keep.trees.extend(trees);
            keep.blobs.extend(parts.blobs);
        }
        keep.snapshots.clone_from(&keep.trees);
        keep
    }

    /// What an image, named by its id or by its manifest, is made of.
    pub(super) fn parts_of(&self, image: &Digest) -> Result<Parts, ContentError> {
        let database = self.content.database();
        if let Some(record) = database.image(&ImageId::new(image.clone()))? {
            let diff_ids = record.layers.iter().map(|layer| layer.diff_id.clone()).collect();
            return Ok(Parts { diff_ids, blobs: images::blobs_of(&record) });
        }
        let manifest = self.content.read(image, MAX_CONFIG)?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
        let digest = |blob: &serde_json::Value| blob["digest"].as_str().and_then(|text| text.parse::<Digest>().ok());
        let Some(config) = digest(&manifest["config"]) else { return Ok(Parts::default()) };
        let layers = manifest["layers"].as_array().into_iter().flatten().filter_map(digest);
        let blobs = [image.clone(), config.clone()].into_iter().chain(layers).collect();
        let config = ImageConfig::parse(&self.content.read(&config, MAX_CONFIG)?);
        Ok(Parts { diff_ids: config.map(|config| config.rootfs.diff_ids).unwrap_or_default(), blobs })
    }
}

/// The base image that a step is: its id, or the digest of its manifest.
pub(super) fn image_of(step: &Step) -> Option<Digest> {
    step.image.as_ref()?.split(' ').next_back()?.parse().ok()
}
