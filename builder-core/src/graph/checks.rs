//! [`Checks`]: warnings that need values or images, put together with those of the file.

use std::collections::HashSet;

use super::error::{GraphError, GraphErrorKind};
use super::stages::Stages;
use super::{Graph, GraphErrors, Options};
use crate::diagnostic::{Location, Span};
use crate::dockerfile::lint::{self, LintWarning, Rule};
use crate::dockerfile::{Dockerfile, Instruction};

/// Warnings as they are found.
#[derive(Default)]
pub(super) struct Checks {
    found: Vec<(LintWarning, Location)>,
    /// Commands in shell form whose shell the base image chose: nobody has to be told to use the exec form.
    custom_shell: HashSet<Span>,
}

impl Checks {
    pub(super) fn report(&mut self, rule: Rule, location: Location, instruction: &Instruction, detail: String) {
        let warning = LintWarning { rule, span: location.span, line: instruction.start_line, detail };
        self.found.push((warning, location));
    }

    pub(super) fn has_custom_shell(&mut self, instruction: &Instruction) {
        self.custom_shell.insert(instruction.span);
    }

    /// Adds what the file shows by itself and applies `# check=`, or the build argument that replaces it.
    ///
    /// Returns the warnings in line order, those of triggers last, and whether they are errors.
    pub(super) fn finish(
        self,
        dockerfile: &Dockerfile,
        stages: &Stages<'_>,
        options: &Options,
        errors: &mut Vec<GraphError>,
    ) -> (Vec<(LintWarning, Location)>, bool) {
        let check = match options.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(|text| lint::Options::parse(text)) {
            None => lint::Options::of(dockerfile),
            Some(Ok(check)) => check,
            Some(Err(option)) => {
                errors.push(GraphError::new(GraphErrorKind::CheckOption(option)));
                lint::Options::default()
            }
        };
        let is_needed = |index: usize| stages.list.get(index).is_some_and(|stage| stage.needed);
        let mut own = lint::check(dockerfile, &is_needed);
        own.retain(|warning| warning.rule != Rule::JsonArgsRecommended || !self.custom_shell.contains(&warning.span));
        let mut foreign = Vec::new();
        for (warning, location) in self.found {
            if location.source == dockerfile.source {
                own.push(warning);
            } else if check.applies(warning.rule) {
                foreign.push((warning, location));
            }
        }
        // A trigger of a stage warns once, however many stages are built on it.
        let mut seen = HashSet::new();
        own.retain(|warning| seen.insert((warning.rule, warning.span, warning.detail.clone())));
        let locate = |warning: LintWarning| {
            let location = Location { source: dockerfile.source.clone(), span: warning.span };
            (warning, location)
        };
        let own = check.filter(dockerfile, own).into_iter().map(locate);
        (own.chain(foreign).collect(), check.error)
    }
}

impl Graph {
    /// The warnings as errors, if `# check=error=true` makes them so and there are any.
    pub fn violations(&self) -> Option<GraphErrors> {
        if !self.warnings_are_errors {
            return None;
        }
        let violation = |(warning, location): &(LintWarning, Location)| {
            let kind = GraphErrorKind::Violation { rule: warning.rule.name(), detail: warning.detail.clone() };
            GraphError::new(kind).at(location.clone())
        };
        GraphErrors::check(self.warnings.iter().map(violation).collect()).err()
    }
}
