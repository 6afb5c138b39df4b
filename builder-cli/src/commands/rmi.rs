//! `rbuild rmi`.

use builder_core::build::images::{self, ImageError, RemoveOptions};

use super::{Outcome, print};
use crate::args::RmiArgs;
use crate::command_error::CommandError;
use crate::session::Session;

/// Removes what it can, and fails at the end if something could not be removed.
pub(super) fn run(session: &Session, args: &RmiArgs) -> Outcome {
    let content = session.content()?;
    let mut errors = Vec::new();
    for name in &args.images {
        match images::remove(&content, name, RemoveOptions { force: args.force }) {
            Ok(removed) => {
                print(removed.iter().map(|removed| format!("{removed}\n")).collect::<String>())?;
            }
            Err(ImageError::NoSuchImage { .. }) if args.force => {}
            Err(error) => errors.push(CommandError::diagnostic(&error)),
        }
    }
    CommandError::all(errors).map(|()| 0)
}
