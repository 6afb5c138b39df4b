//! [`enter_user_namespace`]: becomes root of a user namespace, so that everything else works without being root.
//!
//! ```text
//!   this process                          a child, in a new user namespace
//!   ────────────                          ────────────────────────────────
//!   start it ───────────────────────────► waits
//!   newuidmap, newgidmap CHILD …          (or a single id, written to its uid_map)
//!   setns(CHILD's user namespace)
//!   unshare(mount namespace)
//!   close the pipe ─────────────────────► ends
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, getegid, geteuid, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::diagnostic::Diagnostic;
use crate::sys::child;
use crate::sys::clone::{Stack, spawn_beside};

/// What a process is after [`enter_user_namespace`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNamespace {
    /// How many user ids exist in it, from 0 on.
    pub uids: u64,
    /// How many group ids exist in it, from 0 on.
    pub gids: u64,
    /// Why there is only one id of each, where that is so: images with files of several owners cannot be unpacked with
    /// their owners then.
    pub single_id: Option<String>,
}

/// A user namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The system does not let this user make one.
    #[error("cannot create a user namespace")]
    Create {
        /// A setting of the system that forbids it, as `NAME = VALUE`.
        setting: Option<String>,
        /// What the kernel said.
        source: io::Error,
    },
    /// Ids could not be mapped.
    #[error("cannot map ids into the user namespace")]
    Map {
        /// A setting of the system that forbids it.
        setting: Option<String>,
        /// What the kernel said.
        source: io::Error,
    },
    /// It was made, but not entered: only a process with a single thread can.
    #[error("cannot enter the user namespace")]
    Enter {
        /// What the kernel said.
        source: io::Error,
    },
}

impl Diagnostic for UserNamespaceError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Create { setting: Some(setting), .. } | Self::Map { setting: Some(setting), .. } => {
                Some(format!("the system has `{setting}`: change that (sysctl), or run as root"))
            }
            Self::Create { .. } | Self::Map { .. } => {
                Some("inside a container, allow user namespaces for it, or run as root".into())
            }
            Self::Enter { .. } => Some("enter it at the start of the program, before there are threads".into()),
        }
    }
}

/// Enters a new user namespace, as its root, and a new mount namespace. To be called once, at the start of a program that does not run as
/// root, while it has a single thread.
///
/// User 0 is the caller, the ids from 1 on are the ranges that `/etc/subuid` and `/etc/subgid` give to it, mapped
/// by `newuidmap(1)` and `newgidmap(1)`. Without a range, or these programs, there is only user 0 and group 0.
///
/// # Errors
/// When the system does not allow that; the hint says which setting is in the way.
pub fn enter_user_namespace() -> Result<UserNamespace, UserNamespaceError> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| create_error(errno.into()))?;
    // Owned by the child alone from here on: it ends when we close `writer`, or die.
    let mut stack = Stack::new().map_err(create_error)?;
    let namespace = libc::CLONE_NEWUSER.cast_unsigned().into();
    let (pidfd, pid) = spawn_beside(&mut stack, namespace, reader.as_raw_fd(), wait_for_end).map_err(create_error)?;
    let entered = map_ids(pid).and_then(|mapped| enter(pid).map(|()| mapped));
    drop(writer);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    entered
}

/// The child: only raw system calls, as for every process that shares our memory.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that `spawn_beside` calls")]
fn wait_for_end(pipe: &i32) -> i32 {
    child::keep_only(*pipe);
    let mut byte = [0];
    while let Ok(1..) | Err(rustix::io::Errno::INTR) = rustix::io::read(child::borrow_descriptor(0), &mut byte) {}
    0
}

fn enter(pid: u32) -> Result<(), UserNamespaceError> {
    let wrap = |source| UserNamespaceError::Enter { source };
    let namespace = File::open(format!("/proc/{pid}/ns/user")).map_err(wrap)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User)).map_err(|errno| wrap(errno.into()))?;
    child::unshare_mounts().map_err(wrap)
}

fn map_ids(pid: u32) -> Result<UserNamespace, UserNamespaceError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let reason = match map_ranges(pid, uid, gid) {
        Ok((uids, gids)) => return Ok(UserNamespace { uids, gids, single_id: None }),
        Err(reason) => reason,
    };
    let write = |file: &str, text: String| {
        let path = format!("/proc/{pid}/{file}");
        let opened = File::options().write(true).open(path);
        opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(map_error)
    };
    // What a partly successful newuidmap has mapped stays.
    if fs::read_to_string(format!("/proc/{pid}/uid_map")).is_ok_and(|map| map.trim().is_empty()) {
        write("uid_map", format!("0 {uid} 1"))?;
    }
    // The kernel lets the owner map a group only when the namespace cannot drop groups any more, user_namespaces(7).
    write("setgroups", "deny".into())?;
    write("gid_map", format!("0 {gid} 1"))?;
    Ok(UserNamespace { uids: 1, gids: 1, single_id: Some(reason) })
}

/// Maps the ranges of the user; the error says in words what is missing.
fn map_ranges(pid: u32, uid: u32, gid: u32) -> Result<(u64, u64), String> {
    let name = user_name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), uid);
    let ranges = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let ranges = subordinate_ids(&text, name.as_deref(), uid);
        if ranges.is_empty() {
            Err(format!("{file} has no range for user {}", name.as_deref().unwrap_or("?")))
        } else {
            Ok(ranges)
        }
    };
    let (uids, gids) = (ranges("/etc/subuid")?, ranges("/etc/subgid")?);
    let (newuidmap, newgidmap) = (program("newuidmap")?, program("newgidmap")?);
    run(&newuidmap, pid, uid, &uids)?;
    run(&newgidmap, pid, gid, &gids)?;
    let count = |ranges: &[(u32, u32)]| 1 + ranges.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
    Ok((count(&uids), count(&gids)))
}

/// The name of a user, from the text of `/etc/passwd`.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.get(2) == Some(&uid.to_string().as_str())).map(|fields| fields[0].to_owned())
}

/// First id and number of ids of each range, see `subuid(5)`. A line names the user, or has its number.
fn subordinate_ids(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next().filter(|owner| Some(*owner) == name || *owner == number);
            let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            owner.map(|_| (first, count))
        })
        .filter(|(first, count): &(u32, u32)| *count > 0 && first.checked_add(*count).is_some())
        .collect()
}

/// Where distributions put setuid programs.
fn program(name: &str) -> Result<PathBuf, String> {
    ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| format!("`{name}` is not installed (package `uidmap` or `shadow-utils`)"))
}

fn run(program: &Path, pid: u32, own: u32, ranges: &[(u32, u32)]) -> Result<(), String> {
    let mut arguments = vec![pid.to_string(), "0".into(), own.to_string(), "1".into()];
    let mut inside = 1;
    for (first, count) in ranges {
        arguments.extend([inside, *first, *count].map(|number| number.to_string()));
        inside += count;
    }
    let output = Command::new(program).args(arguments).env_clear().stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Err(format!("`{}` failed: {said}", program.display()))
        }
        Err(error) => Err(format!("cannot run `{}`: {error}", program.display())),
    }
}

fn create_error(source: io::Error) -> UserNamespaceError {
    let setting = match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) => setting("user/max_user_namespaces", "0"),
        _ => setting("kernel/unprivileged_userns_clone", "0").or_else(apparmor_setting),
    };
    UserNamespaceError::Create { setting, source }
}

fn map_error(source: io::Error) -> UserNamespaceError {
    UserNamespaceError::Map { setting: apparmor_setting(), source }
}

/// Ubuntu since 23.10: the namespace is made, but nothing is allowed in it.
fn apparmor_setting() -> Option<String> {
    setting("kernel/apparmor_restrict_unprivileged_userns", "1")
}

/// `NAME = VALUE` if the setting has the value that is in the way.
fn setting(path: &str, bad: &str) -> Option<String> {
    let value = fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    (value.trim() == bad).then(|| format!("{} = {bad}", path.replace('/', ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "root:1:2\nann:100000:65536\n1000:300000:10\n# c\nbad\nann:4294967295:5\nann:x:5\nbob:7:0\n";
        assert_eq!(subordinate_ids(text, Some("ann"), 1000), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(subordinate_ids(text, None, 1000), [(300_000, 10)]);
        assert_eq!(subordinate_ids(text, Some("bob"), 1), []);
    }

    #[test]
    fn a_user_has_a_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_name(passwd, 7), None);
    }

    #[test]
    fn errors_name_the_setting_in_the_way() {
        let error = UserNamespaceError::Create {
            setting: Some("user.max_user_namespaces = 0".into()),
            source: io::Error::from_raw_os_error(libc::ENOSPC),
        };
        assert_eq!(error.to_string(), "cannot create a user namespace");
        assert!(error.hint().expect("a hint").contains("`user.max_user_namespaces = 0`"));
    }
}
