//! `rbuild images`.

use std::time::SystemTime;

use builder_core::build::images::{self, ImageRow, ListFilter};

use super::format::{self, Columns, Row};
use super::{Outcome, print};
use crate::args::ImagesArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui::units;

const HEADINGS: Columns = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED AT", "CreatedAt"),
    ("SIZE", "Size"),
];
const COLUMNS: Columns =
    &[("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")];
const WITH_DIGESTS: Columns = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

pub(super) fn run(session: &Session, args: ImagesArgs) -> Outcome {
    let filter = filter(args.name, &args.filter)?;
    let content = session.content()?;
    let found = images::list(&content, &filter).map_err(|error| CommandError::diagnostic(&error))?;
    let digests = args.digests || args.list.format.as_deref().is_some_and(|format| format.contains(".Digest"));
    let rows = images::rows(&found, digests);
    if args.list.quiet {
        let mut ids: Vec<String> = rows.iter().map(|row| id(row, args.list.no_trunc)).collect();
        ids.dedup();
        return print(ids.into_iter().map(|id| id + "\n").collect::<String>());
    }
    let now = SystemTime::now();
    let rows: Vec<Row> = rows.iter().map(|row| fields(row, args.list.no_trunc, now)).collect();
    let columns = if args.digests { WITH_DIGESTS } else { COLUMNS };
    print(format::write(args.list.format.as_deref(), columns, HEADINGS, &rows)?)
}

fn fields(row: &ImageRow, no_trunc: bool, now: SystemTime) -> Row {
    let none = || "<none>".to_owned();
    format::row([
        ("Repository", row.repository.clone().unwrap_or_else(none)),
        ("Tag", row.tag.clone().unwrap_or_else(none)),
        ("Digest", row.digest.as_ref().map_or_else(none, ToString::to_string)),
        ("ID", id(row, no_trunc)),
        ("CreatedSince", units::ago(row.created.map(SystemTime::from), now)),
        ("CreatedAt", units::created_at(row.created)),
        ("Size", units::size(row.size)),
        // Docker's templates have these too; nothing here counts them.
        ("Containers", "N/A".to_owned()),
        ("SharedSize", "N/A".to_owned()),
        ("UniqueSize", "N/A".to_owned()),
    ])
}

fn id(row: &ImageRow, no_trunc: bool) -> String {
    if no_trunc { row.id.to_string() } else { row.id.digest().short().to_owned() }
}

/// `--filter KEY=VALUE`.
pub(super) fn filter(name: Option<String>, given: &[String]) -> Result<ListFilter, CommandError> {
    let mut filter = ListFilter { references: name.into_iter().collect(), ..ListFilter::default() };
    for text in given {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| CommandError::usage(format!("filter `{text}` is not of the form `KEY=VALUE`")))?;
        let value = value.to_owned();
        match key {
            "dangling" => {
                filter.dangling = Some(match value.as_str() {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(CommandError::usage(format!("filter `{text}`: expected `true` or `false`"))),
                });
            }
            "label" => filter.labels.push(value),
            "before" => filter.before = Some(value),
            "since" => filter.since = Some(value),
            "reference" => filter.references.push(value),
            "until" => filter.until = Some(units::until(&value)?),
            _ => {
                return Err(CommandError::usage(format!("unknown filter `{key}`"))
                    .with_hint("the filters are dangling, label, before, since, until, reference"));
            }
        }
    }
    Ok(filter)
}
