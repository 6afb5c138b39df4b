//! `rbuild cache probe`: which steps of a build are known where, and what of their keys has no match.

use std::fmt::Write as _;

use builder_core::build::{Answer, BuildRequest, Engine, PlaceCondition, Probe, ProbedStep, Reason};
use builder_core::cache::explain::TreeChange;
use builder_core::cancel::CancelToken;
use serde_json::json;

use super::explain::{MAX_PATHS, fetched_first, said, value};
use super::inspect::indented;
use super::{Outcome, print, verify};
use crate::command_error::CommandError;
use crate::ui::{escape, table, units};

/// Ends with 1 if a build would run something, or may.
pub(super) fn run(engine: &Engine, cancel: &CancelToken, request: &BuildRequest, json: bool) -> Outcome {
    let probe = engine.probe(request, cancel).map_err(CommandError::from)?;
    let unknown = probe.steps.iter().filter(|step| !step.is_known()).count();
    if json {
        let failed = |error: serde_json::Error| CommandError::failed(error.to_string());
        let document = json!({
            "version": 1,
            "places": serde_json::to_value(&probe.places).map_err(failed)?,
            "steps": serde_json::to_value(&probe.steps).map_err(failed)?,
            "hits": probe.steps.len() - unknown,
            "misses": unknown,
        });
        print(indented(&document) + "\n")?;
    } else {
        print(text(&probe, unknown))?;
    }
    Ok(u8::from(unknown > 0))
}

fn text(probe: &Probe, unknown: usize) -> String {
    let column = |at: usize| if at == 0 { "LOCAL".to_owned() } else { format!("FROM {at}") };
    let mut rows = vec![vec!["STEP".to_owned()]];
    rows[0].extend((0..probe.places.len()).map(column));
    for step in &probe.steps {
        let mut row = vec![format!("{} {}", step.number, value(&escape::line(&step.name)))];
        row.extend(step.answers.iter().map(|answer| cell(answer).to_owned()));
        rows.push(row);
    }
    let mut text = table::narrow(&rows, 3);
    if probe.places.len() > 1 {
        text.push('\n');
    }
    for (at, place) in probe.places.iter().enumerate().skip(1) {
        let condition = match &place.condition {
            PlaceCondition::Found { records: Some(records) } => units::count(*records, "result"),
            PlaceCondition::Found { records: None } => "there".to_owned(),
            PlaceCondition::Empty => "there is no cache".to_owned(),
            PlaceCondition::Failed { reason } => format!("cannot be used: {reason}"),
        };
        let _ = writeln!(text, "FROM {at}: {}: {}", escape::line(&place.name), escape::line(&condition));
    }
    for step in &probe.steps {
        misses(step, &mut text);
    }
    let _ = writeln!(text, "\n{} of {} steps are known", probe.steps.len() - unknown, probe.steps.len());
    text
}

fn cell(answer: &Answer) -> &'static str {
    match answer {
        Answer::Hit { files: true } => "hit",
        Answer::Hit { files: false } => "hit, no files",
        Answer::Miss { .. } => "miss",
        Answer::Unknown { .. } => "?",
        Answer::Unavailable => "-",
    }
}

/// Why a step is not known in each place.
fn misses(step: &ProbedStep, text: &mut String) {
    let mut lines: Vec<String> = Vec::new();
    for (at, answer) in step.answers.iter().enumerate() {
        let reasons = match answer {
            Answer::Miss { reasons, .. } => reasons,
            // It is the same for all.
            Answer::Unknown { reasons } => {
                lines = reasons.iter().flat_map(unknown).collect();
                break;
            }
            Answer::Hit { .. } | Answer::Unavailable => continue,
        };
        let said = if at == 0 { said(reasons) } else { reasons.iter().flat_map(elsewhere).collect() };
        let place = if at == 0 { "local: ".to_owned() } else { format!("FROM {at}: ") };
        let blanks = " ".repeat(place.len());
        let places = std::iter::once(place.as_str()).chain(std::iter::repeat(blanks.as_str()));
        lines.extend(said.into_iter().zip(places).map(|(line, place)| format!("{place}{line}")));
    }
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{} {}", step.number, escape::line(&step.name));
        text.extend(lines.iter().map(|line| format!("    {}\n", escape::line(line))));
    }
}

fn unknown(reason: &Reason) -> Vec<String> {
    match reason {
        Reason::InputUnknown { steps, .. } if !steps.is_empty() => {
            let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
            vec![format!("its key is known when step {} has run", steps.join(" and "))]
        }
        Reason::InputUnknown { images, .. } => vec![fetched_first(images)],
        other => said(std::slice::from_ref(other)),
    }
}

/// What of a key has no match in another place.
fn elsewhere(reason: &Reason) -> Vec<String> {
    let line = match reason {
        Reason::NeverBuilt { .. } => "nothing like it is there".to_owned(),
        Reason::Expired | Reason::ExpiredByFile => "its result there is older than it may be".to_owned(),
        Reason::Root => "the files that it starts from are others there".to_owned(),
        Reason::Parent { step, name, .. } => format!("it starts from step {step}, which has no match there: {name}"),
        Reason::Input { name, before, after } => match (before, after) {
            (None, None) => format!("{name} is another (values of proxies are not kept)"),
            (before, after) => {
                let shown = |text: &Option<String>| text.as_deref().map_or("none".to_owned(), value);
                format!("{name}: {} there, {} here", shown(before), shown(after))
            }
        },
        Reason::Files { input, changes, count } => return files(input, changes, *count),
        other => return said(std::slice::from_ref(other)),
    };
    vec![line]
}

fn files(input: &str, changes: &[TreeChange], count: Option<usize>) -> Vec<String> {
    let what = if input == "copied" { "copied files" } else { input };
    let Some(count) = count.filter(|count| *count > 0) else { return vec![format!("{what} are others there")] };
    let mut lines = vec![format!("{what} are others here:")];
    lines.extend(changes.iter().take(MAX_PATHS).map(|change| format!("  {}", verify::path(change))));
    if count > MAX_PATHS {
        lines.push(format!("  and {} more", count - MAX_PATHS));
    }
    lines
}
