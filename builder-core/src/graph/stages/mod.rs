//! [`Stages`]: who builds on whom, who copies from whom, and what the target needs of it.
//!
//! [`plan`](super::plan) shows this to the caller, [`lower`](super::lower) walks it.

mod base;
mod cycles;
mod frontend;
mod needed;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::error::{GraphError, GraphErrorKind};
use super::globals::Globals;
use super::{ImageRequest, ImageUse, Images, NamedContext, Options};
use crate::diagnostic::{Location, Source, Span, nearest};
use crate::dockerfile::{Dockerfile, Expander, From, Instruction, InstructionKind, Mount};
use crate::oci::{Platform, Reference};

/// What everything is made from.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) options: &'a Options,
    pub(super) images: &'a Images,
    pub(super) expander: &'a Expander,
}

impl Input<'_> {
    /// A place in the Dockerfile.
    pub(super) fn location(&self, span: Span) -> Location {
        Location { source: self.dockerfile.source.clone(), span }
    }
}

/// The stages of a file.
pub(super) struct Stages<'a> {
    pub(super) input: Input<'a>,
    pub(super) list: Vec<Stage<'a>>,
    /// Number of the target.
    pub(super) target: usize,
    pub(super) globals: Globals,
    pub(super) uses: Vec<ImageUse>,
    /// Something is taken from what is not a stage. BuildKit counts that as a stage when it names vertices.
    pub(super) has_foreign: bool,
    /// What is wrong with names, platforms and the order of stages.
    pub(super) errors: Vec<GraphError>,
    /// The stages that have a name, in file order.
    numbers: HashMap<&'a str, Vec<usize>>,
    /// Words that close a circle, which was reported.
    circular: HashSet<Span>,
    /// How many names may still be compared for suggestions.
    comparisons_left: Cell<usize>,
}

/// Thousands of unknown images times thousands of stages would take minutes to compare.
const MAX_COMPARISONS: usize = 100_000;

/// One stage.
pub(super) struct Stage<'a> {
    pub(super) instruction: &'a Instruction,
    pub(super) from: &'a From,
    /// What stands after `FROM`; empty if a named context takes the place of the stage.
    pub(super) body: &'a [Instruction],
    pub(super) base: Base,
    /// ONBUILD instructions of the base, which come before the body.
    pub(super) triggers: Vec<Trigger>,
    pub(super) platform: Option<Platform>,
    /// Global arguments that its `FROM` uses.
    pub(super) used_args: Vec<String>,
    /// The target needs it.
    pub(super) needed: bool,
}

impl Stage<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        self.from.stage.as_ref().map(|stage| stage.name.as_str())
    }
}

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    Scratch,
    Stage(usize),
    Image(ImageRequest),
    /// A named context that is a directory.
    Directory(String),
    /// Wrong, and reported.
    Broken,
}

/// An ONBUILD instruction that runs in this stage.
pub(super) struct Trigger {
    pub(super) source: Source,
    pub(super) instruction: Instruction,
}

/// What a name in `--from` or `from=` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Foreign {
    Scratch,
    Stage(usize),
    Directory(String),
    Image(ImageRequest),
}

impl<'a> Stages<'a> {
    /// Puts the stages together as far as images are known.
    pub(super) fn resolve(input: Input<'a>) -> Self {
        let slices = input.dockerfile.stages();
        let target_name = input.options.target.as_deref().or_else(|| match &slices.last()?.first()?.kind {
            InstructionKind::From(from) => from.stage.as_ref().map(|stage| stage.name.as_str()),
            _ => None,
        });
        let mut errors: Vec<GraphError> = frontend::check(input).into_iter().collect();
        let globals = Globals::new(input, target_name.unwrap_or("default"), &mut errors);
        let mut stages = Self {
            input,
            list: Vec::with_capacity(slices.len()),
            target: slices.len().saturating_sub(1),
            globals,
            uses: Vec::new(),
            has_foreign: false,
            errors,
            numbers: HashMap::new(),
            circular: HashSet::new(),
            comparisons_left: Cell::new(MAX_COMPARISONS),
        };
        for slice in slices {
            stages.add(slice);
        }
        stages.find_target();
        stages.find_cycles();
        stages.find_needed();
        stages
    }

    /// The needed stages with their numbers, in file order.
    pub(super) fn needed(&self) -> impl Iterator<Item = (usize, &Stage<'a>)> {
        self.list.iter().enumerate().filter(|(_, stage)| stage.needed)
    }

    /// What BuildKit calls a stage when it shows vertices: nothing if there is only one.
    pub(super) fn label(&self, index: usize) -> String {
        match self.list[index].name() {
            _ if self.list.len() == 1 && !self.has_foreign => String::new(),
            Some(name) => name.to_owned(),
            None => format!("stage-{index}"),
        }
    }

    /// A stage as people call it.
    pub(super) fn title(&self, index: usize) -> String {
        self.list[index].name().map_or_else(|| index.to_string(), str::to_owned)
    }

    fn add(&mut self, slice: &'a [Instruction]) {
        let Some((instruction, body)) = slice.split_first() else { return };
        let InstructionKind::From(from) = &instruction.kind else { return };
        let mut used_args = Vec::new();
        let platform = self.platform(from, &mut used_args);
        let first = self.list.is_empty().then(|| self.input.options.first_base.clone()).flatten();
        let base_name = first.or_else(|| self.base_name(from, &mut used_args));
        let wanted = platform.clone().unwrap_or_else(|| self.input.options.platform.clone());
        let name = from.stage.as_ref().map(|stage| stage.name.as_str());

        let (base, body) = match (name.and_then(|name| self.context(name, &wanted)), base_name) {
            (Some(Foreign::Directory(context)), _) => (Base::Directory(context), &body[..0]),
            (Some(Foreign::Image(request)), _) => (Base::Image(request), &body[..0]),
            (Some(Foreign::Scratch), _) => (Base::Scratch, &body[..0]),
            (_, None) => (Base::Broken, body),
            (_, Some(base_name)) => (self.base(&base_name, wanted, from.image.span), body),
        };
        let index = self.list.len();
        let stage = Stage { instruction, from, body, base, triggers: Vec::new(), platform, used_args, needed: false };
        self.list.push(stage);
        if let Some(name) = name {
            self.numbers.entry(name).or_default().push(index);
        }
    }

    /// The stages with a name, in any case.
    fn named(&self, name: &str) -> &[usize] {
        self.numbers.get(name.to_lowercase().as_str()).map_or(&[], Vec::as_slice)
    }

    fn context(&self, name: &str, platform: &Platform) -> Option<Foreign> {
        Some(match self.input.options.context(name, platform)? {
            (context, NamedContext::Directory) => Foreign::Directory(context.to_owned()),
            (_, NamedContext::Image(reference)) => {
                Foreign::Image(ImageRequest::new(reference.clone(), platform.clone()))
            }
            (_, NamedContext::Scratch) => Foreign::Scratch,
            (_, NamedContext::Layout(layout)) => {
                let reference = name.to_lowercase().parse().ok()?;
                Foreign::Image(ImageRequest {
                    layout: Some(Box::new(layout.clone())),
                    ..ImageRequest::new(reference, platform.clone())
                })
            }
        })
    }

    fn image_or_context(&self, name: &str, platform: Platform) -> Result<Foreign, Box<GraphError>> {
        if let Some(context) = self.context(name, &platform) {
            return Ok(context);
        }
        match name.parse::<Reference>() {
            Ok(reference) => Ok(Foreign::Image(ImageRequest::new(reference, platform))),
            Err(source) => {
                let error = GraphError::new(GraphErrorKind::Reference { name: name.to_owned(), source });
                Err(Box::new(GraphError { hint: self.suggestion(name, usize::MAX), ..error }))
            }
        }
    }

    /// What a name after `--from` means.
    pub(super) fn foreign(&self, name: &str) -> Result<Foreign, Box<GraphError>> {
        // The last one of a name counts, wherever it stands, as in BuildKit.
        if let Some(index) = self.named(name).last() {
            return Ok(Foreign::Stage(*index));
        }
        if let Ok(index) = name.parse::<usize>() {
            if index >= self.list.len() {
                return Err(Box::new(GraphError::new(GraphErrorKind::StageIndex { index, count: self.list.len() })));
            }
            return Ok(Foreign::Stage(index));
        }
        if name == "scratch" {
            return Ok(Foreign::Scratch);
        }
        // An image that is only copied from has the platform of the target.
        self.image_or_context(name, self.input.options.platform.clone())
    }

    /// The stage or context that may have been meant by `name` in stage `user`.
    fn suggestion(&self, name: &str, user: usize) -> Option<String> {
        if self.named(name).last().is_some_and(|later| *later >= user) {
            return Some(format!("stage `{name}` is defined later; move it before its first use"));
        }
        let contexts = &self.input.options.contexts;
        let count = self.numbers.len() + contexts.len();
        self.comparisons_left.set(self.comparisons_left.get().checked_sub(count)?);
        let names = self.numbers.keys().copied().chain(contexts.keys().map(String::as_str));
        // The order of a hash map must not decide between equally near names.
        let mut names: Vec<_> = names.filter(|candidate| *candidate != name).collect();
        names.sort_unstable();
        nearest(name, names).map(|found| format!("did you mean stage `{found}`?"))
    }

    fn find_target(&mut self) {
        let Some(wanted) = &self.input.options.target else { return };
        let by_number = || wanted.parse::<usize>().ok().filter(|index| *index < self.list.len());
        if let Some(index) = self.named(wanted).last().copied().or_else(by_number) {
            self.target = index;
            return;
        }
        let mut names: Vec<_> = self.numbers.keys().copied().collect();
        names.sort_unstable();
        let error = GraphError::new(GraphErrorKind::UnknownTarget(wanted.clone()));
        self.errors.push(match nearest(wanted, names.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None if names.is_empty() => error.hint("no stage has a name: add `AS name` to a `FROM`"),
            None => error.hint(format!("the stages are {}", list_of(&names))),
        });
    }
}

/// The names after `--from=` and in mounts, with their places.
fn names_in(instruction: &Instruction) -> Vec<(String, Span)> {
    match &instruction.kind {
        InstructionKind::Copy(copy) => copy.from.iter().map(|word| (word.text.to_string(), word.span)).collect(),
        InstructionKind::Run(run) => {
            run.parts().mounts.iter().filter_map(|word| Some((Mount::source_name(&word.text)?, word.span))).collect()
        }
        _ => Vec::new(),
    }
}

fn list_of(names: &[&str]) -> String {
    let shown: Vec<_> = names.iter().take(10).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > 10 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
