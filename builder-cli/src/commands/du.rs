//! `rbuild du`, docker's `system df`.

use builder_core::build::images::Usage;
use builder_core::build::{DiskUsage, Engine};
use builder_core::cancel::CancelToken;
use builder_core::content::ImageRecord;
use serde_json::json;

use super::format::{self, Columns, Row};
use super::{Outcome, cache_items, print};
use crate::args::DuArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::template::Template;
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
    if let Some(format) = args.format.as_deref().filter(|format| args.verbose && !matches!(*format, "" | "table")) {
        return print(everything(&engine, &usage, format)?);
    }
    let rows = [row("Images", usage.images.all), row("Build Cache", usage.build_cache)];
    let mut text = format::write(args.format.as_deref(), COLUMNS, COLUMNS, &rows)?;
    if args.verbose {
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

/// Each image and each item, as one object.
fn everything(engine: &Engine, usage: &DiskUsage, format: &str) -> Result<String, CommandError> {
    let image = |(image, unique): &(ImageRecord, u64)| {
        format::row([
            ("ID", image.id.to_string()),
            ("CreatedAt", units::created_at(jiff::Timestamp::from_second(image.created).ok())),
            ("Size", units::size(image.size)),
            ("UniqueSize", units::size(*unique)),
            ("SharedSize", units::size(image.size.saturating_sub(*unique))),
        ])
    };
    let images: Vec<Row> = usage.images.each.iter().map(image).collect();
    let whole = json!({ "Images": images, "BuildCache": cache_items::for_disk(engine)? });
    Ok(match format {
        "json" => whole.to_string(),
        template => Template::parse(template)?.render(&whole)?,
    } + "\n")
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
