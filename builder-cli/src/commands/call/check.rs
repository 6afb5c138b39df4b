//! `--check`: what is doubtful in a Dockerfile.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use builder_core::build::BuildRequest;
use builder_core::diagnostic::{Location, Source};
use builder_core::dockerfile::lint::{self, Options};
use builder_core::dockerfile::{Dockerfile, LintWarning};
use serde_json::{Value, json};

use super::super::inspect::indented;
use super::super::{Outcome, print};
use super::sarif::sarif;
use super::{encoded, inspect, parse, ranges};
use crate::args::CheckFormat;
use crate::command_error::{CommandError, Report};
use crate::session::Session;
use crate::ui::excerpt::excerpt;
use crate::ui::{self, escape, units};
use crate::user_file;

/// Findings, each with the text that it points into.
pub(super) type Findings = Vec<(LintWarning, Location)>;

/// Prints what is doubtful; exit code 1 if anything is. What is wrong is part of every output but text, and is shown in
/// any case.
///
/// What can be mended of the file `fix` is, first; the rest is printed.
pub(in super::super) fn check(
    session: &Session,
    request: &BuildRequest,
    format: CheckFormat,
    fix: Option<&Path>,
) -> Outcome {
    let look = |request: &BuildRequest| match look(session, request) {
        Ok((warnings, error)) => (warnings, error),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut request = Cow::Borrowed(request);
    let (mut warnings, mut error) = look(&request);
    if let Some(path) = fix
        && let Some(text) = lint::fixed(request.dockerfile.text(), warnings.iter().map(|(warning, _)| warning))
    {
        let count = warnings.iter().filter(|(warning, _)| warning.fix.is_some()).count();
        mend(path, request.dockerfile.text(), &text)?;
        ui::note(&format!(
            "`{}` was changed in {}",
            escape::line(request.dockerfile.name()),
            units::count(count, "place")
        ));
        request.to_mut().dockerfile = Source::new(request.dockerfile.name(), text);
        (warnings, error) = look(&request);
    }
    let reports = error.as_ref().map_or(&[][..], CommandError::reports);
    let source = &request.dockerfile;
    print(match format {
        // As in buildx, what is wrong stands by itself, unless it is that there are findings.
        CheckFormat::Text if error.is_some() && warnings.is_empty() => String::new(),
        CheckFormat::Text => text(&warnings, source),
        CheckFormat::Json => indented(&plain_json(&warnings, reports)) + "\n",
        CheckFormat::Buildx => indented(&buildx_json(&warnings, reports, source)) + "\n",
        CheckFormat::Sarif => indented(&sarif(&warnings, reports, source)) + "\n",
    })?;
    match error {
        Some(error) => Err(error),
        None => Ok(u8::from(!warnings.is_empty())),
    }
}

/// Replaces the Dockerfile, unless it is another one than was looked at.
fn mend(path: &Path, old: &[u8], new: &[u8]) -> Result<(), CommandError> {
    let fail = |error: &io::Error| CommandError::io(&format!("cannot change `{}`", path.display()), error);
    if std::fs::read(path).map_err(|error| fail(&error))? != old {
        return Err(CommandError::failed(format!("`{}` has changed meanwhile", path.display())));
    }
    user_file::replace(path, new).map_err(|error| fail(&error))
}

/// The findings, and what is wrong besides.
fn look(session: &Session, request: &BuildRequest) -> Result<(Findings, Option<CommandError>), CommandError> {
    let file = parse(&request.dockerfile)?;
    match inspect(session, &file, request) {
        Ok(inspection) => {
            let warnings = inspection.graph.warnings;
            let error = inspection.graph.check.error.then(|| violations(&warnings)).flatten();
            Ok((warnings, error))
        }
        Err(error) => Ok((by_itself(&file), Some(error))),
    }
}

/// What the file shows although it cannot be built.
fn by_itself(file: &Dockerfile) -> Findings {
    let warnings = Options::of(file).filter(file, lint::check(file));
    let locate = |warning: LintWarning| {
        let location = Location { source: file.source.clone(), span: warning.span };
        (warning, location)
    };
    warnings.into_iter().map(locate).collect()
}

/// `# check=error=true`: that there are findings is an error.
fn violations(warnings: &Findings) -> Option<CommandError> {
    let mut rules: Vec<&str> = Vec::new();
    for (warning, _) in warnings {
        if !rules.contains(&warning.rule.name()) {
            rules.push(warning.rule.name());
        }
    }
    let message = || format!("lint violation found for rules: {}", rules.join(", "));
    (!rules.is_empty()).then(|| CommandError::failed(message()))
}

/// The interface of `--check --format json`, described in `docs/reference/dockerfile.md`.
fn plain_json(warnings: &Findings, reports: &[Report]) -> Value {
    let finding = |(warning, location): &(LintWarning, Location)| {
        let mut object = json!({
            "rule": warning.rule.name(),
            "line": warning.line,
            "detail": warning.detail,
            "level": warning.rule.level().name(),
            "url": warning.rule.url().unwrap_or_default(),
        });
        if let Some(fix) = &warning.fix {
            object["fix"] = json!({ "line": location.source.line(fix.at), "insert": fix.insert });
        }
        object
    };
    let error = |report: &Report| {
        let mut object = json!({ "message": report.message });
        if let Some(location) = &report.location {
            object["file"] = location.source.name().into();
            object["line"] = location.source.line(location.span.start).into();
            object["column"] = location.source.column(location.span.start).into();
        }
        if let Some(origin) = &report.origin {
            object["origin"] = json!({ "file": origin.source.name(), "line": origin.source.line(origin.span.start) });
        }
        if let Some(hint) = &report.hint {
            object["hint"] = hint.clone().into();
        }
        object
    };
    let mut object = json!({ "version": 1, "warnings": warnings.iter().map(finding).collect::<Vec<_>>() });
    if !reports.is_empty() {
        object["errors"] = reports.iter().map(error).collect();
    }
    object
}

/// As buildx's `--call=check,format=json`, without the definition of how the file was read.
fn buildx_json(warnings: &Findings, reports: &[Report], source: &Source) -> Value {
    let finding = |(warning, _): &(LintWarning, Location)| {
        let mut object = json!({
            "ruleName": warning.rule.name(),
            "description": warning.rule.text(),
            "detail": warning.detail,
            "location": { "ranges": ranges(warning.line, warning.last_line) },
        });
        if let Some(url) = warning.rule.url() {
            object["url"] = url.into();
        }
        object
    };
    let warnings: Vec<Value> = warnings.iter().map(finding).collect();
    let mut object = json!({
        "warnings": if warnings.is_empty() { Value::Null } else { warnings.into() },
        "sources": [{ "filename": source.name(), "data": encoded(source), "language": "Dockerfile" }],
    });
    if let Some(report) = reports.first() {
        object["buildError"] = json!({ "message": report.message, "location": {} });
        // Lines are those of the Dockerfile: of a trigger, the `FROM` that brought it.
        let place = report.origin.as_ref().or(report.location.as_ref()).filter(|place| place.source == *source);
        if let Some(Location { span, .. }) = place {
            let last = span.end.saturating_sub(1).max(span.start);
            object["buildError"]["location"] = json!({ "ranges": ranges(source.line(span.start), source.line(last)) });
        }
    }
    object
}

/// As buildx shows it.
fn text(warnings: &Findings, source: &Source) -> String {
    let mut text = match warnings.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for (warning, location) in warnings {
        let page = warning.rule.url().map_or_else(String::new, |url| format!(" - {url}"));
        let (rule, detail) = (warning.rule.name(), escape::line(&warning.detail));
        text.push_str(&format!("\nWARNING: {rule}{page}\n{detail}\n"));
        text.push_str(&excerpt(source, warning.line, warning.last_line));
        if let Some(fix) = &warning.fix {
            let line = location.source.line(fix.at);
            text.push_str(&format!("fix: insert `{}` before line {line}\n", escape::line(fix.insert.trim_end())));
        }
        if location.source != *source {
            let trigger = String::from_utf8_lossy(location.source.text());
            let name = escape::line(location.source.name());
            text.push_str(&format!("{name}: {}\n", escape::line(&trigger)));
        }
    }
    text
}
