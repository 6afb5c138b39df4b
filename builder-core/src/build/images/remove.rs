//! [`remove`]: docker's `rmi`.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use super::list::familiar;
use super::{ImageError, find};
use crate::content::{ContentStore, ImageRecord, RepoDigest};
use crate::oci::{ChainId, DiffId, Digest, ImageId, Reference, chain_id};

/// How images are removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Remove an image by its id although it has several names.
    pub force: bool,
}

/// One thing that was removed; displayed as docker's line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Removed {
    /// A name (`app:1.0`) or a name with a digest.
    Untagged(String),
    /// An image.
    Deleted(ImageId),
    /// A layer that no image has any more.
    DeletedLayer(ChainId),
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untagged(name) => write!(f, "Untagged: {name}"),
            Self::Deleted(id) => write!(f, "Deleted: {id}"),
            Self::DeletedLayer(id) => write!(f, "Deleted: {id}"),
        }
    }
}

/// Removes a name, and the image with its last name; or an image by its id with all its names.
///
/// Blobs that no image needs any more are removed if no build is running, else by the next [`prune`](super).
/// Results of steps stay in the build cache.
///
/// # Errors
/// [`ImageError::NoSuchImage`]; [`ImageError::SeveralNames`] for an id of an image that has names in several
/// repositories or several tags, without `force`.
pub fn remove(content: &ContentStore, text: &str, options: RemoveOptions) -> Result<Vec<Removed>, ImageError> {
    let database = content.database();
    let image = find(content, text)?;
    let mut removed = Vec::new();
    let named = match text.parse::<Reference>() {
        Ok(reference) if database.resolve(&reference)?.as_ref() == Some(&image.id) => Some(reference),
        _ => None,
    };
    if let Some(reference) = named {
        let several = database.images_of(&reference)?;
        untag(content, &several, &reference, &mut removed)?;
        for id in several {
            let left = !database.tags_of(&id)?.is_empty() || !database.repo_digests(&id)?.is_empty();
            if let Some(image) = database.image(&id)?.filter(|_| !left) {
                removed.extend(delete(content, &image)?);
                sweep(content, &image)?;
            }
        }
        return Ok(removed);
    }
    let tags = database.tags_of(&image.id)?;
    if tags.len() > 1 && !options.force {
        let names = tags.iter().map(Reference::familiar).collect();
        return Err(ImageError::SeveralNames { id: image.id, names });
    }
    removed.extend(delete(content, &image)?);
    sweep(content, &image)?;
    Ok(removed)
}

/// Takes one name away from its images, and the digests of its repository with the last tag there.
fn untag(
    content: &ContentStore,
    images: &[ImageId],
    reference: &Reference,
    removed: &mut Vec<Removed>,
) -> Result<(), ImageError> {
    let database = content.database();
    let repository = reference.repository();
    if reference.digest().is_none() {
        database.untag(reference)?;
        removed.push(Removed::Untagged(reference.familiar()));
    }
    let mut digests: Vec<Removed> = Vec::new();
    for image in images {
        let tagged = || Ok::<_, ImageError>(database.tags_of(image)?.iter().any(|tag| tag.repository() == repository));
        if reference.digest().is_none() && tagged()? {
            continue;
        }
        for name in digest_names(&database.repo_digests(image)?, Some(&repository)) {
            if !digests.contains(&name) {
                digests.push(name);
            }
        }
        database.remove_repo_digests(&repository, image)?;
    }
    removed.extend(digests);
    Ok(())
}

fn digest_names(digests: &[RepoDigest], repository: Option<&str>) -> Vec<Removed> {
    let wanted = |known: &&RepoDigest| repository.is_none_or(|repository| known.repository == repository);
    let name = |known: &RepoDigest| format!("{}@{}", familiar(&known.repository), known.digest);
    digests.iter().filter(wanted).map(|known| Removed::Untagged(name(known))).collect()
}

/// Forgets an image with all its names.
pub(super) fn delete(content: &ContentStore, image: &ImageRecord) -> Result<Vec<Removed>, ImageError> {
    let database = content.database();
    let mut removed: Vec<Removed> =
        database.tags_of(&image.id)?.iter().map(|tag| Removed::Untagged(tag.familiar())).collect();
    removed.extend(digest_names(&database.repo_digests(&image.id)?, None));
    database.remove_image(&image.id)?;
    removed.push(Removed::Deleted(image.id.clone()));
    let kept: BTreeSet<ChainId> = database.images()?.iter().flat_map(chains).collect();
    removed.extend(chains(image).into_iter().rev().filter(|chain| !kept.contains(chain)).map(Removed::DeletedLayer));
    Ok(removed)
}

/// The chain ids of an image, lowest first.
fn chains(image: &ImageRecord) -> Vec<ChainId> {
    let diff_ids: Vec<&DiffId> = image.layers.iter().map(|layer| &layer.diff_id).collect();
    (1..=diff_ids.len()).filter_map(|count| chain_id(diff_ids[..count].iter().copied())).collect()
}

/// Removes the blobs of a forgotten image that no other image names, if nobody uses the store.
fn sweep(content: &ContentStore, image: &ImageRecord) -> Result<(), ImageError> {
    let Some(_alone) = content.try_exclusive()? else { return Ok(()) };
    let mut kept: HashSet<Digest> = HashSet::new();
    for other in content.database().images()? {
        kept.extend(blobs_of(&other));
    }
    for digest in blobs_of(image) {
        if !kept.contains(&digest) {
            content.remove(&digest)?;
        }
    }
    Ok(())
}

/// The blobs that an image names: config, manifest, layers as they came.
pub(crate) fn blobs_of(image: &ImageRecord) -> Vec<Digest> {
    let layers = image.layers.iter().filter_map(|layer| layer.descriptor.as_ref());
    let documents = image.manifest.iter();
    let blobs = documents.chain(layers).map(|descriptor| descriptor.digest.clone());
    std::iter::once(image.id.digest().clone()).chain(blobs).collect()
}
