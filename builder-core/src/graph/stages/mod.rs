//! [`Stages`]: who builds on whom, who copies from whom, and what the target needs of it.
//!
//! [`plan`](super::plan) shows this to the caller, [`lower`](super::lower) walks it.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::error::{GraphError, GraphErrorKind};
use super::globals::Globals;
use super::{ImageRequest, ImageUse, Images, NamedContext, Options};
use crate::diagnostic::{Location, Source, Span, nearest};
use crate::dockerfile::{self, Dockerfile, Expander, From, Instruction, InstructionKind, Mount, Word};
use crate::oci::{Platform, Reference};

/// The stages of a file.
pub(super) struct Stages<'a> {
    pub(super) list: Vec<Stage<'a>>,
    /// Number of the target.
    pub(super) target: usize,
    pub(super) globals: Globals,
    pub(super) uses: Vec<ImageUse>,
    /// Something is taken from what is not a stage. BuildKit counts that as a stage when it names vertices.
    pub(super) has_foreign: bool,
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
    /// Puts the stages together as far as `images` are known.
    pub(super) fn resolve(
        dockerfile: &'a Dockerfile,
        options: &Options,
        images: &Images,
        expander: &Expander,
        errors: &mut Vec<GraphError>,
    ) -> Self {
        let slices = dockerfile.stages();
        let target_name = options.target.as_deref().or_else(|| match &slices.last()?.first()?.kind {
            InstructionKind::From(from) => from.stage.as_ref().map(|stage| stage.name.as_str()),
            _ => None,
        });
        let globals = Globals::new(dockerfile, options, target_name.unwrap_or("default"), expander, errors);
        let mut stages = Self {
            list: Vec::with_capacity(slices.len()),
            target: slices.len().saturating_sub(1),
            globals,
            uses: Vec::new(),
            has_foreign: false,
            numbers: HashMap::new(),
            circular: HashSet::new(),
            comparisons_left: Cell::new(MAX_COMPARISONS),
        };
        for slice in slices {
            stages.add(slice, dockerfile, options, expander, errors);
        }
        stages.find_target(options, errors);
        stages.find_cycles(dockerfile, options, errors);
        stages.find_needed(dockerfile, options, images, errors);
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

    fn add(
        &mut self,
        slice: &'a [Instruction],
        dockerfile: &'a Dockerfile,
        options: &Options,
        expander: &Expander,
        errors: &mut Vec<GraphError>,
    ) {
        let Some((instruction, body)) = slice.split_first() else { return };
        let InstructionKind::From(from) = &instruction.kind else { return };
        let platform = self.platform(from, dockerfile, expander, errors);
        let base_name = self.base_name(from, dockerfile, expander, errors);
        let wanted = platform.clone().unwrap_or_else(|| options.platform.clone());
        let name = from.stage.as_ref().map(|stage| stage.name.as_str());

        let replacement = name.and_then(|name| options.context(name));
        let (base, body) = match (replacement, base_name) {
            (Some((context, NamedContext::Directory)), _) => (Base::Directory(context.to_owned()), &body[..0]),
            (Some((_, NamedContext::Image(reference))), _) => {
                (Base::Image(ImageRequest { reference: reference.clone(), platform: wanted }), &body[..0])
            }
            (None, None) => (Base::Broken, body),
            (None, Some(base_name)) => {
                let location = Location { source: dockerfile.source.clone(), span: from.image.span };
                (self.base(&base_name, wanted, options, &location, errors), body)
            }
        };
        let index = self.list.len();
        self.list.push(Stage { instruction, from, body, base, triggers: Vec::new(), platform, needed: false });
        if let Some(name) = name {
            self.numbers.entry(name).or_default().push(index);
        }
    }

    fn base(
        &self,
        name: &str,
        platform: Platform,
        options: &Options,
        location: &Location,
        errors: &mut Vec<GraphError>,
    ) -> Base {
        if let Some(index) = self.numbers.get(name.to_lowercase().as_str()).and_then(|numbers| numbers.last()) {
            return Base::Stage(*index);
        }
        if name == "scratch" {
            return Base::Scratch;
        }
        match self.image_or_context(name, platform, options) {
            Ok(Foreign::Directory(context)) => Base::Directory(context),
            Ok(Foreign::Image(request)) => Base::Image(request),
            Ok(_) => Base::Broken,
            Err(error) => {
                errors.push(error.at(location.clone()));
                Base::Broken
            }
        }
    }

    fn image_or_context(&self, name: &str, platform: Platform, options: &Options) -> Result<Foreign, Box<GraphError>> {
        match options.context(name) {
            Some((context, NamedContext::Directory)) => return Ok(Foreign::Directory(context.to_owned())),
            Some((_, NamedContext::Image(reference))) => {
                return Ok(Foreign::Image(ImageRequest { reference: reference.clone(), platform }));
            }
            None => {}
        }
        match name.parse::<Reference>() {
            Ok(reference) => Ok(Foreign::Image(ImageRequest { reference, platform })),
            Err(source) => {
                let error = GraphError::new(GraphErrorKind::Reference { name: name.to_owned(), source });
                Err(Box::new(match self.suggestion(name, options, usize::MAX) {
                    Some(hint) => error.hint(hint),
                    None => error,
                }))
            }
        }
    }

    /// The stage or context that may have been meant by `name` in stage `user`.
    fn suggestion(&self, name: &str, options: &Options, user: usize) -> Option<String> {
        if let Some(later) = self.numbers.get(name.to_lowercase().as_str()).and_then(|numbers| numbers.last())
            && *later >= user
        {
            return Some(format!("stage `{name}` is defined later; move it before its first use"));
        }
        let count = self.numbers.len() + options.contexts.len();
        self.comparisons_left.set(self.comparisons_left.get().checked_sub(count)?);
        let names = self.numbers.keys().copied().chain(options.contexts.keys().map(String::as_str));
        // The order of a hash map must not decide between equally near names.
        let mut names: Vec<_> = names.filter(|candidate| *candidate != name).collect();
        names.sort_unstable();
        nearest(name, names).map(|found| format!("did you mean stage `{found}`?"))
    }

    /// The expanded name of the base.
    fn base_name(
        &self,
        from: &From,
        dockerfile: &Dockerfile,
        expander: &Expander,
        errors: &mut Vec<GraphError>,
    ) -> Option<String> {
        let location = Location { source: dockerfile.source.clone(), span: from.image.span };
        let expanded = match expander.word(&from.image.text, &|name| self.globals.value(name)) {
            Ok(expanded) => expanded,
            Err(error) => {
                errors.push(GraphError::new(error).at(location));
                return None;
            }
        };
        let unset = self.undeclared_hint(&expanded.unset);
        if expanded.text.is_empty() {
            let error = GraphError::new(GraphErrorKind::BlankBase(from.image.text.clone())).at(location);
            let hint = unset.unwrap_or_else(|| "give the argument a default value, or `--build-arg`".to_owned());
            errors.push(error.hint(hint));
            return None;
        }
        Some(expanded.text)
    }

    fn platform(
        &self,
        from: &From,
        dockerfile: &Dockerfile,
        expander: &Expander,
        errors: &mut Vec<GraphError>,
    ) -> Option<Platform> {
        let word = from.platform.as_ref()?;
        let location = Location { source: dockerfile.source.clone(), span: word.span };
        let expanded = match expander.word(&word.text, &|name| self.globals.value(name)) {
            Ok(expanded) => expanded,
            Err(error) => {
                errors.push(GraphError::new(error).at(location));
                return None;
            }
        };
        let unset = self.undeclared_hint(&expanded.unset);
        if expanded.text.is_empty() {
            let error = GraphError::new(GraphErrorKind::BlankPlatform(word.text.clone())).at(location);
            errors.push(match unset {
                Some(hint) => error.hint(hint),
                None => error,
            });
            return None;
        }
        match expanded.text.parse::<Platform>() {
            Ok(platform) => Some(platform),
            Err(error) => {
                let error = GraphError::new(error).at(location);
                errors.push(match unset {
                    Some(hint) => error.hint(hint),
                    None => error,
                });
                None
            }
        }
    }

    /// What to do about arguments that nobody declared.
    fn undeclared_hint(&self, unset: &[String]) -> Option<String> {
        let name = unset.iter().find(|name| !self.globals.is_declared(name))?;
        Some(match nearest(name, self.globals.names()) {
            Some(near) => format!("argument `{name}` is not declared; did you mean `{near}`?"),
            None => format!("declare it before the first `FROM`: `ARG {name}=…`"),
        })
    }

    fn find_target(&mut self, options: &Options, errors: &mut Vec<GraphError>) {
        let Some(wanted) = &options.target else { return };
        let by_name = self.numbers.get(wanted.to_lowercase().as_str()).and_then(|numbers| numbers.last().copied());
        let by_number = || wanted.parse::<usize>().ok().filter(|index| *index < self.list.len());
        if let Some(index) = by_name.or_else(by_number) {
            self.target = index;
            return;
        }
        let mut names: Vec<_> = self.numbers.keys().copied().collect();
        names.sort_unstable();
        let error = GraphError::new(GraphErrorKind::UnknownTarget(wanted.clone()));
        errors.push(match nearest(wanted, names.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None if names.is_empty() => error.hint("no stage has a name: add `AS name` to a `FROM`"),
            None => error.hint(format!("the stages are {}", list_of(&names))),
        });
    }

    /// What a name in stage `user` means.
    pub(super) fn foreign(&self, name: &str, user: usize, options: &Options) -> Result<Foreign, Box<GraphError>> {
        if let Some(numbers) = self.numbers.get(name.to_lowercase().as_str()) {
            let earlier = numbers.iter().rev().find(|index| **index < user);
            return Ok(Foreign::Stage(*earlier.or(numbers.last()).expect("an entry has a number")));
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
        self.image_or_context(name, options.platform.clone(), options)
    }

    /// Reports stages that need themselves. Only an edge that does not lead back in the file can close a circle.
    fn find_cycles(&mut self, dockerfile: &Dockerfile, options: &Options, errors: &mut Vec<GraphError>) {
        let mut edges: Vec<Vec<(usize, Span, usize)>> = Vec::with_capacity(self.list.len());
        for (index, stage) in self.list.iter().enumerate() {
            let mut targets = Vec::new();
            for instruction in stage.body {
                for (name, span) in names_in(instruction) {
                    match self.foreign(&name, index, options) {
                        Ok(Foreign::Stage(other)) => targets.push((other, span, instruction.start_line)),
                        Ok(_) | Err(_) => self.has_foreign = true,
                    }
                }
                self.has_foreign |= uses_empty_cache(instruction);
            }
            if let Base::Stage(base) = stage.base {
                targets.push((base, stage.from.image.span, stage.instruction.start_line));
            }
            edges.push(targets);
        }
        for cycle in cycles(&edges) {
            let mut names = Vec::new();
            for (user, at) in &cycle {
                let (_, span, line) = edges[*user][*at];
                self.circular.insert(span);
                names.push(format!("`{}` needs (line {line})", self.title(*user)));
            }
            let (user, at) = cycle[0];
            let location = Location { source: dockerfile.source.clone(), span: edges[user][at].1 };
            let text = format!("{} `{}`", names.join(" "), self.title(user));
            errors.push(GraphError::new(GraphErrorKind::Cycle(text)).at(location));
        }
    }

    /// A stage as people call it.
    pub(super) fn title(&self, index: usize) -> String {
        self.list[index].name().map_or_else(|| index.to_string(), str::to_owned)
    }

    /// Walks from the target to everything that it needs.
    fn find_needed(
        &mut self,
        dockerfile: &'a Dockerfile,
        options: &Options,
        images: &Images,
        errors: &mut Vec<GraphError>,
    ) {
        let mut queue: Vec<usize> = if options.all_stages { (0..self.list.len()).collect() } else { vec![self.target] };
        let mut uses: Vec<(usize, ImageUse)> = Vec::new();
        while let Some(index) = queue.pop() {
            if self.list.get(index).is_none_or(|stage| stage.needed) {
                continue;
            }
            self.list[index].needed = true;
            let from = Location { source: dockerfile.source.clone(), span: self.list[index].from.image.span };
            match self.list[index].base.clone() {
                Base::Scratch | Base::Directory(_) | Base::Broken => {}
                Base::Stage(base) => {
                    queue.push(base);
                    self.list[index].triggers = triggers_of_stage(&self.list[base], dockerfile);
                }
                Base::Image(request) => {
                    if let Some(image) = images.get(&request) {
                        let triggers = &image.config.config.on_build;
                        if !self.is_replaced(index, options) {
                            self.list[index].triggers = parse_triggers(triggers, &request.reference, &from, errors);
                        }
                    }
                    let is_missing = !images.contains_key(&request);
                    let name = &self.list[index].from.image.text;
                    let hint = if is_missing { self.suggestion(name, options, index) } else { None };
                    uses.push((index, ImageUse { request, location: from.clone(), origin: None, hint }));
                }
            }
            let stage = &self.list[index];
            let own = stage.body.iter().map(|instruction| (&dockerfile.source, instruction, None));
            let brought =
                stage.triggers.iter().map(|trigger| (&trigger.source, &trigger.instruction, Some(from.clone())));
            for (source, instruction, origin) in brought.chain(own) {
                for (name, span) in names_in(instruction) {
                    let location = Location { source: source.clone(), span };
                    match self.foreign(&name, index, options) {
                        Ok(Foreign::Stage(other)) if other < index => queue.push(other),
                        Ok(Foreign::Stage(_)) if self.circular.contains(&span) => {}
                        Ok(Foreign::Stage(other)) => errors
                            .push(GraphError { origin: origin.clone(), ..self.not_earlier(other, index, &location) }),
                        Ok(Foreign::Image(request)) => {
                            let is_missing = !images.contains_key(&request);
                            let hint = if is_missing { self.suggestion(&name, options, usize::MAX) } else { None };
                            uses.push((index, ImageUse { request, location, origin: origin.clone(), hint }));
                        }
                        Ok(Foreign::Scratch | Foreign::Directory(_)) => {}
                        Err(error) => {
                            errors.push(GraphError { origin: origin.clone(), ..error.at(location) });
                        }
                    }
                }
            }
        }
        uses.sort_by_key(|(index, _)| *index);
        self.uses = uses.into_iter().map(|(_, image)| image).collect();
    }

    fn is_replaced(&self, index: usize, options: &Options) -> bool {
        self.list[index].name().is_some_and(|name| options.context(name).is_some())
    }

    fn not_earlier(&self, wanted: usize, user: usize, location: &Location) -> GraphError {
        let (wanted, user) = (self.title(wanted), self.title(user));
        let hint = format!("move stage `{wanted}` before stage `{user}`");
        GraphError::new(GraphErrorKind::ForwardReference { wanted, user }).at(location.clone()).hint(hint)
    }
}

/// The names after `--from=` and in mounts, with their places.
fn names_in(instruction: &Instruction) -> Vec<(String, Span)> {
    match &instruction.kind {
        InstructionKind::Copy(copy) => copy.from.iter().map(|word| (word.text.clone(), word.span)).collect(),
        InstructionKind::Run(run) => {
            run.mounts.iter().filter_map(|word| Some((Mount::source_name(&word.text)?, word.span))).collect()
        }
        _ => Vec::new(),
    }
}

/// A cache mount without `from=` starts from `scratch`, as if that were written.
fn uses_empty_cache(instruction: &Instruction) -> bool {
    let is_cache = |word: &Word| word.text.split(',').any(|field| field.trim().eq_ignore_ascii_case("type=cache"));
    matches!(&instruction.kind, InstructionKind::Run(run) if run.mounts.iter().any(is_cache))
}

fn triggers_of_stage(base: &Stage<'_>, dockerfile: &Dockerfile) -> Vec<Trigger> {
    let trigger = |instruction: &Instruction| match &instruction.kind {
        InstructionKind::Onbuild { trigger, .. } => {
            Some(Trigger { source: dockerfile.source.clone(), instruction: (**trigger).clone() })
        }
        _ => None,
    };
    base.body.iter().filter_map(trigger).collect()
}

fn parse_triggers(texts: &[String], image: &Reference, from: &Location, errors: &mut Vec<GraphError>) -> Vec<Trigger> {
    let mut triggers = Vec::new();
    for text in texts {
        let source = Source::new(format!("ONBUILD of {}", image.familiar()), text.as_bytes());
        match dockerfile::parse_trigger(&source) {
            Ok(instruction) => triggers.push(Trigger { source, instruction }),
            Err(found) => errors.extend(found.iter().map(|error| {
                GraphError {
                    origin: Some(from.clone()),
                    ..GraphError::new(GraphErrorKind::Trigger(error.clone()))
                        .at(Location { source: source.clone(), span: error.span() })
                        .hint("the base image brings this instruction; use another base, or have it corrected")
                }
            })),
        }
    }
    triggers
}

/// Circles in a graph, each as the edges that make it: (node, number of its edge). Without recursion; every node that
/// was left once is done.
fn cycles(edges: &[Vec<(usize, Span, usize)>]) -> Vec<Vec<(usize, usize)>> {
    let mut done = vec![false; edges.len()];
    let mut found = Vec::new();
    for start in 0..edges.len() {
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        let mut on_path = HashSet::from([start]);
        while let Some((node, next)) = path.pop() {
            if done[node] || next == edges[node].len() {
                done[node] = true;
                on_path.remove(&node);
                continue;
            }
            let to = edges[node][next].0;
            path.push((node, next + 1));
            if on_path.contains(&to) {
                let from = path.iter().position(|(node, _)| *node == to).expect("it is on the path");
                found.push(path[from..].iter().map(|(node, next)| (*node, next - 1)).collect());
            } else if !done[to] {
                path.push((to, 0));
                on_path.insert(to);
            }
        }
    }
    found
}

fn list_of(names: &[&str]) -> String {
    let shown: Vec<_> = names.iter().take(10).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > 10 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
