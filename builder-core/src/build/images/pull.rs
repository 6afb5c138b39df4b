//! [`pull`] and [`push`](super::push).

use std::sync::atomic::{AtomicU64, Ordering};

use super::admit::{Admission, admit, check, verify};
use super::stored::StoredImage;
use super::{ImageError, MAX_CONFIG};
use crate::content::RepoDigest;
use crate::export::layers::{Want, fetch_and};
use crate::export::push::{PushOptions, push as send};
use crate::export::{ExportContext, ExportError, PushedLayer, until_right};
use crate::oci::{Compression, Descriptor, Digest, ImageId, MediaKind, Platform, Reference};

/// What a pull led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// What the name stands for in the registry: a manifest or an index.
    pub digest: Digest,
    /// The layers, lowest first: the digest of the blob, and whether it was here already.
    pub layers: Vec<(Digest, bool)>,
    /// Whether the name stood for another image before, or for none.
    pub newer: bool,
}

/// What a push led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The name.
    pub name: Reference,
    /// The manifest.
    pub manifest: Descriptor,
    /// The layers, lowest first: the digest of the blob, and what became of it. Those that registries must not pass on
    /// are left out.
    pub layers: Vec<(Digest, PushedLayer)>,
}

/// Fetches an image for a platform and gives it its name (`docker pull`).
///
/// Everything is verified: documents and blobs by their digests, layers by their diff ids as well. Layers are unpacked
/// when something reads them. Progress is told by the digests of blobs.
///
/// # Errors
/// [`ImageError::Export`] with what the registry says; [`ImageError::Malformed`] and [`ImageError::DiffId`] for an
/// image that contradicts itself.
pub fn pull(context: &ExportContext<'_>, reference: &Reference, platform: &Platform) -> Result<Pulled, ImageError> {
    let _lease = context.content.lease(context.cancel)?;
    let registry = context.registry;
    let resolved = registry.resolve(reference, context.cancel)?;
    let selected = registry.select_platform(reference, &resolved, platform, context.cancel)?;
    let config = &selected.manifest.config;
    if config.media_type.kind() != MediaKind::Config || config.size > MAX_CONFIG {
        let reason = format!("its config is no image config: `{}`", config.media_type);
        return Err(ImageError::Malformed { image: reference.familiar(), reason });
    }
    let pinned = reference.with_digest(selected.descriptor.digest.clone());
    registry.fetch_blob(&pinned, config, context.content, &|_| {}, context.cancel)?;
    context.content.put(&resolved.bytes)?;
    context.content.put(&selected.bytes)?;
    let admission = Admission {
        name: reference.familiar(),
        config: config.digest.clone(),
        layers: selected.manifest.layers.clone(),
        manifest: Some(selected.descriptor.clone()),
    };
    let config = check(context, &admission)?;
    let mut layers = Vec::with_capacity(admission.layers.len());
    for layer in &admission.layers {
        layers.push((layer.digest.clone(), context.content.has(&layer.digest)?.is_some()));
    }
    let sizes: Vec<AtomicU64> = layers.iter().map(|_| AtomicU64::new(0)).collect();
    let blobs: Vec<(Descriptor, Reference)> =
        admission.layers.iter().map(|layer| (layer.clone(), pinned.clone())).collect();
    fetch_and(context, &blobs, &|index| -> Result<(), ImageError> {
        let diff_id = &config.rootfs.diff_ids[index];
        let size = verify(context, &admission.name, index, &admission.layers[index], diff_id)?;
        sizes[index].store(size, Ordering::Relaxed);
        Ok(())
    })?;
    let sizes: Vec<u64> = sizes.into_iter().map(AtomicU64::into_inner).collect();
    let database = context.content.database();
    let before = database.resolve(reference)?;
    let id = admit(context, &admission, &config, &sizes, std::slice::from_ref(reference))?;
    for layer in &admission.layers {
        database.put_blob_source(&layer.digest, &reference.repository())?;
    }
    let digest = resolved.descriptor.digest;
    let repository = reference.repository();
    database.put_repo_digest(&RepoDigest { repository, digest: digest.clone(), image: id.clone() })?;
    Ok(Pulled { newer: before.as_ref() != Some(&id), id, digest, layers })
}

/// Sends an image of the store to the registry of its name (`docker push`).
///
/// A name for several platforms is sent with all of them, below an index. An image that was pulled is sent as it came,
/// with the same digest. Layers that were built here are compressed
/// unless the registry has them already.
///
/// # Errors
/// [`ImageError::NoSuchImage`] if no image has the name; [`ImageError::Export`] with what the registry says.
pub fn push(context: &ExportContext<'_>, name: &Reference, compression: Compression) -> Result<Pushed, ImageError> {
    let _lease = context.content.reading_lease(context.cancel)?;
    let stored = StoredImage::open_all(context, &name.to_string())?;
    let make = |image: usize, layer: usize| stored[image].blob(context, layer, compression);
    let options = PushOptions { by_digest: false, insecure: false };
    let send_all = || -> Result<_, ImageError> {
        let set = StoredImage::pack_all(context, &stored, compression, Want::Descriptor)?;
        let blobs = send(context, &set, std::slice::from_ref(name), options, &make)?;
        Ok((set, blobs))
    };
    let outdated = |error: &ImageError| matches!(error, ImageError::Export(ExportError::Outdated { .. }));
    let (set, blobs) = until_right(send_all, outdated)?;
    let digests = set.images.iter().flat_map(|image| &image.layers).map(|layer| &layer.descriptor.digest);
    let layers = digests.filter_map(|digest| Some((digest.clone(), blobs.get(digest)?.clone()))).collect();
    Ok(Pushed { name: name.clone(), manifest: set.top().descriptor.clone(), layers })
}

/// The names in the store that belong to a repository (`docker push --all-tags`).
///
/// # Errors
/// [`ImageError::NoSuchImage`] if there are none; [`ImageError::Content`] if the store cannot be read.
pub fn names_in_repository(
    content: &crate::content::ContentStore,
    repository: &Reference,
) -> Result<Vec<Reference>, ImageError> {
    let wanted = repository.repository();
    let mut names: Vec<Reference> = content.database().tags()?.into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name.repository() == wanted);
    names.dedup();
    if names.is_empty() {
        return Err(ImageError::NoSuchImage { name: repository.familiar_name() });
    }
    Ok(names)
}
