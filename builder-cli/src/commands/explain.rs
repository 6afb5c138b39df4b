//! `rbuild explain`: why the steps of a build ran, or did not.

use std::fmt::Write as _;

use builder_core::build::{ExplainedStep, Explanation, ParentChange, Reason};
use builder_core::history::{Build, Verdict};
use serde_json::{Value, json};

use super::builds::{failed, find_step, verdict};
use super::inspect::indented;
use super::{Outcome, print, verify};
use crate::args::ExplainArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui::escape;

/// Paths that are listed for one input.
const MAX_PATHS: usize = 10;

/// Characters of a value that are shown.
const MAX_VALUE: usize = 120;

pub(super) fn run(session: &Session, args: &ExplainArgs) -> Outcome {
    let engine = session.engine()?;
    let history = engine.history();
    let build = history.find(&args.build).and_then(|id| history.get(&id)).map_err(failed)?;
    let mut explanation = engine.explain(&build).map_err(failed)?;
    if let Some(step) = &args.step {
        let number = find_step(&build, step)?.number + 1;
        explanation.steps.retain(|step| step.number == number);
        if explanation.steps.is_empty() {
            return Err(CommandError::failed(format!("step `{step}` is a base image: it is fetched, not run")));
        }
    }
    if args.json {
        return print(indented(&json_of(&explanation)?) + "\n");
    }
    print(text(&build, &explanation))
}

/// The form is that of the library's types, with its version.
fn json_of(explanation: &Explanation) -> Result<Value, CommandError> {
    let steps = serde_json::to_value(&explanation.steps).map_err(|error| CommandError::failed(error.to_string()))?;
    Ok(json!({ "version": 1, "build": explanation.build, "steps": steps }))
}

fn text(build: &Build, explanation: &Explanation) -> String {
    let hits = build.steps.iter().filter(|step| step.op != "image" && step.verdict == Verdict::Hit).count();
    let all = build.steps.iter().filter(|step| step.op != "image").count();
    let mut text = format!("build {} ({}): {hits} of {all} steps hit\n", build.id, escape::line(&build.name()));
    for step in &explanation.steps {
        let _ = write!(text, "\n{} {}: {}\n", step.number, escape::line(&step.name), verdict(step.verdict));
        if step.verdict != Verdict::Hit {
            reasons(step, &mut text);
        }
    }
    text
}

/// The reasons of a step, a line or more each.
pub(super) fn reasons(step: &ExplainedStep, text: &mut String) {
    for reason in &step.reasons {
        for line in sentence(reason) {
            let _ = writeln!(text, "    {}", escape::line(&line));
        }
    }
    if let Some(earlier) = &step.compared_with {
        let _ = match &earlier.build {
            Some(build) => writeln!(text, "    compared with build {build}"),
            None => writeln!(text, "    compared with an older record, {}", &earlier.key[..earlier.key.len().min(12)]),
        };
    }
}

fn sentence(reason: &Reason) -> Vec<String> {
    let line = match reason {
        Reason::Hit => "its result was known".to_owned(),
        Reason::NotReached => "the build ended before it".to_owned(),
        Reason::InputUnknown { steps } if steps.is_empty() => "something has to be fetched first".to_owned(),
        Reason::InputUnknown { steps } => {
            let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
            format!("it runs if step {} gives another result than before", steps.join(" or "))
        }
        Reason::NoCache => "--no-cache".to_owned(),
        Reason::Expired => "its result is older than `--cache-ttl` allows".to_owned(),
        Reason::Pruned => "the same step had a result in an earlier build; its record was pruned".to_owned(),
        Reason::FailedBefore => "the same step was tried in an earlier build and gave no result".to_owned(),
        Reason::Damaged => "the record of its result was damaged".to_owned(),
        Reason::ResultGone => "there was a record, but what it says about the result is gone".to_owned(),
        Reason::FilesGone => "the files of its result were pruned, and something needed them".to_owned(),
        Reason::NeverBuilt => "nothing like it was built before".to_owned(),
        Reason::Input { name, before, after } => change(name, before.as_deref(), after.as_deref()),
        Reason::Files { input, changes, count } => return files(input, changes, *count),
        Reason::Base { before, after } => format!("the base image changed: {before} → {after}"),
        Reason::Parent { step, name, change: ParentChange::Result } => {
            format!("step {step} gave another result: {name}")
        }
        Reason::Parent { step, name, change: ParentChange::Added } => format!("step {step} is new: {name}"),
        Reason::Parent { name, change: ParentChange::Removed, .. } => format!("a step before it is gone: {name}"),
        Reason::Root => "the files that it starts from are others".to_owned(),
    };
    vec![line]
}

fn change(name: &str, before: Option<&str>, after: Option<&str>) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("{name} changed: {} → {}", value(before), value(after)),
        (None, Some(after)) => format!("{name} is new: {}", value(after)),
        (Some(before), None) => format!("{name} is gone: {}", value(before)),
        (None, None) => format!("{name} changed (values of proxies are not kept)"),
    }
}

fn value(text: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    if text.chars().count() <= MAX_VALUE {
        return text.to_owned();
    }
    text.chars().take(MAX_VALUE - 1).chain(['…']).collect()
}

fn files(input: &str, changes: &[builder_core::cache::explain::TreeChange], count: Option<usize>) -> Vec<String> {
    let what = if input == "copied" { "copied files" } else { input };
    let Some(count) = count else {
        return vec![format!("{what} changed; which is not known any more")];
    };
    if count == 0 {
        return vec![format!("{what} changed")];
    }
    let mut lines = vec![format!("{what} changed:")];
    lines.extend(changes.iter().take(MAX_PATHS).map(|change| format!("  {}", verify::path(change))));
    if count > MAX_PATHS {
        lines.push(format!("  and {} more", count - MAX_PATHS));
    }
    lines
}
