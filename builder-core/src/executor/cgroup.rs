//! The cgroup of a process: which devices it may open, how much it may use, whether memory ran out.
//!
//! What the host has decides: the unified hierarchy (v2), where the process starts inside its cgroup and a BPF program
//! guards devices; the hierarchies of v1, which the child joins by itself; both side by side; or nothing that the caller may write to.
//! A limit that was asked for and cannot be set is an error. Without a device cgroup the root is mounted `nodev` instead.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::devices::OPENABLE;
use super::{ExecuteError, Limits};
use crate::sys::bpf;

/// The hierarchies of this host, and where in them this process is.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// The unified hierarchy.
    v2: Option<Place>,
    /// By controller.
    v1: BTreeMap<String, Place>,
    /// For v2.
    device_filter: Option<OwnedFd>,
    /// Counts processes that the kernel killed for memory, in our own cgroup.
    own_events: Option<fs::File>,
}

/// Which devices a process may open.
#[derive(Debug, Clone, Copy)]
pub(super) enum Guard<'a> {
    /// All.
    None,
    /// Those that every process has, and these.
    Only(&'a [bpf::Device]),
}

/// A hierarchy.
#[derive(Debug, Clone)]
struct Place {
    /// Where it is mounted.
    mount: PathBuf,
    /// Our own cgroup.
    own: PathBuf,
}

/// The cgroups of one process; they are removed on drop.
#[derive(Debug, Default)]
pub(super) struct StepCgroup {
    /// Start the process in this one.
    pub(super) v2: Option<OwnedFd>,
    /// It joins these.
    pub(super) tasks: Vec<OwnedFd>,
    /// Whether devices are guarded.
    pub(super) guards_devices: bool,
    /// All have this name…
    pub(super) name: String,
    /// …in these directories.
    pub(super) parents: Vec<OwnedFd>,
    /// Counts processes that were killed for memory.
    events: Option<fs::File>,
}

impl Cgroups {
    /// Looks at `/proc/self`. A host without cgroups, or with unreadable files, has none.
    pub(super) fn discover() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut cgroups = parse(&mounts, &own);
        if cgroups.v2.as_ref().is_some_and(|place| is_writable(&place.own)) {
            cgroups.device_filter = bpf::load_device_filter(&OPENABLE).ok();
        }
        let own_events = match (&cgroups.v2, cgroups.v1.get("memory")) {
            (_, Some(place)) => Some(place.own.join("memory.oom_control")),
            (Some(place), None) => Some(place.own.join("memory.events")),
            (None, None) => None,
        };
        cgroups.own_events = own_events.and_then(|path| fs::File::open(path).ok());
        cgroups
    }

    /// As on a host with only the old hierarchies.
    #[cfg(test)]
    pub(super) fn without_v2(&mut self) {
        self.v2 = None;
    }

    /// Whether the unified hierarchy is the only one, at the usual place.
    pub(super) fn is_unified(&self) -> bool {
        self.v2.as_ref().is_some_and(|place| place.mount == Path::new("/sys/fs/cgroup"))
    }

    /// How many processes were killed for memory so far in our own cgroup.
    pub(super) fn own_kills(&self) -> u64 {
        self.own_events.as_ref().map_or(0, read_kills)
    }

    /// Makes the cgroups of one process.
    pub(super) fn create(&self, name: String, limits: &Limits, guard: Guard<'_>) -> Result<StepCgroup, ExecuteError> {
        let mut step = StepCgroup::default();
        step.name = name;
        let settings = Settings::new(limits);
        let parent = limits.cgroup_parent.as_deref();
        let unavailable = |what: &str, source| ExecuteError::Limit { what: what.to_owned(), source };

        let mut v2_controllers: Vec<&str> = Vec::new();
        let mut v1_controllers: Vec<&str> = Vec::new();
        for controller in settings.controllers() {
            if self.v1.contains_key(controller) {
                v1_controllers.push(controller);
            } else if self.v2.is_some() {
                v2_controllers.push(controller);
            } else {
                return Err(unavailable(controller, Errno::NOENT.into()));
            }
        }
        if let Some(place) = &self.v2 {
            let wanted = !v2_controllers.is_empty() || parent.is_some();
            match self.enter_v2(place, &mut step, &v2_controllers, parent, guard) {
                Err(source) if wanted => {
                    let what = v2_controllers.first().copied().unwrap_or("cgroup-parent");
                    return Err(unavailable(what, source));
                }
                // Only for devices: another hierarchy, or none, will do.
                _ => {}
            }
        }
        if let Some(directory) = &step.v2 {
            for (file, value) in settings.v2(&v2_controllers) {
                write(directory, &file, &value).map_err(|source| unavailable(&file, source))?;
            }
            step.events = open_events(directory, "memory.events", v2_controllers.contains(&"memory"));
        }
        if let (Guard::Only(devices), false) = (guard, step.guards_devices) {
            step.guards_devices = self.guard_v1(&mut step, parent, devices).is_ok();
        }
        for controller in v1_controllers {
            self.limit_v1(&mut step, controller, &settings, parent)
                .map_err(|source| unavailable(controller, source))?;
        }
        Ok(step)
    }

    fn enter_v2(
        &self,
        place: &Place,
        step: &mut StepCgroup,
        controllers: &[&str],
        parent: Option<&str>,
        guard: Guard<'_>,
    ) -> io::Result<()> {
        let loaded;
        let filter = match (guard, &self.device_filter) {
            (Guard::None, _) | (_, None) => None,
            (Guard::Only([]), Some(filter)) => Some(filter),
            (Guard::Only(devices), Some(_)) => {
                loaded = bpf::load_device_filter(&[&OPENABLE[..], devices].concat())?;
                Some(&loaded)
            }
        };
        let guarded = filter.is_some();
        if controllers.is_empty() && parent.is_none() && !guarded {
            return Ok(());
        }
        let parent = match parent {
            Some(parent) => make_parent(place, parent)?,
            None if controllers.is_empty() => place.own.clone(),
            None => parent_with(place, controllers)?,
        };
        if !controllers.is_empty() {
            enable(&parent, controllers)?;
        }
        let directory = step.make(&parent)?;
        if let Some(filter) = filter {
            step.guards_devices = bpf::attach_device_filter(filter, &directory).is_ok();
        }
        step.v2 = Some(directory);
        Ok(())
    }

    fn guard_v1(&self, step: &mut StepCgroup, parent: Option<&str>, devices: &[bpf::Device]) -> io::Result<()> {
        let place = self.v1.get("devices").ok_or(io::ErrorKind::NotFound)?;
        let directory = step.make(&v1_parent(place, parent)?)?;
        write(&directory, "devices.deny", "a")?;
        for kind in ["c *:* m", "b *:* m"] {
            write(&directory, "devices.allow", kind)?;
        }
        for device in OPENABLE.iter().chain(devices) {
            let kind = if device.block { 'b' } else { 'c' };
            let minor = device.minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string());
            let (read, write_) = (if device.read { "r" } else { "" }, if device.write { "w" } else { "" });
            write(&directory, "devices.allow", &format!("{kind} {}:{minor} {read}{write_}m", device.major))?;
        }
        step.join(&directory)
    }

    fn limit_v1(
        &self,
        step: &mut StepCgroup,
        controller: &str,
        settings: &Settings,
        parent: Option<&str>,
    ) -> io::Result<()> {
        let place = self.v1.get(controller).ok_or(io::ErrorKind::NotFound)?;
        let parent = v1_parent(place, parent)?;
        let directory = step.make(&parent)?;
        if controller == "cpuset" {
            // A new one has neither CPUs nor memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                write(&directory, file, fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
        for (file, value) in settings.v1(controller) {
            write(&directory, file, &value)?;
        }
        if controller == "memory" {
            step.events = open_events(&directory, "memory.oom_control", true);
        }
        step.join(&directory)
    }
}

impl StepCgroup {
    /// How many processes were killed for memory in it; `None` if nothing counts that.
    pub(super) fn kills(&self) -> Option<u64> {
        self.events.as_ref().map(read_kills)
    }

    fn make(&mut self, parent: &Path) -> io::Result<OwnedFd> {
        let parent = openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        mkdirat(&parent, self.name.as_str(), Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&parent, self.name.as_str(), flags, Mode::empty());
        self.parents.push(parent);
        Ok(directory?)
    }

    fn join(&mut self, directory: &OwnedFd) -> io::Result<()> {
        self.tasks.push(openat(directory, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?);
        Ok(())
    }
}

impl Drop for StepCgroup {
    fn drop(&mut self) {
        for parent in &self.parents {
            let mut tries = 0;
            while remove(parent, &self.name) == Err(Errno::BUSY) && tries < 100 {
                if let Some(directory) = &self.v2 {
                    // The pid namespace is gone, and its processes with it: there should be nothing to kill.
                    let _ = write(directory, "cgroup.kill", "1");
                }
                std::thread::sleep(Duration::from_millis(1));
                tries += 1;
            }
        }
    }
}

fn remove(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Files and values for the limits.
struct Settings {
    /// Controller, file in v1, value there, file in v2, value there. An empty file name has no counterpart.
    rows: Vec<Row>,
}

struct Row {
    controller: &'static str,
    v1: (&'static str, String),
    v2: (&'static str, String),
}

impl Settings {
    fn new(limits: &Limits) -> Self {
        let mut rows = Vec::new();
        let mut add = |controller, v1, v1_value: String, v2, v2_value: String| {
            rows.push(Row { controller, v1: (v1, v1_value), v2: (v2, v2_value) });
        };
        if let Some(memory) = limits.memory {
            add("memory", "memory.limit_in_bytes", memory.to_string(), "memory.max", memory.to_string());
        }
        if let Some(both) = limits.memory_swap {
            let swap = u64::try_from(both).map(|both| both.saturating_sub(limits.memory.unwrap_or(0)));
            let swap = swap.map_or_else(|_| "max".to_owned(), |swap| swap.to_string());
            add("memory", "memory.memsw.limit_in_bytes", both.to_string(), "memory.swap.max", swap);
        }
        if let Some(shares) = limits.cpu_shares {
            // 2..=262144 onto 1..=10000, as in the OCI runtime specification.
            let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
            add("cpu", "cpu.shares", shares.to_string(), "cpu.weight", weight.to_string());
        }
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            let period = limits.cpu_period.unwrap_or(100_000);
            let quota = limits.cpu_quota.map(|quota| quota.to_string());
            let v2 = format!("{} {period}", quota.as_deref().unwrap_or("max"));
            add("cpu", "cpu.cfs_period_us", period.to_string(), "", String::new());
            add("cpu", "cpu.cfs_quota_us", quota.unwrap_or_else(|| "-1".to_owned()), "cpu.max", v2);
        }
        for (file, list) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
            if let Some(list) = list {
                add("cpuset", file, list.clone(), file, list.clone());
            }
        }
        if let Some(pids) = limits.pids {
            add("pids", "pids.max", pids.to_string(), "pids.max", pids.to_string());
        }
        Self { rows }
    }

    /// Each once.
    fn controllers(&self) -> Vec<&'static str> {
        let mut controllers: Vec<_> = self.rows.iter().map(|row| row.controller).collect();
        controllers.dedup();
        controllers
    }

    fn v1<'a>(&'a self, controller: &'a str) -> impl Iterator<Item = (&'static str, String)> + 'a {
        self.rows.iter().filter(move |row| row.controller == controller).map(|row| row.v1.clone())
    }

    fn v2<'a>(&'a self, controllers: &'a [&str]) -> impl Iterator<Item = (String, String)> + 'a {
        let used = |row: &&Row| controllers.contains(&row.controller) && !row.v2.0.is_empty();
        self.rows.iter().filter(used).map(|row| (row.v2.0.to_owned(), row.v2.1.clone()))
    }
}

/// Reads `mountinfo` and `cgroup` of `/proc/self`, see `proc(5)` and `cgroups(7)`.
fn parse(mounts: &str, own: &str) -> Cgroups {
    let mut cgroups = Cgroups::default();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(root), Some(mount), Some(kind)) = (left.get(3), left.get(4), right.first()) else { continue };
        let place = |own: &str| {
            // A mount of only a part of the hierarchy, as containers have it, shows our cgroup relative to that part.
            let below = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
            let own = if below.as_os_str().is_empty() { PathBuf::from(mount) } else { Path::new(mount).join(below) };
            Place { mount: PathBuf::from(mount), own }
        };
        match *kind {
            "cgroup2" => {
                let path = own.lines().find_map(|line| line.strip_prefix("0::"));
                cgroups.v2 = path.map(place).or(cgroups.v2);
            }
            "cgroup" => {
                let options = right.get(2).copied().unwrap_or_default();
                for entry in own.lines() {
                    let mut fields = entry.splitn(3, ':');
                    let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                        continue;
                    };
                    for controller in controllers.split(',').filter(|name| options.split(',').any(|o| o == *name)) {
                        cgroups.v1.insert(controller.to_owned(), place(path));
                    }
                }
            }
            _ => {}
        }
    }
    cgroups
}

fn is_writable(directory: &Path) -> bool {
    accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// A path from the root of the hierarchy; made if it is not there.
fn make_parent(place: &Place, parent: &str) -> io::Result<PathBuf> {
    let relative = Path::new(parent.trim_start_matches('/'));
    if relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = place.mount.join(relative);
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn v1_parent(place: &Place, parent: Option<&str>) -> io::Result<PathBuf> {
    parent.map_or_else(|| Ok(place.own.clone()), |parent| make_parent(place, parent))
}

/// A cgroup that hands the controllers on to its children: our own cannot while we are in it, unless it is the root; then the one
/// above it.
fn parent_with(place: &Place, controllers: &[&str]) -> io::Result<PathBuf> {
    match enable(&place.own, controllers) {
        Ok(()) => Ok(place.own.clone()),
        Err(error) => match place.own.parent().filter(|above| above.starts_with(&place.mount)) {
            Some(above) => enable(above, controllers).map(|()| above.to_owned()),
            None => Err(error),
        },
    }
}

fn enable(cgroup: &Path, controllers: &[&str]) -> io::Result<()> {
    let file = cgroup.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file)?;
    for controller in controllers {
        if !enabled.split_whitespace().any(|known| known == *controller) {
            fs::write(&file, format!("+{controller}"))?;
        }
    }
    Ok(())
}

fn write(directory: impl AsFd, file: &str, value: &str) -> io::Result<()> {
    let file = openat(directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

fn open_events(directory: impl AsFd, file: &str, counted: bool) -> Option<fs::File> {
    let directory: BorrowedFd<'_> = directory.as_fd();
    let open = || openat(directory, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
    counted.then(open).flatten().map(fs::File::from)
}

/// Both files have a line `oom_kill N`.
fn read_kills(file: &fs::File) -> u64 {
    let mut text = [0; 512];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..length]);
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_has_both_kinds() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/docker/abc/x\n2:cpu,cpuacct:/user\n1:name=systemd:/\n0::/init.scope\n";
        let cgroups = parse(mounts, own);
        let v2 = cgroups.v2.expect("found");
        assert_eq!(v2.own, Path::new("/sys/fs/cgroup/unified/init.scope"));
        assert_eq!(cgroups.v1["memory"].own, Path::new("/sys/fs/cgroup/memory/x"));
        assert_eq!(cgroups.v1["cpu"].own, Path::new("/sys/fs/cgroup/cpu,cpuacct/user"));
        assert!(!cgroups.v1.contains_key("name=systemd"));
    }

    #[test]
    fn a_host_without_cgroups_has_none() {
        let cgroups = parse("22 27 0:21 / /proc rw - proc proc rw\n", "");
        assert!(cgroups.v2.is_none() && cgroups.v1.is_empty());
        let limits = Limits { memory: Some(1 << 30), ..Limits::default() };
        let error = cgroups.create("x".into(), &limits, Guard::Only(&[])).expect_err("cannot limit");
        assert_eq!(error.to_string(), "cannot limit memory");
        assert!(!cgroups.create("x".into(), &Limits::default(), Guard::Only(&[])).expect("no limit").guards_devices);
    }

    #[test]
    fn limits_become_files_of_either_version() {
        let limits = Limits {
            memory: Some(100),
            memory_swap: Some(150),
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            pids: Some(7),
            ..Limits::default()
        };
        let settings = Settings::new(&limits);
        assert_eq!(settings.controllers(), ["memory", "cpu", "pids"]);
        let v2: Vec<_> =
            settings.v2(&["memory", "cpu", "pids"]).map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(v2, ["memory.max=100", "memory.swap.max=50", "cpu.weight=39", "cpu.max=50000 100000", "pids.max=7"]);
        let v1: Vec<_> = settings.v1("cpu").map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(v1, ["cpu.shares=1024", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"]);
    }

    #[test]
    fn a_parent_stays_below_the_root_of_the_hierarchy() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let place = Place { mount: folder.path().to_owned(), own: folder.path().to_owned() };
        assert_eq!(make_parent(&place, "/a/b").expect("made"), folder.path().join("a/b"));
        assert!(make_parent(&place, "../x").is_err());
    }
}
