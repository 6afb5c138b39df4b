//! Runs one process in an isolated root file system.
//!
//! The caller says everything in a [`Process`]: the root as a detached mount, arguments, environment, user, mounts, limits.
//! Nothing is looked up later. An [`Executor`] runs it, hands on what it writes, and says how it ended.
//!
//! ```text
//!  Process ──► prepare ──► Plan ──► clone3 ──► child: 19 steps, system calls only ──► execve
//!                 │                   │                                                  │
//!   mounts, /dev, files made      pidfd ──► pump: output, cancel, end ◄── pipes ─────────┘
//!   detached; masks, filter,          │
//!   candidates in PATH                └──► watcher: kills it if this program is killed
//! ```
//!
//! - `child` has the numbered list of what happens before the program runs, `devices` what `/dev`, `/proc` and `/sys` hold,
//!   `seccomp` the system calls that are allowed.
//! - `cgroup` guards devices and sets limits, with v2, v1, or neither.
//! - `trace` tells which files a process looks at, if somebody wants to know.
//! - [`PrivateNetwork`] is a network that reaches out, and from which the host cannot be reached.
//! - [`enter_user_namespace`] makes all of it work without root; [`Terminal`] serves an interactive process; [`hosts_file`] and
//!   [`resolv_conf`] are the texts that callers mount.

mod cgroup;
mod child;
mod devices;
mod error;
mod limits;
mod network_files;
mod prepare;
mod private_network;
mod process;
mod pump;
mod sandbox;
mod seccomp;
mod terminal;
mod trace;
mod userns;
mod watcher;

pub use error::{ExecFailure, ExecuteError};
pub use limits::{Limits, ParseUlimitError, Resource, Ulimit};
pub use network_files::{Dns, HostLoopback, SYSTEMD_RESOLV_CONF, hosts_file, resolv_conf};
pub use private_network::{HelperKind, NetworkHelper, PrivateNetwork, PrivateNetworkError, open_network_namespace};
pub use process::{
    Device, Exit, Identity, Mount, MountSource, Network, Process, REQUIRED_DIRECTORIES, Security, Stdio, Terminal,
};
pub use sandbox::{Sandbox, SandboxOptions};
pub use trace::{PathUse, Trace, Traced};
pub use userns::{UserNamespace, UserNamespaceError, enter_user_namespace};

use crate::cancel::CancelToken;
use crate::progress::Stream;

/// Runs processes. The sandbox is one; tests of the solver have another.
pub trait Executor: Send + Sync {
    /// Runs `process` until it ends, with everything that it started.
    ///
    /// `output` gets what it writes, in pieces of at most 64 KiB as they come, when its streams are
    /// [`Stdio::Captured`]. Once `cancel` is cancelled the process gets SIGTERM, and SIGKILL two seconds later. One
    /// without a handler for the first, as a shell, is stopped meanwhile: its children get that time, and nothing more is
    /// started.
    ///
    /// # Errors
    /// When the process could not be started, or was cancelled. A process that ran and failed is not an error here.
    fn run(
        &self,
        process: Process,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &CancelToken,
    ) -> Result<Exit, ExecuteError>;
}
