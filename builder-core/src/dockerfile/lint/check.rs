//! The rules that need the file only: they look at every stage, needed or not.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use super::super::{
    Dockerfile, Expander, From, Heredoc, Instruction, InstructionKind, RunCommand, Word, is_posix_shell,
};
use super::detail::{Detail, Quoted, suggest};
use super::{Fix, LintWarning, Rule};
use crate::diagnostic::Span;
use crate::oci::{Platform, Reference};

/// Global arguments that every build has.
const PREDEFINED: [&str; 11] = [
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
];

/// How many unknown arguments are compared with all known ones to find what was meant.
const MAX_SUGGESTIONS: usize = 100;

/// Everything that the file shows by itself, whatever is built of it; unfiltered, in file order.
pub fn check(file: &Dockerfile) -> Vec<LintWarning> {
    let mut checker = Checker { file, warnings: file.warnings.clone(), shells: Shells::default() };
    let stages: Vec<Stage<'_>> = stages(file);
    checker.casing(&stages);
    checker.bases(&stages);
    checker.default_bases(&stages);
    checker.stage_names(&stages);
    for instruction in &file.instructions {
        checker.instruction(instruction);
    }
    let Checker { mut warnings, .. } = checker;
    warnings.sort_by_key(LintWarning::order);
    warnings
}

/// Names of the global arguments.
fn declared(file: &Dockerfile) -> Vec<&str> {
    let arguments = file.global_args().iter().filter_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(arguments) => Some(arguments),
        _ => None,
    });
    arguments.flatten().map(|argument| &*argument.name.text).collect()
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
    shells: Shells<'a>,
}

/// Which `SHELL` holds where an instruction stands, as far as the file says it.
#[derive(Default)]
struct Shells<'a> {
    now: Option<&'a [String]>,
    stage: Option<&'a str>,
    /// At the end of stages with a name.
    of_stages: HashMap<&'a str, Option<&'a [String]>>,
}

impl<'a> Shells<'a> {
    fn pass(&mut self, instruction: &'a Instruction) {
        match &instruction.kind {
            InstructionKind::From(from) => {
                if let Some(stage) = self.stage {
                    self.of_stages.insert(stage, self.now);
                }
                let base = from.image.text.to_ascii_lowercase();
                self.now = self.of_stages.get(base.as_str()).copied().flatten();
                self.stage = from.stage.as_ref().map(|stage| stage.name.as_str());
            }
            InstructionKind::Shell(words) => self.now = Some(words),
            _ => {}
        }
    }

    /// Whether it goes on after a failing line, and would not after `set -e`.
    fn goes_on(&self) -> bool {
        let Some(words) = self.now else { return true };
        is_posix_shell(words) && !words.iter().skip(1).any(|word| is_errexit(word))
    }
}

impl<'a> Checker<'a> {
    fn warn(&mut self, rule: Rule, at: &Instruction, span: Span, detail: String) {
        let (line, last_line) = (at.start_line(), at.end_line());
        self.warnings.push(LintWarning { rule, span, line, last_line, detail, fix: None });
    }

    fn casing(&mut self, stages: &[Stage<'_>]) {
        let all = || stages.iter().flat_map(|stage| std::iter::once(stage.head).chain(stage.body));
        let is =
            |lower: bool, name: &str| !name.chars().any(|ch| if lower { ch.is_uppercase() } else { ch.is_lowercase() });
        let count = |lower| all().filter(|instruction| is(lower, instruction.name())).count();
        let lower = count(true) > count(false);
        let case = if lower { "lowercase" } else { "uppercase" };
        for instruction in all().filter(|instruction| !is(lower, instruction.name())) {
            let name = instruction.name();
            let detail = format!("Command '{name}' should match the case of the command majority ({case})");
            self.warn(Rule::ConsistentInstructionCasing, instruction, instruction.name_span(), detail);
        }
    }

    fn stage_names(&mut self, stages: &[Stage<'_>]) {
        let mut seen = HashSet::new();
        for Stage { head, from, .. } in stages {
            let Some(stage) = &from.stage else { continue };
            let (name, written, keyword) = (&stage.name, &stage.written, &stage.keyword);
            if written.text != *name {
                let detail = format!("Stage name '{}' should be lowercase", written.text);
                self.warn(Rule::StageNameCasing, head, written.span, detail);
            }
            let from_name = head.name();
            let matches = if from_name == from_name.to_lowercase() {
                keyword.text == keyword.text.to_lowercase()
            } else {
                from_name != from_name.to_uppercase() || keyword.text == keyword.text.to_uppercase()
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

    /// What `FROM` says about images and platforms.
    fn bases(&mut self, stages: &[Stage<'_>]) {
        let expander = Expander::new(self.file.directives.escape);
        let file = self.file;
        let declared = declared(file);
        let known: HashSet<&str> = declared.iter().copied().chain(PREDEFINED).collect();
        let mut suggestions_left = MAX_SUGGESTIONS;
        for Stage { head, from, .. } in stages {
            for word in std::iter::once(&from.image).chain(&from.platform) {
                // Nested words are looked at whatever the values are, so that none is needed to find all names.
                let Ok(expanded) = expander.word(&word.text, &|_| None) else { continue };
                for name in &expanded.unset {
                    if known.contains(name.as_str()) {
                        continue;
                    }
                    let mut meant = None;
                    if suggestions_left > 0 {
                        suggestions_left -= 1;
                        meant = suggest(name, declared.iter().copied().chain(PREDEFINED));
                    }
                    let detail = Detail::UndefinedArgInFrom(name, meant).to_string();
                    self.warn(Rule::UndefinedArgInFrom, head, word.span, detail);
                }
            }
            if let Some(platform) = &from.platform {
                self.platform(head, from, platform, &expander);
            }
        }
    }

    /// Whether each `FROM` names an image with the defaults of the global arguments. Nothing is said if a default or an
    /// earlier `FROM` can't be expanded.
    fn default_bases(&mut self, stages: &[Stage<'_>]) {
        let expander = Expander::new(self.file.directives.escape);
        let Some(values) = self.default_args(&expander) else { return };
        for Stage { head, from, .. } in stages {
            let Ok(image) = expander.word(&from.image.text, &|name| values.get(name).cloned()) else { return };
            if Reference::from_str(&image.text).is_err() {
                let name = &from.image.text;
                let detail = format!("Default value for ARG {name} results in empty or invalid base image name");
                self.warn(Rule::InvalidDefaultArgInFrom, head, from.image.span, detail);
            }
        }
    }

    /// The values of the global arguments if no build argument is given. `None` if one can't be expanded.
    fn default_args(&self, expander: &Expander) -> Option<HashMap<String, String>> {
        let mut values: HashMap<String, String> = HashMap::new();
        for name in ["BUILD", "TARGET"] {
            values.insert(format!("{name}PLATFORM"), "linux/amd64".to_owned());
            values.insert(format!("{name}OS"), "linux".to_owned());
            values.insert(format!("{name}ARCH"), "amd64".to_owned());
            values.insert(format!("{name}VARIANT"), String::new());
            values.insert(format!("{name}OSVERSION"), String::new());
        }
        values.insert("TARGETSTAGE".to_owned(), "default".to_owned());
        for instruction in self.file.global_args() {
            let InstructionKind::Arg(arguments) = &instruction.kind else { continue };
            for argument in arguments {
                let Some(default) = &argument.default else { continue };
                let value = expander.word(&default.text, &|name| values.get(name).cloned()).ok()?.text;
                values.insert(argument.name.text.to_string(), value);
            }
        }
        Some(values)
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
        if !expanded.used.is_empty() || !expanded.unset.is_empty() {
            return;
        }
        let Ok(parsed) = Platform::from_str(&expanded.text) else { return };
        let stage = from.stage.as_ref().map_or("", |stage| &stage.name);
        if !stage.contains(&parsed.os) && !stage.contains(&parsed.architecture) {
            let detail = format!("FROM --platform flag should not use constant value {}", Quoted(&expanded.text));
            self.warn(Rule::FromPlatformFlagConstDisallowed, head, platform.span, detail);
        }
    }

    /// What is wrong with an instruction wherever it stands.
    fn instruction(&mut self, instruction: &'a Instruction) {
        self.shells.pass(instruction);
        match &instruction.kind {
            InstructionKind::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
                self.warn(Rule::MaintainerDeprecated, instruction, instruction.name_span(), detail);
            }
            InstructionKind::Arg(args) => {
                let names: Vec<&str> = args.iter().map(|arg| &*arg.name.text).collect();
                self.description(instruction, "ARG", &names);
            }
            InstructionKind::From(from) => {
                let name = from.stage.as_ref().map(|stage| stage.name.as_str());
                self.description(instruction, "FROM", name.as_slice());
            }
            InstructionKind::Run(run) if !self.file.directives.heredoc_errexit && self.shells.goes_on() => {
                if let (Some(heredoc), RunCommand::Shell(body)) = (run.lone_heredoc(), &run.command)
                    && goes_on_after_failure(body)
                {
                    let detail = "RUN goes on after a failing line of its here-document: begin it with `set -e`, or the \
                                  file with `# rbuild: heredoc=errexit`";
                    self.warn(Rule::HeredocNoErrexit, instruction, heredoc.span, detail.to_owned());
                    if let Some(warning) = self.warnings.last_mut() {
                        warning.fix = Some(errexit(heredoc));
                    }
                }
            }
            _ => {}
        }
    }

    fn description(&mut self, instruction: &Instruction, keyword: &str, names: &[&str]) {
        let (Some(comment), [first, others @ ..]) = (instruction.comments().last(), names) else { return };
        if comment.text.split(' ').next().is_some_and(|word| names.contains(&word)) {
            return;
        }
        let example = if others.is_empty() { first } else { "<arg_key>" };
        let detail = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
        self.warn(Rule::InvalidDefinitionDescription, instruction, comment.span, detail);
    }
}

/// Makes a here-document end at its first failing command.
fn errexit(heredoc: &Heredoc) -> Fix {
    let first = heredoc.content.split_inclusive('\n').next().unwrap_or_default();
    let end = if first.ends_with("\r\n") { "\r\n" } else { "\n" };
    Fix { at: heredoc.body.start, insert: format!("set -eu{end}") }
}

/// Whether a script has several lines and its first one does not say `set -e`.
fn goes_on_after_failure(script: &str) -> bool {
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(first), Some(_)) = (lines.next(), lines.next()) else { return false };
    let mut words = first.split([' ', '\t', ';', '&']).filter(|word| !word.is_empty());
    if words.next() != Some("set") {
        return true;
    }
    !words.any(is_errexit)
}

/// Whether an argument of `set` or of a shell says to end at the first failing command.
fn is_errexit(word: &str) -> bool {
    word == "errexit" || (word.starts_with('-') && !word.starts_with("--") && word.contains('e'))
}
