//! `rbuild build --call`: looks at the Dockerfile and builds nothing. Nothing is asked of the network: what is not in
//! the store stays unknown.

use std::collections::BTreeMap;

use builder_core::build::BuildRequest;
use builder_core::build::images;
use builder_core::content::ContentStore;
use builder_core::diagnostic::{Diagnostic, Location};
use builder_core::dockerfile::{
    self, Dockerfile, Expander, Instruction, InstructionKind, LintWarning, MountKind, Rule, RunCommand,
};
use builder_core::graph::{self, Graph, ImageRequest, Images, KnownImage, Options};
use builder_core::oci::{Digest, ImageConfig};
use serde_json::{Value, json};

use super::inspect::indented;
use super::{Outcome, print};
use crate::command_error::CommandError;
use crate::ui;
use crate::ui::style::{Paint, Style};
use crate::ui::{escape, table};

/// Parses; all errors of the file at once.
pub(super) fn parse(source: &builder_core::diagnostic::Source) -> Result<Dockerfile, CommandError> {
    dockerfile::parse(source).map_err(|errors| CommandError::diagnostics(errors.iter()))
}

/// A graph without the network. Images that are not in the store count as images that set nothing; says whether there
/// are any.
pub(super) fn offline_graph(
    file: &Dockerfile,
    options: &Options,
    content: Option<&ContentStore>,
) -> Result<(Graph, bool), CommandError> {
    let failed = |errors: graph::GraphErrors| CommandError::diagnostics(errors.iter());
    let (mut known, mut guessed) = (Images::new(), false);
    loop {
        let plan = graph::plan(file, options, &known).map_err(failed)?;
        if plan.missing.is_empty() {
            return Ok((graph::lower(file, options, &known).map_err(failed)?, guessed));
        }
        for request in plan.missing {
            let image = content.and_then(|content| stored(content, &request));
            guessed |= image.is_none();
            known.insert(request.clone(), image.unwrap_or_else(|| unknown(&request)));
        }
    }
}

fn stored(content: &ContentStore, request: &ImageRequest) -> Option<KnownImage> {
    let image = images::find(content, &request.reference.to_string()).ok()?;
    let config = images::config(content, &image.id).ok()?;
    Some(KnownImage { config, digest: image.id.digest().clone() })
}

fn unknown(request: &ImageRequest) -> KnownImage {
    let config = ImageConfig {
        os: request.platform.os.clone(),
        architecture: request.platform.architecture.clone(),
        variant: request.platform.variant.clone(),
        ..ImageConfig::default()
    };
    KnownImage { config, digest: Digest::sha256(b"") }
}

/// `--check`: prints what is doubtful; exit code 1 if anything is.
pub(super) fn check(request: &BuildRequest, content: Option<&ContentStore>, json: bool) -> Outcome {
    let file = parse(&request.dockerfile)?;
    let (graph, guessed) = offline_graph(&file, &request.options, content)?;
    let mut warnings = graph.warnings;
    if guessed {
        // The variables of an unknown base image are unknown too.
        warnings.retain(|(warning, _)| warning.rule != Rule::UndefinedVar);
    }
    let code = u8::from(!warnings.is_empty());
    if json {
        let list: Vec<Value> = warnings.iter().map(|(warning, location)| warning_json(warning, location)).collect();
        print(indented(&json!({ "warnings": list, "sources": [source_json(request)] })) + "\n")?;
        return Ok(code);
    }
    let mut text = String::new();
    for (warning, location) in &warnings {
        let found = Finding { warning, location };
        text.push_str(&ui::diagnostic::render("warning", Style::Warning, &found, Paint::plain()));
        text.push('\n');
    }
    text.push_str(&match warnings.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    });
    print(text)?;
    Ok(code)
}

struct Finding<'a> {
    warning: &'a LintWarning,
    location: &'a Location,
}

impl std::fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.warning.rule.name(), self.warning.detail)
    }
}

impl Diagnostic for Finding<'_> {
    fn location(&self) -> Option<Location> {
        Some(self.location.clone())
    }

    fn hint(&self) -> Option<String> {
        Some(format!("see {}", self.warning.rule.url()))
    }
}

/// As buildx's `--call=check,format=json`.
fn warning_json(warning: &LintWarning, location: &Location) -> Value {
    let line = |offset| json!({ "line": location.source.line(offset), "character": 0 });
    json!({
        "ruleName": warning.rule.name(),
        "description": warning.rule.text(),
        "url": warning.rule.url(),
        "detail": warning.detail,
        "location": { "ranges": [{ "start": line(location.span.start), "end": line(location.span.end) }] },
    })
}

fn source_json(request: &BuildRequest) -> Value {
    json!({ "filename": request.dockerfile.name(), "language": "Dockerfile" })
}

/// `--call=targets`: the stages that can be built.
pub(super) fn targets(request: &BuildRequest, json: bool) -> Outcome {
    let file = parse(&request.dockerfile)?;
    let stages: Vec<&[Instruction]> = file.stages();
    let last = stages.len().saturating_sub(1);
    let described = stages.iter().enumerate().filter_map(|(index, stage)| {
        let head = stage.first()?;
        let InstructionKind::From(from) = &head.kind else { return None };
        let name = from.stage.as_ref().map(|stage| stage.name.clone());
        let description = name.as_ref().and_then(|name| head.description(name)).unwrap_or_default();
        Some((index, name, description, from, head))
    });
    if json {
        let list: Vec<Value> = described
            .map(|(index, name, description, from, head)| {
                json!({
                    "name": name,
                    "default": index == last,
                    "description": description,
                    "base": from.image.text,
                    "platform": from.platform.as_ref().map(|platform| &platform.text),
                    "location": { "ranges": [{ "start": { "line": head.start_line }, "end": { "line": head.end_line } }] },
                })
            })
            .collect();
        return print(indented(&json!({ "targets": list, "sources": [source_json(request)] })) + "\n");
    }
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (index, name, description, ..) in described {
        let name = name.unwrap_or_else(|| index.to_string());
        let mark = if index == last { " (default)" } else { "" };
        rows.push(vec![format!("{}{mark}", escape::line(&name)), escape::line(description).into_owned()]);
    }
    print(table::align(&rows))
}

/// What a target takes from outside.
#[derive(Default)]
struct Outline {
    /// Name → value and description.
    args: BTreeMap<String, (String, String)>,
    /// Id → required.
    secrets: BTreeMap<String, bool>,
    ssh: BTreeMap<String, bool>,
    caches: BTreeMap<String, String>,
}

/// `--call=outline`: arguments, secrets and caches of a target.
pub(super) fn outline(request: &BuildRequest, content: Option<&ContentStore>, json: bool) -> Outcome {
    let file = parse(&request.dockerfile)?;
    // Makes sure that the target exists and that names are right.
    offline_graph(&file, &request.options, content)?;
    let plan = graph::plan(&file, &request.options, &Images::new())
        .map_err(|errors| CommandError::diagnostics(errors.iter()))?;
    let stages = file.stages();
    let needed: Vec<usize> = plan.stages.iter().map(|stage| stage.index).collect();
    let mut outline = Outline::default();
    for instruction in file.global_args() {
        outline.instruction(instruction, &request.options);
    }
    for instruction in needed.iter().filter_map(|index| stages.get(*index)).flat_map(|stage| stage.iter()) {
        outline.instruction(instruction, &request.options);
    }
    let target = plan.stages.last().map(|stage| stage.name.clone().unwrap_or_else(|| stage.index.to_string()));
    print(if json { indented(&outline.json(target.as_deref())) + "\n" } else { outline.text(target.as_deref()) })
}

impl Outline {
    fn instruction(&mut self, instruction: &Instruction, options: &Options) {
        match &instruction.kind {
            InstructionKind::Arg(declarations) => {
                for declaration in declarations {
                    let name = &declaration.name.text;
                    let given = options.build_args.get(name).map(String::as_str);
                    let value = given.or(declaration.default.as_ref().map(|word| word.text.as_str()));
                    let description = instruction.description(name).unwrap_or_default();
                    let entry = self.args.entry(name.clone()).or_default();
                    if let Some(value) = value {
                        value.clone_into(&mut entry.0);
                    }
                    if entry.1.is_empty() {
                        description.clone_into(&mut entry.1);
                    }
                }
            }
            InstructionKind::Run(run) if !matches!(run.command, RunCommand::Exec(ref words) if words.is_empty()) => {
                let lookup = |_: &str| None;
                for (mount, _) in run.mounts(&Expander::new('\\'), &lookup).unwrap_or_default() {
                    match mount.kind {
                        MountKind::Secret { id, required, .. } => *self.secrets.entry(id).or_default() |= required,
                        MountKind::Ssh { id, required, .. } => *self.ssh.entry(id).or_default() |= required,
                        MountKind::Cache { id, .. } => {
                            let target = mount.target.unwrap_or_default();
                            self.caches.insert(id.unwrap_or_else(|| target.clone()), target);
                        }
                        MountKind::Bind { .. } | MountKind::Tmpfs { .. } => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn json(&self, target: Option<&str>) -> Value {
        let named = |map: &BTreeMap<String, bool>| -> Vec<Value> {
            map.iter().map(|(name, required)| json!({ "name": name, "required": required })).collect()
        };
        let args: Vec<Value> = self
            .args
            .iter()
            .map(|(name, (value, description))| json!({ "name": name, "value": value, "description": description }))
            .collect();
        let caches: Vec<Value> = self.caches.iter().map(|(id, target)| json!({ "id": id, "target": target })).collect();
        json!({
            "name": target, "args": args, "secrets": named(&self.secrets), "ssh": named(&self.ssh), "cache": caches,
        })
    }

    fn text(&self, target: Option<&str>) -> String {
        let mut out = format!("TARGET: {}\n", escape::line(target.unwrap_or_default()));
        let mut add = |heading: [&str; 3], rows: Vec<[String; 3]>| {
            if !rows.is_empty() {
                let cells = |row: [String; 3]| row.iter().map(|cell| escape::line(cell).into_owned()).collect();
                let heading = heading.map(str::to_owned);
                let lines: Vec<Vec<String>> = std::iter::once(heading).chain(rows).map(cells).collect();
                out.push('\n');
                out.extend(table::align(&lines).lines().map(|line| line.trim_end().to_owned() + "\n"));
            }
        };
        let flag = |required: bool| if required { "true" } else { "" }.to_owned();
        let args = self.args.iter().map(|(name, (value, text))| [name.clone(), value.clone(), text.clone()]);
        add(["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect());
        let secrets = self.secrets.iter().map(|(id, required)| [id.clone(), flag(*required), String::new()]);
        add(["SECRET", "REQUIRED", ""], secrets.collect());
        let ssh = self.ssh.iter().map(|(id, required)| [id.clone(), flag(*required), String::new()]);
        add(["SSH", "REQUIRED", ""], ssh.collect());
        let caches = self.caches.iter().map(|(id, target)| [id.clone(), target.clone(), String::new()]);
        add(["CACHE", "TARGET", ""], caches.collect());
        out
    }
}
