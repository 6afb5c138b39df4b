//! `rbuild lock`.

use clap::{Args, Subcommand};

use super::BuildArgs;

/// `rbuild lock`
#[derive(Debug, Subcommand)]
pub(crate) enum LockCommand {
    /// Ask what the sources of a Dockerfile stand for now, and write that into `rbuild.lock`
    Update(Box<LockUpdateArgs>),
    /// Say which sources changed since they were locked, are missing in `rbuild.lock`, or are not used; ends with 1 if
    /// some changed or are missing
    Check(Box<LockCheckArgs>),
}

/// `rbuild lock update`
#[derive(Debug, Clone, Args)]
#[command(mut_arg("context", |context| context.required(false).default_value(".")))]
pub(crate) struct LockUpdateArgs {
    /// Renew these sources only: an image as `alpine` or `alpine:3.20`, or the beginning of an address (repeatable)
    #[arg(long, value_name = "SOURCE")]
    pub(crate) only: Vec<String>,
    /// Take out what no stage of the Dockerfile uses
    #[arg(long)]
    pub(crate) prune: bool,
    /// What would be built.
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// `rbuild lock check`
#[derive(Debug, Clone, Args)]
#[command(mut_arg("context", |context| context.required(false).default_value(".")))]
pub(crate) struct LockCheckArgs {
    /// What would be built.
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// What `rbuild lock` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockAction {
    /// Write what sources stand for now.
    Update {
        /// Take out what is not used.
        prune: bool,
    },
    /// Only say what changed.
    Check,
}

impl LockCommand {
    /// As a build that does not build.
    pub(crate) fn into_build(self) -> BuildArgs {
        match self {
            Self::Update(args) => {
                let LockUpdateArgs { only, prune, build } = *args;
                BuildArgs { lock_action: Some(LockAction::Update { prune }), lock_only: only, ..build }
            }
            Self::Check(args) => BuildArgs { lock_action: Some(LockAction::Check), ..args.build },
        }
    }
}
