//! `/dev`, `/proc` and `/sys` of a process: which file systems, nodes, masks.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, major, makedev, minor, mkdirat, mknodat, openat,
    symlinkat,
};
use rustix::io::Errno;

use super::Device;
use super::cgroup::V1Mount;
use super::child::{MountStep, StepSource};
use super::terminal::TTY_GROUP;
use crate::rootfs::RootPath;
use crate::sys::bpf;
use crate::sys::mount::{self, Attributes, Depth, Tmpfs};

/// Character devices that every process gets, all with mode 0666.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What a device cgroup lets a process open: its nodes, `ptmx`, and all terminals (major 136).
pub(super) const OPENABLE: [bpf::Device; 8] = [
    bpf::Device::character(1, Some(3)),
    bpf::Device::character(1, Some(5)),
    bpf::Device::character(1, Some(7)),
    bpf::Device::character(1, Some(8)),
    bpf::Device::character(1, Some(9)),
    bpf::Device::character(5, Some(0)),
    bpf::Device::character(5, Some(2)),
    bpf::Device::character(136, None),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Files that show or change more of the host than a build may; `/dev/null` lies over them.
const MASKED_FILES: [&str; 6] =
    ["proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats", "proc/sched_debug"];

/// Directories of that sort; an empty one lies over them.
const MASKED_DIRECTORIES: [&str; 5] =
    ["proc/acpi", "proc/asound", "proc/scsi", "sys/firmware", "sys/devices/virtual/powercap"];

/// Parts of `/proc` that can be read, but not written.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// Name of the empty directory among the generated files.
pub(super) const EMPTY: &str = "empty";

/// Bytes of the tmpfs on `/dev`, as runc has it.
const DEV_SIZE: u64 = 64 << 20;

fn attributes(more: Attributes) -> Attributes {
    Attributes::MOUNT_ATTR_NOSUID | more
}

fn step(target: &str, source: StepSource) -> MountStep {
    MountStep { target: c_string(target), follow: false, optional: false, source }
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("a constant without NUL")
}

/// `/proc` and `/sys`. With `masks`, what a build must not see or change is covered; without them `/sys` is writable.
/// `/dev` comes before, because the masks are its `null`.
pub(super) fn kernel_file_systems(masks: bool, cgroups: Hierarchies<'_>) -> io::Result<Vec<MountStep>> {
    let sealed = attributes(Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC);
    let read_only = if masks { sealed | Attributes::MOUNT_ATTR_RDONLY } else { sealed };
    let mut steps =
        vec![step("proc", StepSource::New(c"proc", sealed)), step("sys", StepSource::New(c"sysfs", read_only))];
    match cgroups {
        Hierarchies::V2 => {
            steps.push(MountStep { optional: true, ..step(CGROUPS, StepSource::New(c"cgroup2", read_only)) });
        }
        Hierarchies::V1([]) => {}
        Hierarchies::V1(mounts) => steps.extend(cgroups_v1(mounts, read_only)?),
    }
    if masks {
        let masked_files =
            MASKED_FILES.iter().map(|path| step(path, StepSource::Inside(c_string("dev/null"), Attributes::empty())));
        let masked_directories =
            MASKED_DIRECTORIES.iter().map(|path| step(path, StepSource::Generated(c_string(EMPTY), read_only)));
        let read_only = READ_ONLY.iter().map(|path| step(path, StepSource::Inside(c_string(path), read_only)));
        let covers = masked_files.chain(masked_directories).chain(read_only);
        steps.extend(covers.map(|cover| MountStep { optional: true, ..cover }));
    }
    Ok(steps)
}

/// What of the host's cgroups a process sees: its own in each hierarchy, to read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hierarchies<'a> {
    /// The unified one.
    V2,
    /// Those of v1.
    V1(&'a [V1Mount]),
}

/// Where cgroups are mounted.
const CGROUPS: &str = "sys/fs/cgroup";

/// A directory for each hierarchy, and a link for each controller of one with several, as on the host.
fn cgroups_v1(mounts: &[V1Mount], attributes: Attributes) -> io::Result<Vec<MountStep>> {
    let top = mount::tmpfs(&Tmpfs { size: Some(1 << 20), mode: 0o755, swap: true, attributes: Attributes::empty() })?;
    let mut steps = Vec::new();
    for V1Mount { directory, options } in mounts {
        mkdirat(&top, directory.as_str(), Mode::from_raw_mode(0o755))?;
        for option in options.iter().filter(|option| options.len() > 1 && *option != directory) {
            symlinkat(directory.as_str(), &top, option.as_str())?;
        }
        let options = options.iter().map(|option| match option.split_once('=') {
            Some((name, value)) => (c_string(name), Some(c_string(value))),
            None => (c_string(option), None),
        });
        let source = StepSource::CgroupV1(options.collect(), attributes);
        steps.push(MountStep { optional: true, ..step(&format!("{CGROUPS}/{directory}"), source) });
    }
    // A mount on top of a read-only one can be made, a directory in it could not.
    mount::set_attributes(&top, attributes, Depth::One)?;
    steps.insert(0, MountStep { optional: true, ..step(CGROUPS, StepSource::Detached(top)) });
    Ok(steps)
}

/// A device of the host that a process gets.
#[derive(Debug)]
pub(super) struct HostDevice {
    pub(super) asked: Device,
    kind: FileType,
    numbers: (u32, u32),
}

impl HostDevice {
    /// Looks at the node of the host.
    pub(super) fn find(asked: Device) -> io::Result<Self> {
        let node = rustix::fs::stat(&asked.host)?;
        let kind = FileType::from_raw_mode(node.st_mode);
        let below_dev = asked.path.components().next() == Some(b"dev") && asked.path.components().count() > 1;
        if !below_dev || !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { asked, kind, numbers: (major(node.st_rdev), minor(node.st_rdev)) })
    }

    /// What the guard of devices has to let through.
    pub(super) fn rule(&self) -> bpf::Device {
        let (major, minor) = self.numbers;
        let block = self.kind == FileType::BlockDevice;
        bpf::Device { block, major, minor: Some(minor), read: self.asked.read, write: self.asked.write }
    }

    /// Makes the node in `/dev`, with the directories above it.
    fn make(&self, dev: &OwnedFd) -> io::Result<Option<MountStep>> {
        let components: Vec<&[u8]> = self.asked.path.components().skip(1).collect();
        let (name, parents) = components.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let mut directory = dev.try_clone()?;
        for parent in parents {
            match mkdirat(&directory, *parent, Mode::from_raw_mode(0o755)) {
                Ok(()) => chmodat(&directory, *parent, Mode::from_raw_mode(0o755), AtFlags::empty())?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = openat(&directory, *parent, flags, Mode::empty())?;
        }
        let node = Node { kind: self.kind, numbers: self.numbers, host: &self.asked.host, mode: self.asked.mode };
        let step = make_node(&directory, name, &target(&self.asked.path), &node)?;
        if step.is_none() {
            let owner = (Uid::from_raw(self.asked.uid), Gid::from_raw(self.asked.gid));
            chownat(&directory, *name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(step)
    }
}

fn target(path: &RootPath) -> CString {
    CString::new(path.as_bytes()).expect("a path inside an image holds no NUL")
}

/// What differs between processes in `/dev`.
#[derive(Debug)]
pub(super) struct DevOptions {
    /// Devices of the host.
    pub(super) devices: Vec<HostDevice>,
    /// Bytes of `/dev/shm`.
    pub(super) shm_size: u64,
    /// The devpts of the process's terminal; `None` makes a new one.
    pub(super) terminal: Option<OwnedFd>,
    /// The loop devices of the host too.
    pub(super) loop_devices: bool,
}

/// Makes `/dev`. Returns its tmpfs and the steps that attach it with what is in it.
pub(super) fn make_dev(options: DevOptions) -> io::Result<(OwnedFd, Vec<MountStep>)> {
    let dev = mount::tmpfs(&Tmpfs {
        size: Some(DEV_SIZE),
        mode: 0o755,
        swap: true,
        attributes: attributes(Attributes::empty()),
    })?;
    let mut below = Vec::new();
    for (name, major, minor) in NODES {
        below.extend(make_host_node(&dev, name, FileType::CharacterDevice, (major, minor))?);
    }
    for device in &options.devices {
        below.extend(device.make(&dev)?);
    }
    if options.loop_devices {
        for step in make_loop_devices(&dev)? {
            below.push(step);
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
    }
    let has_terminal = options.terminal.is_some();
    let devpts = match options.terminal {
        Some(devpts) => devpts,
        None => mount::devpts(Some(TTY_GROUP)).or_else(|_| mount::devpts(None))?,
    };
    let sealed = attributes(Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC);
    let shm = mount::tmpfs(&Tmpfs { size: Some(options.shm_size), mode: 0o1777, swap: true, attributes: sealed })?;
    below.push(step("dev/pts", StepSource::Detached(devpts)));
    below.push(step("dev/shm", StepSource::Detached(shm)));
    below.push(step("dev/mqueue", StepSource::New(c"mqueue", sealed)));
    if has_terminal {
        make_file(&dev, "console")?;
        below.push(step("dev/console", StepSource::Inside(c_string("dev/pts/0"), Attributes::empty())));
    }
    let mut steps = vec![step("dev", StepSource::Detached(dev.try_clone()?))];
    steps.append(&mut below);
    Ok((dev, steps))
}

/// A node, as the host has it.
struct Node<'a> {
    kind: FileType,
    numbers: (u32, u32),
    host: &'a Path,
    /// Permission bits.
    mode: u32,
}

/// A node that everybody may use, under the name that it has on the host.
fn make_host_node(dev: &OwnedFd, name: &str, kind: FileType, numbers: (u32, u32)) -> io::Result<Option<MountStep>> {
    let host = Path::new("/dev").join(name);
    make_node(
        dev,
        name.as_bytes(),
        &c_string(&format!("dev/{name}")),
        &Node { kind, numbers, host: &host, mode: 0o666 },
    )
}

/// Makes a device node, or, where that is not allowed (in a user namespace), a file with the step that binds the host's
/// node over it.
fn make_node(directory: &OwnedFd, name: &[u8], target: &CStr, node: &Node<'_>) -> io::Result<Option<MountStep>> {
    let mode = Mode::from_raw_mode(node.mode);
    match mknodat(directory, name, node.kind, mode, makedev(node.numbers.0, node.numbers.1)) {
        Ok(()) => {
            // The umask of the caller took bits away.
            chmodat(directory, name, mode, AtFlags::empty())?;
            Ok(None)
        }
        Err(Errno::PERM) => {
            make_file(directory, name)?;
            let source = StepSource::Detached(mount::bind_path(node.host, Attributes::empty())?);
            Ok(Some(MountStep { target: target.to_owned(), follow: false, optional: false, source }))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// As many as the host has.
fn make_loop_devices(dev: &OwnedFd) -> io::Result<Vec<MountStep>> {
    let mut steps = Vec::new();
    let present = |name: &str| Path::new("/dev").join(name).exists();
    if present("loop-control") {
        steps.extend(make_host_node(dev, "loop-control", FileType::CharacterDevice, (10, 237))?);
    }
    for number in (0..256).take_while(|number| present(&format!("loop{number}"))) {
        steps.extend(make_host_node(dev, &format!("loop{number}"), FileType::BlockDevice, (7, number))?);
    }
    Ok(steps)
}

/// An empty file to mount over.
pub(super) fn make_file(directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}
