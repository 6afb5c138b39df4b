//! The words of the OCI image and distribution specifications, as types; and Docker's older spellings of them.
//!
//! Everything here is pure: text and bytes in, values out. What was fetched keeps its raw bytes beside the parsed
//! value, because a digest is of bytes and never of a value written again.
//!
//! ```text
//! Reference ──▶ Descriptor ──▶ Index ──▶ Descriptor(Platform) ──▶ Manifest ──▶ Descriptor ──▶ ImageConfig
//!                                                                         └──▶ Descriptor ──▶ layer (DiffId)
//! ```
//!
//! Sources: image-spec 1.1, distribution-spec 1.1, Docker image manifest v2 schema 2.

mod config;
mod descriptor;
mod digest;
mod layout;
mod manifest;
mod media_type;
mod platform;
mod reference;
mod strict_json;

pub use config::{ContainerConfig, Healthcheck, HistoryEntry, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, ChainId, DiffId, Digest, Hasher, ImageId, ParseDigestError, Sha256, chain_id};
pub use layout::LayoutReference;
pub use manifest::{Index, Manifest, ParseManifestError};
pub use media_type::{Compression, MediaKind, MediaType};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference};
