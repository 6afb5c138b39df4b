//! [`lower`]: from instructions to vertices.
//!
//! ```text
//! for each needed stage, in file order
//!     begin      state of the base: root, environment, config
//!     instruct   each ONBUILD trigger of the base, then each instruction:
//!                expand its words ─▶ change the state, and maybe add a vertex ─▶ add an entry to the history
//! finish         the target's state becomes the image's config, its chain of bases the history
//! ```

mod base;
mod target;

use std::collections::HashMap;

use super::checks::{Checks, Once, Place};
use super::epoch::epoch_source;
use super::error::{GraphError, GraphErrorKind};
use super::globals::{SOURCE_DATE_EPOCH, build_arg, is_predefined};
use super::names::Counter;
use super::outline::{Draft, OutlineArg, targets};
use super::stages::{Base, Input, Stage, Stages};
use super::state::State;
use super::{Graph, GraphErrors, ImageRequest, Images, NoCache, Op, Options, Step, Vertex, VertexId};
use crate::diagnostic::{Location, Source, Span};
use crate::dockerfile::lint::{Detail, suggest};
use crate::dockerfile::{ArgDeclaration, Dockerfile, Expander, Instruction, InstructionKind, Word};
use crate::oci::HistoryEntry;

/// What BuildKit writes into the comment of each entry that an instruction makes.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// Longest sum of all texts in the history, in bytes. Each `RUN` repeats every `ARG` before it.
const MAX_HISTORY: usize = 64 << 20;

/// How many undefined variables are compared with all defined ones to find what was meant.
const MAX_SUGGESTIONS: usize = 100;

/// Arguments that are for the builder and never part of the environment.
const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Makes the graph of a target.
///
/// # Errors
/// Everything that is wrong, as [`plan`](super::plan) and beyond. An image that [`plan`](super::plan) reports as
/// missing is an error here.
pub fn lower(dockerfile: &Dockerfile, options: &Options, images: &Images) -> Result<Graph, GraphErrors> {
    let expander = Expander::new(dockerfile.directives.escape);
    let mut stages = Stages::resolve(Input { dockerfile, options, images, expander: &expander });
    let mut errors = std::mem::take(&mut stages.errors);
    let source_date_epoch = epoch(&stages, options, &mut errors);
    let mut lowering = Lowering {
        dockerfile,
        options,
        images,
        stages: &stages,
        expander: &expander,
        names: Expander::new(dockerfile.directives.escape),
        errors,
        checks: Checks::default(),
        outline: Draft::default(),
        vertices: Vec::new(),
        image_vertices: HashMap::new(),
        states: stages.list.iter().map(|_| None).collect(),
        roots: vec![None; stages.list.len()],
        steps: stages.list.iter().map(|_| Vec::new()).collect(),
        children: children(&stages),
        history_left: Some(MAX_HISTORY),
        suggestions_left: MAX_SUGGESTIONS,
    };
    for (index, stage) in stages.needed() {
        lowering.stage(index, stage);
    }
    let target = lowering.target();
    let Lowering { mut errors, checks, outline, vertices, .. } = lowering;
    let (warnings, check) = checks.finish(dockerfile, options, &mut errors);
    GraphErrors::check(errors)?;
    let unused_build_args = unused_build_args(dockerfile, &stages, options);
    let outline = outline.finish(&stages.globals, targets(dockerfile).get(stages.target));
    let further_targets = Vec::new();
    Ok(Graph { vertices, target, further_targets, warnings, check, unused_build_args, source_date_epoch, outline })
}

pub(super) struct Lowering<'a> {
    dockerfile: &'a Dockerfile,
    pub(super) options: &'a Options,
    images: &'a Images,
    pub(super) stages: &'a Stages<'a>,
    pub(super) expander: &'a Expander,
    /// Expands for names that are shown, so that showing takes nothing from what the build may expand.
    pub(super) names: Expander,
    errors: Vec<GraphError>,
    pub(super) checks: Checks,
    pub(super) outline: Draft,
    vertices: Vec<Vertex>,
    image_vertices: HashMap<ImageRequest, Option<VertexId>>,
    /// Finished stages, as long as one may be built on them.
    states: Vec<Option<State>>,
    roots: Vec<Option<VertexId>>,
    steps: Vec<Vec<Step>>,
    /// Number of stages that are still to be built on each stage, and one for the target.
    children: Vec<usize>,
    /// `None` once it was overdrawn.
    history_left: Option<usize>,
    suggestions_left: usize,
}

/// A stage in work.
pub(super) struct Current {
    pub(super) index: usize,
    pub(super) state: State,
    pub(super) counter: Counter,
    /// A `CMD` was seen in this very stage.
    pub(super) cmd_set: bool,
    pub(super) once: Once,
    no_cache: bool,
    pub(super) title: String,
    steps: Vec<Step>,
}

/// The instruction in work.
pub(super) struct At<'a> {
    pub(super) instruction: &'a Instruction,
    source: &'a Source,
    /// The `FROM` whose base brought it.
    pub(super) origin: Option<Location>,
}

/// Where an image is first used.
pub(super) struct ImageUsed<'u> {
    pub(super) stage: &'u str,
    pub(super) location: Location,
    pub(super) origin: Option<Location>,
}

impl At<'_> {
    pub(super) fn on_build(&self) -> bool {
        self.origin.is_some()
    }

    pub(super) fn location(&self, span: Span) -> Location {
        Location { source: self.source.clone(), span }
    }

    pub(super) fn place(&self, span: Span) -> Place {
        Place { location: self.location(span), origin: self.origin.clone() }
    }
}

impl<'a> Lowering<'a> {
    fn stage(&mut self, index: usize, stage: &'a Stage<'a>) {
        let from = Location { source: self.dockerfile.source.clone(), span: stage.from.image.span };
        let platform = stage.platform.clone().unwrap_or_else(|| self.options.platform.clone());
        let instructions = stage.triggers.iter().map(|trigger| &trigger.instruction).chain(stage.body);
        // Triggers count whatever they are, as in BuildKit.
        let total = usize::from(!matches!(stage.base, Base::Scratch | Base::Stage(_)))
            + instructions.skip(stage.triggers.len()).filter(|instruction| makes_vertex(instruction)).count()
            + stage.triggers.len();
        let counter = Counter {
            label: self.stages.label(index),
            shown: 0,
            total,
            platform: self.options.name_platform.then_some(platform),
        };
        let mut current = Current {
            index,
            state: State::empty(&self.options.platform),
            counter,
            cmd_set: false,
            once: Once::default(),
            no_cache: self.ignores_cache(index),
            title: self.stages.title(index),
            steps: Vec::new(),
        };
        for name in &stage.used_args {
            self.outline.global(name);
        }
        self.begin(&mut current, stage);
        for trigger in &stage.triggers {
            let at = At { instruction: &trigger.instruction, source: &trigger.source, origin: Some(from.clone()) };
            self.instruct(&mut current, &at);
        }
        for instruction in stage.body {
            self.instruct(&mut current, &At { instruction, source: &self.dockerfile.source, origin: None });
        }
        self.roots[index] = current.state.root;
        self.steps[index] = current.steps;
        if self.children[index] > 0 {
            self.states[index] = Some(current.state);
        }
    }

    fn ignores_cache(&self, index: usize) -> bool {
        let name = self.stages.list[index].name().unwrap_or("");
        match &self.options.no_cache {
            NoCache::Never => false,
            NoCache::Always => true,
            NoCache::Stages(names) => {
                names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name) || *wanted == index.to_string())
            }
        }
    }

    fn push(&mut self, vertex: Vertex) -> VertexId {
        self.vertices.push(vertex);
        VertexId(self.vertices.len() - 1)
    }

    /// Adds the vertex of an instruction on top of the stage.
    pub(super) fn add(&mut self, current: &mut Current, at: &At<'a>, op: Op, name: String) -> VertexId {
        let id = self.push(Vertex {
            op,
            root: current.state.root,
            name,
            stage: current.title.clone(),
            location: Some(at.location(at.instruction.span)),
            origin: at.origin.clone(),
            no_cache: current.no_cache,
            time_to_live: at.instruction.time_to_live(),
            cache_reads: at.instruction.is_cached_by_reads(),
        });
        current.state.root = Some(id);
        id
    }

    /// Adds an entry to the history.
    pub(super) fn record(&mut self, current: &mut Current, at: &At<'a>, created_by: String, vertex: Option<VertexId>) {
        match self.history_left.map(|left| left.checked_sub(created_by.len())) {
            Some(Some(left)) => self.history_left = Some(left),
            Some(None) => {
                self.history_left = None;
                self.error(at, at.instruction.span, GraphErrorKind::HistoryTooLong { limit: MAX_HISTORY });
            }
            None => {}
        }
        if self.history_left.is_none() {
            return;
        }
        let comment = COMMENT.to_owned();
        let entry = HistoryEntry { created_by, comment, empty_layer: vertex.is_none(), ..HistoryEntry::default() };
        current.steps.push(Step { entry, vertex });
    }

    /// The history is too long, which was reported: there is no point in making more of it.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.history_left.is_none()
    }

    /// Reports an error at a place of the instruction.
    pub(super) fn error(&mut self, at: &At<'a>, span: Span, kind: impl Into<GraphErrorKind>) {
        self.report(at, span, GraphError::new(kind));
    }

    pub(super) fn report(&mut self, at: &At<'a>, span: Span, error: GraphError) {
        let error = error.at(at.location(span));
        self.errors.push(GraphError { origin: at.origin.clone(), ..error });
    }

    pub(super) fn warn(&mut self, at: &At<'a>, span: Span, detail: &Detail<'_>) {
        self.checks.report(at.place(span), detail);
    }

    /// Whether a lone here-document ends at its first failing command.
    pub(super) fn heredoc_errexit(&self) -> bool {
        self.dockerfile.directives.heredoc_errexit
    }

    /// Expands a word with what the stage has in scope.
    pub(super) fn word(&mut self, current: &Current, at: &At<'a>, word: &Word) -> Option<String> {
        match self.expander.word(&word.text, &|name| current.state.scope.get(name).map(str::to_owned)) {
            Ok(expanded) => {
                self.warn_unset(current, at, word.span, &expanded.unset);
                Some(expanded.text)
            }
            Err(error) => {
                self.error(at, word.span, error);
                None
            }
        }
    }

    /// Expands every word; `None` if one is wrong.
    pub(super) fn words<'w>(
        &mut self,
        current: &Current,
        at: &At<'a>,
        words: impl IntoIterator<Item = &'w Word>,
    ) -> Option<Vec<String>> {
        let expanded: Vec<_> = words.into_iter().map(|word| self.word(current, at, word)).collect();
        expanded.into_iter().collect()
    }

    /// Expands the value of a flag: `Some(None)` if it was not given.
    #[expect(clippy::option_option, reason = "the outer one says that an error was reported")]
    pub(super) fn flag(&mut self, current: &Current, at: &At<'a>, word: Option<&Word>) -> Option<Option<String>> {
        match word {
            None => Some(None),
            Some(word) => self.word(current, at, word).map(Some),
        }
    }

    /// Warns of variables that nobody set; an `ARG` without a value counts as set.
    pub(super) fn warn_unset(&mut self, current: &Current, at: &At<'a>, span: Span, unset: &[String]) {
        if current.state.guessed {
            return;
        }
        for name in unset {
            if current.state.is_declared(name) || NOT_IN_ENV.contains(&&**name) {
                continue;
            }
            let env = current.state.scope.snapshot();
            let mut meant = None;
            if self.suggestions_left > 0 {
                self.suggestions_left -= 1;
                meant = suggest(name, env.to_vec().into_iter().map(|(name, _)| name));
            }
            self.warn(at, span, &Detail::UndefinedVar(name, meant));
        }
    }

    /// The value that an `ARG` has in this stage, and whether it becomes part of the environment.
    pub(super) fn argument(
        &mut self,
        current: &Current,
        at: &At<'a>,
        argument: &ArgDeclaration,
    ) -> Option<ArgumentValue> {
        let name = &argument.name.text;
        let own = match (build_arg(self.options, name), &argument.default) {
            (Some(value), _) => Some(value),
            (None, Some(word)) => Some(self.word(current, at, word)?),
            (None, None) => None,
        };
        let global = if own.is_none() { self.stages.globals.value(name) } else { None };
        if global.is_some() {
            self.outline.global(name);
        } else {
            let description = at.instruction.description(name).map(str::to_owned);
            let line = at.instruction.start_line();
            self.outline.arg(OutlineArg { name: name.to_string(), description, value: own.clone(), line });
        }
        Some(ArgumentValue { value: own.or(global), in_env: !NOT_IN_ENV.contains(&&**name) })
    }

    pub(super) fn is_known(&self, request: &ImageRequest) -> bool {
        self.images.contains_key(request)
    }

    /// The root filesystem of a stage that is finished.
    pub(super) fn root_of(&self, index: usize) -> Option<VertexId> {
        self.roots[index]
    }
}

/// The value of an `ARG`.
pub(super) struct ArgumentValue {
    pub(super) value: Option<String>,
    pub(super) in_env: bool,
}

/// Whether BuildKit counts an instruction among the steps of its stage.
fn makes_vertex(instruction: &Instruction) -> bool {
    matches!(
        instruction.kind,
        InstructionKind::Add(_) | InstructionKind::Copy(_) | InstructionKind::Run(_) | InstructionKind::Workdir(_)
    )
}

fn children(stages: &Stages<'_>) -> Vec<usize> {
    let mut children = vec![0; stages.list.len()];
    for (_, stage) in stages.needed() {
        if let Base::Stage(base) = stage.base {
            children[base] += 1;
        }
    }
    if let Some(target) = children.get_mut(stages.target) {
        *target += 1;
    }
    children
}

fn epoch(stages: &Stages<'_>, options: &Options, errors: &mut Vec<GraphError>) -> Option<i64> {
    let given = build_arg(options, SOURCE_DATE_EPOCH).or_else(|| stages.globals.value(SOURCE_DATE_EPOCH));
    let value = given.filter(|value| !value.is_empty())?;
    if let Ok(epoch) = value.parse() {
        return Some(epoch);
    }
    // Nobody asked what it names; it is wrong only if that is nothing.
    if let Err(found) = epoch_source(stages.input.dockerfile, options) {
        errors.extend(found.iter().cloned());
    }
    None
}

/// Build arguments that no `ARG` names, in no stage and no trigger.
fn unused_build_args(dockerfile: &Dockerfile, stages: &Stages<'_>, options: &Options) -> Vec<String> {
    let triggers = stages.list.iter().flat_map(|stage| stage.triggers.iter().map(|trigger| &trigger.instruction));
    let mut declared = std::collections::HashSet::new();
    for instruction in dockerfile.instructions.iter().chain(triggers) {
        let instruction = match &instruction.kind {
            InstructionKind::Onbuild { trigger, .. } => trigger,
            _ => instruction,
        };
        if let InstructionKind::Arg(arguments) = &instruction.kind {
            declared.extend(arguments.iter().map(|argument| &*argument.name.text));
        }
    }
    let is_unused = |name: &&String| !declared.contains(name.as_str()) && !is_predefined(name);
    options.build_args.keys().filter(is_unused).cloned().collect()
}
