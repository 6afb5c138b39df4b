//! `rbuild cache ls`, docker's `buildx du`: what is in the build cache; and the filters that it shares with `prune`.

use std::time::SystemTime;

use builder_core::build::{CacheItem, CacheKind};
use builder_core::cancel::CancelToken;
use serde_json::Value;

use super::format::{self, Columns, Row};
use super::{Outcome, print};
use crate::args::CacheLsArgs;
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
];

pub(super) fn run(session: &Session, args: &CacheLsArgs) -> Outcome {
    let filters = Filters::parse(&args.filter)?;
    let engine = session.engine()?;
    let mut items = engine.cache_items(&CancelToken::new()).map_err(|error| CommandError::diagnostic(&error))?;
    engine.count_uses(&mut items).map_err(|error| CommandError::diagnostic(&error))?;
    let mut items: Vec<CacheItem> = items.into_iter().filter(|item| filters.match_item(item)).collect();
    items.sort_by_key(|item| std::cmp::Reverse((item.own_size(), item.last_used)));
    if args.verbose && args.format.is_none() {
        return print(items.iter().map(block).collect::<String>() + &totals(&items));
    }
    let now = SystemTime::now();
    let rows: Vec<Row> = items.iter().map(|item| row(item, now)).collect();
    let mut text = format::write(args.format.as_deref(), COLUMNS, HEADINGS, &rows)?;
    if args.format.is_none() {
        text.push_str(&totals(&items));
    }
    print(text)
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
        ("UsageCount", item.uses.to_string()),
        ("LastUsedSince", units::ago(at(item.last_used).map(SystemTime::from), now)),
    ]);
    for (name, value) in [
        ("Mutable", item.kind == CacheKind::Mount),
        ("Reclaimable", reclaimable(item)),
        ("Shared", item.shared),
        ("InUse", item.in_use),
    ] {
        row.insert(name.to_owned(), Value::Bool(value));
    }
    row
}

fn reclaimable(item: &CacheItem) -> bool {
    !item.in_use && !item.shared
}

fn block(item: &CacheItem) -> String {
    let now = SystemTime::now();
    let fields = row(item, now);
    let mut text = String::new();
    for (title, name) in [
        ("ID", "ID"),
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
            Value::String(text) => escape::line(text).into_owned(),
            other => other.to_string(),
        };
        text.push_str(&format!("{:<13}{value}\n", format!("{title}:")));
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

/// `--filter` of the build cache: `KEY=VALUE`, `KEY!=VALUE`, `KEY~=PART`, or a `KEY` that is true.
#[derive(Debug, Default)]
pub(super) struct Filters {
    filters: Vec<Filter>,
}

#[derive(Debug)]
struct Filter {
    key: &'static str,
    operator: Operator,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Holds,
}

const KEYS: [&str; 9] = ["id", "description", "type", "inuse", "mutable", "immutable", "shared", "private", "until"];

impl Filters {
    /// Reads the filters; unknown keys are errors.
    pub(super) fn parse(given: &[String]) -> Result<Self, CommandError> {
        Ok(Self { filters: given.iter().map(|text| filter(text)).collect::<Result<_, _>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether every filter lets the item through.
    pub(super) fn match_item(&self, item: &CacheItem) -> bool {
        self.filters.iter().all(|filter| filter.matches(item))
    }
}

fn filter(text: &str) -> Result<Filter, CommandError> {
    let (key, operator, value) = if let Some((key, value)) = text.split_once("!=") {
        (key, Operator::IsNot, value)
    } else if let Some((key, value)) = text.split_once("~=") {
        (key, Operator::Holds, value)
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Operator::Is, value)
    } else {
        (text, Operator::Is, "true")
    };
    let key = KEYS.into_iter().find(|known| *known == key).ok_or_else(|| {
        CommandError::usage(format!("unknown filter `{text}`")).with_hint(format!(
            "the filters of the build cache are {}; as `KEY=VALUE`, `KEY!=VALUE` or `KEY~=PART`",
            KEYS.join(", ")
        ))
    })?;
    if key == "type" && operator == Operator::Is && !CacheKind::ALL.iter().any(|kind| kind.name() == value) {
        let names: Vec<&str> = CacheKind::ALL.iter().map(|kind| kind.name()).collect();
        return Err(CommandError::usage(format!("unknown type `{value}`"))
            .with_hint(format!("the types are {}", names.join(", "))));
    }
    let mut value = value.to_owned();
    if key == "until" {
        value = units::until(&value)?.as_second().to_string();
    }
    Ok(Filter { key, operator, value })
}

impl Filter {
    fn matches(&self, item: &CacheItem) -> bool {
        let flag = |flag: bool| if flag { "true" } else { "false" };
        let mutable = item.kind == CacheKind::Mount;
        let actual = match self.key {
            "id" => item.id.as_str(),
            "description" => item.description.as_str(),
            "type" => item.kind.name(),
            "inuse" => flag(item.in_use),
            "mutable" => flag(mutable),
            "immutable" => flag(!mutable),
            "shared" => flag(item.shared),
            "private" => flag(!item.shared),
            _ => return self.value.parse().is_ok_and(|time: i64| item.last_used < time),
        };
        match self.operator {
            // Ids are long: the beginning is enough.
            Operator::Is if self.key == "id" => actual.starts_with(&self.value),
            Operator::Is => actual == self.value,
            Operator::IsNot => actual != self.value,
            Operator::Holds => actual.contains(&self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_or_refused() {
        let read = |text: &str| filter(text).map(|filter| (filter.key, filter.operator, filter.value));
        assert_eq!(read("id=ab").expect("valid"), ("id", Operator::Is, "ab".to_owned()));
        assert_eq!(read("type!=regular").expect("valid"), ("type", Operator::IsNot, "regular".to_owned()));
        assert_eq!(read("description~=apt").expect("valid"), ("description", Operator::Holds, "apt".to_owned()));
        assert_eq!(read("shared").expect("valid"), ("shared", Operator::Is, "true".to_owned()));
        for wrong in ["color=red", "type=regulr", "until=yesterday"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
