//! `rbuild login`.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use builder_core::cancel::CancelToken;
use builder_core::registry::{CredentialPlace, Registry};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{Outcome, print};
use crate::args::LoginArgs;
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui;

/// The longest password that is read, in bytes; tokens of clouds have some kilobytes.
const MAX_PASSWORD: u64 = 1 << 20;

pub(super) fn run(session: &Session, args: &LoginArgs) -> Outcome {
    let domain = domain(args.server.as_deref())?;
    let (username, password) = credentials(args)?;
    let registry = Registry::new(session.registry()?);
    let place = registry
        .login(&domain, &username, &password, &CancelToken::new())
        .map_err(|error| CommandError::diagnostic(&error))?;
    if let CredentialPlace::File(path) = place {
        ui::warning(&format!("the password is kept unencrypted in `{}`", path.display()));
    }
    print("Login Succeeded\n")
}

/// `https://registry.example:5000/` as people paste it.
pub(super) fn domain(server: Option<&str>) -> Result<String, CommandError> {
    let Some(server) = server else { return Ok("docker.io".to_owned()) };
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let bare = bare.trim_end_matches('/');
    if bare == "index.docker.io/v1" || bare == "index.docker.io" || bare == "registry-1.docker.io" {
        return Ok("docker.io".to_owned());
    }
    // A registry is what may stand before the first slash of a name.
    let valid = format!("{bare}/x").parse::<builder_core::oci::Reference>();
    match valid {
        Ok(reference) if reference.domain() == bare => Ok(bare.to_owned()),
        _ => Err(CommandError::usage(format!("`{server}` is not a registry")).with_hint("write `HOST` or `HOST:PORT`")),
    }
}

fn credentials(args: &LoginArgs) -> Result<(String, String), CommandError> {
    if args.password_stdin {
        let Some(username) = args.username.clone() else {
            return Err(CommandError::usage("--password-stdin needs --username"));
        };
        let mut password = String::new();
        io::stdin()
            .lock()
            .take(MAX_PASSWORD)
            .read_to_string(&mut password)
            .map_err(|error| CommandError::io("cannot read the password", &error))?;
        return Ok((username, password.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if args.password.is_some() {
        ui::warning("other users of this machine can see a password on the command line; use --password-stdin");
    }
    let missing = args.username.is_none() || args.password.is_none();
    if missing && !io::stdin().is_terminal() {
        return Err(CommandError::usage("there is no terminal to ask for credentials")
            .with_hint("give --username and --password-stdin"));
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ", true)?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None => ask("Password: ", false)?,
    };
    Ok((username, password))
}

/// Asks on the terminal, without showing the answer if `echo` is not set.
fn ask(question: &str, echo: bool) -> Result<String, CommandError> {
    ui::print_error(question);
    let fail = |error: io::Error| CommandError::io("cannot read from the terminal", &error);
    let stdin = io::stdin();
    let before = if echo { None } else { Some(tcgetattr(&stdin).map_err(|error| fail(error.into()))?) };
    if let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent).map_err(|error| fail(error.into()))?;
    }
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    if let Some(before) = &before {
        tcsetattr(&stdin, OptionalActions::Now, before).map_err(|error| fail(error.into()))?;
        ui::print_error("\n");
    }
    read.map_err(fail)?;
    let answer = answer.trim_end_matches(['\r', '\n']).to_owned();
    if answer.is_empty() { Err(CommandError::usage("the answer is empty")) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_registries() {
        for (server, expected) in [
            (None, Some("docker.io")),
            (Some("https://index.docker.io/v1/"), Some("docker.io")),
            (Some("127.0.0.1:5000"), Some("127.0.0.1:5000")),
            (Some("https://r.example/"), Some("r.example")),
            (Some("localhost"), Some("localhost")),
            (Some("r.example/team"), None),
            (Some("a b"), None),
            (Some(""), None),
        ] {
            assert_eq!(domain(server).ok().as_deref(), expected, "{server:?}");
        }
    }
}
