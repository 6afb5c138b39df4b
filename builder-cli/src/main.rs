//! `rbuild`: builds container images from Dockerfiles.
//!
//! ```text
//! argv ── args ──▶ Cli ── request ──▶ BuildRequest ── commands ──▶ builder-core ── events ──▶ ui
//! ```
//!
//! No build logic is here. `ui` alone prints; `command_error` alone decides exit codes.
#![expect(clippy::format_push_string, clippy::format_collect, reason = "texts for people are short")]

mod args;
mod cache_filter;
mod command_error;
mod commands;
mod config_file;
mod environment;
mod request;
mod session;
mod signals;
mod template;
mod ui;
mod user_file;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::command_error::{CommandError, Kind};

fn main() -> ExitCode {
    let typed: Vec<_> = std::env::args_os().collect();
    let cli = match args::parse(args::normalize(typed.clone())) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &typed),
    };
    match commands::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui::print_error(&error.render(ui::paint()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help and version go to standard output; what is wrong with the command line to standard error.
fn usage(error: &clap::Error, typed: &[OsString]) -> ExitCode {
    // Without anything to do docker shows its help, too.
    let help = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let code = if error.use_stderr() && !help { Kind::Usage.exit_code() } else { 0 };
    if error.kind() == clap::error::ErrorKind::UnknownArgument
        && let Some((word, nearest)) = args::mistaken_command(typed)
    {
        let error = CommandError::usage(format!("`{word}` is not a command"))
            .with_hint(format!("did you mean `rbuild {nearest}`?"));
        ui::print_error(&error.render(ui::paint()));
        return ExitCode::from(code);
    }
    match error.print() {
        Err(error) if code == 0 => ExitCode::from(CommandError::stdout(&error).exit_code()),
        _ => ExitCode::from(code),
    }
}
