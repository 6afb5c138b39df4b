//! [`ExecuteError`]: why a process did not run.

use std::io;

use crate::cancel::Cancelled;
use crate::diagnostic::Diagnostic;

/// A process could not be started, or was cancelled.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The build was cancelled while it ran.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Everything was ready, but the kernel did not execute the program.
    #[error("cannot execute `{program}`: {reason}")]
    Exec {
        /// As it was written.
        program: String,
        /// Why.
        reason: ExecFailure,
    },
    /// The working directory is missing, is not a directory, or lies outside the root.
    #[error("cannot enter the working directory `{directory}`")]
    Directory {
        /// Inside the image.
        directory: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A device of the host cannot be passed on.
    #[error("cannot use device `{device}`: it has to be a device, and to appear below `/dev`")]
    Device {
        /// Its node on the host.
        device: String,
        /// Why.
        source: io::Error,
    },
    /// A mount could not be made or attached.
    #[error("cannot mount `{target}`")]
    Mount {
        /// Inside the image.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A limit that was asked for cannot be set here.
    #[error("cannot limit {what}")]
    Limit {
        /// Which one: `memory`, `nofile`.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A limit of `setrlimit(2)` cannot be set.
    #[error("cannot set the limit `{what}`")]
    Ulimit {
        /// Which one: `nofile`.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The owner of a mount does not exist in the user namespace of the caller.
    #[error("`{target}` cannot belong to user {uid}, group {gid}")]
    Owner {
        /// Inside the image.
        target: String,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A user or a group of the process does not exist in the user namespace of the caller.
    #[error("cannot run as user {uid}, group {gid}")]
    Identity {
        /// User.
        uid: u32,
        /// Primary group.
        gid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another part of the sandbox could not be set up; the process was never started without it.
    #[error("cannot set up the sandbox: {what}")]
    Setup {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A value holds a NUL byte, which ends a string in every system call.
    #[error("{what} holds a NUL byte")]
    Nul {
        /// `argument`, `environment`.
        what: &'static str,
    },
    /// There is nothing to execute.
    #[error("the command is empty")]
    NoCommand,
    /// The program ended but something else in this process took its exit status.
    #[error("the exit status of the process is lost")]
    StatusLost,
}

/// Why the kernel did not execute a program. See the errors of `execve(2)`.
#[derive(Debug, thiserror::Error)]
pub enum ExecFailure {
    /// There is no such file.
    #[error("no such file in the image")]
    NotFound,
    /// No directory of `PATH` has it.
    #[error("not found in PATH")]
    NotInPath,
    /// The file is there, but the program that it names in `#!`, or its dynamic loader, is not.
    #[error("its interpreter `{0}` is missing in the image")]
    NoInterpreter(String),
    /// It is not a program of this kind of machine, nor a script with `#!`.
    #[error("exec format error")]
    Format,
    /// It is not executable for this user.
    #[error("permission denied")]
    Permission,
    /// It is a directory.
    #[error("is a directory")]
    Directory,
    /// Arguments and environment together are too long.
    #[error("argument list too long")]
    TooLong,
    /// Something else.
    #[error("{0}")]
    Other(io::Error),
}

impl Diagnostic for ExecuteError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Exec { program, reason } => exec_hint(program, reason),
            Self::Identity { source, .. } | Self::Owner { source, .. }
                if source.raw_os_error() == Some(libc::EINVAL) =>
            {
                let text =
                    "this id has no mapping here: give the user a range of 65536 ids in /etc/subuid and /etc/subgid";
                Some(text.into())
            }
            Self::Limit { source, .. } => Some(limit_hint(source).into()),
            Self::Ulimit { source, .. } if source.raw_os_error() == Some(libc::EPERM) => {
                Some("only root can raise a limit above the hard limit of the caller, see `ulimit -H`".into())
            }
            Self::Setup { source, .. } if source.raw_os_error() == Some(libc::EPERM) => {
                Some("creating namespaces and mounts needs root or unprivileged user namespaces".into())
            }
            _ => None,
        }
    }
}

fn limit_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EINVAL | libc::ERANGE | libc::EDOM | libc::ENOSPC) => "the kernel does not take this value",
        Some(libc::EBUSY) => {
            "the cgroup above has processes of its own, as in a container: move them into one below it, or run without limits"
        }
        Some(libc::ENOENT) => "this machine has no such controller of cgroups, or does not hand it on, see cgroups(7)",
        _ => "this needs a cgroup hierarchy that the caller may write to, or root",
    }
}

fn exec_hint(program: &str, reason: &ExecFailure) -> Option<String> {
    let shell = program.ends_with("/sh") || program.ends_with("/bash");
    match reason {
        ExecFailure::NotFound | ExecFailure::NotInPath if shell => {
            Some(format!("the image has no `{program}`: use the JSON form, `RUN [\"program\", \"argument\"]`, or SHELL"))
        }
        ExecFailure::Format => Some(
            "the program is for another platform, or a script without a `#!` line: check the platform of the base image"
                .into(),
        ),
        ExecFailure::NoInterpreter(_) => {
            Some("copy a static program, or add the loader or interpreter that it needs".into())
        }
        ExecFailure::Permission => Some(format!("make it executable: `RUN chmod +x {program}` or COPY --chmod=755")),
        _ => None,
    }
}
