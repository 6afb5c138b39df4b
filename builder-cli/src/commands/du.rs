//! `rbuild du`, docker's `system df`.

use builder_core::build::images::Usage;
use builder_core::cancel::CancelToken;

use super::format::{self, Columns, Row};
use super::{Outcome, cache_items, print};
use crate::args::DuArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui::units;

const COLUMNS: Columns = &[
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];
const EACH: Columns = &[("IMAGE ID", "ID"), ("SIZE", "Size"), ("UNIQUE SIZE", "UniqueSize")];

pub(super) fn run(session: &Session, args: &DuArgs) -> Outcome {
    let engine = session.engine()?;
    let usage = engine.disk_usage(&CancelToken::new()).map_err(|error| CommandError::diagnostic(&error))?;
    let rows = [row("Images", usage.images.all), row("Build Cache", usage.build_cache)];
    let mut text = format::write(args.format.as_deref(), COLUMNS, COLUMNS, &rows)?;
    if args.verbose && args.format.is_none() {
        let each: Vec<Row> = usage
            .images
            .each
            .iter()
            .map(|(image, unique)| {
                format::row([
                    ("ID", image.id.digest().short().to_owned()),
                    ("Size", units::size(image.size)),
                    ("UniqueSize", units::size(*unique)),
                ])
            })
            .collect();
        text.push('\n');
        text.push_str(&format::write(None, EACH, EACH, &each)?);
        text.push('\n');
        text.push_str(&cache_items::of_disk(&engine)?);
    }
    print(text)
}

fn row(kind: &str, usage: Usage) -> Row {
    let percent = (usage.reclaimable * 100).checked_div(usage.size).map(|percent| format!(" ({percent}%)"));
    format::row([
        ("Type", kind.to_owned()),
        ("TotalCount", usage.total.to_string()),
        ("Active", usage.active.to_string()),
        ("Size", units::size(usage.size)),
        ("Reclaimable", units::size(usage.reclaimable) + &percent.unwrap_or_default()),
    ])
}
