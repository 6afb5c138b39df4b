//! `rbuild run`.

use clap::{Args, ValueEnum};

/// Create and run a container from an image
#[derive(Debug, Clone, Args)]
#[command(disable_help_flag = true, override_usage = "rbuild run [OPTIONS] IMAGE [COMMAND] [ARGUMENT]...")]
#[expect(clippy::struct_excessive_bools, reason = "flags as typed")]
pub(crate) struct RunArgs {
    /// Name of the image, which is pulled if it is not in the store; then program and arguments instead of its CMD
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "IMAGE [COMMAND]")]
    pub(crate) image_and_command: Vec<String>,

    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Set a variable; without a value it is taken from the environment (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,

    /// User, as `name`, `uid`, `name:group` or `uid:gid`
    #[arg(short, long)]
    pub(crate) user: Option<String>,

    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,

    /// Program instead of the image's ENTRYPOINT; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,

    /// Directory or file of this machine in the container: `SOURCE:TARGET[:ro]` (repeatable)
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) volume: Vec<String>,

    /// New directory in memory (repeatable)
    #[arg(long, value_name = "TARGET")]
    pub(crate) tmpfs: Vec<String>,

    /// Its network: `host`, or `none` for a loopback device only
    #[arg(long, alias = "net", value_enum, value_name = "MODE", default_value = "host", hide_possible_values = true)]
    pub(crate) network: RunNetwork,

    /// Its host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,

    /// Line of /etc/hosts (repeatable)
    #[arg(long, value_name = "HOST:ADDRESS")]
    pub(crate) add_host: Vec<String>,

    /// Platform of the image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    /// When to ask the registry for the image
    #[arg(long, value_name = "WHEN", value_parser = ["missing", "always", "never"], default_value = "missing")]
    pub(crate) pull: String,

    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,

    /// Resource limit, as `nofile=1024:2048` (repeatable)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,

    /// Memory
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,

    /// All capabilities and devices, no system call filter
    #[arg(long)]
    pub(crate) privileged: bool,

    /// Accepted: containers are always removed
    #[arg(long, hide = true)]
    pub(crate) rm: bool,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `rbuild run --network`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunNetwork {
    /// That of the host
    #[default]
    Host,
    /// Only a loopback device
    None,
}
