//! The cgroup of a process: which devices it may open, how much it may use, whether memory ran out.
//!
//! What the host has decides: the unified hierarchy (v2), where the process starts inside its cgroup and a BPF program
//! guards devices; the hierarchies of v1, which the child joins by itself; both side by side; or nothing that the caller may write to.
//! A limit that was asked for and cannot be set is an error. Without a device cgroup the root is mounted `nodev` instead.

mod places;
mod settings;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, AtFlags, CWD, Dir, Mode, OFlags, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::devices::OPENABLE;
use super::{ExecuteError, Limits};
use crate::sys::bpf;
use places::{Place, Places, hand_down, is_writable, make_parent, parent_with, v1_parent};
use settings::Settings;

pub(super) use places::V1Mount;

/// The hierarchies of this host, and where in them this process is.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    places: Places,
    /// For v2.
    device_filter: Option<OwnedFd>,
    /// Counts processes that the kernel killed for memory, in our own cgroup.
    own_events: Option<fs::File>,
}

/// A cgroup without processes that is younger than this, in seconds, may be waiting for one.
const GRACE: i64 = 60;

/// Which devices a process may open.
#[derive(Debug, Clone, Copy)]
pub(super) enum Guard<'a> {
    /// All.
    None,
    /// Those that every process has, and these.
    Only(&'a [bpf::Device]),
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
        let mut cgroups = Self { places: places::parse(&mounts, &own), ..Self::default() };
        let Places { v2, v1, .. } = &cgroups.places;
        if v2.as_ref().is_some_and(|place| is_writable(&place.own, Access::EXEC_OK)) {
            cgroups.device_filter = bpf::load_device_filter(&OPENABLE).ok();
        }
        let own_events = match (v2, v1.get("memory")) {
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
        self.places.v2 = None;
    }

    /// Whether the unified hierarchy is the only one, at the usual place.
    pub(super) fn is_unified(&self) -> bool {
        self.places.v2.as_ref().is_some_and(|place| place.mount == Path::new("/sys/fs/cgroup"))
    }

    /// The hierarchies of v1, to be shown to processes.
    pub(super) fn v1_mounts(&self) -> &[V1Mount] {
        &self.places.v1_mounts
    }

    /// Whether the number of tasks can be limited, without more rights than we have.
    pub(super) fn limits_tasks(&self) -> bool {
        self.places.v2.as_ref().filter(|_| !self.places.v1.contains_key("pids")).is_some_and(|place| {
            // To start a process in a sibling of our own cgroup is to move it through the one above.
            parent_with(place, &["pids"]).is_ok_and(|parent| {
                is_writable(&parent, Access::EXEC_OK) && is_writable(&parent.join("cgroup.procs"), Access::empty())
            })
        })
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
            if self.places.v1.contains_key(controller) {
                v1_controllers.push(controller);
            } else if self.places.v2.is_some() {
                v2_controllers.push(controller);
            } else {
                return Err(unavailable(controller, Errno::NOENT.into()));
            }
        }
        if let Some(place) = &self.places.v2 {
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
            hand_down(place, &parent, controllers)?;
        }
        let directory = step.make(&parent)?;
        if !holds_processes(&directory) {
            return Err(Errno::OPNOTSUPP.into());
        }
        if let Some(filter) = filter {
            step.guards_devices = bpf::attach_device_filter(filter, &directory).is_ok();
        }
        step.v2 = Some(directory);
        Ok(())
    }

    fn guard_v1(&self, step: &mut StepCgroup, parent: Option<&str>, devices: &[bpf::Device]) -> io::Result<()> {
        let place = self.places.v1.get("devices").ok_or(io::ErrorKind::NotFound)?;
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
        let place = self.places.v1.get(controller).ok_or(io::ErrorKind::NotFound)?;
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
        if self.parents.is_empty() {
            sweep(&parent);
        }
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

/// Removes the cgroups of processes that were killed before their watcher knew of them. One that has processes cannot be
/// removed, and one that is in use has had none for a moment only.
fn sweep(parent: &OwnedFd) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = openat(parent, ".", flags, Mode::empty()).and_then(Dir::new);
    for entry in listed.into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().ok().filter(|name| is_of_a_step(name)) else { continue };
        let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if found.is_ok_and(|found| found.st_mtime.saturating_add(GRACE) < i64::try_from(now.as_secs()).unwrap_or(0)) {
            let _ = remove(parent, name);
        }
    }
}

/// Whether a cgroup has a name of the form that [`Cgroups::create`] is given: `rbuild-PROCESS-RANDOM-NUMBER`.
fn is_of_a_step(name: &str) -> bool {
    let Some(parts) = name.strip_prefix("rbuild-").map(|rest| rest.split('-').collect::<Vec<_>>()) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let [process, random, number] = parts[..] else { return false };
    digits(process) && digits(number) && random.len() == 8 && random.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn remove(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    unlinkat(parent, name, AtFlags::REMOVEDIR)
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

/// Whether a new cgroup can be one of processes: below one of threads it is invalid (cgroups(7), "Thread mode").
fn holds_processes(cgroup: &OwnedFd) -> bool {
    let mut text = [0; 32];
    let read = openat(cgroup, "cgroup.type", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut text));
    read.is_ok_and(|length| text[..length].trim_ascii_end() == b"domain")
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
    fn what_killed_steps_left_goes_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let old = SystemTime::now() - Duration::from_secs(3600);
        let check = |name: &str, time: SystemTime, stays: bool| {
            let path = folder.path().join(name);
            fs::create_dir(&path).expect("made");
            fs::File::open(&path).and_then(|directory| directory.set_modified(time)).expect("set");
            let parent = openat(CWD, folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("there");
            sweep(&parent);
            assert_eq!(path.exists(), stays, "{name}");
        };
        check("rbuild-12-0a1b2c3d-0", old, false);
        check("rbuild-12-0a1b2c3d-7", SystemTime::now(), true);
        for other in ["rbuild-agents", "rbuild-12-0", "rbuild-12-0a1b2c3d", "rbuild-a-0a1b2c3d-0", "user-12-0a1b2c3d-0"]
        {
            check(other, old, true);
        }
    }

    #[test]
    fn a_host_without_cgroups_has_none() {
        let cgroups =
            Cgroups { places: places::parse("22 27 0:21 / /proc rw - proc proc rw\n", ""), ..Cgroups::default() };
        assert!(cgroups.places.v2.is_none() && cgroups.places.v1.is_empty());
        let limits = Limits { memory: Some(1 << 30), ..Limits::default() };
        let error = cgroups.create("x".into(), &limits, Guard::Only(&[])).expect_err("cannot limit");
        assert_eq!(error.to_string(), "cannot limit memory");
        assert!(!cgroups.create("x".into(), &Limits::default(), Guard::Only(&[])).expect("no limit").guards_devices);
    }
}
