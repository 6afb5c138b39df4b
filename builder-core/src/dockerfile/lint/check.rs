//! The rules that need the file only.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use super::super::port::parse_range;
use super::super::{CommandLine, Dockerfile, Expander, From, Instruction, InstructionKind, KeyValue, Word};
use super::{LintWarning, Rule};
use crate::diagnostic::{Span, nearest};
use crate::oci::{Platform, Reference};

/// Global arguments that every build has.
const PREDEFINED: [&str; 12] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "BUILDOSVERSION",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETOSVERSION",
    "TARGETSTAGE",
    "SOURCE_DATE_EPOCH",
];

/// Parts of a name between underscores that sound like a secret.
const SECRET_PARTS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Everything that the file shows by itself, unfiltered, in file order.
///
/// `is_needed` says which stages, by index, the build reaches: some rules are silent about others, as in BuildKit.
pub fn check(file: &Dockerfile, is_needed: &dyn Fn(usize) -> bool) -> Vec<LintWarning> {
    let mut checker = Checker { file, warnings: file.warnings.clone() };
    let stages: Vec<Stage<'_>> = stages(file);
    checker.casing(&stages);
    checker.bases(&stages);
    checker.stage_names(&stages);
    for instruction in &file.instructions {
        checker.instruction(instruction);
    }
    checker.stage_contents(&stages, is_needed);
    let Checker { mut warnings, .. } = checker;
    warnings.sort_by_key(|warning| (warning.line, warning.span));
    warnings
}

/// The text of an [`Rule::UndefinedVar`] finding; `defined` are the names that could have been meant.
pub fn undefined_var<'a>(name: &str, defined: impl IntoIterator<Item = &'a str>) -> String {
    let meant = nearest(name, defined).map(|meant| format!(" (did you mean ${meant}?)")).unwrap_or_default();
    format!("Usage of undefined variable '${name}'{meant}")
}

/// The text of an [`Rule::InvalidBaseImagePlatform`] finding.
pub fn invalid_base_platform(image: &str, actual: &Platform, expected: &Platform) -> String {
    format!("Base image {image} was pulled with platform \"{actual}\", expected \"{expected}\" for current build")
}

/// The text of a [`Rule::CopyIgnoredFile`] finding; `instruction` is `Copy` or `Add`.
pub fn copy_ignored_file(instruction: &str, path: &str) -> String {
    format!("Attempting to {instruction} file \"{path}\" that is excluded by .dockerignore")
}

struct Stage<'a> {
    head: &'a Instruction,
    from: &'a From,
    body: &'a [Instruction],
}

fn stages(file: &Dockerfile) -> Vec<Stage<'_>> {
    file.stages().into_iter().filter_map(stage).collect()
}

fn stage(instructions: &[Instruction]) -> Option<Stage<'_>> {
    let (head, body) = instructions.split_first()?;
    let InstructionKind::From(from) = &head.kind else { return None };
    Some(Stage { head, from, body })
}

struct Checker<'a> {
    file: &'a Dockerfile,
    warnings: Vec<LintWarning>,
}

impl Checker<'_> {
    fn warn(&mut self, rule: Rule, at: &Instruction, span: Span, detail: String) {
        self.warnings.push(LintWarning { rule, span, line: at.start_line, detail });
    }

    fn casing(&mut self, stages: &[Stage<'_>]) {
        let all = || stages.iter().flat_map(|stage| std::iter::once(stage.head).chain(stage.body));
        let is =
            |lower: bool, name: &str| !name.chars().any(|ch| if lower { ch.is_uppercase() } else { ch.is_lowercase() });
        let count = |lower| all().filter(|instruction| is(lower, &instruction.name.text)).count();
        let lower = count(true) > count(false);
        let case = if lower { "lowercase" } else { "uppercase" };
        for instruction in all().filter(|instruction| !is(lower, &instruction.name.text)) {
            let name = &instruction.name.text;
            let detail = format!("Command '{name}' should match the case of the command majority ({case})");
            self.warn(Rule::ConsistentInstructionCasing, instruction, instruction.name.span, detail);
        }
    }

    fn stage_names(&mut self, stages: &[Stage<'_>]) {
        let mut seen = HashSet::new();
        for Stage { head, from, .. } in stages {
            let Some(stage) = &from.stage else { continue };
            let (name, written, keyword) = (&stage.name, &stage.written, &stage.keyword);
            if *name != written.text {
                let detail = format!("Stage name '{}' should be lowercase", written.text);
                self.warn(Rule::StageNameCasing, head, written.span, detail);
            }
            let from_name = &head.name.text;
            let matches = if *from_name == from_name.to_lowercase() {
                keyword.text == keyword.text.to_lowercase()
            } else {
                *from_name != from_name.to_uppercase() || keyword.text == keyword.text.to_uppercase()
            };
            if !matches {
                let detail = format!("'{}' and '{from_name}' keywords' casing do not match", keyword.text);
                self.warn(Rule::FromAsCasing, head, keyword.span, detail);
            }
            if matches!(name.as_str(), "scratch" | "context") {
                let detail = format!("Stage name should not use the same name as reserved stage \"{name}\"");
                self.warn(Rule::ReservedStageName, head, written.span, detail);
            }
            if !seen.insert(name) {
                let detail = format!("Duplicate stage name \"{name}\", stage names should be unique");
                self.warn(Rule::DuplicateStageName, head, written.span, detail);
            }
        }
    }

    /// What `FROM` says about images and platforms, with the defaults of the global arguments.
    fn bases(&mut self, stages: &[Stage<'_>]) {
        let expander = Expander::new(self.file.directives.escape);
        let (declared, values) = self.global_args(&expander);
        let value = |name: &str| values.get(name).cloned();
        for Stage { head, from, .. } in stages {
            let platform = from.platform.as_ref();
            let mut reported = HashSet::new();
            for word in platform.into_iter().chain([&from.image]) {
                let Ok(expanded) = expander.word(&word.text, &value) else { continue };
                for name in expanded.unset {
                    let known = declared.contains(&name) || PREDEFINED.contains(&name.as_str());
                    if known || !reported.insert(name.clone()) {
                        continue;
                    }
                    let candidates = declared.iter().map(String::as_str).chain(PREDEFINED);
                    let meant = nearest(&name, candidates).map(|meant| format!(" (did you mean {meant}?)"));
                    let detail = format!("FROM argument '{name}' is not declared{}", meant.unwrap_or_default());
                    self.warn(Rule::UndefinedArgInFrom, head, word.span, detail);
                }
            }
            if let Ok(image) = expander.word(&from.image.text, &value)
                && Reference::from_str(&image.text).is_err()
            {
                let name = &from.image.text;
                let detail = format!("Default value for ARG {name} results in empty or invalid base image name");
                self.warn(Rule::InvalidDefaultArgInFrom, head, from.image.span, detail);
            }
            if let Some(platform) = platform {
                self.platform(head, from, platform, &expander);
            }
        }
    }

    /// Names of the global arguments, and the values of those that have one.
    fn global_args(&self, expander: &Expander) -> (HashSet<String>, HashMap<String, String>) {
        let mut declared = HashSet::new();
        let mut values: HashMap<String, String> = HashMap::new();
        for name in ["BUILD", "TARGET"] {
            values.insert(format!("{name}PLATFORM"), "linux/amd64".to_owned());
            values.insert(format!("{name}OS"), "linux".to_owned());
            values.insert(format!("{name}ARCH"), "amd64".to_owned());
        }
        values.insert("TARGETSTAGE".to_owned(), "default".to_owned());
        for instruction in self.file.global_args() {
            let InstructionKind::Arg(args) = &instruction.kind else { continue };
            for arg in args {
                let name = arg.name.text.clone();
                let default = arg.default.as_ref();
                let lookup = |name: &str| values.get(name).cloned();
                let value = default.and_then(|default| Some(expander.word(&default.text, &lookup).ok()?.text));
                if let Some(value) = value {
                    values.insert(name.clone(), value);
                }
                declared.insert(name);
            }
        }
        (declared, values)
    }

    fn platform(&mut self, head: &Instruction, from: &From, platform: &Word, expander: &Expander) {
        // A value that no constant has, so that the variable is the whole platform.
        let marker = "\u{1}";
        let lookup = |name: &str| (name == "TARGETPLATFORM").then(|| marker.to_owned());
        let Ok(expanded) = expander.word(&platform.text, &lookup) else { return };
        if expanded.text == marker && expanded.used.len() == 1 && expanded.unset.is_empty() {
            let text = &platform.text;
            let detail =
                format!("Setting platform to predefined {text} in FROM is redundant as this is the default behavior");
            self.warn(Rule::RedundantTargetPlatform, head, platform.span, detail);
        }
        if platform.text.contains('$') {
            return;
        }
        let Ok(parsed) = Platform::from_str(&expanded.text) else { return };
        let stage = from.stage.as_ref().map_or("", |stage| &stage.name);
        if !stage.contains(&parsed.os) && !stage.contains(&parsed.architecture) {
            let detail = format!("FROM --platform flag should not use constant value \"{}\"", expanded.text);
            self.warn(Rule::FromPlatformFlagConstDisallowed, head, platform.span, detail);
        }
    }

    /// What is wrong with an instruction wherever it stands.
    fn instruction(&mut self, instruction: &Instruction) {
        match &instruction.kind {
            InstructionKind::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
                self.warn(Rule::MaintainerDeprecated, instruction, instruction.name.span, detail);
            }
            InstructionKind::Env(pairs) => self.legacy(instruction, "ENV", pairs),
            InstructionKind::Label(pairs) => self.legacy(instruction, "LABEL", pairs),
            InstructionKind::Arg(args) => {
                let names: Vec<&str> = args.iter().map(|arg| arg.name.text.as_str()).collect();
                self.description(instruction, "ARG", &names);
            }
            InstructionKind::From(from) => {
                let name = from.stage.as_ref().map(|stage| stage.name.as_str());
                self.description(instruction, "FROM", name.as_slice());
            }
            _ => {}
        }
    }

    fn legacy(&mut self, instruction: &Instruction, name: &str, pairs: &[KeyValue]) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let detail = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
            self.warn(Rule::LegacyKeyValueFormat, instruction, pair.key.span.to(pair.value.span), detail);
        }
    }

    fn description(&mut self, instruction: &Instruction, keyword: &str, names: &[&str]) {
        let (Some(comment), [first, others @ ..]) = (instruction.comments.last(), names) else { return };
        if comment.text.split(' ').next().is_some_and(|word| names.contains(&word)) {
            return;
        }
        let example = if others.is_empty() { first } else { "<arg_key>" };
        let detail = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
        self.warn(Rule::InvalidDefinitionDescription, instruction, comment.span, detail);
    }

    /// What is wrong with an instruction because of others in its stage.
    fn stage_contents(&mut self, stages: &[Stage<'_>], is_needed: &dyn Fn(usize) -> bool) {
        // What a stage passes on to those that begin with it: whether SHELL and WORKDIR were set.
        let mut passed: HashMap<&str, (bool, bool)> = HashMap::new();
        for (index, stage) in stages.iter().enumerate() {
            let base = stage.from.image.text.to_lowercase();
            let (mut shell, mut workdir) = passed.get(base.as_str()).copied().unwrap_or_default();
            let before = self.warnings.len();
            self.repeated(stage);
            for instruction in stage.body {
                match &instruction.kind {
                    InstructionKind::Shell(_) => shell = true,
                    InstructionKind::Cmd(CommandLine::Shell(_))
                    | InstructionKind::Entrypoint(CommandLine::Shell(_))
                        if !shell =>
                    {
                        self.shell_form(instruction);
                    }
                    InstructionKind::Workdir(path) => {
                        self.workdir(instruction, path, workdir);
                        workdir = true;
                    }
                    _ => self.values(instruction),
                }
            }
            if !is_needed(index) {
                self.warnings.truncate(before);
            }
            if let Some(name) = &stage.from.stage {
                passed.insert(&name.name, (shell, workdir));
            }
        }
    }

    /// Names and values of an instruction, each by itself.
    fn values(&mut self, instruction: &Instruction) {
        match &instruction.kind {
            InstructionKind::Env(pairs) => {
                for pair in pairs {
                    self.secret(instruction, "ENV", &pair.key);
                }
            }
            InstructionKind::Arg(args) => {
                for arg in args {
                    self.secret(instruction, "ARG", &arg.name);
                }
            }
            InstructionKind::Expose(ports) => {
                for port in ports {
                    self.port(instruction, port);
                }
            }
            _ => {}
        }
    }

    /// The earlier ones of several `CMD`, `ENTRYPOINT` or `HEALTHCHECK`.
    fn repeated(&mut self, stage: &Stage<'_>) {
        let mut last: [Option<&Instruction>; 3] = [None; 3];
        for instruction in stage.body {
            let slot = match instruction.kind {
                InstructionKind::Cmd(_) => 0,
                InstructionKind::Entrypoint(_) => 1,
                InstructionKind::Healthcheck(_) => 2,
                _ => continue,
            };
            if let Some(earlier) = last[slot].replace(instruction) {
                let name = &instruction.name.text;
                let detail = format!(
                    "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
                );
                self.warn(Rule::MultipleInstructionsDisallowed, earlier, earlier.name.span, detail);
            }
        }
    }

    fn shell_form(&mut self, instruction: &Instruction) {
        let name = &instruction.name.text;
        let detail =
            format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
        self.warn(Rule::JsonArgsRecommended, instruction, instruction.span, detail);
    }

    /// A path with variables is judged by nobody: its value is not known here.
    fn workdir(&mut self, instruction: &Instruction, path: &Word, is_set: bool) {
        let text = path.text.trim_start_matches(['"', '\'']);
        if is_set || text.contains('$') || text.starts_with('/') {
            return;
        }
        let detail =
            format!("Relative workdir \"{}\" can have unexpected results if the base image changes", path.text);
        self.warn(Rule::WorkdirRelativePath, instruction, path.span, detail);
    }

    fn secret(&mut self, instruction: &Instruction, keyword: &str, key: &Word) {
        let lower = key.text.to_ascii_lowercase();
        let has = |parts: &[&str]| lower.split('_').any(|part| parts.contains(&part));
        if has(&SECRET_PARTS) && !has(&["public", "file", "version"]) {
            let detail = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} \"{}\")", key.text);
            self.warn(Rule::SecretsUsedInArgOrEnv, instruction, key.span, detail);
        }
    }

    fn port(&mut self, instruction: &Instruction, port: &Word) {
        if port.text.contains('$') || parse_range(&port.text).is_err() {
            return;
        }
        let text = &port.text;
        let (spec, protocol) = text.split_once('/').unwrap_or((text, ""));
        if protocol != protocol.to_lowercase() {
            let detail = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
            self.warn(Rule::ExposeProtoCasing, instruction, port.span, detail);
        }
        if spec.contains(':') {
            let detail =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'");
            self.warn(Rule::ExposeInvalidFormat, instruction, port.span, detail);
        }
    }
}
