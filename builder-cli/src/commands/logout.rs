//! `rbuild logout`.

use builder_core::cancel::CancelToken;
use builder_core::registry::Registry;

use super::login::domain;
use super::{Outcome, print};
use crate::args::LogoutArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui;

pub(super) fn run(session: &Session, args: &LogoutArgs) -> Outcome {
    let domain = domain(args.server.as_deref())?;
    let registry = Registry::new(session.registry()?);
    let place = registry.logout(&domain, &CancelToken::new()).map_err(|error| CommandError::diagnostic(&error))?;
    if place.is_none() {
        ui::note(&format!("there were no credentials for {domain}"));
    }
    print(format!("Removing login credentials for {domain}\n"))
}
