//! `rbuild push`.

use builder_core::build::images;
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
        let tag = pushed.name.tag().unwrap_or("latest");
        print(if args.quiet {
            format!("{}\n", pushed.name)
        } else {
            format!("{tag}: digest: {} size: {}\n", pushed.manifest.digest, pushed.manifest.size)
        })?;
    }
    Ok(0)
}
