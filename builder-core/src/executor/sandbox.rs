//! [`Sandbox`]: the executor that isolates.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{DumpableBehavior, PidfdFlags, dumpable_behavior, getpid, pidfd_open};

use super::cgroup::{Cgroups, Guard, StepCgroup};
use super::child::{self, Failure, NetworkPlan, Plan, Stage, TracePlan};
use super::devices::{Hierarchies, HostDevice};
use super::prepare::{Captured, Surroundings, prepare};
use super::pump::{self, Running};
use super::trace::{self, Beginning};
use super::watcher::Watcher;
use super::{Device, ExecFailure, ExecuteError, Executor, Exit, Process, Security, Stream, seccomp};
use crate::cancel::CancelToken;
use crate::lock::lock;
use crate::sys::clone::{CloneOptions, Stack, spawn};

/// Tasks of a process without root, where the cgroup is its user's (security invariant S-15): far more than builds have.
const TASKS: u64 = 16_384;

/// What all processes of a sandbox have in common.
#[derive(Debug, Clone, Default)]
pub struct SandboxOptions {
    /// Name of the AppArmor profile to put processes under, if the host has it loaded.
    pub apparmor_profile: Option<String>,
}

/// Runs processes in namespaces of their own, as children of this process. Serves any number of threads at the same
/// time.
///
/// What it needs to know of the host is looked up at the first run.
#[derive(Debug)]
pub struct Sandbox {
    options: SandboxOptions,
    host: OnceLock<Host>,
    watcher: Mutex<Option<Watcher>>,
    /// Numbers the cgroups.
    runs: AtomicU64,
}

/// What does not change between runs.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts about a host")]
struct Host {
    /// Of this process.
    pidfd: OwnedFd,
    filter: Vec<libc::sock_filter>,
    cgroups: Cgroups,
    user_namespace: bool,
    groups_allowed: bool,
    /// Whether every process gets a limit of tasks, so that one that forks without end does not take all that its user may have.
    limits_tasks: bool,
    dumpable: bool,
    apparmor: Option<String>,
    /// Begins the names of cgroups: another sandbox of this process, or one in another pid namespace with the same
    /// process id, must not have the same.
    cgroup_prefix: String,
}

impl Sandbox {
    /// Makes a sandbox; nothing is done yet.
    pub fn new(options: SandboxOptions) -> Self {
        Self { options, host: OnceLock::new(), watcher: Mutex::new(None), runs: AtomicU64::new(0) }
    }

    fn host(&self) -> Result<&Host, ExecuteError> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        let host = Host::look(&self.options)?;
        // Another thread may have been first; both found the same.
        Ok(self.host.get_or_init(|| host))
    }

    /// Tells the watcher, which is started with the first process.
    fn watch(&self, running: &Running, cgroup: &StepCgroup) -> io::Result<()> {
        let mut watcher = lock(&self.watcher);
        if watcher.is_none() {
            *watcher = Some(Watcher::start()?);
        }
        watcher.as_ref().map_or(Ok(()), |watcher| watcher.add(running.pidfd.as_fd(), cgroup))
    }
}

impl Executor for Sandbox {
    fn run(
        &self,
        process: Process,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &CancelToken,
    ) -> Result<Exit, ExecuteError> {
        cancel.check()?;
        let setup = |what| move |source: io::Error| ExecuteError::Setup { what, source };
        let host = self.host()?;
        let mut process = process;
        let devices = find_devices(std::mem::take(&mut process.devices))?;
        let rules: Vec<_> = devices.iter().map(HostDevice::rule).collect();
        let guarded = process.security == Security::Sandbox && !host.user_namespace;
        let guard = if guarded { Guard::Only(&rules) } else { Guard::None };
        let name = format!("{}-{}", host.cgroup_prefix, self.runs.fetch_add(1, Ordering::Relaxed));
        if host.limits_tasks && process.limits.pids.is_none() {
            process.limits.pids = Some(TASKS);
        }
        let cgroup = host.cgroups.create(name, &process.limits, guard)?;
        let kills = cgroup.kills().unwrap_or_else(|| host.cgroups.own_kills());
        let traced = process.trace.take();
        if let Some(trace) = traced.as_ref().filter(|_| process.security == Security::Insecure) {
            trace.gap("it runs with `--security=insecure`");
        }
        let traced = traced.filter(|_| process.security == Security::Sandbox);
        let directory = process.cwd.clone();
        let (mut plan, captured) = prepare(process, devices, &host.surroundings(&cgroup))?;
        let exit = match traced {
            None => self.start(plan, captured, &cgroup, output, cancel),
            Some(traced) => {
                let filter = trace::filter();
                let programs = plan.programs.iter().map(|path| (path.as_ptr().addr() as u64, path.to_bytes().to_vec()));
                let beginning = Beginning {
                    root: plan.root.try_clone().map_err(setup("tracing"))?,
                    directory,
                    programs: programs.collect(),
                };
                let run = |socket| {
                    plan.trace = Some(TracePlan { filter: &filter, socket });
                    self.start(plan, captured, &cgroup, output, cancel)
                };
                trace::beside(&traced, beginning, run).map_err(setup("tracing"))?
            }
        }?;
        let now = || cgroup.kills().unwrap_or_else(|| host.cgroups.own_kills());
        Ok(match exit {
            Exit::Signal(libc::SIGKILL) | Exit::Code(137) if now() > kills => Exit::OutOfMemory,
            exit => exit,
        })
    }
}

impl Sandbox {
    /// Starts the process and waits for its end.
    fn start(
        &self,
        plan: Plan<'_>,
        captured: Option<Captured>,
        cgroup: &StepCgroup,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &CancelToken,
    ) -> Result<Exit, ExecuteError> {
        let setup = |what| move |source: io::Error| ExecuteError::Setup { what, source };
        let host = self.host()?;
        let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if matches!(plan.network, NetworkPlan::Loopback) {
            namespaces |= libc::CLONE_NEWNET;
        }
        let options = CloneOptions {
            namespaces: namespaces.cast_unsigned().into(),
            cgroup: cgroup.v2.as_ref().map(AsFd::as_fd),
            dumpable: host.dumpable,
        };
        let mut stack = Stack::new().map_err(setup("stack"))?;
        let (pidfd, pid) = spawn(&options, &mut stack, &plan, child::run).map_err(setup("creating namespaces"))?;
        let running = Running { pidfd, pid, captured };
        if let Some(failure) = plan.report.failure() {
            let _ = pump::reap(&running.pidfd);
            return Err(explain(&plan, failure));
        }
        // Our copies of its ends of the pipes go, and with them the mounts.
        drop(plan);
        if let Err(source) = self.watch(&running, cgroup) {
            cancel_without_cancelling(&running);
            return Err(setup("starting the watcher")(source));
        }
        pump::wait(&running, output, cancel)
    }
}

fn find_devices(asked: Vec<Device>) -> Result<Vec<HostDevice>, ExecuteError> {
    let find = |asked: Device| {
        let device = asked.host.display().to_string();
        HostDevice::find(asked).map_err(|source| ExecuteError::Device { device, source })
    };
    asked.into_iter().map(find).collect()
}

fn cancel_without_cancelling(running: &Running) {
    let _ = rustix::process::pidfd_send_signal(&running.pidfd, rustix::process::Signal::KILL);
    let _ = pump::reap(&running.pidfd);
}

impl Host {
    fn look(options: &SandboxOptions) -> Result<Self, ExecuteError> {
        let setup = |what| move |source: io::Error| ExecuteError::Setup { what, source };
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|errno| setup("pidfd")(errno.into()))?;
        let unsupported = io::ErrorKind::Unsupported;
        let filter = seccomp::default_filter().ok_or_else(|| setup("system call filter")(unsupported.into()))?;
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
        let cgroups = Cgroups::discover();
        // The initial namespace maps every id to itself.
        let user_namespace = map.split_whitespace().ne(["0", "0", "4294967295"]);
        Ok(Self {
            pidfd,
            filter,
            limits_tasks: user_namespace && cgroups.limits_tasks(),
            cgroups,
            user_namespace,
            groups_allowed: groups.trim() != "deny",
            dumpable: matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable)),
            apparmor: options.apparmor_profile.clone().filter(|profile| apparmor_has(profile)),
            cgroup_prefix: cgroup_prefix().map_err(setup("random numbers"))?,
        })
    }

    fn surroundings<'a>(&'a self, cgroup: &'a StepCgroup) -> Surroundings<'a> {
        Surroundings {
            parent: self.pidfd.as_fd(),
            filter: &self.filter,
            cgroup_tasks: &cgroup.tasks,
            cgroups: if self.cgroups.is_unified() {
                Hierarchies::V2
            } else {
                Hierarchies::V1(self.cgroups.v1_mounts())
            },
            device_policy: cgroup.guards_devices,
            groups_allowed: self.groups_allowed,
            apparmor: self.apparmor.as_deref(),
        }
    }
}

fn cgroup_prefix() -> io::Result<String> {
    let mut random = [0; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("rbuild-{}-{:08x}", getpid().as_raw_nonzero(), u32::from_ne_bytes(random)))
}

/// Whether the profile is loaded; lines of that file are `NAME (MODE)`.
fn apparmor_has(profile: &str) -> bool {
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile))
}

/// Gives the failure of the child the names that it could not.
fn explain(plan: &Plan<'_>, failure: Failure) -> ExecuteError {
    let Failure { stage, item, error: source } = failure;
    let what = match stage {
        Stage::Mount => {
            let target =
                plan.mounts.get(item).map_or_else(String::new, |step| format!("/{}", step.target.to_string_lossy()));
            return ExecuteError::Mount { target, source };
        }
        Stage::Limit => {
            let number = plan.limits.get(item).map_or(u32::MAX, |limit| limit.0);
            return ExecuteError::Ulimit { what: super::limits::name(number).to_owned(), source };
        }
        Stage::Directory => {
            let directory = plan.cwd.to_string_lossy();
            let directory = format!("/{}", if directory == "." { "" } else { &directory });
            return ExecuteError::Directory { directory, source };
        }
        Stage::Identity => {
            let (uid, gid) = (plan.identity.uid.as_raw(), plan.identity.gid.as_raw());
            return ExecuteError::Identity { uid, gid, source };
        }
        Stage::Exec => return explain_exec(plan, source),
        Stage::Session => "session",
        Stage::Cgroup => "joining the cgroup",
        Stage::Network => "network",
        Stage::HostName => "host name",
        Stage::Propagation => "separating the mounts from the host's",
        Stage::Root => "mounting the root file system",
        Stage::Pivot => "making the root file system the root",
        Stage::Streams => "streams",
        Stage::AppArmor => "AppArmor profile",
        Stage::Filter => "system call filter",
        Stage::Capabilities => "capabilities",
        Stage::Descriptors => "closing descriptors",
    };
    ExecuteError::Setup { what, source }
}

fn explain_exec(plan: &Plan<'_>, source: io::Error) -> ExecuteError {
    let program = plan.args.first().to_string_lossy().into_owned();
    let reason = match source.raw_os_error() {
        Some(libc::ENOENT) => match interpreter(plan) {
            Some(interpreter) => ExecFailure::NoInterpreter(interpreter),
            None if program.contains('/') => ExecFailure::NotFound,
            None => ExecFailure::NotInPath,
        },
        Some(libc::ENOTDIR) => ExecFailure::NotFound,
        Some(libc::ENOEXEC) => ExecFailure::Format,
        Some(libc::EACCES) if program_file(plan).is_some_and(|(is_directory, _)| is_directory) => {
            ExecFailure::Directory
        }
        Some(libc::EACCES | libc::EPERM) => ExecFailure::Permission,
        Some(libc::EISDIR) => ExecFailure::Directory,
        Some(libc::E2BIG) => ExecFailure::TooLong,
        _ => ExecFailure::Other(source),
    };
    ExecuteError::Exec { program, reason }
}

/// Finds the program, which the kernel did not execute, in the root: whether it is a directory, and how it begins.
fn program_file(plan: &Plan<'_>) -> Option<(bool, Vec<u8>)> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let cwd = openat2(&plan.root, &plan.cwd, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how).ok()?;
    plan.programs.iter().find_map(|program| {
        // A relative one starts in the working directory; links above that are not followed out of it here.
        let from = if program.as_bytes().starts_with(b"/") { &plan.root } else { &cwd };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat2(from, program, flags, Mode::empty(), how).ok()?;
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
        let mut start = vec![0; 4096];
        let length = if kind.is_file() { rustix::io::read(&file, &mut start).ok()? } else { 0 };
        start.truncate(length);
        Some((kind.is_dir(), start))
    })
}

/// What a program that is there needs and does not find: the path after `#!`, or the loader that an ELF file names.
fn interpreter(plan: &Plan<'_>) -> Option<String> {
    let (_, start) = program_file(plan)?;
    let path = match start.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|byte| *byte == b'\n').next()?;
            line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?
        }
        // The loader's path is a string near the start of the file (PT_INTERP).
        None if start.starts_with(b"\x7fELF") => {
            let at = start.windows(4).position(|bytes| bytes == b"/lib" || bytes == b"/sys")?;
            start.get(at..)?.split(|byte| *byte == 0).next()?
        }
        None => return None,
    };
    Some(String::from_utf8_lossy(path).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;
    use crate::executor::{Identity, Limits, Network, Stdio};
    use crate::rootfs::RootPath;
    use crate::sys::mount::{Attributes, bind_path};

    /// Makes a node of the kernel's memory in a sandbox on a host whose cgroups `change` has cut down, and opens it.
    fn open_memory(change: fn(&mut Cgroups)) -> Option<String> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs root and /bin/busybox");
            return None;
        }
        let folder = tempfile::tempdir().expect("temporary directory");
        for directory in ["bin", "dev", "proc", "sys"] {
            fs::create_dir(folder.path().join(directory)).expect("made");
        }
        fs::copy("/bin/busybox", folder.path().join("bin/busybox")).expect("copied");
        symlink("busybox", folder.path().join("bin/sh")).expect("linked");
        let mut host = Host::look(&SandboxOptions::default()).expect("known");
        change(&mut host.cgroups);
        let sandbox = Sandbox::new(SandboxOptions::default());
        sandbox.host.set(host).expect("not set yet");
        let script =
            "b=/bin/busybox; $b mknod /mem c 1 1 && $b mknod /null c 1 3 && $b head -c 1 /mem; echo x > /dev/null";
        let process = Process {
            root: bind_path(folder.path(), Attributes::empty()).expect("bound"),
            args: ["/bin/sh", "-c", script].map(|arg| arg.as_bytes().to_vec()).to_vec(),
            env: Vec::new(),
            cwd: RootPath::root(),
            user: Identity::default(),
            mounts: Vec::new(),
            devices: Vec::new(),
            network: Network::Host,
            hostname: "h".into(),
            security: Security::Sandbox,
            no_new_privileges: false,
            limits: Limits::default(),
            stdio: Stdio::Captured,
            trace: None,
        };
        let mut said = Vec::new();
        let exit = sandbox.run(process, &mut |_, bytes| said.extend_from_slice(bytes), &CancelToken::new());
        let said = String::from_utf8(said).expect("text");
        assert_eq!(exit.expect("ran"), Exit::Code(0), "{said}");
        Some(said)
    }

    #[test]
    fn sandboxes_of_one_process_have_cgroups_of_their_own() {
        let prefix = || cgroup_prefix().expect("random numbers");
        assert_ne!(prefix(), prefix());
        assert!(prefix().starts_with(&format!("rbuild-{}-", std::process::id())));
    }

    #[test]
    fn s6_devices_are_guarded_by_v1_where_v2_cannot() {
        let Some(said) = open_memory(Cgroups::without_v2) else { return };
        assert_eq!(said, "head: /mem: Operation not permitted\n");
    }

    #[test]
    fn s6_devices_are_guarded_by_the_mount_where_there_is_no_cgroup() {
        let Some(said) = open_memory(|cgroups| *cgroups = Cgroups::default()) else { return };
        assert_eq!(said, "head: /mem: Permission denied\n");
    }
}
