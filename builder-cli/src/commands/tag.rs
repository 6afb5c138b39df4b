//! `rbuild tag`.

use builder_core::build::images;

use super::Outcome;
use crate::args::TagArgs;
use crate::command_error::CommandError;
use crate::request::values;
use crate::session::Session;

pub(super) fn run(session: &Session, args: &TagArgs) -> Outcome {
    let target = values::reference(&args.target)?;
    images::tag(&session.content()?, &args.source, &target).map_err(|error| CommandError::diagnostic(&error))?;
    Ok(0)
}
