//! `rbuild cache export` and `rbuild cache import`: a cache elsewhere without a build.

use builder_core::build::{CacheExported, CacheImport, CacheImported, CacheSelection};
use builder_core::remote::{CacheDestination, MountChoice};
use serde_json::{Value, json};

use super::{Outcome, print, task};
use crate::args::{CacheExportArgs, CacheImportArgs};
use crate::command_error::CommandError;
use crate::request::{caches, values};
use crate::session::Session;
use crate::ui::{self, units};

pub(super) fn export(session: &Session, args: &CacheExportArgs) -> Outcome {
    let (destinations, inline) = caches::destinations("cache export", &args.destinations, &session.environment)?;
    if inline {
        return Err(CommandError::usage("an inline cache is part of an image, and cannot be sent by itself")
            .with_hint("build the image with `--cache-to type=inline`"));
    }
    let engine = session.engine()?;
    let selection = match (&args.build, &args.image) {
        (Some(build), _) => {
            let id = engine.history().find(build).map_err(|error| CommandError::diagnostic(&error))?;
            CacheSelection::Build(id)
        }
        (None, Some(image)) => CacheSelection::Image(image.clone()),
        (None, None) if args.key.is_empty() => CacheSelection::Everything,
        (None, None) => CacheSelection::Keys(args.key.clone()),
    };
    for destination in &destinations {
        let name = format!("exporting cache to {}", destination.place);
        let exported =
            task::run(&engine, &name, args.json, |context| engine.export_cache(&selection, destination, context))?;
        for id in &exported.busy_mounts {
            ui::warning(&format!("cache mount `{id}` was not sent: a build uses it"));
        }
        let place = destination.place.to_string();
        print(if args.json { as_json(&place, &exported) } else { sent(destination, &exported) })?;
    }
    Ok(0)
}

pub(super) fn import(session: &Session, args: &CacheImportArgs) -> Outcome {
    let sources = caches::sources("cache import", &args.sources, &session.environment)?;
    let platforms = args.platform.iter().map(|text| values::platform(text)).collect::<Result<_, _>>()?;
    let mounts = args.mounts.as_deref().map_or(MountChoice::Nothing, MountChoice::parse);
    let options = CacheImport { layers: args.layers, mounts, platforms };
    let engine = session.engine()?;
    let mut damaged = false;
    for source in &sources {
        let place = source.place.to_string();
        let name = format!("importing cache from {place}");
        let imported = task::run(&engine, &name, args.json, |context| engine.import_cache(source, &options, context))?;
        for what in &imported.damaged {
            ui::warning(what);
        }
        damaged |= !imported.damaged.is_empty();
        print(if args.json { as_json(&place, &imported) } else { brought(&place, &options, &imported) })?;
    }
    Ok(u8::from(damaged))
}

fn as_json(place: &str, done: &impl serde::Serialize) -> String {
    let mut object = json!({ "place": place.trim_matches('`') });
    if let (Value::Object(object), Ok(Value::Object(done))) = (&mut object, serde_json::to_value(done)) {
        object.extend(done);
    }
    format!("{object}\n")
}

/// The summary of an export.
fn sent(destination: &CacheDestination, exported: &CacheExported) -> String {
    let place = &destination.place;
    if exported.results == 0 && exported.mounts.is_empty() {
        return format!("{place}: nothing to send, the store has no results; what is there stays\n");
    }
    let mut parts = vec![count(exported.results, "result"), count(exported.layers, "layer")];
    if exported.without_files > 0 {
        parts.push(format!("{} without files here", count(exported.without_files, "layer")));
    }
    if !exported.mounts.is_empty() {
        parts.push(count(exported.mounts.len(), "cache mount"));
    }
    let sent = match exported.sent {
        0 => "nothing to send".to_owned(),
        blobs => format!("{} sent ({})", count(blobs, "blob"), units::size(exported.sent_bytes)),
    };
    format!("{place}: {}; {sent}, {} there already\n", parts.join(", "), exported.present)
}

/// The summary of an import.
fn brought(place: &str, options: &CacheImport, imported: &CacheImported) -> String {
    let mut parts = vec![of("result", imported.results, imported.known_results)];
    if options.layers {
        parts.push(of("layer", imported.layers, imported.known_layers));
    }
    if options.mounts != MountChoice::Nothing {
        parts.push(of("cache mount", imported.mounts.len(), imported.known_mounts.len()));
    }
    if imported.useless > 0 {
        parts.push(format!("{} without their layers", count(imported.useless, "result")));
    }
    format!("{place}: {}\n", parts.join(", "))
}

fn of(what: &str, new: usize, known: usize) -> String {
    format!("{} ({known} here already)", count(new, &format!("new {what}")))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
