//! Layers: between a [`Tree`](crate::tree::Tree) with the files that it speaks of, and a tar blob.
//!
//! ```text
//! blob ── unpack ──▶ Active + Tree          a pulled layer; or an archive of ADD
//! upper directory ── capture ──▶ Tree       what a command changed
//! Tree + Files ── materialise ──▶ Active    a COPY that a later step needs as a directory
//!              └─ keep ──▶ Snapshot         the same in the store, only the difference from an earlier one if that is small
//! Tree + Files ── pack ──▶ tar              sorted, reproducible
//!              ├─ diff id, of a tree that begins like an earlier one from where they differ
//!              └─ write_layer ──▶ blob      tar → diff id → compressor → digest, in one read
//! ```

mod ahead;
mod capture;
mod compression;
mod error;
mod files;
mod keep;
mod lower;
mod materialise;
mod pack;
mod resume;
mod unpack;
mod write;

pub use capture::capture;
pub use compression::{Compressor, Decompressor, Level, begins_as_archive};
pub use error::{CaptureError, PackError, UnpackError};
pub use files::Files;
pub use keep::{Keep, KeepError};
pub use lower::{fix_implied, resolve_lower_links, stamp};
pub use materialise::materialise;
pub use pack::{PackOptions, pack};
pub use resume::{Resume, ResumeError};
pub use unpack::{Archive, LowerLink, UnpackLimits, UnpackOptions, Unpacked, unpack};
pub use write::{Layer, LayerFormat, diff_id, write_layer};

#[cfg(test)]
mod tests;
