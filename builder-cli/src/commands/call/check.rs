//! `--check`: what is doubtful in a Dockerfile.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr as _;

use builder_core::build::{BuildRequest, ContextSource};
use builder_core::content::ContentStore;
use builder_core::context::{BuildContext, IgnoreSource};
use builder_core::diagnostic::{Diagnostic, Location, Source};
use builder_core::dockerfile::{Dockerfile, InstructionKind, LintWarning, Rule};
use builder_core::graph::Graph;
use builder_core::oci::Reference;
use serde_json::{Value, json};

use super::super::inspect::indented;
use super::super::{Outcome, print};
use super::{offline_graph, parse};
use crate::args::CheckFormat;
use crate::ui;
use crate::ui::style::{Paint, Style};

/// Prints what is doubtful; exit code 1 if anything is.
pub(in super::super) fn check(request: &BuildRequest, content: Option<&ContentStore>, format: CheckFormat) -> Outcome {
    let file = parse(&request.dockerfile)?;
    let (mut graph, guessed) = offline_graph(&file, &request.options, content)?;
    check_ignored(&file, &mut graph, request);
    let mut warnings = graph.warnings;
    warnings
        .retain(|(warning, _)| warning.rule != Rule::UndefinedVar || !has_unknown_base(&file, warning.line, &guessed));
    warnings.sort_by_key(|(warning, location)| (location.source != file.source, warning.line, warning.span));
    print(match format {
        CheckFormat::Text => text(&warnings),
        CheckFormat::Json => indented(&json!({ "warnings": list(&warnings, plain_json) })) + "\n",
        CheckFormat::Buildx => {
            let sources = [json!({ "filename": request.dockerfile.name(), "language": "Dockerfile" })];
            indented(&json!({ "warnings": list(&warnings, buildx_json), "sources": sources })) + "\n"
        }
        CheckFormat::Sarif => indented(&sarif(&warnings)) + "\n",
    })?;
    Ok(u8::from(!warnings.is_empty()))
}

/// Compares what is copied with the ignore file of a context that is a directory here.
fn check_ignored(file: &Dockerfile, graph: &mut Graph, request: &BuildRequest) {
    let ContextSource::Directory { path, ignore_files } = &request.context else { return };
    if !graph.copies_from_context() {
        return;
    }
    // No file is looked up, so no state is needed. What is wrong with the context is for a build to say.
    let ignore = IgnoreSource::FirstOf(ignore_files.clone());
    if let Ok(context) = BuildContext::open(path, &ignore, Path::new(""))
        && let Some(ignore) = context.ignore_file()
    {
        graph.check_ignored(file, ignore);
    }
}

/// Whether the stage of a line begins with an image that is not here: then its variables are unknown too.
fn has_unknown_base(file: &Dockerfile, line: usize, guessed: &BTreeSet<String>) -> bool {
    if guessed.is_empty() {
        return false;
    }
    let froms: Vec<_> = file
        .instructions
        .iter()
        .filter_map(|instruction| match &instruction.kind {
            InstructionKind::From(from) => Some((instruction.start_line(), from)),
            _ => None,
        })
        .collect();
    let Some(mut at) = froms.iter().rposition(|(start, _)| *start <= line) else { return false };
    loop {
        let image = &froms[at].1.image.text;
        let named = |from: &builder_core::dockerfile::From| {
            from.stage.as_ref().is_some_and(|stage| stage.name == image.to_lowercase())
        };
        match froms[..at].iter().rposition(|(_, from)| named(from)) {
            Some(stage) => at = stage,
            None if image == "scratch" => return false,
            None => return Reference::from_str(image).map_or(true, |image| guessed.contains(&image.to_string())),
        }
    }
}

fn list(warnings: &[(LintWarning, Location)], json: fn(&LintWarning, &Location) -> Value) -> Vec<Value> {
    warnings.iter().map(|(warning, location)| json(warning, location)).collect()
}

/// The interface of `--check --format json`, described in `docs/reference/dockerfile.md`.
fn plain_json(warning: &LintWarning, _: &Location) -> Value {
    json!({
        "rule": warning.rule.name(),
        "line": warning.line,
        "detail": warning.detail,
        "level": warning.rule.level().name(),
        "url": warning.rule.url().unwrap_or_default(),
    })
}

/// As buildx's `--call=check,format=json`.
fn buildx_json(warning: &LintWarning, location: &Location) -> Value {
    let line = |offset| json!({ "line": location.source.line(offset), "character": 0 });
    json!({
        "ruleName": warning.rule.name(),
        "description": warning.rule.text(),
        "url": warning.rule.url().unwrap_or_default(),
        "detail": warning.detail,
        "location": { "ranges": [{ "start": line(location.span.start), "end": line(location.span.end) }] },
    })
}

fn text(warnings: &[(LintWarning, Location)]) -> String {
    let mut text = String::new();
    for (warning, location) in warnings {
        let found = Finding { warning, location };
        text.push_str(&ui::diagnostic::render("warning", Style::Warning, &found, Paint::plain()));
        text.push('\n');
    }
    text.push_str(&match warnings.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    });
    text
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
        self.warning.rule.url().map(|url| format!("see {url}"))
    }
}

/// One run in the Static Analysis Results Interchange Format, version 2.1.0 (OASIS).
fn sarif(warnings: &[(LintWarning, Location)]) -> Value {
    let rules: Vec<Value> = Rule::ALL
        .iter()
        .map(|rule| {
            let mut object = json!({
                "id": rule.name(),
                "shortDescription": { "text": rule.text() },
                "defaultConfiguration": { "level": "warning" },
            });
            if let Some(url) = rule.url() {
                object["helpUri"] = url.into();
            }
            object
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "rbuild", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": list(warnings, sarif_result),
        }],
    })
}

fn sarif_result(warning: &LintWarning, location: &Location) -> Value {
    let source = &location.source;
    let mut region = json!({ "startLine": warning.line });
    // A finding may be shown at another line than the one where its text begins.
    if source.line(location.span.start) == warning.line {
        region["startColumn"] = column(source, location.span.start).into();
        region["endLine"] = source.line(location.span.end).into();
        region["endColumn"] = column(source, location.span.end).into();
    }
    json!({
        "ruleId": warning.rule.name(),
        "ruleIndex": Rule::ALL.iter().position(|rule| *rule == warning.rule),
        "level": "warning",
        "message": { "text": warning.detail },
        "locations": [{
            "physicalLocation": { "artifactLocation": { "uri": uri(source.name()) }, "region": region },
        }],
    })
}

/// Column of an offset in characters, from 1.
fn column(source: &Source, offset: usize) -> usize {
    let start = offset + 1 - source.column(offset);
    1 + String::from_utf8_lossy(&source.text()[start..offset.min(source.text().len())]).chars().count()
}

/// A path as a relative URI (RFC 3986).
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_sarif() {
        let source = Source::new("a b/é", "FROM x\nENV é=ü z\n".as_bytes());
        assert_eq!(uri(source.name()), "a%20b/%C3%A9");
        assert_eq!((column(&source, 0), column(&source, 7), column(&source, 17)), (1, 1, 9));
    }
}
