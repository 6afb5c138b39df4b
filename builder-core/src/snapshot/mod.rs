//! Directory states on disk: one overlayfs upper directory a layer, stacked by mounting.
//!
//! ```text
//! SnapshotStore ── begin ──▶ Active (tmp-XXXX, removed when dropped) ── commit(&Tree) ──▶ Snapshot (named by TreeId)
//!                                │                                                            │
//!                     layer::{unpack, capture, materialise}                 Snapshotter::mount(lowers, stubs, upper)
//! ```
//!
//! On disk, `STATE/snapshots/`, mode 0700:
//!
//! ```text
//! <tree id>/fs        the upper directory: files, whiteouts (character device 0/0), opaque directories (xattr)
//! <tree id>/{delta,base}    instead of `fs`, of a derived one: what differs from another, and which (see `derived.rs`)
//! <tree id>/meta      "boot <boot id>\nroot <0|1>\n": when it was committed; whether its tree has an entry for the root
//! <tree id>/durable   empty; there once the file system was synced after the commit
//! bases               ids of snapshots from which others may be derived, the last used first
//! tmp-XXXX/{fs,work-N,stubs}    active, or half removed; locked (flock) while a process uses it
//! ```
//!
//! A committed snapshot never changes. Its `fs` holds what its tree says, so a question about it is answered from the
//! tree. What the kernel refuses to store (devices in a user namespace, unmapped owners) is in the tree only.

mod active;
mod copy;
mod derived;
mod disk;
mod error;
mod mount;
mod store;
mod stubs;
mod verify;

pub use active::Active;
pub use copy::CopySnapshotter;
pub(crate) use disk::{
    Dialect, Overlaid, clear_opaque, create_node, hash_file, make_whiteout, overlaid, read_entry, set_metadata,
    set_metadata_of, set_mtime, set_opaque,
};
pub use error::SnapshotError;
pub use mount::{Mount, OverlaySnapshotter, Snapshotter, probe};
pub use store::{Snapshot, SnapshotStore};
pub use stubs::{StubLayer, stubs};

#[cfg(test)]
mod tests;
