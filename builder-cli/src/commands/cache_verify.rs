//! `rbuild cache verify`: reads the whole store again.

use builder_core::build::{Damage, Verified};
use builder_core::cancel::CancelToken;
use serde_json::json;

use super::{Outcome, print};
use crate::args::CacheVerifyArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::signals::Signals;
use crate::ui::units;

pub(super) fn run(session: &Session, args: &CacheVerifyArgs) -> Outcome {
    let engine = session.engine()?;
    let cancel = CancelToken::new();
    let signals = Signals::watch(&cancel)?;
    let verified =
        engine.verify(args.repair, &cancel).map_err(|error| signals.explain(CommandError::diagnostic(&error)))?;
    print(if args.json { as_json(&verified) } else { as_text(&verified) })?;
    Ok(u8::from(!verified.damaged.is_empty() && !verified.repaired))
}

fn as_text(verified: &Verified) -> String {
    let Verified { blobs, trees, snapshots, records, bytes, damaged, repaired } = verified;
    let mut text: String = damaged.iter().map(line).collect();
    text.push_str(&format!(
        "Verified {blobs} blobs, {trees} trees, {snapshots} snapshots and {records} records: {}\n",
        units::size(*bytes)
    ));
    text.push_str(&match (damaged.len(), repaired) {
        (0, _) => "Nothing is damaged\n".to_owned(),
        (count, true) => format!("{count} damaged, removed: steps run again when they are needed\n"),
        (count, false) => format!("{count} damaged; `rbuild cache verify --repair` removes them\n"),
    });
    text
}

fn line(damage: &Damage) -> String {
    let mut text = format!("damaged {}: {}\n", damage.kind, damage.path.display());
    if !damage.images.is_empty() {
        text.push_str(&format!("  needed by {}: pull or build again\n", damage.images.join(", ")));
    }
    text
}

fn as_json(verified: &Verified) -> String {
    let damaged = verified.damaged.iter().map(|damage| {
        json!({"kind": damage.kind, "id": damage.id, "path": damage.path.to_string_lossy(), "images": damage.images})
    });
    let whole = json!({
        "blobs": verified.blobs, "trees": verified.trees, "snapshots": verified.snapshots, "records": verified.records,
        "bytes": verified.bytes, "damaged": damaged.collect::<Vec<_>>(), "repaired": verified.repaired,
    });
    format!("{whole:#}\n")
}
