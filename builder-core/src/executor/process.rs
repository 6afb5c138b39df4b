//! [`Process`]: what to run, and in which surroundings.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Limits, Trace};
use crate::rootfs::RootPath;

/// One process, ready to be run; nothing in it is looked up later.
#[derive(Debug)]
pub struct Process {
    /// The root file system: a detached mount (`sys::mount`). It is moved into the process's own mount namespace, so it
    /// serves one process; a second descriptor of it, held by the caller, stays usable.
    ///
    /// It must have the [`REQUIRED_DIRECTORIES`] and the targets of all mounts.
    pub root: OwnedFd,
    /// The program and its arguments. A program without a slash is looked up in the `PATH` of `env`, inside the root.
    pub args: Vec<Vec<u8>>,
    /// The whole environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory; it must exist.
    pub cwd: RootPath,
    /// Whom it runs as.
    pub user: Identity,
    /// Attached in this order, after `/proc`, `/dev` and `/sys`: parents before their children.
    pub mounts: Vec<Mount>,
    /// Devices of the host that it may use, beside those that every process has.
    pub devices: Vec<Device>,
    /// Its network.
    pub network: Network,
    /// Its host name, at most 64 bytes.
    pub hostname: String,
    /// How much it may do.
    pub security: Security,
    /// Whether setuid programs and file capabilities gain nothing. Off for builds: `sudo` and `su` are expected to work.
    pub no_new_privileges: bool,
    /// How much it may use.
    pub limits: Limits,
    /// Where its streams lead.
    pub stdio: Stdio,
    /// Gets the files that it looks at. Only for [`Security::Sandbox`]; another one is run and has a gap.
    pub trace: Option<Arc<Trace>>,
}

/// Directories that the root of a [`Process`] must have, and which must not be links: file systems of the sandbox are
/// mounted there.
pub const REQUIRED_DIRECTORIES: [&str; 3] = ["dev", "proc", "sys"];

/// Numeric user and groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Exactly the supplementary groups.
    pub groups: Vec<u32>,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where it appears: below `/dev`.
    pub path: RootPath,
    /// Its node on the host.
    pub host: PathBuf,
    /// Permission bits of the node.
    pub mode: u32,
    /// Owner of the node.
    pub uid: u32,
    /// Group of the node.
    pub gid: u32,
    /// Whether it may be read.
    pub read: bool,
    /// Whether it may be written.
    pub write: bool,
}

/// One mount below the root.
#[derive(Debug)]
pub struct Mount {
    /// An existing directory or file, as the source is one. Links in it are resolved inside the root.
    pub target: RootPath,
    /// What appears there.
    pub source: MountSource,
    /// Whether the process may not write to it.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug)]
pub enum MountSource {
    /// A detached mount: a directory or a file from elsewhere (`sys::mount::bind`).
    Detached(OwnedFd),
    /// A new, empty tmpfs.
    Tmpfs {
        /// Bytes; `None` is half of the memory.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: u32,
    },
    /// A file that exists only for this process, in memory that is not swapped out: secrets, `/etc/hosts`, scripts.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// What a process can reach.
#[derive(Debug)]
pub enum Network {
    /// The network of the host.
    Host,
    /// Only a loopback device of its own.
    None,
    /// An existing network namespace.
    Joined(OwnedFd),
}

/// How much a process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Security {
    /// Docker's 14 capabilities, system call filter, masked paths, few devices.
    #[default]
    Sandbox,
    /// All capabilities and devices, no filter, no masks: `RUN --security=insecure`.
    Insecure,
}

/// Where the streams of a process lead.
#[derive(Debug, Default)]
pub enum Stdio {
    /// stdin is `/dev/null`, what is written goes to the `output` function of `run`.
    #[default]
    Captured,
    /// Descriptors 0, 1 and 2 of the calling program.
    Inherit,
    /// A terminal.
    Terminal(Terminal),
}

/// A terminal for a process, made by [`Terminal::open`] together with the end that the caller keeps.
#[derive(Debug)]
pub struct Terminal {
    /// The instance of devpts that it belongs to; it becomes `/dev/pts`.
    pub(super) devpts: OwnedFd,
    /// The process's end.
    pub(super) device: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel killed it, or a process that it waited for, because memory ran out.
    OutOfMemory,
}

impl Exit {
    /// Whether it ended with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// The number that a shell would show: the code, or 128 plus the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::OutOfMemory => 128 + libc::SIGKILL,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code: {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {signal}"),
            },
            Self::OutOfMemory => f.write_str("out of memory: killed by the kernel"),
        }
    }
}

/// See `signal(7)`.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_reads_as_people_say_it() {
        for (exit, text, code) in [
            (Exit::Code(127), "exit code: 127", 127),
            (Exit::Signal(libc::SIGSEGV), "killed by SIGSEGV", 139),
            (Exit::Signal(40), "killed by signal 40", 168),
            (Exit::OutOfMemory, "out of memory: killed by the kernel", 137),
        ] {
            assert_eq!(exit.to_string(), text);
            assert_eq!(exit.code(), code);
        }
        assert!(Exit::Code(0).is_success() && !Exit::Code(1).is_success());
    }
}
