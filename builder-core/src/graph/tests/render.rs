//! Graphs and errors as text that a person can compare.

use std::fmt::Write as _;

use super::super::*;
use crate::diagnostic::{Diagnostic, Location};

pub(super) fn graph(graph: &Graph) -> String {
    let mut text = String::new();
    let json = to_json(graph);
    for (id, vertex) in graph.vertices.iter().enumerate() {
        let root = vertex.root.map_or("-".to_owned(), |root| root.0.to_string());
        let no_cache = if vertex.no_cache { " no-cache" } else { "" };
        let line = vertex.location.as_ref().map_or(0, |location| location.source.line(location.span.start));
        let origin = match &vertex.origin {
            Some(origin) => format!(" from line {}", origin.source.line(origin.span.start)),
            None => String::new(),
        };
        let _ =
            writeln!(text, "{root} -> {id} {}   # stage {}, line {line}{origin}{no_cache}", vertex.name, vertex.stage);
        let op = json["vertices"][id]["op"].as_object().expect("an object");
        for (key, value) in op {
            if is_interesting(key, value) {
                let _ = writeln!(text, "       {key}: {value}");
            }
        }
    }
    let target = &json["target"];
    let _ = writeln!(text, "target: {}", target["root"]);
    let _ = writeln!(text, "base history: {}", graph.target.base_history.len());
    for step in &graph.target.history {
        let vertex = step.vertex.map_or("-".to_owned(), |vertex| vertex.0.to_string());
        let _ = writeln!(text, "  {vertex} {}", step.entry.created_by.escape_debug().to_string().replace("\\\"", "\""));
    }
    let config = target["config"].as_object().expect("an object");
    for (key, value) in config {
        if key != "config" && key != "rootfs" {
            let _ = writeln!(text, "{key}: {value}");
        }
    }
    for (key, value) in config["config"].as_object().expect("an object") {
        let _ = writeln!(text, "{key}: {value}");
    }
    text + &warnings(graph)
}

fn is_interesting(key: &str, value: &serde_json::Value) -> bool {
    let default = match key {
        "type" | "digest" | "reference" => return false,
        "platform" => "linux/amd64",
        "workdir" => "/",
        "network" => "default",
        "security" => "sandbox",
        "hostname" => "buildkitsandbox",
        _ => "",
    };
    let is_empty = value.is_null() || *value == serde_json::json!([]) || *value == serde_json::json!(false);
    !is_empty && value.as_str() != Some(default)
}

pub(super) fn warnings(graph: &Graph) -> String {
    let mut text = String::new();
    for (warning, _) in &graph.warnings {
        let _ = writeln!(text, "warning: {} line {}: {}", warning.rule.name(), warning.line, warning.detail);
    }
    if !graph.unused_build_args.is_empty() {
        let _ = writeln!(text, "not consumed: {}", graph.unused_build_args.join(" "));
    }
    text
}

/// Each error with the words that it points at.
pub(super) fn errors(errors: &GraphErrors) -> String {
    let mut text = String::new();
    for error in errors {
        let _ = write!(text, "error: {error}");
        if let Some(location) = error.location() {
            let _ = write!(text, " at {}", place(&location));
        }
        if let Some(origin) = error.origin() {
            let _ = write!(text, " brought by {}", place(&origin));
        }
        if let Some(hint) = error.hint() {
            let _ = write!(text, "\nhint: {hint}");
        }
        text.push('\n');
    }
    text
}

fn place(location: &Location) -> String {
    let Location { source, span } = location;
    let words = String::from_utf8_lossy(&source.text()[span.range()]);
    format!("{}:{}:{} `{words}`", source.name(), source.line(span.start), source.column(span.start))
}
