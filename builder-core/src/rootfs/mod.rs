//! Paths inside an image, and root directories that they cannot escape from.
//!
//! [`RootPath`] is a path inside an image: pure data, no leading slash, no `.` or `..`. `std::path::Path` is a path on
//! the host. The two meet only in `RootDir`, which resolves with `openat2(RESOLVE_IN_ROOT)`.

mod path;

pub(crate) use path::compare_paths;
pub use path::{ParseRootPathError, RootPath};
