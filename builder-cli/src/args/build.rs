//! `rbuild build`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{LockAction, StepArgs};
use crate::ui::Mode;

/// Build an image from a Dockerfile
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags as typed")]
#[command(next_help_heading = "Build options")]
pub(crate) struct BuildArgs {
    /// Build context: a directory, an address, or `-` for an archive or a Dockerfile on standard input
    #[arg(value_name = "PATH | -")]
    pub(crate) context: PathBuf,

    /// Dockerfile, or `-` for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Name of the image, as `app:1.0` (repeatable)
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,

    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,

    /// Set a variable; without a value it is taken from the environment (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,

    /// Set the variables of a file with a line NAME=VALUE each (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) build_arg_file: Vec<PathBuf>,

    /// Further context for FROM and COPY --from: a directory, an address, `docker-image://NAME` or `oci-layout://DIRECTORY`
    /// (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,

    /// Which rights of files in directories count: `docker`: all; `git`: whether they may be executed [environment:
    /// `RBUILD_CONTEXT_MODE`]
    #[arg(long, value_enum, value_name = "MODE", hide_possible_values = true)]
    pub(crate) context_mode: Option<ContextModeArg>,

    /// Label of the image (repeatable)
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,

    /// Annotation of the manifest, or of `index:`, `manifest-descriptor:`, `index-descriptor:` (repeatable)
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,

    /// Platforms of the image, as `linux/arm64`, or `local`; several make an index [default: that of this machine]
    #[arg(long, value_delimiter = ',', value_name = "OS/ARCH[/VARIANT],...")]
    pub(crate) platform: Vec<String>,

    /// Build for every platform that all base images have
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL",
        conflicts_with = "platform"
    )]
    pub(crate) all_platforms: bool,

    /// Run every step although its result is known
    #[arg(
        help_heading = "Cache",
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub(crate) no_cache: bool,

    /// Run the steps of these stages although their results are known
    #[arg(help_heading = "Cache", long, value_delimiter = ',', value_name = "STAGE")]
    pub(crate) no_cache_filter: Vec<String>,

    /// Run commands again whose results are older, in all stages or in one: `24h`, `deps=12h` (repeatable)
    #[arg(help_heading = "Cache", long, value_name = "[STAGE=]DURATION")]
    pub(crate) cache_ttl: Vec<String>,

    /// The most that a cache mount keeps when a step is done with it; what was not used for longest goes (repeatable)
    #[arg(help_heading = "Cache", long, value_name = "ID=SIZE")]
    pub(crate) cache_mount_size: Vec<String>,

    /// Cache to ask for what the store does not know: `type=registry,ref=app:cache`, or its name (repeatable)
    #[arg(help_heading = "Cache", long, value_name = "SPEC")]
    pub(crate) cache_from: Vec<String>,

    /// Where the cache goes after the build: `type=registry,ref=app:cache` (repeatable)
    #[arg(help_heading = "Cache", long, value_name = "SPEC")]
    pub(crate) cache_to: Vec<String>,

    /// When to ask registries for base images: `always` (without a value), `newer`, `missing`, `never`
    #[arg(
        long, value_name = "WHEN", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "missing", hide_possible_values = true
    )]
    pub(crate) pull: PullArg,

    /// Add what the build takes from outside to `rbuild.lock` beside the Dockerfile
    #[arg(help_heading = "Sources", long, conflicts_with_all = ["locked", "no_lock"])]
    pub(crate) lock: bool,

    /// Take nothing from outside that is not in `rbuild.lock`
    #[arg(help_heading = "Sources", long, conflicts_with = "no_lock")]
    pub(crate) locked: bool,

    /// Do not look at `rbuild.lock`
    #[arg(help_heading = "Sources", long)]
    pub(crate) no_lock: bool,

    /// Another file than `rbuild.lock` beside the Dockerfile
    #[arg(help_heading = "Sources", long, value_name = "FILE", conflicts_with = "no_lock")]
    pub(crate) lock_file: Option<PathBuf>,

    /// `rbuild lock`
    #[arg(skip)]
    pub(crate) lock_action: Option<LockAction>,

    /// `rbuild lock update --only`
    #[arg(skip)]
    pub(crate) lock_only: Vec<String>,

    /// Where the result goes: `type=oci,dest=app.tar`, a directory, or `-` for a tar on standard output (repeatable)
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) output: Vec<String>,

    /// Push the image to the registries of its names: `--output=type=registry`
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub(crate) push: bool,

    /// Keep the image in the local store: `--output=type=image` [default without other outputs]
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub(crate) load: bool,

    /// Secret for RUN --mount=type=secret: `id=NAME[,src=FILE|env=VARIABLE]` (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,

    /// Write the id of the image to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Write the id of the image to a file, without `sha256:`
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile_raw: Option<PathBuf>,

    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,

    /// How progress is shown: `auto`, `tty`, `plain`, `quiet`, `rawjson` [environment: `BUILDKIT_PROGRESS`]
    #[arg(long, value_enum, value_name = "MODE", hide_possible_values = true)]
    pub(crate) progress: Option<Mode>,

    /// Show errors and, at the end, the id of the image only
    #[arg(
        short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub(crate) quiet: bool,

    /// Show what is doubtful in the Dockerfile with its lines
    #[arg(
        short = 'D', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub(crate) debug: bool,

    /// Most steps at the same time [default: the number of processors]
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) jobs: Option<u32>,

    /// Look for mistakes in the Dockerfile and build nothing: `--call=check`
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub(crate) check: bool,

    /// With `--check`: write what mends the findings into the Dockerfile, where that is known
    #[arg(long)]
    pub(crate) fix: bool,

    /// What to do with the Dockerfile: `build`, `check`, `outline`, `targets`, `subrequests.describe`; all but the first
    /// also with `,format=json`
    #[arg(long, alias = "print", value_name = "METHOD", default_value = "build", hide_default_value = true)]
    pub(crate) call: String,

    /// Say what would run, why, and how long it would take; run, fetch and write nothing
    #[arg(help_heading = "Cache", long)]
    pub(crate) dry_run: bool,

    /// `rbuild cache probe`; `true` for JSON.
    #[arg(skip)]
    pub(crate) probe: Option<bool>,

    /// Run this share of the known steps again and compare, as `10%`; with `,strict` a difference is an error
    #[arg(help_heading = "Cache", long, value_name = "N%[,strict]")]
    pub(crate) verify_cache: Option<String>,

    /// Record which copied files RUN steps look at; `explain` says what would be enough to copy
    #[arg(help_heading = "Cache", long)]
    pub(crate) trace_reads: bool,

    /// Look up RUN steps whose inputs changed by what they read when they ran, too, and record what they read
    #[arg(help_heading = "Cache", long)]
    pub(crate) cache_reads: bool,

    /// How the result of `--check`, `--call` and `--dry-run` is printed: `text`, `json`, `sarif` (`--check` only)
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<CallFormat>,

    /// Time of the image: seconds since 1970, or the name of a source with a time [environment: `SOURCE_DATE_EPOCH`]
    #[arg(long, value_name = "SECONDS | context | NAME")]
    pub(crate) source_date_epoch: Option<String>,

    /// Surroundings of RUN steps.
    #[command(flatten)]
    pub(crate) steps: StepArgs,
    /// What changes in the image without an instruction.
    #[command(flatten)]
    pub(crate) edits: EditArgs,
    /// Limits of RUN steps.
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// What docker has and means nothing here.
    #[command(flatten)]
    pub(crate) useless: UselessArgs,
    /// What docker has and cannot be done here.
    #[command(flatten)]
    pub(crate) refused: RefusedArgs,
}

/// Changes of the image without an instruction, as buildah has them
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Changes of the image")]
pub(crate) struct EditArgs {
    /// Image in the place of the base of the first stage
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<String>,

    /// Set a variable of the image; without a value it is taken from the environment (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,

    /// Take a variable away from the image (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) unsetenv: Vec<String>,

    /// Do not take this label over from base images (repeatable)
    #[arg(long, value_name = "KEY")]
    pub(crate) unsetlabel: Vec<String>,

    /// Take labels over from base images [default: true]
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub(crate) inherit_labels: bool,

    /// Write no history into the image
    #[arg(long)]
    pub(crate) omit_history: bool,

    /// Time of the image and latest time of its new files, in seconds since 1970; no argument has it
    #[arg(long, value_name = "SECONDS", conflicts_with = "source_date_epoch")]
    pub(crate) timestamp: Option<i64>,

    /// No new file is younger than `SOURCE_DATE_EPOCH`: `rewrite-timestamp=true` for every output
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub(crate) rewrite_timestamp: bool,
}

/// Limits of RUN steps
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits of RUN steps")]
pub(crate) struct LimitArgs {
    /// Resource limit, as `nofile=1024:2048` (repeatable)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,

    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,

    /// Memory
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,

    /// Memory and swap together; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,

    /// Weight among other processes
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<u64>,

    /// Length of a period of CPU time, in microseconds
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpu_period: Option<u64>,

    /// CPU time in each period, in microseconds; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,

    /// Processors to run on, as `0-2,4`
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,

    /// Memory nodes to use, as `0,1`
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,

    /// Number of processes and threads; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,

    /// One of the limits by name, as `memory=1g` or `cpu-quota=50000` (repeatable)
    #[arg(long, value_name = "LIMIT=VALUE")]
    pub(crate) resource: Vec<String>,

    /// Cgroup to make the cgroups of steps in
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
}

/// Flags of docker that change nothing here; each prints a note.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags as typed")]
pub(crate) struct UselessArgs {
    /// Steps leave no containers.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub(crate) rm: bool,
    /// Steps leave no containers.
    #[arg(long, hide = true)]
    pub(crate) force_rm: bool,
    /// The context is not sent.
    #[arg(long, hide = true)]
    pub(crate) compress: bool,
    /// No file has the host name.
    #[arg(long, hide = true)]
    pub(crate) no_hostname: bool,
    /// There is one builder.
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) builder: Option<String>,
    /// Layers are always cached.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub(crate) layers: bool,
}

/// Flags of docker that are refused, with what to do instead.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RefusedArgs {
    #[arg(long, hide = true)]
    pub(crate) attest: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) policy: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) squash: bool,
}

/// `--pull`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullArg {
    /// Always ask what a tag means now
    #[value(name = "true", aliases = ["always", "1"])]
    Always,
    /// Always ask; without an answer use what is in the store
    #[value(name = "newer", aliases = ["ifnewer"])]
    Newer,
    /// Use what is in the store, else ask
    #[default]
    #[value(name = "missing", aliases = ["false", "0", "ifmissing"])]
    Missing,
    /// Never ask
    #[value(name = "never")]
    Never,
}

/// `--context-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextModeArg {
    /// All rights
    Docker,
    /// Whether a file may be executed
    Git,
}

/// `--call`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Build the image.
    Build,
    /// Look for mistakes.
    Check(CheckFormat),
    /// Say what a build would do.
    DryRun { json: bool },
    /// Say which steps are known where.
    Probe { json: bool },
    /// Ask what sources stand for now.
    Lock(LockAction),
    /// Show arguments, secrets and mounts of the target.
    Outline { json: bool },
    /// List the stages.
    Targets { json: bool },
    /// List the methods.
    Describe { json: bool },
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckFormat {
    /// For people.
    Text,
    /// `--format json`: rule, line, detail, level and address of each.
    Json,
    /// `--call=check,format=json`: as buildx has it.
    Buildx,
    /// SARIF 2.1.0.
    Sarif,
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CallFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// SARIF 2.1.0, for services that show findings
    Sarif,
}
