//! Whether what `rbuild explain` says can be true.

use std::fmt::Write as _;

use serde_json::Value;

use super::files::{EVERYTHING, FILES};

/// A build that ended well, or not.
pub(super) struct Past {
    pub(super) id: String,
    /// What was changed since the one before.
    pub(super) names: Vec<String>,
    pub(super) succeeded: bool,
}

/// How many steps ran.
pub(super) fn ran(explained: &Value) -> Vec<String> {
    let steps = explained["steps"].as_array().expect("steps").iter();
    steps
        .filter(|step| step["verdict"] != "hit")
        .map(|step| step["name"].to_string().chars().take(70).collect())
        .collect()
}

/// Steps whose results were too old.
pub(super) fn expired(explained: &Value) -> usize {
    let reasons = explained["steps"].as_array().expect("steps").iter().filter_map(|step| step["reasons"].as_array());
    reasons.flatten().filter(|reason| reason["reason"].as_str().is_some_and(|why| why.starts_with("expired"))).count()
}

/// What may be said in explanations.
#[derive(Clone, Copy)]
pub(super) struct Flags {
    /// Something may be gone for good.
    pub(super) was_pruned: bool,
    /// Results may be too old.
    pub(super) may_expire: bool,
}

/// What is wrong with an explanation; `past` has all builds of a store since it was pruned, the explained one last.
pub(super) fn wrong(explained: &Value, past: &[Past], flags: Flags, links: &[String]) -> String {
    let Flags { was_pruned, may_expire } = flags;
    let mut text = String::new();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    // A step of the same name as now was built after the last change of anything but files.
    let last_plan = past.iter().rposition(|build| build.names.iter().any(|name| name == EVERYTHING)).unwrap_or(0);
    let was_built = past[last_plan..past.len() - 1].iter().any(|build| build.succeeded);
    for step in explained["steps"].as_array().expect("steps") {
        let reasons = step["reasons"].as_array().expect("reasons");
        let is_hit = step["verdict"] == "hit";
        let mut bad = |why: &str| {
            let _ = writeln!(text, "{why}: {step}");
        };
        if reasons.is_empty() || is_hit != (reasons[0]["reason"] == "hit") {
            bad("verdict and reasons disagree");
        }
        if is_hit {
            continue;
        }
        let with = step["compared_with"]["build"].as_str();
        let since = past.iter().position(|build| Some(build.id.as_str()) == with).map_or(0, |at| at + 1);
        let names: Vec<&str> =
            past[since.min(past.len())..].iter().flat_map(|build| &build.names).map(String::as_str).collect();
        // What comes out of another stage is named as that stage wrote it.
        let is_made = step["name"].as_str().is_some_and(|name| name.contains("from=s"));
        let anything = names.contains(&EVERYTHING) || with.is_none() || since == 0;
        for reason in reasons {
            match reason["reason"].as_str().expect("text") {
                "files" if !anything && !is_made => {
                    let changes = reason["changes"].as_array().expect("changes");
                    let is_known = |change: &Value| is_about(change, &names) || is_about(change, &links);
                    for change in changes {
                        // Directories that a copy makes for its files come and go with them.
                        let inside = |other: &&Value| is_below(other, change) && is_known(other);
                        if !is_known(change) && !changes.iter().any(|other| inside(&other)) {
                            bad("this file was not changed");
                        }
                    }
                    if reason["changes"].as_array().is_some_and(Vec::is_empty) && reason["count"] != Value::Null {
                        bad("no file");
                    }
                }
                "input" if !anything || (reason["before"] == reason["after"] && !is_hidden(reason)) => {
                    bad("this input was not changed");
                }
                "expired" if may_expire => {}
                "expired" | "no-cache" | "hit" => bad("cannot be"),
                "base" if !anything => bad("no other base"),
                "pruned" | "files-gone" | "damaged" | "result-gone" if !was_pruned => bad("nothing was pruned"),
                "never-built" | "root" if was_built && !was_pruned => bad("the same was built before"),
                "parent" if reason["change"] != "removed" && reason["step"].as_u64() >= step["number"].as_u64() => {
                    bad("a parent that comes later");
                }
                "parent" if !anything && reason["change"] != "result" => bad("the same steps"),
                _ => {}
            }
        }
    }
    text
}

/// Whether the path of a change is below that of another one.
fn is_below(change: &Value, other: &Value) -> bool {
    let path = |change: &Value| change["path"].as_str().expect("text").to_owned();
    path(change).starts_with(&format!("{}/", path(other).trim_end_matches('/')))
}

/// Whether a change of a path may come from changes of what has these names.
fn is_about(change: &Value, names: &[&str]) -> bool {
    let details = change["details"].as_array();
    let linked = details.is_some_and(|details| details.iter().any(|detail| detail == "hard links"));
    let path = change["path"].as_str().expect("text");
    linked
        || names.contains(&FILES)
        || path.split('/').any(|part| names.iter().any(|name| name.split('/').any(|other| other == part)))
}

/// Values of proxies and secrets are not shown.
fn is_hidden(reason: &Value) -> bool {
    let name = reason["name"].as_str().unwrap_or_default();
    name.starts_with("secret ") || name.to_ascii_lowercase().ends_with("_proxy")
}
