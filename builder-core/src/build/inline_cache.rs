//! The inline cache: what an image says of its own steps (`--cache-to type=inline`).
//!
//! It holds the steps whose layers the image has, and no others: the commands of build stages are nobody's business
//! who pulls the image. Nothing in it depends on when or where the image was built, apart from what the image says
//! already.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::error::StepError;
use super::filesystem::Filesystem;
use super::solve::{Session, Solution};
use crate::cache::Record;
use crate::export::{FinalLayers, MakeCache};
use crate::graph::{Graph, Op, Target, VertexId};
use crate::remote::{Base, Contents, InlineLayer, TooLarge, encode_inline};
use crate::tree::{ContentDigest, Node, Tree};

/// What the caches of a build's images came to, for a warning.
pub(super) type Refused = Arc<OnceLock<TooLarge>>;

/// What writes the cache of a target's image; `None` if none is wanted, or no step made a layer.
pub(super) fn of_target(
    session: &Session<'_>,
    graph: &Graph,
    target: &Target,
    solution: &Solution,
    refused: &Refused,
) -> Result<Option<Arc<MakeCache>>, StepError> {
    let Some(remote) = session.remote.as_ref().filter(|_| session.request.wants_inline_cache()) else {
        return Ok(None);
    };
    let Some(filesystem) = target.root.map(|root| &solution.filesystems[root.0]) else { return Ok(None) };
    let noted = remote.noted();
    let built = filesystem.built.iter().enumerate();
    let steps = built.filter_map(|(at, layer)| Some((at, noted.steps.get(&layer.vertex)?.clone())));
    let steps: Vec<(usize, Record)> = steps.collect();
    if steps.is_empty() {
        return Ok(None);
    }
    let mut known = Contents::default();
    if needs_base(graph, filesystem)
        && let Some(base) = &filesystem.base
    {
        for (layer, tree) in base.remembered_trees(session.engine)? {
            known.bases.push(Base { layer, tree: tree.id() });
            known.trees.push(tree);
        }
    }
    known.files = files_of(filesystem, &known.trees, noted.files);
    let refused = Arc::clone(refused);
    Ok(Some(Arc::new(move |made| write(&known, &steps, made, &refused))))
}

/// Whether the keys of its steps are made of what is below: then every builder of the image knew its base.
fn needs_base(graph: &Graph, filesystem: &Filesystem) -> bool {
    let looks_down = |vertex: VertexId| match &graph.vertices[vertex.0].op {
        Op::Copy(copy) => !copy.link || copy.chown.is_some(),
        _ => true,
    };
    filesystem.built.iter().any(|layer| looks_down(layer.vertex))
}

/// Those of the small files that the image has.
fn files_of(
    filesystem: &Filesystem,
    bases: &[Tree],
    mut files: BTreeMap<ContentDigest, Vec<u8>>,
) -> BTreeMap<ContentDigest, Vec<u8>> {
    if files.is_empty() {
        return files;
    }
    let trees = bases.iter().chain(filesystem.built.iter().map(|layer| &layer.tree));
    let contents = trees.flat_map(Tree::iter).filter_map(|entry| match entry.node {
        Node::File { content, .. } => Some(content),
        _ => None,
    });
    let there: HashSet<ContentDigest> = contents.filter(|content| files.contains_key(content)).collect();
    files.retain(|content, _| there.contains(content));
    files
}

fn write(known: &Contents, steps: &[(usize, Record)], made: &FinalLayers<'_>, refused: &Refused) -> Option<String> {
    let (mut contents, mut layers) = (known.clone(), Vec::new());
    for (at, record) in steps {
        let layer = &made.layers[*at];
        let tree = layer.tree;
        // With rewritten times the tree of the image is another one than the step's, with the same content.
        let created = made.epoch.unwrap_or(record.created);
        // With an epoch nothing says when the step ran: for who sets a limit it was long ago.
        let ran = made.epoch.map(|_| 0);
        contents.records.push(Record { tree: tree.id(), created, milliseconds: None, ran, ..record.clone() });
        contents.trees.push(tree.clone());
        if !tree.is_empty() {
            layers.push(InlineLayer {
                tree: tree.id(),
                diff_id: layer.diff_id.clone(),
                format: made.format.clone(),
                blob: layer.blob.clone(),
            });
        }
    }
    match encode_inline(&contents, layers) {
        Ok(text) => Some(text),
        Err(error) => {
            let _ = refused.set(error);
            None
        }
    }
}
