//! One file an op: what identifies it (its key), and doing it.

pub(super) mod archive;
mod by_reads;
pub mod copy;
pub(super) mod devices;
pub mod http;
pub(super) mod image;
pub(super) mod mounts;
mod reads;
pub(super) mod run;
mod patch;
pub(super) mod transfer;
mod unchanged;
pub(super) mod workdir;
