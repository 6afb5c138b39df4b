//! From the target to every stage and image that it needs.

use super::{Base, Foreign, Stage, Stages, Trigger, names_in};
use crate::diagnostic::{Location, Source};
use crate::dockerfile::{self, Dockerfile, Instruction, InstructionKind};
use crate::graph::error::{GraphError, GraphErrorKind};
use crate::graph::{ImageRequest, ImageUse};
use crate::oci::Reference;

/// How many ONBUILD instructions may run in all stages together. Without a limit a file of `n` triggers and `n` stages
/// built on them is a graph of n² vertices.
const MAX_TRIGGERS: usize = 100_000;

impl Stages<'_> {
    pub(super) fn find_needed(&mut self) {
        let all = self.input.options.all_stages;
        let mut queue: Vec<usize> = if all { (0..self.list.len()).collect() } else { vec![self.target] };
        let mut uses: Vec<(usize, ImageUse)> = Vec::new();
        let mut triggers_left = MAX_TRIGGERS;
        while let Some(index) = queue.pop() {
            if self.list.get(index).is_none_or(|stage| stage.needed) {
                continue;
            }
            self.list[index].needed = true;
            let from = self.input.location(self.list[index].from.image.span);
            match self.list[index].base.clone() {
                Base::Scratch | Base::Directory(_) | Base::Broken => {}
                Base::Stage(base) => {
                    queue.push(base);
                    self.list[index].triggers = triggers_of_stage(&self.list[base], self.input.dockerfile);
                }
                Base::Image(request) => {
                    self.list[index].triggers = self.triggers_of_image(index, &request, &from);
                    let hint = self.hint(&request, &self.list[index].from.image.text, index);
                    uses.push((index, ImageUse { request, location: from.clone(), origin: None, hint }));
                }
            }
            let Some(left) = triggers_left.checked_sub(self.list[index].triggers.len()) else {
                self.errors.push(GraphError::new(GraphErrorKind::Triggers { limit: MAX_TRIGGERS }).at(from));
                break;
            };
            triggers_left = left;
            self.follow(index, &mut queue, &mut uses);
        }
        uses.sort_by_key(|(index, _)| *index);
        self.uses = uses.into_iter().map(|(_, image)| image).collect();
    }

    /// Follows the names in the instructions of a stage.
    fn follow(&mut self, index: usize, queue: &mut Vec<usize>, uses: &mut Vec<(usize, ImageUse)>) {
        let mut errors = Vec::new();
        for (location, name, origin) in self.names_of(index) {
            match self.foreign(&name) {
                Ok(Foreign::Scratch | Foreign::Directory(_)) => {}
                Ok(Foreign::Stage(other)) if other < index => queue.push(other),
                Ok(Foreign::Stage(_)) if origin.is_none() && self.circular.contains(&location.span) => {}
                Ok(Foreign::Stage(other)) => {
                    errors.push(GraphError { origin, ..self.not_earlier(other, index).at(location) });
                }
                Ok(Foreign::Image(request)) => {
                    let hint = self.hint(&request, &name, usize::MAX);
                    uses.push((index, ImageUse { request, location, origin, hint }));
                }
                Err(error) => errors.push(GraphError { origin, ..error.at(location) }),
            }
        }
        self.errors.extend(errors);
    }

    /// The names in the triggers and the body of a stage.
    fn names_of(&self, index: usize) -> Vec<(Location, String, Option<Location>)> {
        let stage = &self.list[index];
        let from = self.input.location(stage.from.image.span);
        let own = stage.body.iter().map(|instruction| (&self.input.dockerfile.source, instruction, None));
        let brought = stage.triggers.iter().map(|trigger| (&trigger.source, &trigger.instruction, Some(from.clone())));
        let mut names = Vec::new();
        for (source, instruction, origin) in brought.chain(own) {
            for (name, span) in names_in(instruction) {
                names.push((Location { source: source.clone(), span }, name, origin.clone()));
            }
        }
        names
    }

    /// What to say should there be no such image.
    fn hint(&self, request: &ImageRequest, name: &str, user: usize) -> Option<String> {
        if self.input.images.contains_key(request) { None } else { self.suggestion(name, user) }
    }

    fn not_earlier(&self, wanted: usize, user: usize) -> GraphError {
        let (wanted, user) = (self.title(wanted), self.title(user));
        let hint = format!("move stage `{wanted}` before stage `{user}`");
        GraphError::new(GraphErrorKind::ForwardReference { wanted, user }).hint(hint)
    }

    /// The triggers that the base image brings, if it is known. A context that takes the place of the whole stage is
    /// the stage's result, so nothing runs on it.
    fn triggers_of_image(&mut self, index: usize, request: &ImageRequest, from: &Location) -> Vec<Trigger> {
        let stage = &self.list[index];
        let is_replaced =
            stage.name().is_some_and(|name| self.input.options.context(name, &request.platform).is_some());
        match self.input.images.get(request) {
            Some(image) if !is_replaced => {
                parse_triggers(&image.config.config.on_build, &request.reference, from, &mut self.errors)
            }
            _ => Vec::new(),
        }
    }
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
