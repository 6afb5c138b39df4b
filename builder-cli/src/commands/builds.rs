//! `rbuild history ls|inspect|logs|rm`: the builds that were tried.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use builder_core::context::ContextMode;
use builder_core::history::{Build, BuildId, BuildSummary, ByReads, HistoryError, HistoryStore, Status, Step, Verdict};
use builder_core::oci::Digest;
use builder_core::progress::{Event, TaskId};
use serde_json::{Value, json};

use super::format::{self, Columns, Row};
use super::inspect::indented;
use super::{Outcome, print};
use crate::args::{BuildsCommand, BuildsInspectArgs, BuildsLogsArgs, BuildsLsArgs, BuildsRmArgs};
use crate::command_error::CommandError;
use crate::session::Session;
use crate::template::Template;
use crate::ui::{self, RawJson, escape, table, units};

const COLUMNS: Columns = &[
    ("BUILD ID", "Ref"),
    ("NAME", "Name"),
    ("STATUS", "Status"),
    ("CREATED AT", "CreatedAt"),
    ("DURATION", "Duration"),
];
const HEADINGS: Columns = &[
    ("BUILD ID", "Ref"),
    ("NAME", "Name"),
    ("STATUS", "Status"),
    ("CREATED AT", "CreatedAt"),
    ("DURATION", "Duration"),
    ("STEPS", "TotalSteps"),
    ("COMPLETED", "CompletedSteps"),
    ("CACHED", "CachedSteps"),
];

/// Characters of a name that are shown.
const MAX_NAME: usize = 36;

pub(super) fn run(session: &Session, command: &BuildsCommand) -> Outcome {
    let root = session.root()?;
    if root.join("version").exists() {
        // A store of a newer version is refused.
        session.engine()?;
    }
    let history = HistoryStore::new(&root);
    match command {
        BuildsCommand::Ls(args) => ls(&history, args),
        BuildsCommand::Inspect(args) => inspect(&history, args),
        BuildsCommand::Logs(args) => logs(&history, args),
        BuildsCommand::Rm(args) => rm(&history, args),
    }
}

/// An error of the history as one of the command.
#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
pub(super) fn failed(error: HistoryError) -> CommandError {
    CommandError::diagnostic(&error)
}

fn ls(history: &HistoryStore, args: &BuildsLsArgs) -> Outcome {
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let builds = history.builds_newest_first().map_err(failed)?.map(|build| build.summary());
    let builds: Vec<_> = builds.filter(|build| filters.iter().all(|filter| filter.admits(build))).collect();
    if args.list.quiet {
        return print(builds.iter().map(|build| format!("{}\n", build.id)).collect::<String>());
    }
    if args.list.format.as_deref() == Some("json") {
        return print(builds.iter().map(|build| summary_json(build).to_string() + "\n").collect::<String>());
    }
    let now = SystemTime::now();
    let rows: Vec<Row> = builds.iter().map(|build| fields(build, args.list.no_trunc, now)).collect();
    print(format::write(args.list.format.as_deref(), COLUMNS, HEADINGS, &rows)?)
}

fn fields(build: &BuildSummary, no_trunc: bool, now: SystemTime) -> Row {
    let name = if no_trunc || build.name.chars().count() <= MAX_NAME {
        build.name.clone()
    } else {
        build.name.chars().take(MAX_NAME - 1).collect::<String>() + "…"
    };
    format::row([
        ("Ref", build.id.to_string()),
        ("Name", name),
        ("Status", build.status.to_string()),
        ("CreatedAt", units::ago(Some(at(build.started)), now)),
        ("Duration", build.milliseconds.map_or_else(String::new, short)),
        ("TotalSteps", build.steps.to_string()),
        ("CompletedSteps", build.completed.to_string()),
        ("CachedSteps", build.cached.to_string()),
    ])
}

/// Names of fields as `docker buildx history ls` has them.
fn summary_json(build: &BuildSummary) -> Value {
    json!({
        "ref": build.id.reference(),
        "name": build.name,
        "status": build.status.to_string(),
        "created_at": units::rfc3339(at(build.started)),
        "completed_at": completed(build.started, build.milliseconds),
        "total_steps": build.steps,
        "completed_steps": build.completed,
        "cached_steps": build.cached,
    })
}

/// `--filter` of `ls`.
enum Filter {
    Status(String),
    Name(String),
    Ref(String),
    Not(Box<Filter>),
    Started(Ordering, SystemTime),
    Completed(Ordering, SystemTime),
    Took(Ordering, Duration),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, CommandError> {
        let duration = |value: &str| {
            units::go_duration(value)
                .ok_or_else(|| CommandError::usage(format!("filter `{text}`: `{value}` is not a duration")))
        };
        for (sign, order) in [('>', Ordering::Greater), ('<', Ordering::Less)] {
            match text.split_once(sign) {
                Some(("duration", value)) => return Ok(Self::Took(order, duration(value)?)),
                Some(("startedAt", value)) => return Ok(Self::Started(order, units::until(value)?.into())),
                Some(("completedAt", value)) => return Ok(Self::Completed(order, units::until(value)?.into())),
                _ => {}
            }
        }
        if let Some((key @ ("status" | "name" | "repository" | "ref"), value)) = text.split_once("!=") {
            return Ok(Self::Not(Box::new(Self::parse(&format!("{key}={value}"))?)));
        }
        match text.split_once('=') {
            Some(("status", value)) => {
                let known = ["running", "completed", "error", "canceled", "interrupted"];
                if !known.contains(&value) {
                    return Err(CommandError::usage(format!("filter `{text}`: unknown status"))
                        .with_hint(format!("a build is {}", known.join(", "))));
                }
                Ok(Self::Status(value.to_owned()))
            }
            Some(("name" | "repository", value)) => Ok(Self::Name(value.to_owned())),
            Some(("ref", value)) => Ok(Self::Ref(value.rsplit('/').next().unwrap_or_default().to_owned())),
            Some(("since", value)) => Ok(Self::Started(Ordering::Greater, units::until(value)?.into())),
            Some(("until", value)) => Ok(Self::Started(Ordering::Less, units::until(value)?.into())),
            _ => Err(CommandError::usage(format!("unknown filter `{text}`")).with_hint(
                "the filters are status=, name=, ref= (each also with `!=`), since=, until=, and startedAt, completedAt, \
                 duration with `<` or `>`",
            )),
        }
    }

    fn admits(&self, build: &BuildSummary) -> bool {
        let took = build.milliseconds.map(Duration::from_millis);
        match self {
            Self::Not(filter) => !filter.admits(build),
            Self::Status(status) => build.status.to_string().eq_ignore_ascii_case(status),
            Self::Name(name) => build.name.contains(name) || build.inputs.names.iter().any(|own| own.contains(name)),
            Self::Ref(id) => build.id.as_str().starts_with(id),
            Self::Started(order, time) => at(build.started).cmp(time) == *order,
            // One that runs is not completed.
            Self::Completed(order, time) => took.is_some_and(|took| (at(build.started) + took).cmp(time) == *order),
            Self::Took(order, limit) => took.is_some_and(|took| took.cmp(limit) == *order),
        }
    }
}

fn inspect(history: &HistoryStore, args: &BuildsInspectArgs) -> Outcome {
    let build = history.find(&args.build).and_then(|id| history.get(&id)).map_err(failed)?;
    match args.format.as_deref() {
        None | Some("" | "pretty") => print(pretty(&build)),
        Some("json") => print(indented(&build_json(&build)) + "\n"),
        Some(template) => print(Template::parse(template)?.render(&build_json(&build))? + "\n"),
    }
}

/// Names of fields as `docker buildx history inspect` has them where it has them.
fn build_json(build: &Build) -> Value {
    let summary = build.summary();
    let end = build.end.as_ref();
    json!({
        "Ref": build.id,
        "Name": summary.name,
        "Status": build.status.to_string().to_lowercase(),
        "Error": end.and_then(|end| end.error.clone()),
        "Context": build.inputs.context,
        "NamedContexts": build.inputs.named_contexts,
        "ContextMode": build.inputs.context_mode,
        "Dockerfile": build.inputs.dockerfile,
        "DockerfileDigest": build.inputs.dockerfile_digest,
        "Target": build.inputs.target,
        "Platform": build.inputs.platform.split(',').collect::<Vec<_>>(),
        "BuildArgs": build.inputs.build_args.iter().map(|(name, value)| json!({ "Name": name, "Value": value })).collect::<Vec<_>>(),
        "Secrets": build.inputs.secrets,
        "Tags": build.inputs.names,
        "ImageID": end.and_then(|end| end.image.clone()),
        "StartedAt": units::rfc3339(at(build.started)),
        "CompletedAt": completed(build.started, summary.milliseconds),
        "Duration": summary.milliseconds.map(|took| took * 1_000_000),
        "NumTotalSteps": summary.steps,
        "NumCompletedSteps": summary.completed,
        "NumCachedSteps": summary.cached,
        "Steps": build.steps.iter().map(step_json).collect::<Vec<_>>(),
        "Verified": end.map(|end| serde_json::to_value(&end.verified).expect("plain data serialises")),
    })
}

fn step_json(step: &Step) -> Value {
    json!({
        "Number": step.number + 1,
        "Name": step.name,
        "Stage": step.stage,
        "Op": step.op,
        "Line": step.line,
        "Inputs": step.root.iter().chain(&step.inputs).map(|input| input + 1).collect::<Vec<_>>(),
        "Verdict": step.verdict,
        "Miss": step.miss,
        "Key": step.key,
        "Preimage": step.preimage.as_ref().map(|preimage| &preimage.fields),
        "Result": step.result,
        "Image": step.image,
        "Bytes": step.bytes,
        "StartedAt": step.started.map(|started| units::rfc3339(at(started))),
        "Duration": step.milliseconds * 1_000_000,
        "LogBytes": step.log.map_or(0, |log| log.bytes),
        "LogLines": step.log.map_or(0, |log| log.lines),
        "Error": step.error,
    })
}

fn pretty(build: &Build) -> String {
    let summary = build.summary();
    let mut rows: Vec<(&str, String)> = vec![("Name", summary.name.clone()), ("Build ID", build.id.to_string())];
    rows.push(("Context", build.inputs.context.clone()));
    rows.extend(build.inputs.named_contexts.iter().map(|(name, path)| ("Named context", format!("{name}={path}"))));
    if build.inputs.context_mode != ContextMode::default() {
        rows.push(("Context mode", build.inputs.context_mode.to_string()));
    }
    rows.push(("Dockerfile", format!("{} ({})", build.inputs.dockerfile, build.inputs.dockerfile_digest)));
    rows.extend(build.inputs.target.iter().map(|target| ("Target", target.clone())));
    rows.push(("Platform", build.inputs.platform.clone()));
    rows.extend(build.inputs.build_args.iter().map(|(name, value)| ("Build arg", format!("{name}={value}"))));
    rows.extend(build.inputs.secrets.iter().map(|id| ("Secret", id.clone())));
    rows.extend(build.inputs.names.iter().map(|name| ("Tag", name.clone())));
    rows.push(("Started", units::rfc3339(at(build.started))));
    rows.extend(summary.milliseconds.map(|took| ("Duration", short(took))));
    rows.push(("Status", build.status.to_string()));
    if let Some(end) = &build.end {
        rows.extend(end.error.iter().map(|error| ("Error", error.clone())));
        rows.extend(end.image.iter().map(|image| ("Image", image.clone())));
        rows.extend(end.verified.iter().map(|found| ("Verified", super::verify::sentence(found))));
    }
    let percent = (summary.cached * 100).checked_div(summary.steps).unwrap_or(100);
    rows.push(("Build steps", format!("{}/{} ({percent}% cached)", summary.completed, summary.steps)));
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![format!("{name}:"), escape::line(&value).into_owned()]).collect();
    let mut text = table::align(&rows) + "\n";
    let mut steps = vec![["STEP", "RESULT", "TIME", "SIZE", "LOG", "NAME"].map(str::to_owned).to_vec()];
    steps.extend(build.steps.iter().map(step_row));
    text.push_str(&table::align(&steps));
    text
}

fn step_row(step: &Step) -> Vec<String> {
    let ran = !matches!(step.verdict, Verdict::Hit | Verdict::NotReached);
    let by_reads = step.by_reads.as_ref().is_some_and(ByReads::is_hit);
    vec![
        (step.number + 1).to_string(),
        if by_reads { "hit by reads".to_owned() } else { verdict(step.verdict).to_owned() },
        if ran { short(step.milliseconds) } else { String::new() },
        step.bytes.map(units::size).unwrap_or_default(),
        step.log.map(|log| units::size(log.bytes)).unwrap_or_default(),
        escape::line(&step.name).into_owned(),
    ]
}

/// A verdict for people.
pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NotReached => "not reached",
        Verdict::Hit => "hit",
        Verdict::Run => "run",
        Verdict::Adopted => "run, same result",
        Verdict::Cancelled => "cancelled",
        Verdict::Failed => "failed",
    }
}

fn logs(history: &HistoryStore, args: &BuildsLogsArgs) -> Outcome {
    let build = history.find(&args.build).and_then(|id| history.get(&id)).map_err(failed)?;
    if let Some(wanted) = &args.step {
        let step = find_step(&build, wanted)?;
        for entry in history.log(&build.id, step.number).map_err(failed)?.into_iter().flatten() {
            out(&entry.bytes)?;
        }
        return Ok(0);
    }
    if args.progress == "rawjson" {
        return raw_logs(history, &build);
    }
    for step in &build.steps {
        let number = step.number + 1;
        let mut text = format!("#{number} {}\n", escape::line(&step.name));
        let mut pending = Vec::new();
        for entry in history.log(&build.id, step.number).map_err(failed)?.into_iter().flatten() {
            pending.extend_from_slice(&entry.bytes);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                line_of(&mut text, number, entry.milliseconds, &line);
            }
            // A log of any size passes through little memory.
            out(std::mem::take(&mut text).as_bytes())?;
        }
        if !pending.is_empty() {
            line_of(&mut text, number, step.milliseconds, &pending);
        }
        let _ = match step.verdict {
            Verdict::Hit => writeln!(text, "#{number} CACHED"),
            Verdict::Run | Verdict::Adopted => writeln!(text, "#{number} DONE {}", short(step.milliseconds)),
            Verdict::Failed => {
                let error = step.error.as_deref().unwrap_or_default();
                writeln!(text, "#{number} ERROR: {}", escape::line(error))
            }
            Verdict::Cancelled => writeln!(text, "#{number} CANCELED"),
            Verdict::NotReached => Ok(()),
        };
        text.push('\n');
        out(text.as_bytes())?;
    }
    Ok(0)
}

fn out(bytes: &[u8]) -> Result<(), CommandError> {
    ui::result(bytes).map_err(|error| CommandError::stdout(&error))
}

/// The events of a build that is over, as they would have been written then.
fn raw_logs(history: &HistoryStore, build: &Build) -> Outcome {
    let mut raw = RawJson::default();
    for step in &build.steps {
        let task = task_of(step);
        let inputs = step.root.iter().chain(&step.inputs).filter_map(|number| build.step(*number)).map(task_of);
        let digest = Digest::sha256(format!("{}/{}", build.id, step.number).as_bytes()).to_string();
        let declared = Event::Declared { task, name: step.name.clone(), inputs: inputs.collect(), digest };
        out(raw.line(&declared).as_bytes())?;
        if step.verdict == Verdict::NotReached {
            continue;
        }
        let started = at(step.started.unwrap_or(build.started));
        out(raw.line(&Event::Started { task, at: started }).as_bytes())?;
        for entry in history.log(&build.id, step.number).map_err(failed)?.into_iter().flatten() {
            let at = started + Duration::from_millis(entry.milliseconds);
            let event = Event::Output { task, stream: entry.stream, at, bytes: entry.bytes };
            out(raw.line(&event).as_bytes())?;
        }
        let outcome = match step.verdict {
            Verdict::Hit => builder_core::progress::Outcome::Cached,
            Verdict::Cancelled => builder_core::progress::Outcome::Cancelled,
            Verdict::Failed => builder_core::progress::Outcome::Failed(step.error.clone().unwrap_or_default()),
            Verdict::Run | Verdict::Adopted | Verdict::NotReached => builder_core::progress::Outcome::Done,
        };
        let ended = started + Duration::from_millis(if step.verdict == Verdict::Hit { 0 } else { step.milliseconds });
        out(raw.line(&Event::Finished { task, at: ended, outcome }).as_bytes())?;
    }
    Ok(0)
}

fn task_of(step: &Step) -> TaskId {
    TaskId(u64::try_from(step.number).unwrap_or(u64::MAX))
}

fn line_of(text: &mut String, number: usize, milliseconds: u64, line: &[u8]) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let _ = writeln!(text, "#{number} {seconds}.{rest:03} {}", escape::output(line));
}

/// The step that a number or a part of a name means.
pub(super) fn find_step<'a>(build: &'a Build, wanted: &str) -> Result<&'a Step, CommandError> {
    let none = || failed(HistoryError::NoStep { build: build.id.clone(), step: wanted.to_owned() });
    if let Ok(number) = wanted.parse::<usize>() {
        return build.steps.iter().find(|step| step.number + 1 == number).ok_or_else(none);
    }
    let found: Vec<&Step> = build.steps.iter().filter(|step| step.name.contains(wanted)).collect();
    match found[..] {
        [] => Err(none()),
        [step] => Ok(step),
        _ => {
            let numbers: Vec<String> = found.iter().map(|step| (step.number + 1).to_string()).collect();
            Err(CommandError::usage(format!("`{wanted}` is in the names of several steps"))
                .with_hint(format!("give the number of one: {}", numbers.join(", "))))
        }
    }
}

fn rm(history: &HistoryStore, args: &BuildsRmArgs) -> Outcome {
    let ids: Vec<BuildId> = if args.all {
        history.ids().map_err(failed)?
    } else {
        args.builds.iter().map(|build| history.find(build)).collect::<Result<_, _>>().map_err(failed)?
    };
    for id in &ids {
        if history.get(id).is_ok_and(|build| build.status == Status::Running) {
            if args.all {
                continue;
            }
            return Err(CommandError::failed(format!("build `{id}` is running")).with_hint("stop it first"));
        }
        history.remove(id).map_err(failed)?;
    }
    Ok(0)
}

fn at(milliseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default())
}

fn completed(started: i64, milliseconds: Option<u64>) -> Option<String> {
    milliseconds.map(|took| units::rfc3339(at(started) + Duration::from_millis(took)))
}

/// A duration in a few characters: `7ms`, `1.2s`, `3m 05s`.
pub(super) fn short(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds}ms"),
        1000..60_000 => format!("{}.{}s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!("{}m {:02}s", milliseconds / 60_000, milliseconds % 60_000 / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let check = |milliseconds, expected: &str| assert_eq!(short(milliseconds), expected);
        check(0, "0ms");
        check(999, "999ms");
        check(1290, "1.2s");
        check(59_999, "59.9s");
        check(185_000, "3m 05s");
    }

    #[test]
    fn filters_are_read() {
        for good in ["status=error", "name=app", "ref=abc", "since=24h", "until=2024-02-03T04:05:06Z", "duration>10s"] {
            assert!(Filter::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "status=odd", "duration>x", "since=", "x=y"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
