//! [`pack`].

use std::io::Write;

use super::{Files, PackError};
use crate::tree::Tree;

/// How a tree is written as a tar archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// Latest modification time that is written, in seconds since 1970: later ones become this one.
    pub source_date_epoch: Option<i64>,
}

/// Writes a tree as a tar archive.
///
/// # Errors
/// [`PackError`].
pub fn pack(tree: &Tree, files: &dyn Files, out: &mut dyn Write, options: &PackOptions) -> Result<(), PackError> {
    let _ = (tree, files, out, options);
    todo!("in a minute")
}
