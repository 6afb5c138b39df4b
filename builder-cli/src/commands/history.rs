//! `rbuild history IMAGE`.

use std::time::SystemTime;

use builder_core::build::images::{self, HistoryRow};
use builder_core::diagnostic::nearest;
use builder_core::history::BuildId;

use super::format::{self, Columns, Row};
use super::{Outcome, print};
use crate::args::{HistoryArgs, ShownHistoryArgs};
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui::units;

const COLUMNS: Columns = &[
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];
const EXACT: Columns = &[
    ("IMAGE", "ID"),
    ("CREATED AT", "CreatedAt"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];
const HEADINGS: Columns = &[
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED AT", "CreatedAt"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

/// Characters of a command that are shown.
const MAX_COMMAND: usize = 45;

pub(super) fn run(session: &Session, args: &HistoryArgs) -> Outcome {
    let image = args.image.as_deref().expect("without a subcommand an image is required");
    let args = &args.shown;
    let rows = images::history(&session.content()?, image).map_err(|error| match meant(image) {
        Some(meant) => {
            CommandError::failed(error.to_string()).with_hint(format!("did you mean `rbuild history {meant}`?"))
        }
        None => CommandError::diagnostic(&error),
    })?;
    if args.list.quiet {
        return print(rows.iter().map(|row| id(row, args.list.no_trunc) + "\n").collect::<String>());
    }
    let now = SystemTime::now();
    let rows: Vec<Row> = rows.iter().map(|row| fields(row, args, now)).collect();
    let columns = if args.human { COLUMNS } else { EXACT };
    print(format::write(args.list.format.as_deref(), columns, HEADINGS, &rows)?)
}

fn fields(row: &HistoryRow, args: &ShownHistoryArgs, now: SystemTime) -> Row {
    let command = row.created_by.replace(['\t', '\n'], " ");
    let command = if args.list.no_trunc || command.chars().count() <= MAX_COMMAND {
        command
    } else {
        command.chars().take(MAX_COMMAND - 1).collect::<String>() + "…"
    };
    format::row([
        ("ID", id(row, args.list.no_trunc)),
        ("CreatedSince", units::ago(row.created.map(SystemTime::from), now)),
        ("CreatedAt", row.created.map_or_else(|| "N/A".to_owned(), |at| at.to_string())),
        ("CreatedBy", command),
        ("Size", if args.human { units::size(row.size) } else { row.size.to_string() }),
        ("Comment", row.comment.clone()),
    ])
}

/// What was meant by a name that is no image: a subcommand, or what is known of a build.
fn meant(name: &str) -> Option<String> {
    if name.parse::<BuildId>().is_ok() {
        return Some(format!("inspect {name}"));
    }
    nearest(name, ["ls", "inspect", "logs", "rm"]).map(str::to_owned)
}

fn id(row: &HistoryRow, no_trunc: bool) -> String {
    match &row.id {
        None => "<missing>".to_owned(),
        Some(id) if no_trunc => id.to_string(),
        Some(id) => id.digest().short().to_owned(),
    }
}
