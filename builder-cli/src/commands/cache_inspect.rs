//! `rbuild cache inspect`: what is known of one result.

use std::fmt::Write as _;

use builder_core::build::{CacheTransferError, Engine};
use builder_core::cache::Record;
use serde_json::json;

use super::{Outcome, print};
use crate::args::CacheInspectArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui::{escape, units};

pub(super) fn run(session: &Session, args: &CacheInspectArgs) -> Outcome {
    let engine = session.reader()?;
    let records = engine.cache().list().map_err(|error| CommandError::failed(error.to_string()))?;
    let mut found: Vec<Record> =
        records.into_iter().map(|(_, record)| record).filter(|record| record.is_called(&args.key)).collect();
    found.sort_by_key(|record| record.preimage.key().to_string());
    // The first result of a root filesystem is kept a second time.
    found.dedup_by_key(|record| record.preimage.key());
    if found.is_empty() {
        return Err(CommandError::diagnostic(&CacheTransferError::NoSuchResult { key: args.key.clone() }));
    }
    if args.json {
        let all: Vec<_> = found.iter().map(|record| as_json(&engine, record)).collect();
        return print(format!("{}\n", serde_json::to_string_pretty(&all).expect("plain data serialises")));
    }
    print(found.iter().map(|record| text(&engine, record)).collect::<Vec<_>>().join("\n"))
}

/// Bytes on disk of the files of a result; `None` if they are gone.
fn files(engine: &Engine, record: &Record) -> Option<u64> {
    engine.snapshots().get(&record.tree).ok().flatten()?;
    engine.snapshots().usage(&record.tree).ok()
}

fn as_json(engine: &Engine, record: &Record) -> serde_json::Value {
    json!({ "key": record.preimage.key().to_string(), "files": files(engine, record), "record": record })
}

fn text(engine: &Engine, record: &Record) -> String {
    let at = |seconds: i64| units::created_at(jiff::Timestamp::from_second(seconds).ok());
    let took = record.milliseconds.map_or_else(|| "not known".to_owned(), super::builds::short);
    let files = files(engine, record).map_or_else(|| "gone".to_owned(), units::size);
    let mut text = String::new();
    for (title, value) in [
        ("Key", record.preimage.key().to_string()),
        ("Step", escape::line(&record.preimage.summary()).into_owned()),
        ("Layer", record.tree.to_string()),
        ("Created", at(record.created)),
        ("Took", took),
        ("Files", files),
    ] {
        let _ = writeln!(text, "{:<9}{value}", format!("{title}:"));
    }
    text.push_str("Made of:\n");
    for field in &record.preimage.fields {
        let _ = writeln!(text, "  {}: {}", escape::line(&field.name), escape::line(&field.value));
    }
    text
}
