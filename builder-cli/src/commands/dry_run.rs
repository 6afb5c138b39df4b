//! `rbuild build --dry-run`: what would run, why, and how long it would take.

use std::fmt::Write as _;

use builder_core::build::{BuildRequest, Engine, Forecast, Prediction, Reason};
use builder_core::cancel::CancelToken;
use serde_json::json;

use super::builds::short;
use super::explain::{reasons, usual};
use super::inspect::indented;
use super::{Outcome, print};
use crate::command_error::CommandError;
use crate::ui::{self, escape};

pub(super) fn run(engine: &Engine, cancel: &CancelToken, request: &BuildRequest, json: bool) -> Outcome {
    let forecast = engine.forecast(request, cancel).map_err(CommandError::from)?;
    if json {
        let document = json!({
            "version": 1,
            "steps": serde_json::to_value(&forecast.steps).map_err(|error| CommandError::failed(error.to_string()))?,
            "at_least": forecast.at_least,
            "at_most": forecast.at_most,
            "without_time": forecast.without_time,
        });
        return print(indented(&document) + "\n");
    }
    let outcome = print(text(&forecast));
    let unsure = forecast.steps.iter().any(|step| step.prediction != Prediction::Hit);
    if unsure && !request.cache_from.is_empty() {
        ui::note("a dry run asks no cache elsewhere; `rbuild cache probe` does, with the same options");
    }
    outcome
}

fn text(forecast: &Forecast) -> String {
    let mut text = String::new();
    let usual = usual(forecast.steps.iter().map(|step| &step.why));
    for step in &forecast.steps {
        let what = match step.prediction {
            Prediction::Hit => "hit",
            Prediction::Run => "would run",
            Prediction::Shared => "would get the result of another step",
            Prediction::Unknown => "may run",
        };
        let time = match (step.prediction, step.milliseconds) {
            (Prediction::Hit | Prediction::Shared, _) => String::new(),
            (_, Some(took)) => format!(", about {}", short(took)),
            (_, None) => ", time not known".to_owned(),
        };
        let _ = writeln!(text, "{} {}: {what}{time}", step.why.number, escape::line(&step.why.name));
        if step.prediction != Prediction::Hit || step.why.reasons != [Reason::Hit] {
            reasons(&step.why, usual, &mut text);
        }
    }
    text.push_str(&total(forecast));
    if let Some(build) = usual {
        let _ = write!(text, ", compared with build {build}");
    }
    text.push('\n');
    text
}

fn total(forecast: &Forecast) -> String {
    let count = |wanted| forecast.steps.iter().filter(|step| step.prediction == wanted).count();
    let (runs, unsure) = (count(Prediction::Run), count(Prediction::Unknown));
    let mut line = format!("\n{} hit, {runs} would run, {unsure} may run", count(Prediction::Hit));
    if let shared @ 1.. = count(Prediction::Shared) {
        let _ = write!(line, ", {shared} the same as another");
    }
    if runs + unsure > 0 {
        let (least, most) = (short(forecast.at_least), short(forecast.at_most));
        let _ = match forecast.without_time {
            unknown if unknown == runs + unsure => write!(line, ": no time is known"),
            _ if least == most => write!(line, ": about {least}"),
            _ => write!(line, ": {least} to {most}"),
        };
        if (1..runs + unsure).contains(&forecast.without_time) {
            let _ = write!(line, ", and {} of which no time is known", forecast.without_time);
        }
    }
    line
}
