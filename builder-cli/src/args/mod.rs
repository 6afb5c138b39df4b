//! The command line as it is typed. Nothing here has a meaning yet: defaults that depend on the environment, and
//! conflicts, are settled in [`crate::request`].

mod build;
mod history;
mod images;
mod lock;
mod normalize;
mod run;
mod steps;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub(crate) use build::{
    BuildArgs, Call, CallFormat, CheckFormat, ContextModeArg, EditArgs, LimitArgs, PullArg, RefusedArgs, UselessArgs,
};
pub(crate) use history::{
    BuildsCommand, BuildsInspectArgs, BuildsLogsArgs, BuildsLsArgs, BuildsRmArgs, ExplainArgs, HistoryArgs,
    ImageHistoryArgs, ShownHistoryArgs,
};
pub(crate) use images::{
    CacheExportArgs, CacheImportArgs, CacheInspectArgs, CacheLsArgs, CacheProbeArgs, CacheVerifyArgs, DuArgs,
    ImagesArgs, InspectArgs, LoadArgs, LoginArgs, LogoutArgs, PruneArgs, PullArgs, PushArgs, RmiArgs, SaveArgs,
    TagArgs, VersionArgs,
};
pub(crate) use lock::{LockAction, LockCommand};
pub(crate) use normalize::{mistaken_command, nearest_command, normalize};
pub(crate) use run::{RunArgs, RunNetwork};
pub(crate) use steps::StepArgs;

/// Builds container images from Dockerfiles, without a daemon
///
/// `rbuild -t app:1.0 .` is short for `rbuild build -t app:1.0 .`
#[derive(Debug, Parser)]
#[command(
    name = "rbuild",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Reads a command line. Of an option that can be given once, the last one counts, as in docker.
pub(crate) fn parse(typed: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&last_counts(Cli::command()).try_get_matches_from(typed)?)
}

fn last_counts(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::Set | ArgAction::SetTrue if !arg.is_positional() => {
            let id = arg.get_id().clone();
            arg.overrides_with(id)
        }
        _ => arg,
    });
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, last_counts))
}

/// Options of every command
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct GlobalArgs {
    /// Directory of images and build cache [default: /var/lib/rbuild for root, else ~/.local/share/rbuild]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

    /// Configuration file [default: ~/.config/rbuild/config.json, /etc/rbuild/config.json]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Ask this address first when pulling, as `docker.io=http://127.0.0.1:5001` (repeatable)
    #[arg(long, global = true, value_name = "[REGISTRY=]ADDRESS")]
    pub(crate) registry_mirror: Vec<String>,

    /// Allow plain HTTP and any certificate for this registry (repeatable)
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub(crate) insecure_registry: Vec<String>,
}

/// The commands
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(alias = "b")]
    Build(Box<BuildArgs>),
    /// Create and run a container from an image
    Run(Box<RunArgs>),
    /// Send an image to its registry
    Push(PushArgs),
    /// Fetch an image from a registry
    Pull(PullArgs),
    /// List images
    Images(ImagesArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Remove images or their names
    Rmi(RmiArgs),
    /// Show everything about images, as JSON
    Inspect(InspectArgs),
    /// Show how an image was made; `ls`, `inspect`, `logs`, `rm`: the builds that were tried
    History(HistoryArgs),
    /// Say why the steps of a build ran, or did not
    Explain(ExplainArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Read images from an archive
    Load(LoadArgs),
    /// Keep credentials for a registry
    Login(LoginArgs),
    /// Forget credentials for a registry
    Logout(LogoutArgs),
    /// Remove what nothing needs from the store
    Prune(PruneArgs),
    /// Show what the store takes on disk
    Du(DuArgs),
    /// Look after the build cache
    Cache {
        /// What to do.
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// What names of images and addresses stand for, in `rbuild.lock`
    Lock {
        /// What to do.
        #[command(subcommand)]
        command: LockCommand,
    },
    /// Show the version
    Version(VersionArgs),
    /// Look into the builder: syntax tree, graph
    Debug {
        /// What to look at.
        #[command(subcommand)]
        command: DebugCommand,
    },
    /// Write a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// What a subcommand of `history` stands for.
    #[command(skip)]
    Builds(BuildsCommand),
    /// Manage images, as `docker image`
    #[command(hide = true)]
    Image {
        /// What to do.
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Manage builds, as `docker builder` and `docker buildx`
    #[command(hide = true, alias = "buildx")]
    Builder {
        /// What to do.
        #[command(subcommand)]
        command: BuilderCommand,
    },
    /// As `docker system`
    #[command(hide = true)]
    System {
        /// What to do.
        #[command(subcommand)]
        command: SystemCommand,
    },
}

/// `rbuild debug`
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Print the syntax tree of a Dockerfile as JSON
    Ast {
        /// The Dockerfile, or `-` for standard input
        #[arg(default_value = "Dockerfile")]
        file: PathBuf,
    },
    /// Expand words: JSON requests `[{"mode": "word", "input": "$A", "env": ["A=1"]}]` become JSON answers
    Words {
        /// The requests, or `-` for standard input
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Print the graph of a Dockerfile; base images that are not in the store count as empty
    Graph(DebugGraphArgs),
}

/// `rbuild debug graph`
#[derive(Debug, Args)]
pub(crate) struct DebugGraphArgs {
    /// Form of the graph
    #[arg(long, value_enum, default_value_t = GraphFormat::Dot)]
    pub(crate) format: GraphFormat,
    /// Stage to draw
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Set a variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Platform of the image
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// The Dockerfile, or `-` for standard input
    #[arg(default_value = "Dockerfile")]
    pub(crate) file: PathBuf,
}

/// Form of a graph
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GraphFormat {
    /// Graphviz
    Dot,
    /// JSON
    Json,
}

/// `rbuild cache`
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List what is in the build cache, as `docker buildx du`
    #[command(alias = "du")]
    Ls(CacheLsArgs),
    /// Show what a result was made of: its step, every input, its layer
    Inspect(CacheInspectArgs),
    /// Say which steps of a build are known here and in each `--cache-from`, and what of the others has no match; ends
    /// with 1 if something would run
    Probe(Box<CacheProbeArgs>),
    /// Remove what nothing needs from the build cache
    Prune(PruneArgs),
    /// Read the whole store again and find what is damaged
    Verify(CacheVerifyArgs),
    /// Send results of the store elsewhere, as `build --cache-to` does with those of a build
    Export(CacheExportArgs),
    /// Bring everything that a cache elsewhere has into the store
    Import(CacheImportArgs),
    /// The directories of RUN --mount=type=cache
    Mounts {
        /// What to do.
        #[command(subcommand)]
        command: CacheMountsCommand,
    },
}

/// `rbuild cache mounts`
#[derive(Debug, Subcommand)]
pub(crate) enum CacheMountsCommand {
    /// List cache mounts
    Ls {
        /// `table`, `json`, or a Go template
        #[arg(long, value_name = "TEMPLATE")]
        format: Option<String>,
    },
    /// Remove cache mounts
    Rm {
        /// What steps call them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Write a cache mount to a file
    Export {
        /// What steps call it
        #[arg(value_name = "ID")]
        id: String,
        /// The file; standard output if unset
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read a cache mount from a file; what it held before is gone
    Import {
        /// The file, or `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `rbuild image`
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Show how an image was made
    History(ImageHistoryArgs),
    /// Show everything about images, as JSON
    Inspect(InspectArgs),
    /// Read images from an archive
    Load(LoadArgs),
    /// List images
    #[command(alias = "list")]
    Ls(ImagesArgs),
    /// Remove what nothing needs from the store
    Prune(PruneArgs),
    /// Fetch an image from a registry
    Pull(PullArgs),
    /// Send an image to its registry
    Push(PushArgs),
    /// Remove images or their names
    #[command(alias = "remove")]
    Rm(RmiArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Give an image another name
    Tag(TagArgs),
}

/// `rbuild builder`
#[derive(Debug, Subcommand)]
pub(crate) enum BuilderCommand {
    /// Build an image from a Dockerfile
    #[command(alias = "b")]
    Build(Box<BuildArgs>),
    /// Remove what nothing needs from the store
    Prune(PruneArgs),
    /// List what is in the build cache
    Du(CacheLsArgs),
    /// The builds that were tried
    History {
        /// What to do with them.
        #[command(subcommand)]
        command: BuildsCommand,
    },
    /// Show the version
    Version(VersionArgs),
}

/// `rbuild system`
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Show what the store takes on disk
    Df(DuArgs),
    /// Remove what nothing needs from the store
    Prune(PruneArgs),
}

impl Command {
    /// The command that a name of docker's management commands stands for.
    pub(crate) fn canonical(self) -> Self {
        match self {
            Self::History(HistoryArgs { builds: Some(command), .. }) => Self::Builds(command),
            Self::Image { command } => match command {
                ImageCommand::Build(args) => Self::Build(args),
                ImageCommand::History(args) => {
                    Self::History(HistoryArgs { builds: None, image: Some(args.image), shown: args.shown })
                }
                ImageCommand::Inspect(args) => Self::Inspect(args),
                ImageCommand::Load(args) => Self::Load(args),
                ImageCommand::Ls(args) => Self::Images(args),
                ImageCommand::Prune(args) => Self::Prune(PruneArgs { images_only: true, ..args }),
                ImageCommand::Pull(args) => Self::Pull(args),
                ImageCommand::Push(args) => Self::Push(args),
                ImageCommand::Rm(args) => Self::Rmi(args),
                ImageCommand::Save(args) => Self::Save(args),
                ImageCommand::Tag(args) => Self::Tag(args),
            },
            Self::Builder { command } => match command {
                BuilderCommand::Build(args) => Self::Build(args),
                BuilderCommand::Prune(args) => Self::Prune(PruneArgs { cache_only: true, ..args }),
                BuilderCommand::Du(args) => Self::Cache { command: CacheCommand::Ls(args) },
                BuilderCommand::History { command } => Self::Builds(command),
                BuilderCommand::Version(args) => Self::Version(args),
            },
            Self::Cache { command: CacheCommand::Prune(args) } => Self::Prune(PruneArgs { cache_only: true, ..args }),
            Self::System { command } => match command {
                SystemCommand::Df(args) => Self::Du(args),
                SystemCommand::Prune(args) => Self::Prune(args),
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
