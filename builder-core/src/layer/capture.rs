//! [`capture`].

use super::CaptureError;
use crate::snapshot::Active;
use crate::tree::{Stack, Tree};

/// Finds out what was changed in `active`, on top of `lower`.
///
/// # Errors
/// [`CaptureError`].
pub fn capture(active: &Active, lower: &Stack) -> Result<Tree, CaptureError> {
    let _ = (active, lower);
    todo!("in a minute")
}
