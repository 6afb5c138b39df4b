//! From a [`Process`] to the [`Plan`] of its child: everything that can fail with a name, or allocates, happens here.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawMode, ResolveFlags, chmodat, fchmod, fchown, fstat, mkdirat, openat, openat2,
};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{CapabilitySet, Gid, Uid, capabilities};

use super::child::{CapabilityPlan, IdentityPlan, MountStep, NetworkPlan, Plan, Report, StepSource, Streams};
use super::devices::{self, DevOptions, Hierarchies, HostDevice, make_file};
use super::{ExecuteError, Limits, Mount, MountSource, Network, Process, Security, Stdio};
use crate::rootfs::RootPath;
use crate::sys::child::StringArray;
use crate::sys::mount::{self, Attributes, Depth, Tmpfs};

/// What a sandbox knows about where it runs, and keeps for all of its processes.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// Pidfd of this process.
    pub(super) parent: BorrowedFd<'a>,
    pub(super) filter: &'a [libc::sock_filter],
    pub(super) cgroup_tasks: &'a [OwnedFd],
    /// What is shown of cgroups.
    pub(super) cgroups: Hierarchies<'a>,
    /// Whether a cgroup holds devices back; otherwise the root shows none.
    pub(super) device_policy: bool,
    /// Whether `setgroups(2)` is allowed.
    pub(super) groups_allowed: bool,
    /// Name of the AppArmor profile.
    pub(super) apparmor: Option<&'a str>,
}

/// Docker's 14: see `capabilities(7)` and the table in the crate's security notes.
const CAPABILITIES: CapabilitySet = CapabilitySet::from_bits_retain(0xa804_25fb);

/// `/dev/shm` where nothing else is asked for, in bytes; the value of every container engine.
const SHM_SIZE: u64 = 64 << 20;

/// `HOST_NAME_MAX`.
const HOSTNAME_MAX: usize = 64;

/// The reading ends of captured streams.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

pub(super) fn prepare<'a>(
    process: Process,
    devices: Vec<HostDevice>,
    around: &Surroundings<'a>,
) -> Result<(Plan<'a>, Option<Captured>), ExecuteError> {
    let setup = |what| move |source: io::Error| ExecuteError::Setup { what, source };
    let programs = candidates(&process)?;
    let args = StringArray::new(process.args).map_err(|_| ExecuteError::Nul { what: "an argument" })?;
    let env = StringArray::new(process.env.into_iter().map(|(name, value)| [&name[..], b"=", &value].concat()))
        .map_err(|_| ExecuteError::Nul { what: "the environment" })?;
    if process.hostname.len() > HOSTNAME_MAX || process.hostname.contains('\0') {
        return Err(setup("host name")(Errno::NAMETOOLONG.into()));
    }
    let insecure = process.security == Security::Insecure;
    // Where no cgroup keeps device nodes in the image from being opened, the mount does.
    let nodes = if insecure || around.device_policy { Attributes::empty() } else { Attributes::MOUNT_ATTR_NODEV };
    mount::set_attributes(&process.root, nodes, Depth::Tree).map_err(setup("root"))?;
    let (streams, captured, terminal) = streams(process.stdio).map_err(setup("streams"))?;
    let dev =
        DevOptions { devices, shm_size: process.limits.shm_size.unwrap_or(SHM_SIZE), terminal, loop_devices: insecure };
    let mut layout = Layout::new(dev).map_err(setup("/dev"))?;
    layout.steps.extend(devices::kernel_file_systems(!insecure, around.cgroups).map_err(setup("/sys/fs/cgroup"))?);
    for mount in process.mounts {
        let target = mount.target.to_string();
        let owner = match &mount.source {
            MountSource::File { uid, gid, .. } => Some((*uid, *gid)),
            _ => None,
        };
        layout.add(mount, nodes).map_err(|source| match (owner, source.raw_os_error()) {
            (Some((uid, gid)), Some(libc::EINVAL)) => ExecuteError::Owner { target, uid, gid, source },
            _ => ExecuteError::Mount { target, source },
        })?;
    }
    // Where that fails, entering it does, too, and says so.
    let _ = layout.make_target(&process.cwd, true);
    let held = capabilities(None).map_err(|errno| setup("capabilities")(errno.into()))?.permitted;
    let plan = Plan {
        parent: around.parent,
        cgroup_tasks: around.cgroup_tasks,
        network: match process.network {
            Network::Host => NetworkPlan::Host,
            Network::None => NetworkPlan::Loopback,
            Network::Joined(namespace) => NetworkPlan::Join(namespace),
        },
        hostname: process.hostname,
        root: process.root,
        files: layout.files,
        mounts: layout.steps,
        streams,
        limits: limits(&process.limits),
        cwd: c_path(&process.cwd),
        apparmor: around.apparmor.filter(|_| !insecure).map(|profile| format!("exec {profile}")),
        no_new_privileges: process.no_new_privileges,
        filter: (!insecure).then_some(around.filter),
        capabilities: capability_plan(held, insecure, process.user.uid),
        identity: IdentityPlan {
            uid: Uid::from_raw(process.user.uid),
            gid: Gid::from_raw(process.user.gid),
            groups: around.groups_allowed.then(|| process.user.groups.into_iter().map(Gid::from_raw).collect()),
        },
        args,
        env,
        programs,
        trace: None,
        report: Report::default(),
    };
    Ok((plan, captured))
}

/// Where the program may be: itself if it has a slash, else below each directory of `PATH`.
fn candidates(process: &Process) -> Result<Vec<CString>, ExecuteError> {
    let program = process.args.first().filter(|program| !program.is_empty()).ok_or(ExecuteError::NoCommand)?;
    let c_string = |path: Vec<u8>| CString::new(path).map_err(|_| ExecuteError::Nul { what: "an argument" });
    if program.contains(&b'/') {
        return Ok(vec![c_string(program.clone())?]);
    }
    let path = process.env.iter().rev().find(|(name, _)| name == b"PATH").map(|(_, path)| path.as_slice());
    path.unwrap_or_default()
        .split(|byte| *byte == b':')
        .map(|directory| c_string([if directory.is_empty() { b"." } else { directory }, b"/", program].concat()))
        .collect()
}

fn streams(stdio: Stdio) -> io::Result<(Streams, Option<Captured>, Option<OwnedFd>)> {
    match stdio {
        Stdio::Inherit => Ok((Streams::Inherit, None, None)),
        Stdio::Terminal(terminal) => Ok((Streams::Terminal(terminal.device), None, Some(terminal.devpts))),
        Stdio::Captured => {
            let (stdout, stdout_end) = pipe_with(PipeFlags::CLOEXEC)?;
            let (stderr, stderr_end) = pipe_with(PipeFlags::CLOEXEC)?;
            // Only our ends: the flag belongs to each end, and programs expect theirs to block.
            for end in [&stdout, &stderr] {
                rustix::io::ioctl_fionbio(end, true)?;
            }
            let streams = Streams::Captured { stdout: stdout_end, stderr: stderr_end };
            Ok((streams, Some(Captured { stdout, stderr }), None))
        }
    }
}

fn limits(limits: &Limits) -> Vec<(u32, u64, u64)> {
    let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    limits.ulimits.iter().map(|limit| (limit.resource.number(), value(limit.soft), value(limit.hard))).collect()
}

fn capability_plan(held: CapabilitySet, insecure: bool, uid: u32) -> CapabilityPlan {
    let all = CapabilitySet::from_bits_retain(u64::MAX);
    let (dropped, kept) =
        if insecure { (CapabilitySet::empty(), held) } else { (all.difference(CAPABILITIES), held & CAPABILITIES) };
    CapabilityPlan { dropped, kept: if uid == 0 { kept } else { CapabilitySet::empty() } }
}

fn c_path(path: &RootPath) -> CString {
    let bytes = if path.is_root() { &b"."[..] } else { path.as_bytes() };
    CString::new(bytes).expect("a path inside an image holds no NUL")
}

/// The mounts of a process while they are collected.
struct Layout {
    steps: Vec<MountStep>,
    /// The tmpfs with generated files.
    files: OwnedFd,
    generated: usize,
    /// File systems that exist only for this process, where targets of later mounts can be made.
    own: Vec<(RootPath, OwnedFd)>,
    /// The targets so far.
    targets: Vec<RootPath>,
}

impl Layout {
    fn new(dev: DevOptions) -> io::Result<Self> {
        let files = mount::tmpfs(&Tmpfs { size: None, mode: 0o700, swap: false, attributes: Attributes::empty() })?;
        mkdirat(&files, devices::EMPTY, Mode::from_raw_mode(0o755))?;
        let (dev, steps) = devices::make_dev(dev)?;
        let dev_path = RootPath::from_clean(b"dev").expect("clean");
        Ok(Self { steps, files, generated: 0, own: vec![(dev_path, dev)], targets: Vec::new() })
    }

    fn add(&mut self, mount: Mount, nodes: Attributes) -> io::Result<()> {
        let first = mount.target.components().next();
        // The root itself, and what the kernel shows there, stay what they are: a mount could cover a mask.
        if matches!(first, None | Some(b"proc" | b"sys")) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing can be mounted there"));
        }
        let mut attributes = nodes;
        if mount.read_only {
            attributes |= Attributes::MOUNT_ATTR_RDONLY;
        }
        let guarded = attributes | Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
        let (source, is_directory, own) = match mount.source {
            MountSource::Detached(source) => {
                mount::set_attributes(&source, attributes, Depth::Tree)?;
                let is_directory = FileType::from_raw_mode(fstat(&source)?.st_mode) == FileType::Directory;
                (StepSource::Detached(source), is_directory, None)
            }
            MountSource::Tmpfs { size, mode } => {
                let options = Tmpfs { size, mode, swap: true, attributes: guarded };
                let source = mount::tmpfs(&options)?;
                let own = source.try_clone()?;
                (StepSource::Detached(source), true, Some(own))
            }
            MountSource::File { content, mode, uid, gid } => {
                let name = self.generate(&content, mode, uid, gid)?;
                (StepSource::Generated(name, guarded), false, None)
            }
        };
        self.make_target(&mount.target, is_directory)?;
        // Below another mount, which another process may be writing to, a link is not trusted.
        let follow = !self.targets.iter().any(|above| mount.target.starts_with(above));
        self.steps.push(MountStep { target: c_path(&mount.target), follow, optional: false, source });
        if let Some(own) = own {
            self.own.push((mount.target.clone(), own));
        }
        self.targets.push(mount.target);
        Ok(())
    }

    /// Writes a file that only this process will see; returns its name.
    fn generate(&mut self, content: &[u8], mode: RawMode, uid: u32, gid: u32) -> io::Result<CString> {
        let name = CString::new(self.generated.to_string()).expect("digits");
        self.generated += 1;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.files, name.as_c_str(), flags, Mode::from_raw_mode(0o600))?;
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        File::from(file).write_all(content)?;
        Ok(name)
    }

    /// Makes the target of a mount where it lies in a file system that starts empty; anywhere else it exists.
    fn make_target(&self, target: &RootPath, is_directory: bool) -> io::Result<()> {
        // The last one that lies above it is the one that shows.
        let above = self.own.iter().rev().find_map(|(path, mount)| Some((target.strip_prefix(path)?, mount)));
        let Some((below, mount)) = above.filter(|(below, _)| !below.is_root()) else { return Ok(()) };
        let parents: Vec<&[u8]> = below.components().collect();
        let Some((name, parents)) = parents.split_last() else { return Ok(()) };
        let mut directory = mount.try_clone()?;
        for parent in parents {
            make_directory(&directory, parent)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            directory = openat2(&directory, *parent, flags, Mode::empty(), how)?;
        }
        if is_directory { make_directory(&directory, name) } else { make_file(&directory, *name) }
    }
}

fn make_directory(directory: impl AsFd, name: &[u8]) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    match mkdirat(&directory, name, mode) {
        // The umask of the caller took bits away.
        Ok(()) => Ok(chmodat(&directory, name, mode, AtFlags::empty())?),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
