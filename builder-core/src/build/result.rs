//! From a solved graph to an image, and to where it goes.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::error::{BuildError, StepError};
use super::filesystem::{BuiltLayer, Filesystem, NoFiles, Source, Work};
use super::inline_cache;
use super::request::{BuildRequest, BuildResult};
use super::solve::{Session, Solution, step_error};
use crate::export::{self, ExportContext, ExportError, ExportImage, LayerFiles, Output};
use crate::graph::{Graph, Op, Target};
use crate::image::{ImageLayer, ImageStep, LayerSource, UnassembledImage};
use crate::layer::Files;
use crate::progress::{Sink, TaskId};

/// Whether the result has to have its files: an output reads them.
pub(super) fn needs_files(request: &BuildRequest) -> bool {
    request.outputs.iter().any(|output| !matches!(output, Output::CacheOnly))
}

/// Makes the image and sends it to every output.
pub(super) fn export(
    session: &Session<'_>,
    graph: &Graph,
    solution: &Solution,
    task: TaskId,
    sink: &dyn Sink,
    stdout: Option<&Mutex<dyn std::io::Write + Send>>,
) -> Result<BuildResult, BuildError> {
    let engine = session.engine;
    let wants_files = session.request.outputs.iter().any(Output::needs_files);
    let (mut images, refused) = (Vec::new(), inline_cache::Refused::default());
    for target in graph.targets() {
        let image = unassembled(session, graph, target, solution)?;
        let files = if wants_files { files(session, &image, graph, target, solution)? } else { Vec::new() };
        let cache = inline_cache::of_target(session, graph, target, solution, &refused)
            .map_err(|error| BuildError::Store(Box::new(error)))?;
        images.push(ExportImage { image, files, cache });
    }
    let context = ExportContext {
        content: &engine.content,
        snapshots: &engine.snapshots,
        trees: &engine.trees,
        registry: &engine.registry,
        cancel: &session.cancel,
        sink,
        task,
        source_date_epoch: graph.source_date_epoch,
        multi_platform: session.request.is_multi_platform(),
        stdout,
    };
    let exported = export::export(&context, &images, &session.request.outputs).map_err(|error| match error {
        ExportError::Cancelled(cancelled) => BuildError::Cancelled(cancelled),
        error => BuildError::Export(Box::new(error)),
    })?;
    if let Some(refused) = refused.get() {
        session.events.warning(Some(task), refused.warning());
    }
    let metadata = exported.metadata();
    Ok(BuildResult {
        image_id: exported.image_id,
        manifest: exported.manifest,
        names: exported.names,
        metadata,
        ..BuildResult::default()
    })
}

/// The files of every layer, those of the base included.
fn files(
    session: &Session<'_>,
    image: &UnassembledImage,
    graph: &Graph,
    target: &Target,
    solution: &Solution,
) -> Result<Vec<LayerFiles>, BuildError> {
    let Some(root) = target.root else { return Ok(Vec::new()) };
    let filesystem = &solution.filesystems[root.0];
    let failed = |error| step_error(graph, root, error);
    let mut files: Vec<LayerFiles> = Vec::new();
    if let Some(base) = &filesystem.base {
        let trees = base.trees(session, Work::Allowed).map_err(failed)?.unwrap_or_default();
        for (layer, tree) in trees.into_iter().enumerate() {
            let opener: Arc<dyn Files + Send + Sync> = if tree.is_empty() {
                Arc::new(NoFiles)
            } else {
                Arc::new(base.snapshot(session, layer).map_err(failed)?)
            };
            files.push((tree, opener));
        }
    }
    for layer in &image.layers[image.base_layers..] {
        if let LayerSource::Tree { tree, files: opener } = &layer.source {
            files.push((tree.clone(), Arc::clone(opener)));
        }
    }
    Ok(files)
}

fn unassembled(
    session: &Session<'_>,
    graph: &Graph,
    target: &Target,
    solution: &Solution,
) -> Result<UnassembledImage, BuildError> {
    let filesystem = target.root.map(|root| solution.filesystems[root.0].clone()).unwrap_or_default();
    let mut layers = filesystem.base.as_ref().map_or_else(Vec::new, |base| base.image_layers());
    let base_layers = layers.len();
    for layer in &filesystem.built {
        let made = image_layer(session, layer).map_err(|error| step_error(graph, layer.vertex, error))?;
        layers.push(made);
    }
    let steps = target.history.iter().map(|step| {
        let layer = filesystem.built.iter().find(|layer| Some(layer.vertex) == step.vertex);
        ImageStep {
            entry: step.entry.clone(),
            layer: layer.is_some(),
            created: layer.and_then(|layer| Timestamp::from_second(layer.created).ok()),
        }
    });
    Ok(UnassembledImage {
        config: target.config.clone(),
        base_history: target.base_history.clone(),
        steps: steps.collect(),
        layers,
        base_layers,
        omit_history: session.request.omit_history,
        base: base_of(graph, target, &filesystem),
    })
}

/// Name and digest of the image that the target is built on.
fn base_of(
    graph: &Graph,
    target: &Target,
    filesystem: &Filesystem,
) -> Option<(crate::oci::Reference, crate::oci::Digest)> {
    filesystem.base.as_ref()?;
    let mut vertex = target.root;
    while let Some(id) = vertex {
        if let Op::Image(image) = &graph.vertices[id.0].op {
            return Some((image.reference.clone(), image.digest.clone()));
        }
        vertex = graph.vertices[id.0].root;
    }
    None
}

fn image_layer(session: &Session<'_>, layer: &BuiltLayer) -> Result<ImageLayer, StepError> {
    let files = layer_files(session, layer)?;
    Ok(ImageLayer { diff_id: None, source: LayerSource::Tree { tree: layer.tree.clone(), files } })
}

/// What opens the files of a layer, wherever they are.
pub(super) fn layer_files(
    session: &Session<'_>,
    layer: &BuiltLayer,
) -> Result<Arc<dyn Files + Send + Sync>, StepError> {
    Ok(match &layer.source {
        Source::Files(files) if session.engine.snapshots.get(&layer.id)?.is_none() => Arc::clone(files),
        _ if layer.tree.is_empty() => Arc::new(NoFiles),
        _ if session.engine.snapshots.get(&layer.id)?.is_none() && session.has_remote_files(layer) => {
            Arc::new(session.remote.as_ref().expect("it has the files").lazy(layer))
        }
        _ => Arc::new(layer.snapshot(session)?),
    })
}
