//! `rbuild history`: of an image with its name, of builds with a subcommand.

use clap::{Args, Subcommand};

use super::images::ListArgs;

/// `rbuild history`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct HistoryArgs {
    /// What to do with recorded builds.
    #[command(subcommand)]
    pub(crate) builds: Option<BuildsCommand>,
    /// Name or id of an image; one that is called like a subcommand needs its tag, as `ls:latest`
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) image: Option<String>,
    /// How it is shown.
    #[command(flatten)]
    pub(crate) shown: ShownHistoryArgs,
}

/// `rbuild image history`
#[derive(Debug, Clone, Args)]
pub(crate) struct ImageHistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// How it is shown.
    #[command(flatten)]
    pub(crate) shown: ShownHistoryArgs,
}

/// How the history of an image is shown
#[derive(Debug, Clone, Args)]
pub(crate) struct ShownHistoryArgs {
    /// Sizes and times for people; `--human=false` for machines
    #[arg(
        short = 'H', long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true", value_parser = clap::value_parser!(bool), action = clap::ArgAction::Set,
        hide_possible_values = true
    )]
    pub(crate) human: bool,
    /// How its entries are shown.
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `rbuild history ls|inspect|logs|rm`, docker's `buildx history`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BuildsCommand {
    /// List builds, newest first
    Ls(BuildsLsArgs),
    /// Show everything about a build
    Inspect(BuildsInspectArgs),
    /// Print what the steps of a build wrote
    Logs(BuildsLogsArgs),
    /// Forget builds
    Rm(BuildsRmArgs),
}

/// `rbuild history ls`
#[derive(Debug, Clone, Args)]
pub(crate) struct BuildsLsArgs {
    /// Only these: `status=completed`, `name=TEXT`, `ref=ID`, `startedAt>24h`, `until=24h`, `duration>10s` (repeatable)
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// How they are shown.
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `rbuild history inspect`
#[derive(Debug, Clone, Args)]
pub(crate) struct BuildsInspectArgs {
    /// Id or its beginning, `latest`, or `^N` for the Nth before the latest
    #[arg(value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// `pretty`, `json`, or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// `rbuild history logs`
#[derive(Debug, Clone, Args)]
pub(crate) struct BuildsLogsArgs {
    /// Id or its beginning, `latest`, or `^N` for the Nth before the latest
    #[arg(value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// Only this step, as it was written: its number in `inspect`, or a part of its name that no other has
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// `plain`, or `rawjson`: one JSON object a line, as a build writes them
    #[arg(long, value_name = "MODE", default_value = "plain", value_parser = ["plain", "rawjson"])]
    pub(crate) progress: String,
}

/// `rbuild history rm`
#[derive(Debug, Clone, Args)]
pub(crate) struct BuildsRmArgs {
    /// Ids or their beginnings, `latest`, `^N`
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    pub(crate) builds: Vec<String>,
    /// All builds
    #[arg(long, conflicts_with = "builds")]
    pub(crate) all: bool,
}

/// `rbuild explain`
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// Id of a build or its beginning, `latest`, or `^N` for the Nth before the latest
    #[arg(value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// Only this step: its number, or a part of its name that no other has
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}
