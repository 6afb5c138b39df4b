//! `rbuild explain`: why the steps of a build ran, or did not.

use std::fmt::Write as _;

use builder_core::build::{
    ExplainedStep, Explanation, LockChange, ParentChange, Proposal, ReadCopy, Reason, StepReads,
};
use builder_core::cache::explain::{Change, TreeChange};
use builder_core::history::{Build, BuildId, ByReads, Lookup, Status, Verdict};
use serde_json::{Value, json};

use super::builds::{failed, find_step, verdict};
use super::inspect::indented;
use super::{Outcome, print, verify};
use crate::args::ExplainArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui::{escape, units};

/// Paths that are listed for one input.
pub(super) const MAX_PATHS: usize = 10;

/// Characters of a value that are shown.
const MAX_VALUE: usize = 100;

/// Characters of two values that are shown in one line.
const MAX_SHORT: usize = 40;

/// Lines of a value that are shown.
const MAX_LINES: usize = 5;

/// Columns of the name of another step.
const MAX_NAME: usize = 48;

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
    let status = match build.status {
        Status::Completed => String::new(),
        status => format!(", {}", status.to_string().to_lowercase()),
    };
    let mut text = format!("build {} ({}{status}): ", build.id, escape::line(&build.name()));
    if all == 0 {
        let error = build.end.as_ref().and_then(|end| end.error.as_deref()).unwrap_or("it has no steps");
        let _ = writeln!(text, "{}", escape::line(error));
        return text;
    }
    let _ = write!(text, "{hits} of {all} steps hit");
    let usual = usual(&explanation.steps);
    text.push_str(&usual.map_or_else(String::new, |build| format!(", compared with build {build}")));
    text.push('\n');
    for step in &explanation.steps {
        let _ = writeln!(text, "{} {}: {}", step.number, escape::line(&step.name), verdict(step.verdict));
        if step.reasons != [Reason::Hit] {
            reasons(step, usual, &mut text);
        }
        for line in step.reads.iter().flat_map(read) {
            let _ = writeln!(text, "    {}", escape::line(&line));
        }
    }
    text
}

/// What a step looked at.
fn read(reads: &StepReads) -> Vec<String> {
    if let (Some(why), true) = (&reads.unknown, reads.copies.is_empty()) {
        return vec![format!("what it reads is not known: {why}")];
    }
    let mut lines = Vec::new();
    for ReadCopy { step, files, read, proposal } in &reads.copies {
        let count = format!("read {read} of {files} files that step {step} copied");
        lines.push(match proposal {
            Proposal::Nothing => format!("{count}: it can stand before that step"),
            Proposal::All { .. } if read == files => count,
            Proposal::All { without_names } if without_names.is_empty() => {
                format!("{count}; up to here all of them are needed")
            }
            Proposal::All { .. } => {
                format!(
                    "{count}, and names in its directories; if those do not matter, this would be enough up to here:"
                )
            }
            Proposal::Copy { .. } => format!("{count}; this would be enough up to here, in place of step {step}:"),
            Proposal::Unknown { why } => format!("{count}; what would be enough is not known: {why}"),
        });
        if let Proposal::Copy { lines: instructions } | Proposal::All { without_names: instructions } = proposal
            && read < files
        {
            lines.extend(instructions.iter().map(|line| format!("  {line}")));
        }
    }
    lines
}

/// The build that the first step which is compared with a build at all is compared with: mostly that of all steps.
pub(super) fn usual<'a>(steps: impl IntoIterator<Item = &'a ExplainedStep>) -> Option<&'a BuildId> {
    steps.into_iter().find_map(|step| step.compared_with.as_ref()?.build.as_ref())
}

/// The reasons of a step, a line or more each; with what it is compared, unless that is the usual build.
pub(super) fn reasons(step: &ExplainedStep, usual: Option<&BuildId>, text: &mut String) {
    for line in said(&step.reasons).into_iter().chain(step.by_reads.as_ref().and_then(by_reads)) {
        let _ = writeln!(text, "    {}", escape::line(&line));
    }
    if let Some(earlier) =
        step.compared_with.as_ref().filter(|earlier| earlier.build.as_ref() != usual || usual.is_none())
    {
        let key = &earlier.key[..earlier.key.len().min(12)];
        let _ = match (&earlier.build, &earlier.place) {
            (Some(build), _) => writeln!(text, "    compared with build {build}"),
            (None, Some(place)) => {
                writeln!(text, "    compared with what is nearest in `{}`, {key}", escape::line(place))
            }
            (None, None) => writeln!(text, "    compared with an older record, {key}"),
        };
    }
}

/// What looking a command up by what it reads gave, where that was no hit.
fn by_reads(found: &ByReads) -> Option<String> {
    if let Some(reason) = &found.unrecorded {
        return Some(format!("what it reads is not recorded: {reason}"));
    }
    match &found.outcome {
        Lookup::Differs { paths } => Some(format!("of what it reads this is another: {}", paths.join(", "))),
        Lookup::Nothing => Some("what it reads was not known".to_owned()),
        Lookup::Gone => Some("what it reads is as before, but the result of that is too old, or pruned".to_owned()),
        Lookup::Hit { .. } | Lookup::NotAsked => None,
    }
}

/// What reasons say.
pub(super) fn said(reasons: &[Reason]) -> Vec<String> {
    parents(reasons).into_iter().chain(reasons.iter().flat_map(sentence)).collect()
}

/// The steps before it that have other results, in one line.
fn parents(reasons: &[Reason]) -> Option<String> {
    let parents = reasons.iter().filter_map(|reason| match reason {
        Reason::Parent { step, name, change: ParentChange::Result } => Some((step, name)),
        _ => None,
    });
    let (numbers, names): (Vec<&usize>, Vec<&String>) = parents.unzip();
    match (&numbers[..], &names[..]) {
        ([], _) => None,
        ([step], [name, ..]) => Some(format!("step {step} has another result: {}", escape::fit(name, MAX_NAME))),
        ([first @ .., last], _) => {
            let first: Vec<String> = first.iter().map(ToString::to_string).collect();
            Some(format!("steps {} and {last} have other results", first.join(", ")))
        }
    }
}

pub(super) fn fetched_first(images: &[String]) -> String {
    let images: Vec<String> = images.iter().map(|image| format!("`{image}`")).collect();
    match &images[..] {
        [] => "something has to be fetched first".to_owned(),
        [image] => format!("image {image} has to be fetched first"),
        images => format!("images {} have to be fetched first", images.join(", ")),
    }
}

fn sentence(reason: &Reason) -> Vec<String> {
    let line = match reason {
        Reason::Hit => "its result was known".to_owned(),
        Reason::HitByReads { paths } => {
            format!("something changed, and none of {} that it looks at", units::count(*paths, "path"))
        }
        Reason::NotReached => "the build ended before it".to_owned(),
        Reason::InputUnknown { steps, images } if steps.is_empty() => fetched_first(images),
        Reason::InputUnknown { steps, .. } => {
            let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
            format!("it runs if step {} gives another result than before", steps.join(" or "))
        }
        Reason::SameStep { step, name } => format!("step {step} is the same: {}", escape::fit(name, MAX_NAME)),
        Reason::NoCache => "`--no-cache` or `--no-cache-filter`".to_owned(),
        Reason::Expired => "its result is older than `--cache-ttl` allows".to_owned(),
        Reason::ExpiredByFile => "its result is older than the comment `# cache=` above it allows".to_owned(),
        Reason::Pruned => "the same step had a result in an earlier build; its record was pruned".to_owned(),
        Reason::FailedBefore => "the same step was tried in an earlier build and gave no result".to_owned(),
        Reason::Damaged => "the record of its result was damaged".to_owned(),
        Reason::ResultGone => "there was a record, but what it says about the result is gone".to_owned(),
        Reason::FilesGone => "the files of its result were pruned, and something needed them".to_owned(),
        Reason::NeverBuilt { asked_elsewhere: false, .. } => "nothing like it was built here before".to_owned(),
        Reason::NeverBuilt { asked_elsewhere: true, places } => {
            let lines = places.iter().map(|place| match place.results {
                Some(count) => format!("  `{}` has {}, none like it", place.name, units::count(count, "result")),
                None => format!("  `{}` could not be used", place.name),
            });
            let first = "nothing like it was built here before, and no cache elsewhere had it".to_owned();
            return std::iter::once(first).chain(lines).collect();
        }
        Reason::Input { name, before, after } => return change(name, before.as_deref(), after.as_deref()),
        Reason::Instruction { before, after } => return change("the instruction", Some(before), Some(after)),
        Reason::IgnoreFile { name } => format!("`{name}` changed, which says what is ignored"),
        Reason::Files { input, changes, count } => return files(input, changes, *count),
        Reason::Base { before, after, lock } => base(before, after) + &lock.as_ref().map_or_else(String::new, locked),
        // All in one line, before the others.
        Reason::Parent { change: ParentChange::Result, .. } => return Vec::new(),
        Reason::Parent { step, name, change: ParentChange::Added } => {
            format!("step {step} is new: {}", escape::fit(name, MAX_NAME))
        }
        Reason::Parent { name, change: ParentChange::Removed, .. } => {
            format!("a step before it is gone: {}", escape::fit(name, MAX_NAME))
        }
        Reason::Root => "the files that it starts from are others".to_owned(),
    };
    vec![line]
}

/// `base:1 (927f48a524f9 → 93d6d6baa8f8)`
fn base(before: &str, after: &str) -> String {
    let split = |text: &str| {
        let (name, digest) = text.rsplit_once(' ').unwrap_or((text, ""));
        let digest = digest.split_once(':').map_or(digest, |(_, hex)| hex);
        (name.to_owned(), digest.chars().take(12).collect::<String>())
    };
    let ((old, before), (new, after)) = (split(before), split(after));
    if old == new {
        return format!("the base image changed: {new} ({before} → {after})");
    }
    format!("the base image changed: {old} ({before}) → {new} ({after})")
}

fn locked(change: &LockChange) -> String {
    match change {
        LockChange::Renewed(file) => format!("; `{file}` was renewed"),
        LockChange::Added(file) => format!("; `{file}` says so now"),
        LockChange::Left(file) => format!("; `{file}` said the first, and was not asked"),
    }
}

fn change(name: &str, before: Option<&str>, after: Option<&str>) -> Vec<String> {
    let name = if name == "host" { "`--add-host`" } else { name };
    match (before, after) {
        (Some(before), Some(after)) if name.starts_with("mount ") => {
            let (before, after) = options_that_differ(before, after);
            differing(name, &before, &after)
        }
        (Some(before), Some(after)) => differing(name, before, after),
        (None, Some(after)) => vec![format!("{name} is new: {}", value(after))],
        (Some(before), None) => vec![format!("{name} is gone: {}", value(before))],
        (None, None) if name.starts_with("secret ") => vec![format!("{name} changed (its value is not kept)")],
        (None, None) => vec![format!("{name} changed (values of proxies are not kept)")],
    }
}

/// Of what two mounts at one place are, the options that are not the same.
fn options_that_differ(before: &str, after: &str) -> (String, String) {
    let only = |one: &str, other: &str| {
        let other: Vec<&str> = other.split(' ').collect();
        one.split(' ').filter(|part| !other.contains(part)).collect::<Vec<_>>().join(" ")
    };
    let (old, new) = (before.split(' ').next(), after.split(' ').next());
    if old == new { (only(before, after), only(after, before)) } else { (before.to_owned(), after.to_owned()) }
}

/// Two values: in a line if they are short, else where they differ, one below the other.
fn differing(name: &str, before: &str, after: &str) -> Vec<String> {
    let (before, after) = (before.trim_end(), after.trim_end());
    let short = |text: &str| !text.contains('\n') && text.chars().count() <= MAX_SHORT;
    if short(before) && short(after) {
        return vec![format!("{name} changed: {} → {}", value(before), value(after))];
    }
    let (mut old, mut new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    (old, new) = (old.split_off(same), new.split_off(same));
    while !old.is_empty() && old.last() == new.last() {
        old.pop();
        new.pop();
    }
    // One line for one line: only the part around the difference is of interest.
    let same = match (&old[..], &new[..]) {
        ([old], [new]) => old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count(),
        _ => 0,
    };
    let mut lines = vec![format!("{name} changed:")];
    for (mark, side) in [('-', old), ('+', new)] {
        lines.extend(side.iter().take(MAX_LINES).map(|line| format!("  {mark} {}", around(line, same))));
        if side.len() > MAX_LINES {
            lines.push(format!("  {mark} … {} more lines", side.len() - MAX_LINES));
        }
    }
    lines
}

/// The part of a line around a place in it, counted in characters.
fn around(line: &str, at: usize) -> String {
    let length = line.chars().count();
    if length <= MAX_VALUE {
        return line.to_owned();
    }
    let start = if at + 20 < MAX_VALUE { 0 } else { (at - 20).min(length - MAX_VALUE) };
    let shown: String = line.chars().skip(start).take(MAX_VALUE).collect();
    let mark = |cut: bool| if cut { "…" } else { "" };
    format!("{}{shown}{}", mark(start > 0), mark(start + MAX_VALUE < length))
}

/// As much of a value as fits a line.
pub(super) fn value(text: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    around(text, 0)
}

fn files(input: &str, changes: &[TreeChange], count: Option<usize>) -> Vec<String> {
    let what = match input {
        "copied" => "copied files",
        "directory" => "the directory",
        other => other,
    };
    let Some(count) = count else {
        return vec![format!("{what} changed; which is not known any more")];
    };
    if count == 0 {
        return vec![format!("{what} changed")];
    }
    let mut lines = vec![format!("{what} changed:")];
    let (mut at, mut shown) = (0, 0);
    while let Some(change) = changes.get(at).filter(|_| shown < MAX_PATHS) {
        let below = changes[at + 1..].iter().take_while(|other| is_part_of(change, other)).count();
        let all = if below > 0 { ", and all below" } else { "" };
        lines.push(format!("  {}", verify::path_with(change, all)));
        at += 1 + below;
        shown += 1;
    }
    if count > at {
        lines.push(format!("  and {} more", count - at));
    }
    lines
}

/// Whether a directory that is new or gone says of a path that it is, too.
fn is_part_of(directory: &TreeChange, path: &TreeChange) -> bool {
    let inside = path.path.strip_prefix(directory.path.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
    inside && directory.change != Change::Changed && directory.change == path.change && path.details.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_where_they_differ() {
        let check = |before: &str, after: &str, expected: &[&str]| {
            assert_eq!(differing("x", before, after), expected, "{before} {after}");
        };
        check("a", "b", &["x changed: a → b"]);
        check("", "b", &["x changed: (empty) → b"]);
        check("one\ntwo\nthree\n", "one\n2\nthree\n", &["x changed:", "  - two", "  + 2"]);
        check("one\nthree", "one\ntwo\nthree", &["x changed:", "  + two"]);
        let many = |what: &str| (0..9).map(|at| format!("{what}{at}\n")).collect::<String>();
        let found = differing("x", &many("a"), &many("b"));
        assert_eq!((found.len(), found[6].as_str()), (13, "  - … 4 more lines"), "{found:?}");
        // What differs is shown, however far behind it is.
        let long = "apt-get install ".to_owned() + &"package ".repeat(40);
        let found = differing("x", &(long.clone() + "curl"), &(long.clone() + "jq"));
        assert!(found[1].starts_with("  - …") && found[1].ends_with("curl"), "{found:?}");
        assert!(found[2].ends_with("jq") && found[2].chars().count() < 130, "{found:?}");
    }

    #[test]
    fn of_a_mount_only_the_options_that_differ_are_named() {
        let check = |before: &str, after: &str, expected: &str| {
            assert_eq!(change("mount /m", Some(before), Some(after)), [expected], "{before} {after}");
        };
        check("bind writable=false", "bind writable=true", "mount /m changed: writable=false → writable=true");
        check("tmpfs size=None", "cache id=x mode=755", "mount /m changed: tmpfs size=None → cache id=x mode=755");
    }

    #[test]
    fn a_directory_stands_for_what_is_in_it() {
        let path = |path: &str, change| TreeChange { path: path.to_owned(), change, details: Vec::new() };
        let (added, gone) = (Change::Added, Change::Removed);
        let changes = [path("/a", gone), path("/a/b", gone), path("/ab", gone), path("/n", added), path("/n/x", gone)];
        let expected =
            ["copied files changed:", "  /a (gone, and all below)", "  /ab (gone)", "  /n (new)", "  /n/x (gone)"];
        assert_eq!(files("copied", &changes, Some(5)), expected);
        let many: Vec<_> = (0..12).map(|at| path(&format!("/{at:02}"), added)).collect();
        assert_eq!(files("copied", &many, Some(40)).last().map(String::as_str), Some("  and 30 more"));
    }

    #[test]
    fn a_base_image_is_named_in_short() {
        let digest = |c: &str| format!("sha256:{}", c.repeat(64));
        let check = |before: &str, after: &str, expected: &str| {
            let text = |name: &str, c: &str| format!("{name} {}", digest(c));
            assert_eq!(base(&text(before, "a"), &text(after, "b")), format!("the base image changed: {expected}"));
        };
        check("base:1", "base:1", "base:1 (aaaaaaaaaaaa → bbbbbbbbbbbb)");
        check("base:1", "base:2", "base:1 (aaaaaaaaaaaa) → base:2 (bbbbbbbbbbbb)");
    }
}
