//! `/dev`, `/proc` and `/sys` of a process: which file systems, nodes, masks.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::child::{MountStep, StepSource};
use super::terminal::TTY_GROUP;
use crate::sys::mount::{self, Attributes, Tmpfs};

/// Character devices that every process gets, all with mode 0666.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What a device cgroup lets a process open: its nodes, `ptmx`, and all terminals (major 136).
pub(super) const OPENABLE: [(u32, Option<u32>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

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
pub(super) fn kernel_file_systems(masks: bool, cgroup2: bool) -> Vec<MountStep> {
    let sealed = attributes(Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC);
    let read_only = if masks { sealed | Attributes::MOUNT_ATTR_RDONLY } else { sealed };
    let mut steps =
        vec![step("proc", StepSource::New(c"proc", sealed)), step("sys", StepSource::New(c"sysfs", read_only))];
    if cgroup2 {
        steps.push(MountStep { optional: true, ..step("sys/fs/cgroup", StepSource::New(c"cgroup2", read_only)) });
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
    steps
}

/// What differs between processes in `/dev`.
#[derive(Debug)]
pub(super) struct DevOptions {
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
        below.extend(make_node(&dev, name, FileType::CharacterDevice, (major, minor))?);
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

/// Makes a device node, or, where that is not allowed (in a user namespace), a file with the step that binds the host's
/// node over it.
fn make_node(dev: &OwnedFd, name: &str, kind: FileType, (major, minor): (u32, u32)) -> io::Result<Option<MountStep>> {
    let mode = Mode::from_raw_mode(0o666);
    match mknodat(dev, name, kind, mode, makedev(major, minor)) {
        Ok(()) => {
            // The umask of the caller took bits away.
            chmodat(dev, name, mode, AtFlags::empty())?;
            Ok(None)
        }
        Err(Errno::PERM) => {
            make_file(dev, name)?;
            let node = mount::bind_path(&Path::new("/dev").join(name), Attributes::empty())?;
            Ok(Some(step(&format!("dev/{name}"), StepSource::Detached(node))))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// As many as the host has.
fn make_loop_devices(dev: &OwnedFd) -> io::Result<Vec<MountStep>> {
    let mut steps = Vec::new();
    let present = |name: &str| Path::new("/dev").join(name).exists();
    if present("loop-control") {
        steps.extend(make_node(dev, "loop-control", FileType::CharacterDevice, (10, 237))?);
    }
    for number in (0..256).take_while(|number| present(&format!("loop{number}"))) {
        steps.extend(make_node(dev, &format!("loop{number}"), FileType::BlockDevice, (7, number))?);
    }
    Ok(steps)
}

/// An empty file to mount over.
pub(super) fn make_file(directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}
