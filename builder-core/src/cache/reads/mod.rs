//! [`ReadSet`]: results of commands by what they looked at, for a second lookup after the key had nothing (`--cache-reads`).
//!
//! ```text
//! definition: all of the key but the root and read-only bind mounts ── CacheStore::read_sets ──▶ ReadSet { looks, record }…
//! looks: (place, path, how) ── Views::state, of the root and mounts as they are now ──▶ all as recorded? then the record
//! ```
//!
//! A command whose every look at the files below it gives what it gave before does what it did before, and its layer is what it
//! was. What belongs to the set besides what the command named is said in `build/op/by_reads.rs`.
//!
//! | state of a path | seen | listed | whole |
//! |---|---|---|---|
//! | whether it is there; kind, mode, owner, extended attributes | yes | yes | yes |
//! | a file: content, and with hard links the other names | yes | yes | yes |
//! | a link: its target; a device: its numbers | yes | yes | yes |
//! | a directory: names and kinds of what is in it, and whether several layers have it | no | yes | yes |
//! | a directory: everything below it | no | no | yes |
//! | times, inode numbers, sizes of directories, free space | no | no | no |
//!
//! The last row is in no key either.

mod state;
mod store;

pub use state::{How, Look, Views};

use serde::{Deserialize, Serialize};

use super::{CacheKey, Preimage, Record};

/// Raised whenever a set of another version must not be used: what is looked at, or what a state is made of, changed.
pub const VERSION: u32 = 2;

/// What one run of a command looked at, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSet {
    /// [`VERSION`]
    pub version: u32,
    /// The digest that is the name of what the command is.
    pub definition: String,
    /// What the command left under its own key.
    pub record: Record,
    /// What it looked at.
    pub looks: Vec<Look>,
}

/// The part of the preimage of a command that says what it is, without the files that it could see but by name: what its root
/// shows, and the mounts at these places in `shown`.
///
/// `plain` is the preimage with nothing shown there, and `preimage` the whole; fields that `plain` does not have are kept.
pub fn definition(plain: Preimage, preimage: &Preimage) -> CacheKey {
    let mut definition = Preimage { op: "run by what it reads".to_owned(), fields: plain.fields };
    let known = definition.fields.len();
    definition.fields.extend(preimage.fields.iter().skip(known).cloned());
    definition.add("version of reads", VERSION);
    definition.key()
}

#[cfg(test)]
mod tests;
