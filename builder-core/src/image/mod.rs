//! From layers and a config to the documents of an image: config, manifest, index.
//!
//! ```text
//! UnassembledImage { config, history, layers } ── assemble(diff ids) ──▶ Image { config bytes, id }
//! Image + layer descriptors ── manifest ──▶ Document { bytes, descriptor }
//! [Document, …] ── index ──▶ Document                                     one image for several platforms
//! ```
//!
//! Pure: where the bytes of a layer are is data here ([`LayerSource`]), and only `export` reads them.

mod assemble;
mod manifest;

pub use assemble::{Image, ImageStep, UnassembledImage, assemble};
pub use manifest::{Document, index, layer_media_type, manifest};

use std::fmt;
use std::sync::Arc;

use crate::layer;
use crate::oci::{Descriptor, DiffId, Reference};
use crate::tree::Tree;

/// One layer of an image that is to be made.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    /// Digest of its uncompressed tar; known for every [`LayerSource::Stored`].
    pub diff_id: Option<DiffId>,
    /// Where its bytes are.
    pub source: LayerSource,
}

/// Where the bytes of a layer are.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "an image has few layers")]
pub enum LayerSource {
    /// A layer that existed before this build, such as one of a base image.
    Stored {
        /// Its blob as it was pulled; `None` for a layer that was built here, whose snapshot is in the store.
        descriptor: Option<Descriptor>,
        /// Where the blob can be fetched from if the content store has not got it.
        origin: Option<Reference>,
    },
    /// A tree that was made here. Its snapshot need not exist.
    Tree {
        /// What the layer changes.
        tree: Tree,
        /// Opens the files of the tree, for example straight from the build context.
        files: Arc<dyn layer::Files + Send + Sync>,
    },
}

impl fmt::Debug for LayerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { descriptor, origin } => {
                f.debug_struct("Stored").field("descriptor", descriptor).field("origin", origin).finish()
            }
            Self::Tree { tree, .. } => f.debug_struct("Tree").field("tree", &tree.id()).finish_non_exhaustive(),
        }
    }
}
