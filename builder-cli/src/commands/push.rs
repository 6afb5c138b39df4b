//! `rbuild push`.

use builder_core::build::images::{self, Pushed};
use builder_core::export::PushedLayer;
use builder_core::oci::Compression;

use super::{Outcome, print, task};
use crate::args::PushArgs;
use crate::command_error::CommandError;
use crate::request::values;
use crate::session::Session;

pub(super) fn run(session: &Session, args: &PushArgs) -> Outcome {
    let name = values::reference(&args.name)?;
    if args.all_tags && args.name.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
        return Err(CommandError::usage("--all-tags needs a name without a tag"));
    }
    let engine = session.engine()?;
    let names = if args.all_tags {
        images::names_in_repository(engine.content(), &name).map_err(|error| CommandError::diagnostic(&error))?
    } else {
        vec![name.clone()]
    };
    if !args.quiet {
        print(format!("The push refers to repository [{}]\n", name.repository()))?;
    }
    let pushed = task::run(&engine, &format!("pushing {}", name.familiar()), args.quiet, |context| {
        names.iter().map(|name| images::push(context, name, Compression::default())).collect::<Result<Vec<_>, _>>()
    })?;
    for pushed in &pushed {
        print(if args.quiet { format!("{}\n", pushed.name) } else { shown(pushed) })?;
    }
    Ok(0)
}

/// What docker says about a push.
fn shown(pushed: &Pushed) -> String {
    let mut text = String::new();
    for (digest, layer) in &pushed.layers {
        let state = match layer {
            PushedLayer::Sent => "Pushed".to_owned(),
            PushedLayer::Exists => "Layer already exists".to_owned(),
            PushedLayer::Mounted(from) => format!("Mounted from {from}"),
        };
        text.push_str(&format!("{}: {state}\n", digest.short()));
    }
    let tag = pushed.name.tag().unwrap_or("latest");
    text.push_str(&format!("{tag}: digest: {} size: {}\n", pushed.manifest.digest, pushed.manifest.size));
    text
}
