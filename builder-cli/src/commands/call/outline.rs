//! `--call=outline` and `--call=targets`: what there is to build, and what it can be told.

use std::iter;

use builder_core::build::BuildRequest;
use builder_core::dockerfile::{Dockerfile, Instruction};
use builder_core::graph::{self, Outline, OutlineSecret};
use serde_json::{Value, json};

use super::super::inspect::indented;
use super::super::{Outcome, print};
use super::{encoded, inspect, parse, ranges};
use crate::session::Session;
use crate::ui::{escape, table};

/// `--call=targets`: the stages that can be built.
pub(in super::super) fn targets(request: &BuildRequest, json: bool) -> Outcome {
    let file = parse(&request.dockerfile)?;
    let entries = graph::targets(&file);
    if json {
        return print(result(json!({ "targets": entries }), &file));
    }
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (index, entry) in entries.iter().enumerate() {
        // A stage without a name is asked for by its number.
        let name = entry.name.clone().unwrap_or_else(|| if entry.default { String::new() } else { index.to_string() });
        let mark = match (entry.default, name.is_empty()) {
            (true, true) => "(default)",
            (true, false) => " (default)",
            (false, _) => "",
        };
        let description = entry.description.as_deref().unwrap_or_default();
        rows.push(vec![format!("{}{mark}", escape::line(&name)), escape::line(description).into_owned()]);
    }
    print(trimmed(&table::narrow(&rows, 1)))
}

/// `--call=outline`: arguments, secrets and caches of a target.
pub(in super::super) fn outline(session: &Session, request: &BuildRequest, json: bool) -> Outcome {
    let file = parse(&request.dockerfile)?;
    let outline = inspect(session, &file, request)?.graph.outline;
    print(if json { result(json!(outline), &file) } else { text(&outline) })
}

/// As BuildKit has it: each `line` becomes a `location`, what is empty or not so is left out, the text of the file is there.
fn result(mut value: Value, file: &Dockerfile) -> String {
    locate(&mut value, file);
    value["sources"] = json!([encoded(&file.source)]);
    indented(&value) + "\n"
}

fn locate(value: &mut Value, file: &Dockerfile) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(|value| locate(value, file));
            object.retain(|_, value| *value != Value::Bool(false) && *value != json!([]));
            let first = object.remove("line").and_then(|line| usize::try_from(line.as_u64()?).ok());
            if let Some(first) = first {
                let last = file.instructions.iter().find(|instruction| instruction.start_line() == first);
                let last = last.map_or(first, Instruction::end_line);
                object.insert("location".to_owned(), json!({ "ranges": ranges(first, last) }));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| locate(value, file)),
        _ => {}
    }
}

fn text(outline: &Outline) -> String {
    let mut tables = Vec::new();
    let mut add = |padding: usize, rows: Vec<Vec<String>>| {
        let cells = |row: Vec<String>| row.iter().map(|cell| escape::line(cell).into_owned()).collect();
        let rows: Vec<Vec<String>> = rows.into_iter().map(cells).collect();
        tables.push(trimmed(&table::narrow(&rows, padding)));
    };
    let titles = [("TARGET:", &outline.name), ("DESCRIPTION:", &outline.description)];
    let titles = titles.into_iter().filter_map(|(title, text)| Some(vec![title.to_owned(), text.clone()?]));
    let titles: Vec<_> = titles.collect();
    if !titles.is_empty() {
        add(1, titles);
    }
    let required = |required: bool| if required { "true" } else { "" }.to_owned();
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let args = outline.args.iter().map(|arg| vec![arg.name.clone(), optional(&arg.value), optional(&arg.description)]);
    let secrets =
        |list: &[OutlineSecret]| list.iter().map(|one| vec![one.name.clone(), required(one.required)]).collect();
    let lists: [(&[&str], Vec<Vec<String>>); 4] = [
        (&["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect()),
        (&["SECRET", "REQUIRED"], secrets(&outline.secrets)),
        (&["SSH", "REQUIRED"], secrets(&outline.ssh)),
        (&["CACHE"], outline.cache.iter().map(|cache| vec![cache.id.clone()]).collect()),
    ];
    for (heading, rows) in lists {
        if !rows.is_empty() {
            let heading = heading.iter().map(|&word| word.to_owned()).collect();
            add(3, iter::once(heading).chain(rows).collect());
        }
    }
    tables.join("\n")
}

fn trimmed(table: &str) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
