//! `rbuild save`.

use std::io::{self, IsTerminal as _};

use builder_core::build::images::{self, SaveFormat};

use super::{Outcome, task};
use crate::args::SaveArgs;
use crate::command_error::CommandError;
use crate::session::Session;

pub(super) fn run(session: &Session, args: &SaveArgs) -> Outcome {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(CommandError::usage("an archive would be written to the terminal")
            .with_hint("redirect standard output, or name a file with `--output`"));
    }
    let engine = session.engine()?;
    task::run(&engine, "saving", false, |context| match &args.output {
        Some(file) => images::save(context, &args.images, SaveFormat::Docker, &session.environment.absolute(file)),
        None => images::save_to(context, &args.images, SaveFormat::Docker, &mut io::stdout().lock()),
    })?;
    Ok(0)
}
