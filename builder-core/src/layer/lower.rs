//! What a layer that was unpacked alone has to take from those below.

use super::{LowerLink, UnpackError};
use crate::rootfs::RootPath;
use crate::snapshot::{Active, Snapshot};
use crate::tree::{Stack, Tree};

/// Gives directories that the archive did not have an entry for the metadata that they have in `lower`.
///
/// # Errors
/// [`UnpackError::Write`].
pub fn fix_implied(active: &Active, tree: &Tree, implied: &[RootPath], lower: &Stack) -> Result<Tree, UnpackError> {
    let _ = (active, tree, implied, lower);
    todo!("in a minute")
}

/// Copies what hard links into lower layers lead to; `snapshots` are those of `lower`, in the same order.
///
/// # Errors
/// [`UnpackError::LinkTarget`].
pub fn resolve_lower_links(
    active: &Active,
    tree: &Tree,
    links: &[LowerLink],
    lower: &Stack,
    snapshots: &[&Snapshot],
) -> Result<Tree, UnpackError> {
    let _ = (active, tree, links, lower, snapshots);
    todo!("in a minute")
}
