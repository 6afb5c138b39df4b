//! [`Checks`]: warnings that need values or images, put together with those of the file.

use super::error::{GraphError, GraphErrorKind};
use super::lower::{At, Current, Lowering};
use super::{AddSource, ContextId, Files, Graph, GraphErrors, MountTarget, Op, Options, Vertex};
use crate::context::IgnoreFile;
use crate::diagnostic::{Location, Span};
use crate::dockerfile::lint::{self, Detail, LintWarning};
use crate::dockerfile::{ArgDeclaration, CommandLine, Dockerfile, KeyValue, Word};

/// Warnings as they are found.
#[derive(Default)]
pub(super) struct Checks {
    found: Vec<Found>,
}

struct Found {
    rule: lint::Rule,
    detail: String,
    place: Place,
}

/// Where something doubtful stands.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) location: Location,
    /// For an ONBUILD trigger, the `FROM` that brought it.
    pub(super) origin: Option<Location>,
}

impl Place {
    /// The warning, with the lines of the instruction in `file`, which are those of the `FROM` for a trigger.
    fn warning(&self, file: &Dockerfile, rule: lint::Rule, detail: String) -> LintWarning {
        let span = self.location.span;
        let at = self.origin.as_ref().map_or(span.start, |origin| origin.span.start);
        let (line, last_line) =
            file.instruction_at(at).map_or((1, 1), |instruction| (instruction.start_line(), instruction.end_line()));
        LintWarning { rule, span, line, last_line, detail, fix: None }
    }
}

/// Where the last `CMD`, `ENTRYPOINT` and `HEALTHCHECK` of a stage stand.
#[derive(Default)]
pub(super) struct Once([Option<Place>; 3]);

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
        let here = at.place(at.instruction.name_span());
        if let Some(earlier) = current.once.0[kind as usize].replace(here) {
            self.checks.report(earlier, &Detail::MultipleInstructionsDisallowed(at.instruction.name()));
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
    pub(super) fn report(&mut self, place: Place, detail: &Detail<'_>) {
        self.found.push(Found { rule: detail.rule(), detail: detail.to_string(), place });
    }

    /// Adds what the file shows by itself and applies `# check=`, or the build argument that replaces it.
    ///
    /// Returns the warnings in order, and the options that were applied.
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
        let warnings = filtered(self.found, lint::check(dockerfile), dockerfile, &check);
        (warnings, check)
    }
}

/// Those of `found` and of `own`, which the file shows by itself, that the options let through, in order.
fn filtered(
    found: Vec<Found>,
    mut own: Vec<LintWarning>,
    file: &Dockerfile,
    check: &lint::Options,
) -> Vec<(LintWarning, Location)> {
    let mut triggers = Vec::new();
    for Found { rule, detail, place } in found {
        let warning = place.warning(file, rule, detail);
        if place.origin.is_none() {
            own.push(warning);
        } else if check.applies(rule) {
            triggers.push((warning, place.location));
        }
    }
    let locate = |warning: LintWarning| {
        let location = Location { source: file.source.clone(), span: warning.span };
        (warning, location)
    };
    let mut all: Vec<_> = check.filter(file, own).into_iter().map(locate).collect();
    all.extend(triggers);
    all.sort_by_key(|(warning, _)| warning.order());
    all
}

impl Graph {
    /// Whether a step copies paths of the main context, so that [`Graph::check_ignored`] could find something.
    pub fn copies_from_context(&self) -> bool {
        self.copied_paths().next().is_some()
    }

    /// Warns of paths that are copied from the main context although its ignore file excludes them.
    pub fn check_ignored(&mut self, dockerfile: &Dockerfile, ignore: &IgnoreFile) {
        let mut found = Vec::new();
        for (add, path, place) in self.copied_paths() {
            let Some(path) = ignore.excluded_source(path) else { continue };
            let detail = Detail::CopyIgnoredFile(if add { "Add" } else { "Copy" }, &path);
            found.push(Found { rule: detail.rule(), detail: detail.to_string(), place });
        }
        self.warnings.extend(filtered(found, Vec::new(), dockerfile, &self.check));
    }

    /// Warns of secrets that may change although the result of their step counts. `counts_on` says whether that of a
    /// vertex with a secret of this id does so without end.
    pub fn check_secrets(&mut self, dockerfile: &Dockerfile, counts_on: &dyn Fn(&Vertex, &str) -> bool) {
        let mut found: Vec<Found> = Vec::new();
        for vertex in &self.vertices {
            let (Op::Run(run), Some(location)) = (&vertex.op, &vertex.location) else { continue };
            for mount in &run.mounts {
                let MountTarget::Secret(secret) = &mount.kind else { continue };
                if vertex.no_cache || vertex.time_to_live.is_some() || !counts_on(vertex, &secret.id) {
                    continue;
                }
                let detail = Detail::SecretNotInKey(&secret.id);
                let place = Place { location: location.clone(), origin: vertex.origin.clone() };
                // A step is there once for each platform.
                let (rule, detail) = (detail.rule(), detail.to_string());
                if !found.iter().any(|other| other.detail == detail && other.place == place) {
                    found.push(Found { rule, detail, place });
                }
            }
        }
        self.warnings.extend(filtered(found, Vec::new(), dockerfile, &self.check));
        self.warnings.sort_by_key(|(warning, _)| warning.order());
    }

    /// Whether it is `ADD`, the path, and the place of the instruction.
    fn copied_paths(&self) -> impl Iterator<Item = (bool, &str, Place)> {
        let copies = self.vertices.iter().filter_map(|vertex| match (&vertex.op, &vertex.location) {
            (Op::Copy(copy), Some(location)) if copy.from == Files::Context(ContextId::Main) => {
                Some((copy, Place { location: location.clone(), origin: vertex.origin.clone() }))
            }
            _ => None,
        });
        copies.flat_map(|(copy, place)| {
            copy.sources.iter().filter_map(move |source| match source {
                AddSource::Path(path) => Some((copy.add, path.as_str(), place.clone())),
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
