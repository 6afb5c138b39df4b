//! What happens between `clone3` and `execve`, in this order. The parent has prepared everything ([`Plan`]); here are only
//! system calls, and each failure ends the child with its [`Stage`] in the report.
//!
//! | | what | manual |
//! |--|--|--|
//! | 1 | die with the caller; end at once if it is dead already | `prctl(2)` `PR_SET_PDEATHSIG`, `pidfd_open(2)` |
//! | 2 | default action for every signal (all stay blocked), a session of its own | `sigaction(2)`, `setsid(2)` |
//! | 3 | join the v1 cgroups; hide what is above them | `cgroups(7)`, `cgroup_namespaces(7)` |
//! | 4 | network: loopback up, or join a namespace | `netdevice(7)`, `setns(2)` |
//! | 5 | host name | `sethostname(2)` |
//! | 6 | cut the mounts off from the host's | `mount_namespaces(7)` |
//! | 7 | attach the tmpfs with generated files, and over it the root | `move_mount(2)` |
//! | 8 | mounts below the root, in the order of the plan | `openat2(2)`, `fsopen(2)`, `open_tree(2)` |
//! | 9 | the root becomes `/`; the tmpfs and the host's mounts go, which is checked | `pivot_root(2)`, `umount2(2)` |
//! | 10 | streams, terminal | `dup2(2)`, `ioctl_tty(2)` |
//! | 11 | umask, resource limits, session keyring | `umask(2)`, `setrlimit(2)`, `keyctl(2)` |
//! | 12 | working directory, and that it is inside | `fchdir(2)`, `getcwd(2)` |
//! | 13 | AppArmor profile for the program | `proc_pid_attr(5)` |
//! | 14 | no-new-privileges if asked for, then the system call filter, and the one that traces | `seccomp(2)`, `seccomp_unotify(2)` |
//! | 15 | the program is none of ours, reached through `/proc` | `openat2(2)` `RESOLVE_NO_MAGICLINKS` |
//! | 16 | bounding set, groups, user, capabilities | `capabilities(7)`, `setgroups(2)`, `setresuid(2)` |
//! | 17 | step 1 again: a change of the user clears it | `prctl(2)` |
//! | 18 | no descriptor above 2 survives | `close_range(2)` |
//! | 19 | let signals through, execute the first candidate that exists | `execve(2)` |

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount_change, open_tree, unmount,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Signal, fchdir, ioctl_tiocsctty, pivot_root, set_parent_process_death_signal, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::nanosleep;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, LinkNameSpaceType, Uid, clear_ambient_capability_set,
    move_into_link_name_space, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::trace;
use crate::sys::child::{self, StringArray};
use crate::sys::mount::{Attributes, Depth, attach, set_attributes};

/// Everything that the child needs, made by the parent.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Pidfd of the process that runs the sandbox.
    pub(super) parent: BorrowedFd<'a>,
    /// `tasks` files of the v1 cgroups to join.
    pub(super) cgroup_tasks: &'a [OwnedFd],
    pub(super) network: NetworkPlan,
    pub(super) hostname: String,
    /// Detached mount of the root file system.
    pub(super) root: OwnedFd,
    /// Detached tmpfs with generated files.
    pub(super) files: OwnedFd,
    pub(super) mounts: Vec<MountStep>,
    pub(super) streams: Streams,
    /// Resource, soft and hard limit.
    pub(super) limits: Vec<(u32, u64, u64)>,
    /// Relative to the root.
    pub(super) cwd: CString,
    /// What to write to the AppArmor attribute.
    pub(super) apparmor: Option<String>,
    pub(super) no_new_privileges: bool,
    pub(super) filter: Option<&'a [libc::sock_filter]>,
    pub(super) identity: IdentityPlan,
    pub(super) capabilities: CapabilityPlan,
    pub(super) args: StringArray,
    pub(super) env: StringArray,
    /// Paths to try, in the order of `PATH`.
    pub(super) programs: Vec<CString>,
    /// Where the descriptor of the filter goes that tells which files are looked at.
    pub(super) trace: Option<TracePlan<'a>>,
    pub(super) report: Report,
}

#[derive(Debug)]
pub(super) struct TracePlan<'a> {
    pub(super) filter: &'a [libc::sock_filter],
    pub(super) socket: OwnedFd,
}

#[derive(Debug)]
pub(super) enum NetworkPlan {
    Host,
    /// A new namespace, where loopback has to be brought up.
    Loopback,
    Join(OwnedFd),
}

/// Descriptors that become 0, 1 and 2.
#[derive(Debug)]
pub(super) enum Streams {
    /// stdin is `/dev/null`.
    Captured {
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Inherit,
    Terminal(OwnedFd),
}

#[derive(Debug)]
pub(super) struct IdentityPlan {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// `None` where the user namespace does not allow to set groups.
    pub(super) groups: Option<Vec<Gid>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct CapabilityPlan {
    /// Taken out of the bounding set.
    pub(super) dropped: CapabilitySet,
    /// Permitted and effective at the end.
    pub(super) kept: CapabilitySet,
}

/// One mount below the root. Paths are relative to the root.
#[derive(Debug)]
pub(super) struct MountStep {
    pub(super) target: CString,
    /// Whether links on the way to the target are followed, inside the root; otherwise they are an error.
    pub(super) follow: bool,
    /// Whether a missing target, or source, is skipped.
    pub(super) optional: bool,
    pub(super) source: StepSource,
}

#[derive(Debug)]
pub(super) enum StepSource {
    /// A detached mount.
    Detached(OwnedFd),
    /// A file system that belongs to a namespace of the child: `proc`, `sysfs`, `mqueue`, `cgroup2`.
    New(&'static CStr, Attributes),
    /// A hierarchy of cgroups v1, by its controllers or its name. Something to look at: if it cannot be mounted, it is not there.
    CgroupV1(Vec<(CString, Option<CString>)>, Attributes),
    /// An entry of the tmpfs with generated files.
    Generated(CString, Attributes),
    /// What the root shows at another path by now.
    Inside(CString, Attributes),
}

/// Where the child was when something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Stage {
    Session = 1,
    Cgroup,
    Network,
    HostName,
    Propagation,
    Root,
    Mount,
    Pivot,
    Streams,
    Limit,
    Directory,
    AppArmor,
    Filter,
    Capabilities,
    Identity,
    Descriptors,
    Exec,
}

impl Stage {
    const ALL: [Self; 17] = [
        Self::Session,
        Self::Cgroup,
        Self::Network,
        Self::HostName,
        Self::Propagation,
        Self::Root,
        Self::Mount,
        Self::Pivot,
        Self::Streams,
        Self::Limit,
        Self::Directory,
        Self::AppArmor,
        Self::Filter,
        Self::Capabilities,
        Self::Identity,
        Self::Descriptors,
        Self::Exec,
    ];
}

/// What the child tells the parent, in the memory that they share.
#[derive(Debug, Default)]
pub(super) struct Report {
    stage: AtomicU32,
    item: AtomicU32,
    errno: AtomicI32,
}

/// A failure of the child.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    /// Index of the mount or of the limit.
    pub(super) item: usize,
    pub(super) error: io::Error,
}

impl Report {
    /// What failed, if something did. The child has ended or executed its program by now.
    pub(super) fn failure(&self) -> Option<Failure> {
        let stage = self.stage.load(Ordering::Acquire);
        let stage = Stage::ALL.into_iter().find(|known| *known as u32 == stage)?;
        let item = usize::try_from(self.item.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        Some(Failure { stage, item, error: io::Error::from_raw_os_error(self.errno.load(Ordering::Relaxed)) })
    }

    fn set_item(&self, item: usize) {
        self.item.store(u32::try_from(item).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn fail(&self, stage: Stage, error: &io::Error) {
        self.errno.store(error.raw_os_error().unwrap_or(libc::EIO), Ordering::Relaxed);
        self.stage.store(stage as u32, Ordering::Release);
    }
}

/// Runs in the child. Returns only if the program was not executed.
pub(super) fn run(plan: &Plan<'_>) -> i32 {
    let (stage, error) = match set_up(plan) {
        Err(failed) => failed,
        Ok(()) => (Stage::Exec, execute(plan)),
    };
    plan.report.fail(stage, &error);
    // As a shell does for a command that it cannot run; nobody sees it.
    127
}

type Failed = (Stage, io::Error);

fn set_up(plan: &Plan<'_>) -> Result<(), Failed> {
    let at = |stage: Stage| move |error: io::Error| (stage, error);
    die_with(plan.parent).map_err(at(Stage::Session))?;
    child::reset_signals();
    setsid().map_err(|errno| (Stage::Session, errno.into()))?;
    join_cgroups(plan.cgroup_tasks).map_err(at(Stage::Cgroup))?;
    set_up_network(&plan.network).map_err(at(Stage::Network))?;
    rustix::system::sethostname(plan.hostname.as_bytes()).map_err(|errno| (Stage::HostName, errno.into()))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", private).map_err(|errno| (Stage::Propagation, errno.into()))?;
    attach_root(plan).map_err(at(Stage::Root))?;
    for (index, step) in plan.mounts.iter().enumerate() {
        plan.report.set_item(index);
        mount(plan, step).map_err(at(Stage::Mount))?;
    }
    pivot(&plan.root).map_err(at(Stage::Pivot))?;
    set_up_streams(&plan.streams).map_err(at(Stage::Streams))?;
    umask(Mode::WGRP | Mode::WOTH);
    for (index, (resource, soft, hard)) in plan.limits.iter().enumerate() {
        plan.report.set_item(index);
        child::set_limit(*resource, *soft, *hard).map_err(at(Stage::Limit))?;
    }
    // A kernel without keyrings, or a full quota, leaves nothing to protect or nothing to do.
    let _ = child::join_session_keyring();
    enter_directory(plan).map_err(at(Stage::Directory))?;
    if let Some(profile) = &plan.apparmor {
        set_profile(plan, profile).map_err(at(Stage::AppArmor))?;
    }
    if plan.no_new_privileges {
        set_no_new_privs(true).map_err(|errno| (Stage::Filter, errno.into()))?;
    }
    if let Some(filter) = plan.filter {
        child::install_filter(filter).map_err(at(Stage::Filter))?;
    }
    if let Some(trace) = &plan.trace {
        trace::hand_over(&trace.socket, trace.filter).map_err(at(Stage::Filter))?;
    }
    for program in &plan.programs {
        check_program(program).map_err(at(Stage::Exec))?;
    }
    drop_bounding(plan.capabilities.dropped).map_err(at(Stage::Capabilities))?;
    become_user(&plan.identity).map_err(at(Stage::Identity))?;
    set_final_capabilities(plan).map_err(at(Stage::Capabilities))?;
    die_with(plan.parent).map_err(at(Stage::Session))?;
    child::close_rest_on_exec().map_err(at(Stage::Descriptors))?;
    child::unblock_signals().map_err(at(Stage::Session))
}

/// The signal comes when the thread that started us ends; that thread waits for us, so it ends only with its process.
fn die_with(parent: BorrowedFd<'_>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut set = [PollFd::new(&parent, PollFlags::IN)];
    match poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Ok(()),
        // It ended before the line above: nobody would tell us.
        _ => Err(Errno::SRCH.into()),
    }
}

fn join_cgroups(tasks: &[OwnedFd]) -> io::Result<()> {
    for file in tasks {
        // `0` is the writer itself. Through `tasks` rather than `cgroup.procs` the kernel need not wait for all CPUs.
        rustix::io::write(file, b"0")?;
    }
    child::unshare_cgroup()
}

fn set_up_network(network: &NetworkPlan) -> io::Result<()> {
    match network {
        NetworkPlan::Host => Ok(()),
        NetworkPlan::Join(namespace) => {
            Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
        }
        NetworkPlan::Loopback => {
            let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            child::loopback_up(&socket)
        }
    }
}

fn attach_root(plan: &Plan<'_>) -> io::Result<()> {
    // The path of `/` is not looked up through mounts on top of it; the kernel puts the second over the first.
    let host = openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    attach(&plan.files, &host)?;
    attach(&plan.root, &host)
}

fn mount(plan: &Plan<'_>, step: &MountStep) -> io::Result<()> {
    match try_mount(plan, step) {
        Err(error) if step.optional && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn try_mount(plan: &Plan<'_>, step: &MountStep) -> io::Result<()> {
    let target = resolve(&plan.root, &step.target, step.follow)?;
    match &step.source {
        StepSource::Detached(mount) => attach(mount, target),
        StepSource::New(kind, attributes) => attach(new_file_system(kind, *attributes)?, target),
        StepSource::CgroupV1(options, attributes) => match cgroup_v1(options, *attributes) {
            Ok(mount) => attach(mount, target),
            Err(_) => Ok(()),
        },
        StepSource::Generated(name, attributes) => attach(clone_mount(&plan.files, name, *attributes)?, target),
        StepSource::Inside(path, attributes) => {
            let source = resolve(&plan.root, path, false)?;
            attach(clone_mount(&source, c"", *attributes)?, target)
        }
    }
}

/// Opens a path inside the root, whatever the links in it say, and never through a magic link.
fn resolve(root: &OwnedFd, path: &CStr, follow: bool) -> io::Result<OwnedFd> {
    let mut how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if !follow {
        how |= ResolveFlags::NO_SYMLINKS;
    }
    Ok(openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?)
}

fn new_file_system(kind: &CStr, attributes: Attributes) -> io::Result<OwnedFd> {
    let made = (|| {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, c"source", kind)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    })();
    match made {
        // sysfs shows the network namespace, and may be mounted only by who owns that: in a user namespace with the
        // host's network the host's mount has to do.
        Err(Errno::PERM) if kind == c"sysfs" => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
            let mount = open_tree(CWD, c"/sys", flags)?;
            set_attributes(&mount, attributes, Depth::Tree)?;
            Ok(mount)
        }
        other => Ok(other?),
    }
}

fn cgroup_v1(options: &[(CString, Option<CString>)], attributes: Attributes) -> Result<OwnedFd, Errno> {
    let context = fsopen(c"cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", c"cgroup")?;
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, name.as_c_str(), value.as_c_str())?,
            None => fsconfig_set_flag(&context, name.as_c_str())?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn clone_mount(directory: &OwnedFd, path: &CStr, attributes: Attributes) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(directory, path, flags)?;
    if !attributes.is_empty() {
        set_attributes(&mount, attributes, Depth::Tree)?;
    }
    Ok(mount)
}

fn pivot(root: &OwnedFd) -> io::Result<()> {
    fchdir(root)?;
    // With the same directory twice the old root ends up on top of the new one, and on top of it the tmpfs that was
    // attached to it. `umount2(".")` takes off what is uppermost: first the tmpfs, then the host's root.
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    unmount(c".", UnmountFlags::DETACH)?;
    // Whatever was left there could be reached as `/..`.
    let above = openat2(CWD, c"/..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())?;
    if same_mount(&above, root)? { Ok(()) } else { Err(Errno::XDEV.into()) }
}

/// Whether two descriptors are of the same directory of the same mount.
fn same_mount(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let one = statx(one, c"", AtFlags::EMPTY_PATH, wanted)?;
    let other = statx(other, c"", AtFlags::EMPTY_PATH, wanted)?;
    Ok((one.stx_ino, one.stx_mnt_id) == (other.stx_ino, other.stx_mnt_id))
}

fn set_up_streams(streams: &Streams) -> io::Result<()> {
    match streams {
        Streams::Inherit => {}
        Streams::Captured { stdout, stderr } => {
            // The sandbox's own /dev, in which no link leads elsewhere.
            let null = openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            dup2_stdin(&null)?;
            dup2_stdout(stdout)?;
            dup2_stderr(stderr)?;
        }
        Streams::Terminal(device) => {
            ioctl_tiocsctty(device)?;
            dup2_stdin(device)?;
            dup2_stdout(device)?;
            dup2_stderr(device)?;
        }
    }
    Ok(())
}

fn enter_directory(plan: &Plan<'_>) -> io::Result<()> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat2(&plan.root, &plan.cwd, flags, Mode::empty(), how)?;
    fchdir(&directory)?;
    if child::current_directory_is_inside()? { Ok(()) } else { Err(Errno::XDEV.into()) }
}

/// Through the procfs that step 8 mounted; no link of the image is on this path.
fn set_profile(plan: &Plan<'_>, profile: &str) -> io::Result<()> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = c"proc/thread-self/attr/apparmor/exec";
    let attribute = openat2(&plan.root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), how)?;
    // A mount of the caller's may lie over it.
    if rustix::fs::fstatfs(&attribute)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(Errno::XDEV.into());
    }
    rustix::io::write(&attribute, profile.as_bytes())?;
    Ok(())
}

/// What the kernel reads of a file to find out what it is (`BINPRM_BUF_SIZE` of linux/binfmts.h), bytes.
const HEAD: usize = 256;

/// How many scripts may interpret each other; as in the kernel's `exec_binprm`.
const INTERPRETERS: usize = 6;

/// Refuses a program that is reached through a magic link, as `/proc/self/exe`, or whose `#!` line is: until the program
/// runs, that link leads to the caller's own file on the host, which the step could keep a handle on and write to afterwards
/// (CVE-2019-5736). Asked while this is root, because a file can be executable and not readable.
fn check_program(program: &CStr) -> io::Result<()> {
    let mut head = [0u8; HEAD + 1];
    let mut file = open_program(program);
    for _ in 0..INTERPRETERS {
        let opened = match file {
            Ok(opened) => opened,
            Err(Errno::LOOP) => return Err(Errno::ACCESS.into()),
            // `execve` says what is wrong with it.
            Err(_) => return Ok(()),
        };
        let Ok(length) = rustix::io::read(&opened, &mut head[..HEAD]) else { return Ok(()) };
        head[length] = 0;
        let Some(interpreter) = interpreter(&mut head[..=length]) else { return Ok(()) };
        file = open_program(interpreter);
    }
    Ok(())
}

fn open_program(path: &CStr) -> Result<OwnedFd, Errno> {
    // A FIFO in its place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// The path after `#!`, see `execve(2)`.
fn interpreter(head: &mut [u8]) -> Option<&CStr> {
    let line = head.strip_prefix(b"#!")?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = 2 + line.iter().take_while(|byte| blank(byte)).count();
    let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0);
    let end = start + head.get(start..)?.iter().position(ends)?;
    *head.get_mut(end)? = 0;
    CStr::from_bytes_with_nul(head.get(start..=end)?).ok()
}

fn drop_bounding(dropped: CapabilitySet) -> io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !dropped.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first one that this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn become_user(identity: &IdentityPlan) -> io::Result<()> {
    if let Some(groups) = &identity.groups {
        set_thread_groups(groups)?;
    }
    set_thread_res_gid(identity.gid, identity.gid, identity.gid)?;
    set_thread_res_uid(identity.uid, identity.uid, identity.uid)?;
    Ok(())
}

fn set_final_capabilities(plan: &Plan<'_>) -> io::Result<()> {
    let kept = plan.capabilities.kept;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    clear_ambient_capability_set()?;
    Ok(())
}

/// How often a program that is open for writing is tried again, and the time between: half a second in all, far more than
/// a child needs to be set up.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Tries the candidates as `execvp(3)` does: a file that may not be executed is remembered, the next one may do.
fn execute(plan: &Plan<'_>) -> io::Error {
    let mut answer = io::Error::from_raw_os_error(libc::ENOENT);
    for program in &plan.programs {
        let mut error = child::execve(program, &plan.args, &plan.env);
        // A child of another thread that is just being set up holds what any thread had open for writing when it was cloned, such
        // as this very file while a COPY wrote it. It lets go when it executes its own program.
        for _ in 0..BUSY_TRIES {
            if error.raw_os_error() != Some(libc::ETXTBSY) {
                break;
            }
            // A signal that cuts it short costs one of the tries.
            let _ = nanosleep(&BUSY_PAUSE);
            error = child::execve(program, &plan.args, &plan.env);
        }
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => answer = error,
            _ => return error,
        }
    }
    answer
}
