//! `--call=outline` and `--call=targets`: what there is to build, and what it can be told.

use std::iter;

use builder_core::build::BuildRequest;
use builder_core::content::ContentStore;
use builder_core::graph::{self, Outline};
use serde_json::{Value, json};

use super::super::inspect::indented;
use super::super::{Outcome, print};
use super::{offline_graph, parse};
use crate::ui::{escape, table};

/// `--call=targets`: the stages that can be built.
pub(in super::super) fn targets(request: &BuildRequest, json: bool) -> Outcome {
    let file = parse(&request.dockerfile)?;
    let entries = graph::targets(&file);
    if json {
        return print(result(json!({ "targets": entries }), request));
    }
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (index, entry) in entries.iter().enumerate() {
        let name = entry.name.clone().unwrap_or_else(|| index.to_string());
        let mark = if entry.default { " (default)" } else { "" };
        let description = entry.description.as_deref().unwrap_or_default();
        rows.push(vec![format!("{}{mark}", escape::line(&name)), escape::line(description).into_owned()]);
    }
    print(table::align(&rows))
}

/// `--call=outline`: arguments, secrets and caches of a target.
pub(in super::super) fn outline(request: &BuildRequest, content: Option<&ContentStore>, json: bool) -> Outcome {
    let file = parse(&request.dockerfile)?;
    let outline = offline_graph(&file, &request.options, content)?.0.outline;
    print(if json { result(json!(outline), request) } else { text(&outline) })
}

/// As BuildKit has it: each `line` becomes a `location`, and the file is named.
fn result(mut value: Value, request: &BuildRequest) -> String {
    locate(&mut value);
    value["sources"] = json!([{ "filename": request.dockerfile.name(), "language": "Dockerfile" }]);
    indented(&value) + "\n"
}

fn locate(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(locate);
            if let Some(line) = object.remove("line") {
                let place = json!({ "line": line });
                object.insert("location".to_owned(), json!({ "ranges": [{ "start": place, "end": place }] }));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(locate),
        _ => {}
    }
}

fn text(outline: &Outline) -> String {
    let mut out = String::new();
    for (heading, text) in [("TARGET", &outline.name), ("DESCRIPTION", &outline.description)] {
        if let Some(text) = text {
            out.push_str(&format!("{:13}{}\n", format!("{heading}:"), escape::line(text)));
        }
    }
    let mut add = |heading: [&str; 3], rows: Vec<[String; 3]>| {
        if !rows.is_empty() {
            let cells = |row: [String; 3]| row.iter().map(|cell| escape::line(cell).into_owned()).collect();
            let lines: Vec<Vec<String>> = iter::once(heading.map(str::to_owned)).chain(rows).map(cells).collect();
            if !out.is_empty() {
                out.push('\n');
            }
            out.extend(table::align(&lines).lines().map(|line| line.trim_end().to_owned() + "\n"));
        }
    };
    let required = |required: bool| if required { "true" } else { "" }.to_owned();
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let args = outline.args.iter().map(|arg| [arg.name.clone(), optional(&arg.value), optional(&arg.description)]);
    add(["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect());
    for (heading, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        let rows = list.iter().map(|secret| [secret.name.clone(), required(secret.required), String::new()]);
        add([heading, "REQUIRED", ""], rows.collect());
    }
    let caches = outline.cache.iter().map(|cache| [cache.id.clone(), String::new(), String::new()]);
    add(["CACHE", "", ""], caches.collect());
    out
}
