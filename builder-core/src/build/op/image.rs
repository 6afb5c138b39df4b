//! `FROM`: the layers of a base image, fetched only when somebody reads them.

use std::sync::Arc;

use crate::build::filesystem::Filesystem;
use crate::build::solve::{Session, Solved};
use crate::graph::ImageOp;

pub(crate) fn solve(session: &Session<'_>, op: &ImageOp) -> Solved {
    let base = session.bases.get(&op.request()).map(Arc::clone);
    debug_assert!(base.is_some(), "every image was resolved before the graph was made");
    Solved { filesystem: Filesystem { base, built: Vec::new() }, cached: true }
}
