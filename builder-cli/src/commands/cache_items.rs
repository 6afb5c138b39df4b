//! `rbuild cache ls`, docker's `buildx du`: what is in the build cache.

use std::time::SystemTime;

use builder_core::build::{CacheItem, Engine};
use builder_core::cancel::CancelToken;
use serde_json::Value;

use super::format::{self, Columns, Row};
use super::{Outcome, print};
use crate::args::CacheLsArgs;
use crate::cache_filter::Filters;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui::{escape, units};

const COLUMNS: Columns =
    &[("ID", "ID"), ("RECLAIMABLE", "Reclaimable"), ("SIZE", "Size"), ("LAST ACCESSED", "LastUsedSince")];
const HEADINGS: Columns = &[
    ("ID", "ID"),
    ("RECLAIMABLE", "Reclaimable"),
    ("SIZE", "Size"),
    ("LAST ACCESSED", "LastUsedSince"),
    ("TYPE", "Type"),
    ("DESCRIPTION", "Description"),
    ("SHARED", "Shared"),
    ("CREATED AT", "CreatedAt"),
    ("LAST USED", "LastUsedAt"),
    ("USAGE COUNT", "UsageCount"),
    ("PARENTS", "Parents"),
];

/// Digits of an id in a table, as many as docker's ids have; the beginning is enough wherever an id is asked for.
pub(super) const SHORT: usize = 25;

/// The columns of docker's `system df --verbose`.
const OF_DISK: Columns = &[
    ("CACHE ID", "ID"),
    ("CACHE TYPE", "Type"),
    ("SIZE", "Size"),
    ("LAST USED", "LastUsedSince"),
    ("USAGE", "UsageCount"),
    ("SHARED", "Shared"),
];

pub(super) fn run(session: &Session, args: &CacheLsArgs) -> Outcome {
    let filters = Filters::parse(&args.filter)?;
    let engine = session.engine()?;
    let mut items = all(&engine)?;
    items.retain(|item| filters.match_item(item));
    let now = SystemTime::now();
    if args.format.as_deref() == Some("pretty") || args.verbose && args.format.is_none() {
        return print(items.iter().map(|item| block(item, now)).collect::<String>() + &totals(&items));
    }
    let mut rows: Vec<Row> = items.iter().map(|item| row(item, now)).collect();
    if matches!(args.format.as_deref(), None | Some("" | "table")) {
        items.iter().zip(&mut rows).for_each(|(item, row)| mark(item, row));
    }
    let mut text = format::write(args.format.as_deref(), COLUMNS, HEADINGS, &rows)?;
    if args.format.is_none() {
        text.push_str(&totals(&items));
    }
    print(text)
}

/// Every item with all that is known about it: what can go first, and of that the largest.
fn all(engine: &Engine) -> Result<Vec<CacheItem>, CommandError> {
    let mut items = engine.cache_items(&CancelToken::new()).map_err(|error| CommandError::diagnostic(&error))?;
    engine.count_uses(&mut items).map_err(|error| CommandError::diagnostic(&error))?;
    engine.find_parents(&mut items).map_err(|error| CommandError::diagnostic(&error))?;
    items.sort_by_key(|item| std::cmp::Reverse((reclaimable(item), item.files + item.facts, item.last_used)));
    Ok(items)
}

/// The table of `du --verbose`.
pub(super) fn of_disk(engine: &Engine) -> Result<String, CommandError> {
    let now = SystemTime::now();
    let mut rows: Vec<Row> = all(engine)?.iter().map(|item| row(item, now)).collect();
    for row in &mut rows {
        shorten(row, 12);
    }
    format::write(None, OF_DISK, OF_DISK, &rows)
}

/// The same for programs, with the names of docker's `system df --verbose`, where everything is text.
pub(super) fn for_disk(engine: &Engine) -> Result<Vec<Row>, CommandError> {
    let now = SystemTime::now();
    let docker = |item: &CacheItem| {
        let mut row = row(item, now);
        for value in row.values_mut().filter(|value| value.is_boolean() || value.is_number()) {
            *value = Value::String(value.to_string());
        }
        row.insert("CacheType".to_owned(), item.kind.name().into());
        row
    };
    Ok(all(engine)?.iter().map(docker).collect())
}

/// As docker: a star says that it changes in place, or that an image has the same files.
fn mark(item: &CacheItem, row: &mut Row) {
    shorten(row, SHORT);
    for (name, marked) in [("ID", item.kind.is_mutable()), ("Size", item.shared)] {
        if let Some(Value::String(text)) = row.get_mut(name).filter(|_| marked) {
            text.push('*');
        }
    }
}

fn shorten(row: &mut Row, digits: usize) {
    if let Some(Value::String(id)) = row.get_mut("ID") {
        id.truncate(digits);
    }
}

fn row(item: &CacheItem, now: SystemTime) -> Row {
    let at = |seconds: i64| jiff::Timestamp::from_second(seconds).ok();
    let mut row = format::row([
        ("ID", item.id.clone()),
        ("Description", item.description.clone()),
        ("Type", item.kind.name().to_owned()),
        ("Size", units::size(item.files + item.facts)),
        ("CreatedAt", units::created_at(at(item.created))),
        ("LastUsedAt", units::created_at(at(item.last_used))),
        ("LastUsedSince", units::ago(at(item.last_used).map(SystemTime::from), now)),
    ]);
    for (name, value) in [
        ("Mutable", item.kind.is_mutable()),
        ("Reclaimable", reclaimable(item)),
        ("Shared", item.shared),
        ("InUse", item.in_use),
    ] {
        row.insert(name.to_owned(), Value::Bool(value));
    }
    row.insert("UsageCount".to_owned(), item.uses.into());
    let parents = (!item.parents.is_empty()).then(|| item.parents.clone());
    row.insert("Parents".to_owned(), parents.into());
    row
}

fn reclaimable(item: &CacheItem) -> bool {
    !item.in_use && !item.shared
}

fn block(item: &CacheItem, now: SystemTime) -> String {
    let fields = row(item, now);
    let mut text = String::new();
    for (title, name) in [
        ("ID", "ID"),
        ("Parents", "Parents"),
        ("Created at", "CreatedAt"),
        ("Mutable", "Mutable"),
        ("Reclaimable", "Reclaimable"),
        ("Shared", "Shared"),
        ("Size", "Size"),
        ("Description", "Description"),
        ("Usage count", "UsageCount"),
        ("Last used", "LastUsedSince"),
        ("Type", "Type"),
    ] {
        let value = match &fields[name] {
            Value::Null => continue,
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => escape::line(text).into_owned(),
            Value::Array(_) => {
                text.push_str(&format!("{title}:\n"));
                text.extend(item.parents.iter().map(|parent| format!(" - {parent}\n")));
                continue;
            }
            other => other.to_string(),
        };
        text.push_str(&format!("{:<14}{value}\n", format!("{title}:")));
    }
    text + "\n"
}

fn totals(items: &[CacheItem]) -> String {
    let sum = |of: &dyn Fn(&CacheItem) -> u64| units::size(items.iter().map(of).sum());
    format!(
        "Shared:\t\t{}\nPrivate:\t{}\nReclaimable:\t{}\nTotal:\t\t{}\n",
        sum(&|item| if item.shared { item.files } else { 0 }),
        sum(&CacheItem::own_size),
        sum(&|item| if item.in_use { 0 } else { item.own_size() }),
        sum(&|item| item.files + item.facts),
    )
}
