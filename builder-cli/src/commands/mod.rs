//! One file a command. A command gives the exit code of the process.

mod build;
mod builds;
mod cache_by_hand;
mod cache_inspect;
mod cache_items;
mod cache_mounts;
mod cache_verify;
mod call;
mod debug;
mod dry_run;
mod du;
mod explain;
mod format;
mod history;
mod images;
mod inspect;
mod load;
mod lock;
mod login;
mod logout;
mod probe;
mod prune;
mod pull;
mod push;
mod rmi;
mod run;
mod save;
mod tag;
mod task;
mod verify;
mod version;

use std::io;

use clap::CommandFactory as _;

use crate::args::{BuildArgs, CacheCommand, CacheProbeArgs, Cli, Command};
use crate::command_error::CommandError;
use crate::session::Session;
use crate::ui;

/// Exit code, or why the command failed.
pub(crate) type Outcome = Result<u8, CommandError>;

/// Runs the command that was typed.
pub(crate) fn run(cli: Cli) -> Outcome {
    let session = Session::new(cli.global)?;
    match cli.command.canonical() {
        Command::Build(args) => build::run(&session, *args),
        Command::Run(args) => run::run(&session, *args),
        Command::Push(args) => push::run(&session, &args),
        Command::Pull(args) => pull::run(&session, &args),
        Command::Images(args) => images::run(&session, args),
        Command::Tag(args) => tag::run(&session, &args),
        Command::Rmi(args) => rmi::run(&session, &args),
        Command::Inspect(args) => inspect::run(&session, &args),
        Command::History(args) => history::run(&session, &args),
        Command::Explain(args) => explain::run(&session, &args),
        Command::Builds(command) => builds::run(&session, &command),
        Command::Save(args) => save::run(&session, &args),
        Command::Load(args) => load::run(&session, &args),
        Command::Login(args) => login::run(&session, &args),
        Command::Logout(args) => logout::run(&session, &args),
        Command::Prune(args) => prune::run(&session, &args),
        Command::Cache { command: CacheCommand::Ls(args) } => cache_items::run(&session, &args),
        Command::Cache { command: CacheCommand::Inspect(args) } => cache_inspect::run(&session, &args),
        Command::Cache { command: CacheCommand::Probe(args) } => {
            let CacheProbeArgs { json, build } = *args;
            build::run(&session, BuildArgs { probe: Some(json), ..build })
        }
        Command::Cache { command: CacheCommand::Verify(args) } => cache_verify::run(&session, &args),
        Command::Cache { command: CacheCommand::Export(args) } => cache_by_hand::export(&session, &args),
        Command::Cache { command: CacheCommand::Import(args) } => cache_by_hand::import(&session, &args),
        Command::Cache { command: CacheCommand::Mounts { command } } => cache_mounts::run(&session, command),
        Command::Lock { command } => build::run(&session, command.into_build()),
        Command::Du(args) => du::run(&session, &args),
        Command::Version(args) => version::run(&args),
        Command::Debug { command } => debug::run(&session, command),
        Command::Completion { shell } => completion(shell),
        Command::Image { .. }
        | Command::Builder { .. }
        | Command::System { .. }
        | Command::Cache { command: CacheCommand::Prune(_) } => {
            unreachable!("`canonical` leaves none of these")
        }
    }
}

fn completion(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rbuild", &mut script);
    print(script)
}

/// Prints a result.
fn print(text: impl AsRef<[u8]>) -> Outcome {
    ui::result(text).map(|()| 0).map_err(|error: io::Error| CommandError::stdout(&error))
}
