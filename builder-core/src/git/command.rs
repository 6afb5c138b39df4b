//! Running git: what it sees, what it may do, and how it ends.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Address;
use super::access::{GitAccess, GitEnvironment, ssh_command};
use super::error::GitError;
use crate::cancel::{CancelToken, Cancelled};

/// More than this of a command's output is not kept; the longest answer is a list of references that were asked for.
const MAX_OUTPUT: usize = 16 << 20;

/// So much of the end of what git writes about its work is kept for an error.
const MAX_MESSAGE: usize = 8 << 10;

/// Git for one repository.
pub(super) struct Git<'a> {
    pub(super) address: &'a Address,
    pub(super) environment: &'a GitEnvironment,
    pub(super) access: &'a GitAccess,
    /// Where keys of ssh servers are remembered.
    pub(super) known_hosts: PathBuf,
    pub(super) log: &'a dyn Fn(&[u8]),
    pub(super) cancel: &'a CancelToken,
}

/// One call of git.
pub(super) struct Call<'a, S> {
    /// What this is for, in an error: `fetch`.
    pub(super) what: &'static str,
    pub(super) arguments: &'a [S],
    /// `GIT_DIR`
    pub(super) directory: Option<&'a Path>,
    /// Where git runs: the work tree of `directory`, or of the repository that git finds there.
    pub(super) work_tree: Option<&'a Path>,
    pub(super) index: Option<&'a Path>,
    /// Whether it talks to the server.
    pub(super) network: bool,
    /// Held by git as long as it runs, even if this process ends before.
    pub(super) lock: Option<&'a File>,
}

impl<'a, S> Call<'a, S> {
    /// A call outside of any repository, without a network.
    pub(super) fn new(what: &'static str, arguments: &'a [S]) -> Self {
        Self { what, arguments, directory: None, work_tree: None, index: None, network: false, lock: None }
    }
}

impl Git<'_> {
    /// Runs git and returns what it wrote to standard output.
    pub(super) fn run<S: AsRef<OsStr>>(&self, call: &Call<'_, S>) -> Result<String, GitError> {
        self.cancel.check()?;
        let mut command = self.command(call)?;
        let failed = |source: io::Error| GitError::Git {
            what: call.what,
            address: self.address.to_string(),
            message: format!("`git` cannot be run: {source}"),
        };
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => GitError::NotInstalled { address: self.address.to_string() },
            _ => failed(error),
        })?;
        let mut running = Running { child, ended: false };
        let (output, message) = self.pump(&mut running.child).map_err(failed)?;
        if self.cancel.is_cancelled() {
            return Err(Cancelled.into());
        }
        let status = running.child.wait().map_err(failed)?;
        running.ended = true;
        if status.success() {
            return String::from_utf8(output).map_err(|error| failed(io::Error::other(error)));
        }
        Err(GitError::Git { what: call.what, address: self.address.to_string(), message: last_words(&message) })
    }

    fn command<S: AsRef<OsStr>>(&self, call: &Call<'_, S>) -> Result<Command, GitError> {
        let mut command = Command::new("git");
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.environment.variables.iter().map(|(name, value)| (name, value)));
        command.args(call.arguments).process_group(0);
        let mut configuration = self.configuration();
        if call.network {
            configuration.extend(self.access.configuration(self.address));
            command.envs(GitAccess::variables(self.address));
            command.env("GIT_SSH_COMMAND", ssh_command(self.environment, &self.known_hosts));
            if let Some(agent) = &self.access.ssh_agent {
                command.env("SSH_AUTH_SOCK", agent);
            }
        } else {
            // From the shared repository to a checkout; submodules are not fetched in such a call.
            configuration.push(("protocol.file.allow".to_owned(), "always".to_owned()));
        }
        command.env("GIT_CONFIG_COUNT", configuration.len().to_string());
        for (number, (name, value)) in configuration.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            // Whoever asks for a password gets none, rather than a window.
            ("GIT_ASKPASS", "true"),
            ("SSH_ASKPASS", "true"),
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C"),
        ] {
            command.env(name, value);
        }
        let work_tree = call.directory.and(call.work_tree);
        let paths = [("GIT_DIR", call.directory), ("GIT_WORK_TREE", work_tree), ("GIT_INDEX_FILE", call.index)];
        for (name, path) in paths {
            command.envs(path.map(|path| (name, path)));
        }
        command.current_dir(call.work_tree.or(call.directory).unwrap_or(Path::new("/")));
        let stdin = match call.lock {
            Some(lock) => Stdio::from(lock.try_clone().map_err(GitError::access("lock"))?),
            None => Stdio::null(),
        };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// What every call is told, stronger than anything that a repository says.
    fn configuration(&self) -> Vec<(String, String)> {
        let file = if self.address.is_file() { "user" } else { "never" };
        [
            ("protocol.allow", "never"),
            ("protocol.http.allow", "always"),
            ("protocol.https.allow", "always"),
            ("protocol.ssh.allow", "always"),
            ("protocol.git.allow", "always"),
            // `user`: the address itself, but no submodule.
            ("protocol.file.allow", file),
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.symlinks", "true"),
            ("core.logAllRefUpdates", "false"),
            ("credential.helper", ""),
            ("init.defaultBranch", "master"),
            ("init.templateDir", ""),
            ("fetch.recurseSubmodules", "false"),
            ("submodule.recurse", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("advice.detachedHead", "false"),
            // A server that sends next to nothing for a minute is taken for dead.
            ("http.lowSpeedLimit", "1000"),
            ("http.lowSpeedTime", "60"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    /// Reads both outputs until git closes them. Ends early, with git still running, when the build is cancelled.
    fn pump(&self, child: &mut Child) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let (mut output, mut message) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 16 << 10];
        let cancelled = self.cancel.fd()?;
        while stdout.is_some() || stderr.is_some() {
            let mut set = vec![PollFd::from_borrowed_fd(cancelled, PollFlags::IN)];
            set.extend(stdout.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
            set.extend(stderr.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
            match poll(&mut set, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut ready =
                set.iter().map(|polled| !polled.revents().is_empty()).collect::<Vec<_>>().into_iter().skip(1);
            if self.cancel.is_cancelled() {
                break;
            }
            if stdout.is_some() && ready.next() == Some(true) {
                let length = read(&mut stdout, &mut buffer)?;
                output.extend_from_slice(&buffer[..length.min(MAX_OUTPUT.saturating_sub(output.len()))]);
            }
            if stderr.is_some() && ready.next() == Some(true) {
                let length = read(&mut stderr, &mut buffer)?;
                (self.log)(&buffer[..length]);
                message.extend_from_slice(&buffer[..length]);
                let excess = message.len().saturating_sub(MAX_MESSAGE);
                message.drain(..excess);
            }
        }
        Ok((output, message))
    }
}

/// Reads once; a pipe that is at its end is dropped.
fn read<R: Read>(pipe: &mut Option<R>, buffer: &mut [u8]) -> io::Result<usize> {
    let Some(reader) = pipe else { return Ok(0) };
    match reader.read(buffer) {
        Ok(0) => {
            *pipe = None;
            Ok(0)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        result => result,
    }
}

/// A running git; dropped before its end, it is killed with everything that it started.
struct Running {
    child: Child,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// What of git's words belongs into one line: the last ones that are an error, without progress.
fn last_words(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.rsplit('\r').next())
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let is_error = |line: &&&str| ["fatal: ", "error: ", "ERROR: "].iter().any(|prefix| line.contains(prefix));
    let errors: Vec<&str> = lines.iter().filter(is_error).copied().collect();
    let chosen = if errors.is_empty() {
        &lines[lines.len().saturating_sub(3)..]
    } else {
        &errors[errors.len().saturating_sub(3)..]
    };
    let mut words = chosen.join("; ");
    for (noise, less) in [("fatal: ", ""), ("remote: ", "")] {
        words = words.replace(noise, less);
    }
    // What ssh says comes before git's own words, which say nothing.
    if let Some(ssh) =
        lines.iter().rfind(|line| line.contains("Permission denied (") || line.contains("Host key verification failed"))
    {
        words.insert_str(0, &format!("{ssh}; "));
    }
    if words.is_empty() { "git says nothing about it".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_what_git_said_last() {
        for (message, expected) in [
            ("", "git says nothing about it"),
            ("warning: x\nfatal: repository 'https://h/r.git/' not found\n", "repository 'https://h/r.git/' not found"),
            ("Receiving objects: 10%\rReceiving objects: 20%\rfatal: early EOF\n", "early EOF"),
            ("a\nb\nc\nd\n", "b; c; d"),
        ] {
            assert_eq!(last_words(message.as_bytes()), expected);
        }
    }
}
