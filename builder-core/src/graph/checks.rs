//! [`Checks`]: warnings that need values or images, put together with those of the file.

use std::collections::HashSet;

use super::error::{GraphError, GraphErrorKind};
use super::lower::{At, Current, Lowering};
use super::{AddSource, ContextId, Files, Graph, GraphErrors, Op, Options};
use crate::context::IgnoreFile;
use crate::diagnostic::{Location, Span};
use crate::dockerfile::lint::{self, Detail, LintWarning};
use crate::dockerfile::{ArgDeclaration, CommandLine, Dockerfile, KeyValue, Word};

/// Warnings as they are found.
#[derive(Default)]
pub(super) struct Checks {
    found: Vec<(LintWarning, Location)>,
}

/// Where the last `CMD`, `ENTRYPOINT` and `HEALTHCHECK` of a stage stand, with their lines.
#[derive(Default)]
pub(super) struct Once([Option<(Location, usize)>; 3]);

/// An instruction that should stand once.
#[derive(Clone, Copy)]
pub(super) enum OnceKind {
    Cmd,
    Entrypoint,
    Healthcheck,
}

/// Parts of a name between underscores that sound like a secret.
const SECRET_PARTS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Parts of a name between underscores that make it none.
const PUBLIC_PARTS: [&str; 3] = ["public", "file", "version"];

impl<'a> Lowering<'a> {
    /// Warns of the earlier of two instructions of a kind in a stage.
    pub(super) fn check_once(&mut self, current: &mut Current, at: &At<'a>, kind: OnceKind) {
        let here = (at.location(at.instruction.name_span()), at.instruction.start_line());
        if let Some((location, line)) = current.once.0[kind as usize].replace(here) {
            let detail = Detail::MultipleInstructionsDisallowed(at.instruction.name());
            self.checks.report(location, line, &detail);
        }
    }

    /// Warns of a command in shell form, unless someone chose a shell for it.
    pub(super) fn check_command(&mut self, current: &Current, at: &At<'a>, command: &CommandLine) {
        if matches!(command, CommandLine::Shell(_)) && current.state.config.config.shell.is_empty() {
            self.warn(at, at.instruction.span, &Detail::JsonArgsRecommended(at.instruction.name()));
        }
    }

    /// Warns of pairs without `=`.
    pub(super) fn check_legacy(&mut self, at: &At<'a>, pairs: &[KeyValue]) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let span = pair.key.span.to(pair.value.span);
            self.warn(at, span, &Detail::LegacyKeyValueFormat(at.instruction.name()));
        }
    }

    /// Warns of a variable that sounds like a secret.
    pub(super) fn check_secret(&mut self, at: &At<'a>, span: Span, instruction: &str, name: &str) {
        let lower = name.to_ascii_lowercase();
        let has = |parts: &[&str]| lower.split('_').any(|part| parts.contains(&part));
        if has(&SECRET_PARTS) && !has(&PUBLIC_PARTS) {
            self.warn(at, span, &Detail::SecretsUsedInArgOrEnv(instruction, name));
        }
    }

    /// Warns of arguments that sound like secrets.
    pub(super) fn check_arguments(&mut self, at: &At<'a>, arguments: &[ArgDeclaration]) {
        for argument in arguments {
            self.check_secret(at, argument.name.span, "ARG", &argument.name.text);
        }
    }

    /// Warns of the first path of a file if it is relative.
    pub(super) fn check_workdir(&mut self, current: &Current, at: &At<'a>, span: Span, path: &str) {
        if !current.state.workdir_set && !path.starts_with('/') {
            self.warn(at, span, &Detail::WorkdirRelativePath(path));
        }
    }

    /// Warns of what a port should not say.
    pub(super) fn check_port(&mut self, at: &At<'a>, word: &Word, port: &str) {
        let (spec, protocol) = port.split_once('/').unwrap_or((port, ""));
        if protocol.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.warn(at, word.span, &Detail::ExposeProtoCasing(port));
        }
        // `:80` names neither an address nor a port of the host.
        if spec.rsplit_once(':').is_some_and(|(host, _)| host.bytes().any(|byte| byte != b':')) {
            self.warn(at, word.span, &Detail::ExposeInvalidFormat(port));
        }
    }
}

impl Checks {
    pub(super) fn report(&mut self, location: Location, line: usize, detail: &Detail<'_>) {
        let warning = LintWarning { rule: detail.rule(), span: location.span, line, detail: detail.to_string() };
        self.found.push((warning, location));
    }

    /// Adds what the file shows by itself and applies `# check=`, or the build argument that replaces it.
    ///
    /// Returns the warnings in line order, those of triggers last, and the options that were applied.
    pub(super) fn finish(
        self,
        dockerfile: &Dockerfile,
        options: &Options,
        errors: &mut Vec<GraphError>,
    ) -> (Vec<(LintWarning, Location)>, lint::Options) {
        let check = match options.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(|text| lint::Options::parse(text)) {
            None => lint::Options::of(dockerfile),
            Some(Ok(check)) => check,
            Some(Err(option)) => {
                errors.push(GraphError::new(GraphErrorKind::CheckOption(option)));
                lint::Options::default()
            }
        };
        let mut own = lint::check(dockerfile);
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
        (own.chain(foreign).collect(), check)
    }
}

impl Graph {
    /// Whether a step copies paths of the main context, so that [`Graph::check_ignored`] could find something.
    pub fn copies_from_context(&self) -> bool {
        self.copied_paths().next().is_some()
    }

    /// Warns of paths that are copied from the main context although its ignore file excludes them.
    pub fn check_ignored(&mut self, dockerfile: &Dockerfile, ignore: &IgnoreFile) {
        let (mut own, mut foreign) = (Vec::new(), Vec::new());
        for (add, path, location) in self.copied_paths() {
            let Some(path) = ignore.excluded_source(path) else { continue };
            let detail = Detail::CopyIgnoredFile(if add { "Add" } else { "Copy" }, &path);
            let line = location.source.line(location.span.start);
            let found = LintWarning { rule: detail.rule(), span: location.span, line, detail: detail.to_string() };
            if location.source == dockerfile.source {
                own.push(found);
            } else if self.check.applies(found.rule) {
                foreign.push((found, location.clone()));
            }
        }
        let locate = |warning: LintWarning| {
            let location = Location { source: dockerfile.source.clone(), span: warning.span };
            (warning, location)
        };
        self.warnings.extend(self.check.filter(dockerfile, own).into_iter().map(locate));
        self.warnings.extend(foreign);
    }

    /// Whether it is `ADD`, the path, and the place of the instruction.
    fn copied_paths(&self) -> impl Iterator<Item = (bool, &str, &Location)> {
        let copies = self.vertices.iter().filter_map(|vertex| match (&vertex.op, &vertex.location) {
            (Op::Copy(copy), Some(location)) if copy.from == Files::Context(ContextId::Main) => Some((copy, location)),
            _ => None,
        });
        copies.flat_map(|(copy, location)| {
            copy.sources.iter().filter_map(move |source| match source {
                AddSource::Path(path) => Some((copy.add, path.as_str(), location)),
                _ => None,
            })
        })
    }

    /// The warnings as errors, if `# check=error=true` makes them so and there are any.
    pub fn violations(&self) -> Option<GraphErrors> {
        if !self.check.error {
            return None;
        }
        let violation = |(warning, location): &(LintWarning, Location)| {
            let kind = GraphErrorKind::Violation { rule: warning.rule.name(), detail: warning.detail.clone() };
            GraphError::new(kind).at(location.clone())
        };
        GraphErrors::check(self.warnings.iter().map(violation).collect()).err()
    }
}
