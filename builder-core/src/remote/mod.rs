//! The cache that travels: records, trees, layers and cache mounts in registries, directories and object stores.
//!
//! ```text
//! --cache-to    steps of a build ──▶ Contents ── format ──▶ index + chunks + layer blobs ──▶ Backend
//! --cache-from  Backend ── index, then the chunks that are asked for ──▶ record + tree ── later ──▶ files of a layer
//! ```
//!
//! Every backend keeps the same two things: blobs by digest, and one OCI manifest under a name. The config of the
//! manifest is the index ([`format`]), its layers are everything that the index names, so that a registry neither
//! collects nor forgets them.
//!
//! - A build without misses asks nobody. The first miss fetches the index, and then only chunks with something in them
//!   that was asked for. Files are fetched when a step or an export reads them.
//! - Nothing that comes in is believed: blobs are hashed, a record is found under the digest of its preimage only, a
//!   tree under that of its bytes, and unpacked files have to be those of their tree.
//! - A place that is away, slow or wrong costs one warning and is not asked again in this build.

mod backend;
mod deadline;
mod error;
mod export;
mod fetch;
mod format;
mod import;
mod inline;
mod mounts;
mod options;
mod probe;
mod whole;

pub(crate) use backend::Backends;
pub use error::{ParseCacheError, RemoteError};
pub(crate) use export::MountToExport;
pub(crate) use export::{EarlyExport, Exporter, LayerToExport, distinct};
pub(crate) use format::{Base, Contents};
pub(crate) use import::{Imports, chain, root_of};
pub(crate) use inline::{InlineLayer, TooLarge, encode as encode_inline};
pub(crate) use mounts::{MountIdentity, tree_of};
pub use options::{
    CacheDestination, CacheMode, CachePlace, CacheSource, GhaPlace, MountChoice, S3Place, Variable, is_inline,
};
pub(crate) use probe::Condition;
pub(crate) use whole::Whole;

/// A tree of one directory, for tests.
#[cfg(test)]
fn tree_with(path: &str) -> crate::tree::Tree {
    let mut builder = crate::tree::TreeBuilder::new();
    let path = crate::rootfs::RootPath::clean(path).expect("clean");
    builder.push(crate::tree::Entry::directory(path, 0o755, 0, 0, crate::tree::Time::from_seconds(7)));
    builder.finish()
}
