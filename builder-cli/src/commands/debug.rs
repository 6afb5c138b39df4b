//! `rbuild debug`: what the builder makes of a Dockerfile.

use builder_core::dockerfile;

use super::{Outcome, print};
use crate::args::DebugCommand;
use crate::command_error::CommandError;
use crate::request;
use crate::session::Session;

pub(super) fn run(session: &Session, command: DebugCommand) -> Outcome {
    match command {
        DebugCommand::Ast { file } => {
            let source = request::read_file(&file, &session.environment)?;
            let parsed = dockerfile::parse(&source).map_err(|errors| CommandError::diagnostics(errors.iter()))?;
            print(format!("{parsed:#?}\n"))
        }
        DebugCommand::Graph(_) => Err(CommandError::failed("not there yet")),
    }
}
