//! What was built before: content-only [`CacheKey`]s with their [`Preimage`]s, and the [`Record`]s that they lead to.
//!
//! ```text
//! op + digests of what it sees ── key ──▶ Preimage ── digest ──▶ CacheKey ── CacheStore::get ──▶ Record { tree, … }
//! ```
//!
//! A key holds content only: no paths of the host, no times, nothing of how the inputs were made. So it is known as
//! soon as the trees of the inputs are known, and a step that ran again with an equal result lets everything after
//! it hit. The table of what is in a key and why is in [`key`].
//!
//! Where a command asks for it, [`reads`] is a second way: results by the files that a run looked at.
//!
//! Records are tiny, keep the preimage (so that a miss can be explained), and outlive the files that they describe.

pub mod explain;
pub mod key;
mod mounts;
pub mod reads;
mod record;
mod trim;

pub use key::{CacheKey, Field, Preimage};
pub use mounts::{CacheMountError, CacheMounts, MountedCache, StoredMount};
pub use record::{CacheError, CacheStore, KeyLock, Looked, Record};
pub use trim::Trimmed;
