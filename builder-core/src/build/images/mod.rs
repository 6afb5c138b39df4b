//! The images of a store: what docker's image commands do, as functions.
//!
//! | command | function |
//! |---|---|
//! | `images` | [`list`], [`rows`] |
//! | `tag` | [`tag`] |
//! | `rmi` | [`remove`] |
//! | `inspect` | [`inspect`] |
//! | `history` | [`history`] |
//! | `pull`, `push` | [`pull`], [`push`], [`names_in_repository`] |
//! | `save`, `load` | [`save`], [`save_to`], [`load`] |
//! | `image prune`, `prune` | [`prune`], [`collect`] |
//! | `du`, `system df` | [`usage`] |
//!
//! What only looks at images takes the [`ContentStore`]; what moves bytes takes an
//! [`ExportContext`](crate::export::ExportContext), which also says whom to tell about progress.
//!
//! Nothing here prints. Structures say what docker's tables show; how they look is the caller's business.

mod admit;
mod error;
mod history;
mod inspect;
mod list;
mod load;
mod name_pattern;
mod prune;
mod pull;
mod remove;
mod save;
mod stored;

pub use error::ImageError;
pub use history::{HistoryRow, history};
pub use inspect::{InspectedConfig, InspectedImage, InspectedMetadata, InspectedRootFs, inspect};
pub use list::{ImageRow, ImageSummary, ListFilter, list, rows};
pub use load::{Loaded, load};
pub use prune::{ImageUsage, Keep, PruneOptions, Reclaimed, Usage, collect, prune, usage};
pub(super) use prune::{layer_names, needed};
pub use pull::{Pulled, Pushed, names_in_repository, pull, push};
pub(super) use remove::blobs_of;
pub use remove::{RemoveOptions, Removed, remove};
pub use save::{SaveFormat, save, save_to};

use crate::content::{ContentStore, ImageRecord};
use crate::oci::{ImageConfig, ImageId, Reference};

/// Largest config that is read, in bytes.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;

/// Finds an image by a name, an id, or the beginning of an id.
///
/// # Errors
/// [`ImageError::NoSuchImage`], and [`ImageError::Content`] for an ambiguous id or a store that cannot be read.
pub fn find(content: &ContentStore, text: &str) -> Result<ImageRecord, ImageError> {
    let missing = || ImageError::NoSuchImage { name: text.to_owned() };
    let id = content.database().find_image(text)?.ok_or_else(missing)?;
    content.database().image(&id)?.ok_or_else(missing)
}

/// Reads the config of an image of the store.
///
/// # Errors
/// [`ImageError::Content`] if it is gone or damaged, [`ImageError::Config`] if it is not a config.
pub fn config(content: &ContentStore, id: &ImageId) -> Result<ImageConfig, ImageError> {
    let bytes = content.read(id.digest(), MAX_CONFIG)?;
    ImageConfig::parse(&bytes).map_err(|source| ImageError::Config { id: id.clone(), source })
}

/// Gives the image that `source` names a further name (`docker tag`).
///
/// # Errors
/// [`ImageError::NoSuchImage`]; [`ImageError::DigestInName`] if `target` has a digest.
pub fn tag(content: &ContentStore, source: &str, target: &Reference) -> Result<ImageId, ImageError> {
    if target.digest().is_some() {
        return Err(ImageError::DigestInName { name: target.clone() });
    }
    let image = find(content, source)?;
    let mut images = match source.parse::<Reference>() {
        Ok(name) => content.database().images_of(&name)?,
        Err(_) => Vec::new(),
    };
    if !images.contains(&image.id) {
        images = vec![image.id.clone()];
    }
    content.database().tag_all(target, &images)?;
    Ok(image.id)
}

#[cfg(test)]
mod tests;
