//! What RUN steps get, and what they may do.

use std::path::PathBuf;

use clap::Args;

/// Surroundings of RUN steps
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "RUN steps")]
pub(crate) struct StepArgs {
    /// Agent or keys for RUN --mount=type=ssh: `default`, or `ID[=SOCKET|KEY[,KEY]]` (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub(crate) ssh: Vec<String>,

    /// Let the Dockerfile ask for it: `network.host`, `security.insecure`, `device[=NAME]` (repeatable)
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,

    /// Device of RUN steps: a node as `/dev/fuse[:NODE][:rwm]`, or a name as `vendor.com/class=name` (repeatable)
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Vec<String>,

    /// Directory with device specifications (CDI) instead of /etc/cdi and /var/run/cdi (repeatable)
    #[arg(long, value_name = "DIR")]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,

    /// Network of RUN steps: `host`, `none`, `private` (not that of the host, and connected), `slirp4netns`,
    /// `pasta[:OPTION,…]`, `ns:PATH` [default: private where it can be made, else host]
    #[arg(long, value_name = "MODE", default_value = "default", hide_default_value = true)]
    pub(crate) network: String,

    /// Line of /etc/hosts in RUN steps (repeatable)
    #[arg(long, value_name = "HOST:ADDRESS")]
    pub(crate) add_host: Vec<String>,

    /// Leave /etc/hosts of the image as it is
    #[arg(long)]
    pub(crate) no_hosts: bool,

    /// Name server of RUN steps instead of those of this machine (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<String>,

    /// Option of resolv.conf in RUN steps (repeatable)
    #[arg(long, value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,

    /// Search domain in RUN steps (repeatable)
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,

    /// `no-new-privileges`: setuid programs gain nothing in RUN steps (repeatable)
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
}
