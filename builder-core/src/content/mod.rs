//! What the store keeps: blobs named by their digest, and the database of images, tags and facts about them.
//!
//! ```text
//! STATE/version                        format of everything below; a newer one is refused
//! STATE/lock                           shared lock of every running build, exclusive for garbage collection
//! STATE/db.sqlite                      images, tags, facts about layers and blobs
//! STATE/content/blobs/sha256/HEX       a blob; the name exists only once the bytes are verified and on disk
//! STATE/content/tmp/                   blobs that are being written, each locked by its writer
//! STATE/content/damaged/               blobs whose bytes stopped being what their name says
//! ```
//!
//! Opening a store is a few system calls; directories and the database are made when something is first written.
//! Nothing is written through a symbolic link found inside the store.

mod blob;
mod database;
mod error;
mod facts;
mod images;
mod lease;
mod store;
mod tar_states;

pub use blob::{BlobReader, BlobWriter};
pub use database::Database;
pub use error::ContentError;
pub use facts::ResolvedTag;
pub use images::{ImageRecord, LayerRecord, RepoDigest};
pub use lease::{ExclusiveLease, Lease};
pub use store::{Collected, ContentStore, FORMAT_DERIVED};

#[cfg(test)]
mod tests;
