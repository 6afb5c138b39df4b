//! How a stage begins: images, named contexts, other stages.

use super::{Current, ImageUsed, Lowering};
use crate::diagnostic::Location;
use crate::dockerfile::lint::Detail;
use crate::graph::checks::Place;
use crate::graph::error::{GraphError, GraphErrorKind};
use crate::graph::stages::{Base, Stage};
use crate::graph::state::State;
use crate::graph::{AddSource, ContextId, CopyOp, Files, ImageOp, ImageRequest, Op, Step, Vertex, VertexId};
use crate::oci::{HistoryEntry, ImageConfig};
use crate::rootfs::RootPath;

/// Whether an image has no layers; a base like that is nothing but its config.
fn is_empty(config: &ImageConfig) -> bool {
    config.rootfs.diff_ids.is_empty() && config.history.iter().all(|entry| entry.empty_layer)
}

/// What BuildKit writes for a layer that no instruction made.
const FOREIGN_COMMENT: &str = "buildkit.exporter.image.v0";

impl<'a> Lowering<'a> {
    /// Takes over what the base is.
    pub(super) fn begin(&mut self, current: &mut Current, stage: &'a Stage<'a>) {
        match &stage.base {
            Base::Scratch | Base::Broken => {}
            Base::Stage(base) => {
                // The last user takes it, so that a long chain of stages copies nothing.
                self.children[*base] -= 1;
                let state =
                    if self.children[*base] == 0 { self.states[*base].take() } else { self.states[*base].clone() };
                if let Some(state) = state {
                    current.state = state.inherit();
                }
            }
            Base::Image(request) => self.begin_image(current, stage, request),
            Base::Directory(context) => {
                let files = Files::Context(ContextId::Named(context.clone()));
                let op = CopyOp {
                    sources: vec![AddSource::Path("/".to_owned())],
                    ..CopyOp::new(files, "/", RootPath::root())
                };
                let name = format!("[context {context}] load");
                let location = Location { source: self.dockerfile.source.clone(), span: stage.instruction.span };
                let vertex = Vertex {
                    op: Op::Copy(op),
                    root: None,
                    name: name.clone(),
                    stage: current.title.clone(),
                    location: Some(location),
                    origin: None,
                    no_cache: current.no_cache,
                    time_to_live: None,
                    cache_reads: false,
                };
                let id = self.push(vertex);
                current.state.root = Some(id);
                let entry =
                    HistoryEntry { created_by: name, comment: FOREIGN_COMMENT.to_owned(), ..HistoryEntry::default() };
                current.steps.push(Step { entry, vertex: Some(id) });
            }
        }
    }

    fn begin_image(&mut self, current: &mut Current, stage: &'a Stage<'a>, request: &ImageRequest) {
        let location = Location { source: self.dockerfile.source.clone(), span: stage.from.image.span };
        let Some(image) = self.images.get(request) else {
            let error = GraphError::new(GraphErrorKind::UnresolvedImage(request.reference.clone()));
            self.errors.push(error.at(location));
            return;
        };
        let workdir = match RootPath::clean(&image.config.config.working_dir) {
            Ok(workdir) => workdir,
            Err(error) => {
                self.errors.push(GraphError::new(error).at(location.clone()));
                RootPath::root()
            }
        };
        let has = image.config.platform();
        let wanted = &request.platform;
        current.state = State::from_image(&image.config, wanted, workdir);
        current.state.guessed = image.guessed;
        let edits = &self.options.edits;
        let kept = |name: &String| !edits.drop_labels && !edits.unset_labels.contains(name);
        current.state.config.config.labels.retain(|name, _| kept(name));
        let is_empty = is_empty(&image.config);
        if !is_empty && (has.os != wanted.os || has.architecture != wanted.architecture) {
            let written = &stage.from.image.text;
            let expanded = self.names.word(written, &|name| self.stages.globals.value(name));
            let image = expanded.map_or_else(|_| written.to_string(), |expanded| expanded.text);
            let detail = Detail::InvalidBaseImagePlatform(&image, &has, wanted);
            self.checks.report(Place { location, origin: None }, &detail);
        }
        let replaced = stage.name().and_then(|name| self.options.context(name, wanted));
        let context = replaced.or_else(|| self.options.context(&stage.from.image.text, wanted));
        let location = Location { source: self.dockerfile.source.clone(), span: stage.instruction.span };
        let used = ImageUsed { stage: &current.title, location, origin: None };
        // A base that an earlier stage has too counts in each, although it is one vertex with one name.
        let mut counter = current.counter.clone();
        if context.is_none() {
            current.counter.skip();
        }
        current.state.root = self.image(request, used, |reference| match context {
            Some((name, _)) => format!("[context {name}] {reference}"),
            None => counter.next(&format!("FROM {reference}"), false, None),
        });
    }

    /// The vertex of an image, made at its first use; `None` for an image without layers.
    pub(in crate::graph) fn image(
        &mut self,
        request: &ImageRequest,
        used: ImageUsed<'_>,
        name: impl FnOnce(&str) -> String,
    ) -> Option<VertexId> {
        if let Some(known) = self.image_vertices.get(request) {
            return *known;
        }
        let image = self.images.get(request)?;
        let is_empty = is_empty(&image.config);
        let reference = match request.reference.digest() {
            Some(_) => request.reference.to_string(),
            None => format!("{}@{}", request.reference, image.digest),
        };
        let name = name(&reference);
        let vertex = (!is_empty).then(|| {
            self.push(Vertex {
                op: Op::Image(ImageOp {
                    reference: request.reference.clone(),
                    platform: request.platform.clone(),
                    layout: request.layout.clone(),
                    digest: image.digest.clone(),
                }),
                root: None,
                stage: used.stage.to_owned(),
                name,
                location: Some(used.location),
                origin: used.origin,
                no_cache: false,
                time_to_live: None,
                cache_reads: false,
            })
        });
        self.image_vertices.insert(request.clone(), vertex);
        vertex
    }
}
