//! [`select`]: the results that are meant, with the trees that their keys are made of.

use std::collections::HashSet;

use super::super::engine::Engine;
use super::super::images;
use super::{CacheSelection, CacheTransferError, store};
use crate::cache::{CacheKey, Record};
use crate::history::{Build, Step};
use crate::oci::{DiffId, Digest, ImageConfig, ImageId, Manifest, MediaType, chain_id};
use crate::tree::{Tree, TreeId};

/// What is meant.
#[derive(Default)]
pub(super) struct Selected {
    /// Results with their trees, in the order in which they were made.
    pub(super) records: Vec<(Record, Tree)>,
    /// Layers of base images, by the names of the layers.
    pub(super) bases: Vec<(DiffId, Tree)>,
    /// The layers of what was built: those that go with `mode=min`.
    pub(super) result: HashSet<TreeId>,
}

/// Finds what is meant. What does not travel (results that saw the value of a secret), and results whose trees are gone, are
/// left out.
pub(super) fn select(engine: &Engine, selection: &CacheSelection) -> Result<Selected, CacheTransferError> {
    match selection {
        CacheSelection::Everything => everything(engine),
        CacheSelection::Build(id) => {
            let build = engine.history.get(id)?;
            let result = match build.end.as_ref().and_then(|end| end.image.as_ref()?.parse::<Digest>().ok()) {
                Some(image) => trees_of(engine, &layers_of(engine, &image)?)?,
                None => Vec::new(),
            };
            let mut selected = of_builds(engine, &[build])?;
            selected.result = result.into_iter().map(|(_, tree)| tree.id()).collect();
            some(selected, || format!("build `{id}`"))
        }
        CacheSelection::Image(name) => some(of_image(engine, name)?, || format!("image `{name}`")),
        CacheSelection::Keys(keys) => of_keys(engine, keys),
    }
}

fn some(selected: Selected, what: impl FnOnce() -> String) -> Result<Selected, CacheTransferError> {
    if selected.records.is_empty() { Err(CacheTransferError::NoResults { what: what() }) } else { Ok(selected) }
}

/// All records, each key once, the oldest first: so the parts of two exports begin alike.
fn records(engine: &Engine, wanted: impl Fn(&Record) -> bool) -> Result<Vec<(Record, Tree)>, CacheTransferError> {
    let mut seen: HashSet<CacheKey> = HashSet::new();
    let mut found = Vec::new();
    for (_, record) in engine.cache.list().map_err(store)? {
        if wanted(&record)
            && record.preimage.may_travel()
            && seen.insert(record.preimage.key())
            && let Some(tree) = engine.trees.get(&record.tree).map_err(store)?
        {
            found.push((record, tree));
        }
    }
    found.sort_by_cached_key(|(record, _)| (record.created, record.preimage.key().to_string()));
    Ok(found)
}

fn everything(engine: &Engine) -> Result<Selected, CacheTransferError> {
    let database = engine.content.database();
    let mut selected = Selected { records: records(engine, |_| true)?, ..Selected::default() };
    for (layer, tree) in database.layer_trees().map_err(store)? {
        if let Some(tree) = engine.trees.get(&TreeId::new(tree)).map_err(store)? {
            selected.bases.push((layer, tree));
        }
    }
    for image in database.images().map_err(store)? {
        let layers: Vec<DiffId> = image.layers.into_iter().map(|layer| layer.diff_id).collect();
        selected.result.extend(trees_of(engine, &layers)?.into_iter().map(|(_, tree)| tree.id()));
    }
    Ok(selected)
}

/// The results of the steps of some builds, and the base images that those name.
fn of_builds(engine: &Engine, builds: &[Build]) -> Result<Selected, CacheTransferError> {
    let steps = || builds.iter().flat_map(|build| &build.steps);
    let keys: HashSet<&str> = steps().filter_map(|step| step.key.as_deref()).collect();
    let records = records(engine, |record| keys.contains(record.preimage.key().to_string().as_str()))?;
    let mut bases = Vec::new();
    for image in steps().filter_map(image_of) {
        bases.extend(trees_of(engine, &layers_of(engine, &image)?)?);
    }
    Ok(Selected { records, bases: distinct(bases), ..Selected::default() })
}

fn of_image(engine: &Engine, name: &str) -> Result<Selected, CacheTransferError> {
    let database = engine.content.database();
    let found = images::find(&engine.content, name).map_err(|error| CacheTransferError::Image(Box::new(error)))?;
    let mut ids = match name.parse() {
        Ok(reference) => database.images_of(&reference).map_err(store)?,
        Err(_) => Vec::new(),
    };
    if !ids.contains(&found.id) {
        ids = vec![found.id];
    }
    let mut layers = Vec::new();
    for id in &ids {
        layers.extend(trees_of(engine, &layers_of(engine, id.digest())?)?);
    }
    let made_it = |build: &Build| {
        let image = build.end.as_ref().and_then(|end| end.image.as_deref());
        ids.iter().any(|id| Some(id.to_string().as_str()) == image)
    };
    let build = engine.history.builds_newest_first()?.find(made_it);
    let mut selected = of_builds(engine, build.as_slice())?;
    let keys: HashSet<CacheKey> = selected.records.iter().map(|(record, _)| record.preimage.key()).collect();
    selected.result = layers.iter().map(|(_, tree)| tree.id()).collect();
    let further = |record: &Record| selected.result.contains(&record.tree) && !keys.contains(&record.preimage.key());
    let further = records(engine, further)?;
    selected.records.extend(further);
    let made: HashSet<TreeId> = selected.records.iter().map(|(record, _)| record.tree).collect();
    selected.bases.extend(layers.into_iter().filter(|(_, tree)| !made.contains(&tree.id())));
    Ok(Selected { bases: distinct(selected.bases), ..selected })
}

fn of_keys(engine: &Engine, keys: &[String]) -> Result<Selected, CacheTransferError> {
    let found = records(engine, |record| keys.iter().any(|key| record.is_called(key)))?;
    if let Some(key) = keys.iter().find(|key| !found.iter().any(|(record, _)| record.is_called(key))) {
        return Err(CacheTransferError::NoSuchResult { key: key.clone() });
    }
    // The bases are those of the newest build that has such a step.
    let own: HashSet<String> = found.iter().map(|(record, _)| record.preimage.key().to_string()).collect();
    let has = |build: &Build| build.steps.iter().any(|step| step.key.as_ref().is_some_and(|key| own.contains(key)));
    let build = engine.history.builds_newest_first()?.find(has);
    let bases = of_builds(engine, build.as_slice())?.bases;
    let result = found.iter().map(|(record, _)| record.tree).collect();
    Ok(Selected { records: found, bases, result })
}

/// The digest of the manifest or config of a base image.
fn image_of(step: &Step) -> Option<Digest> {
    step.image.as_ref()?.rsplit_once(' ')?.1.parse().ok()
}

/// The layers of an image that the store knows, by the digest of its manifest or config; none if it does not.
fn layers_of(engine: &Engine, image: &Digest) -> Result<Vec<DiffId>, CacheTransferError> {
    let content = &engine.content;
    if let Some(image) = content.database().image(&ImageId::new(image.clone())).map_err(store)? {
        return Ok(image.layers.into_iter().map(|layer| layer.diff_id).collect());
    }
    let document = |digest: &Digest| content.read(digest, images::MAX_CONFIG).ok();
    let types = [MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST];
    let manifest = |bytes: Vec<u8>| types.iter().find_map(|kind| Manifest::parse(&bytes, kind).ok());
    let config = document(image)
        .and_then(manifest)
        .and_then(|manifest| document(&manifest.config.digest))
        .and_then(|bytes| ImageConfig::parse(&bytes).ok());
    Ok(config.map(|config| config.rootfs.diff_ids).unwrap_or_default())
}

/// The trees of an image's layers by the names under which they are remembered, as far as they are known.
fn trees_of(engine: &Engine, layers: &[DiffId]) -> Result<Vec<(DiffId, Tree)>, CacheTransferError> {
    let mut trees = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let chain = chain_id(&layers[..=index]).map(|chain| DiffId::new(chain.digest().clone()));
        for name in chain.iter().chain([layer]) {
            if let Some(bytes) = engine.content.database().layer_tree(name).map_err(store)?
                && let Some(tree) = engine.trees.get(&TreeId::new(bytes)).map_err(store)?
            {
                trees.push((name.clone(), tree));
                break;
            }
        }
    }
    Ok(trees)
}

fn distinct(mut bases: Vec<(DiffId, Tree)>) -> Vec<(DiffId, Tree)> {
    bases.sort_by(|(a, _), (b, _)| a.digest().as_str().cmp(b.digest().as_str()));
    bases.dedup_by(|(a, _), (b, _)| a == b);
    bases
}
