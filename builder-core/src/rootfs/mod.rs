//! Paths inside an image, and root directories that they cannot escape from.
//!
//! [`RootPath`] is a path inside an image: pure data, no leading slash, no `.` or `..`. `std::path::Path` is a path on
//! the host. The two meet only in [`RootDir`], which resolves with `openat2(RESOLVE_IN_ROOT)` and gives a
//! [`Directory`]: a descriptor, on which everything else happens by plain names that are never followed.
//!
//! ```text
//! RootDir ── parent(RootPath) ──▶ (Directory, name) ── create_file, symlink, stat, remove_tree, …
//!         ── open_file(RootPath) ──▶ File
//! Accounts ── run_as(UserSpec) ──▶ Identity     owner(UserSpec) ──▶ Owner       from the image's own passwd and group
//! ```

mod accounts;
mod directory;
mod path;
mod root_dir;

pub use accounts::{Accounts, AccountsError, Identity, NameOrId, Owner, UserSpec};
pub use directory::{Directory, Kind, Stat, set_mode, set_owner, set_times, set_xattr};
pub(crate) use path::compare_paths;
pub use path::{ParseRootPathError, RootPath};
pub use root_dir::RootDir;

#[cfg(test)]
pub(crate) mod tests;
