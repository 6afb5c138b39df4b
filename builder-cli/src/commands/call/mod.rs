//! `rbuild build --call`: looks at the Dockerfile and builds nothing. Of base images only manifest and config are
//! fetched; what cannot be had stays unknown.

mod check;
mod outline;
mod sarif;

use builder_core::build::{BuildRequest, Inspection};
use builder_core::cancel::CancelToken;
use builder_core::diagnostic::Source;
use builder_core::dockerfile::{self, Dockerfile};
use serde_json::{Value, json};

pub(super) use check::check;
pub(super) use outline::{outline, targets};

use super::inspect::indented;
use super::{Outcome, print};
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui::{self, base64, escape, table};

/// Parses; all errors of the file at once.
pub(super) fn parse(source: &Source) -> Result<Dockerfile, CommandError> {
    dockerfile::parse(source).map_err(|errors| CommandError::diagnostics(errors.iter()))
}

/// What the file means. Says which images are not known.
pub(super) fn inspect(
    session: &Session,
    file: &Dockerfile,
    request: &BuildRequest,
) -> Result<Inspection, CommandError> {
    let inspection = match session.reader() {
        Ok(engine) => engine.inspect(file, request, &CancelToken::new()),
        Err(_) => Inspection::without_store(file, request),
    };
    let inspection = inspection.map_err(CommandError::from)?;
    for image in &inspection.unknown {
        let (name, reason) = (escape::line(&image.name), escape::line(&image.reason));
        ui::note(&format!("what `{name}` brings is not known: {reason}"));
    }
    Ok(inspection)
}

/// Lines of a file as BuildKit gives them: each a range of its own.
fn ranges(first: usize, last: usize) -> Value {
    let place = |line: usize| json!({ "line": line });
    (first..=last).map(|line| json!({ "start": place(line), "end": place(line) })).collect()
}

/// The Dockerfile for readers of ranges.
fn encoded(source: &Source) -> String {
    base64::encode(source.text())
}

/// Name, version, description, and name and description of each option.
type Method = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The methods, with the names and versions that BuildKit gives them, and their options.
const METHODS: [Method; 4] = [
    ("frontend.outline", "1.0.0", "Arguments, secrets and mounts of a target", &[("target", "The stage")]),
    ("frontend.targets", "1.0.0", "The stages that can be built", &[]),
    ("frontend.lint", "1.0.0", "Findings of the checks", &[("target", "The stage; all stages without it")]),
    ("frontend.subrequests.describe", "1.0.0", "This list", &[]),
];

/// `--call=subrequests.describe`: the methods.
pub(super) fn describe(json: bool) -> Outcome {
    if json {
        let named = |(name, text): &(&str, &str)| json!({ "name": name, "description": text });
        let method = |(name, version, text, opts): &Method| {
            json!({
                "name": name,
                "version": version,
                "type": "rpc",
                "description": text,
                "opts": opts.iter().map(named).collect::<Vec<_>>(),
                "inputs": null,
                "metadata": [named(&("result.json", "")), named(&("result.txt", ""))],
                "refs": null,
            })
        };
        return print(indented(&METHODS.iter().map(method).collect()) + "\n");
    }
    let heading = ["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned).to_vec();
    let rows = METHODS.iter().map(|(name, version, text, _)| {
        [name.trim_start_matches("frontend."), *version, *text].map(str::to_owned).to_vec()
    });
    print(table::align(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()))
}
