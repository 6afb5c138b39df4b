//! Where the hierarchies are, and in which of their cgroups the cgroup of a step can be made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

/// A hierarchy.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// Our own cgroup.
    pub(super) own: PathBuf,
}

/// The hierarchies of a host, as a process sees them.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The unified hierarchy.
    pub(super) v2: Option<Place>,
    /// By controller.
    pub(super) v1: BTreeMap<String, Place>,
    /// For processes to look at.
    pub(super) v1_mounts: Vec<V1Mount>,
}

/// A hierarchy of v1, as it is mounted below `/sys/fs/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) struct V1Mount {
    /// The name of its directory.
    pub(in crate::executor) directory: String,
    /// Its controllers, or `name=NAME`: the options of the mount.
    pub(in crate::executor) options: Vec<String>,
}

/// Where hierarchies of v1 are mounted, by convention.
const V1_DIRECTORY: &str = "/sys/fs/cgroup";

/// Reads `mountinfo` and `cgroup` of `/proc/self`, see `proc(5)` and `cgroups(7)`.
pub(super) fn parse(mounts: &str, own: &str) -> Places {
    let mut places = Places::default();
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
                places.v2 = path.map(place).or(places.v2);
            }
            "cgroup" => {
                let options = right.get(2).copied().unwrap_or_default();
                let mut of_mount = Vec::new();
                for entry in own.lines() {
                    let mut fields = entry.splitn(3, ':');
                    let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                        continue;
                    };
                    for controller in controllers.split(',').filter(|name| options.split(',').any(|o| o == *name)) {
                        of_mount.push(controller.to_owned());
                        if !controller.starts_with("name=") {
                            places.v1.insert(controller.to_owned(), place(path));
                        }
                    }
                }
                let directory = Path::new(mount).strip_prefix(V1_DIRECTORY).ok().and_then(Path::to_str);
                if let Some(directory) = directory.filter(|name| !name.is_empty() && !name.contains('/')) {
                    let mount = V1Mount { directory: directory.to_owned(), options: of_mount };
                    let known = places.v1_mounts.iter().any(|known| known.directory == mount.directory);
                    if !known && !mount.options.is_empty() {
                        places.v1_mounts.push(mount);
                    }
                }
            }
            _ => {}
        }
    }
    places
}

pub(super) fn is_writable(path: &Path, execute: Access) -> bool {
    accessat(CWD, path, Access::WRITE_OK | execute, AtFlags::EACCESS).is_ok()
}

/// A path from the root of the hierarchy; made if it is not there.
pub(super) fn make_parent(place: &Place, parent: &str) -> io::Result<PathBuf> {
    let relative = Path::new(parent.trim_start_matches('/'));
    if relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = place.mount.join(relative);
    fs::create_dir_all(&path)?;
    Ok(path)
}

pub(super) fn v1_parent(place: &Place, parent: Option<&str>) -> io::Result<PathBuf> {
    parent.map_or_else(|| Ok(place.own.clone()), |parent| make_parent(place, parent))
}

/// A cgroup that hands the controllers on to its children. Our own cannot, as it has processes, unless it is the root of all; then it
/// is the one above it.
pub(super) fn parent_with(place: &Place, controllers: &[&str]) -> io::Result<PathBuf> {
    let parent = if is_root(&place.own) {
        place.own.clone()
    } else {
        let above = place.own.parent().filter(|above| above.starts_with(&place.mount));
        above.ok_or(Errno::BUSY)?.to_owned()
    };
    hand_down(place, &parent, controllers)?;
    Ok(parent)
}

/// Makes the children of `cgroup` have the controllers; every cgroup above it has to hand them on too.
pub(super) fn hand_down(place: &Place, cgroup: &Path, controllers: &[&str]) -> io::Result<()> {
    let mut above: Vec<&Path> = cgroup.ancestors().take_while(|above| above.starts_with(&place.mount)).collect();
    above.reverse();
    let mut result = Ok(());
    for cgroup in above {
        // What fails above shows below, unless it was not needed.
        result = enable(cgroup, controllers);
    }
    result
}

fn enable(cgroup: &Path, controllers: &[&str]) -> io::Result<()> {
    let file = cgroup.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file)?;
    for controller in controllers {
        if enabled.split_whitespace().any(|known| known == *controller) {
            continue;
        }
        // The kernel refuses that for some controllers only. With the others it would make the cgroup one of threads, whose
        // children can hold no process any more, and it would stay so (cgroups(7), "Thread mode").
        if !is_root(cgroup) && fs::read_to_string(cgroup.join("cgroup.procs")).map_or(true, |list| !list.is_empty()) {
            return Err(Errno::BUSY.into());
        }
        fs::write(&file, format!("+{controller}"))?;
    }
    Ok(())
}

/// Whether it is the root of the hierarchy, not only that of a namespace: the file is in every other cgroup.
fn is_root(cgroup: &Path) -> bool {
    !cgroup.join("cgroup.type").exists()
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
        let places = parse(mounts, own);
        let v2 = places.v2.expect("found");
        assert_eq!(v2.own, Path::new("/sys/fs/cgroup/unified/init.scope"));
        assert_eq!(places.v1["memory"].own, Path::new("/sys/fs/cgroup/memory/x"));
        assert_eq!(places.v1["cpu"].own, Path::new("/sys/fs/cgroup/cpu,cpuacct/user"));
        assert!(!places.v1.contains_key("name=systemd"));
        let shown = |directory: &str, options: &[&str]| V1Mount {
            directory: directory.to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        assert_eq!(places.v1_mounts, [shown("cpu,cpuacct", &["cpu", "cpuacct"]), shown("memory", &["memory"])]);
    }

    #[test]
    fn controllers_are_handed_down_from_the_root_and_never_by_a_cgroup_with_processes() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let make = |path: &str, processes: &str| {
            let cgroup = folder.path().join(path);
            fs::create_dir_all(&cgroup).expect("made");
            fs::write(cgroup.join("cgroup.subtree_control"), "").expect("written");
            fs::write(cgroup.join("cgroup.procs"), processes).expect("written");
            if !path.is_empty() {
                fs::write(cgroup.join("cgroup.type"), "domain\n").expect("written");
            }
        };
        make("", "1\n");
        make("slice", "");
        make("slice/own", "7\n");
        let enabled =
            |path: &str| fs::read_to_string(folder.path().join(path).join("cgroup.subtree_control")).expect("a file");
        let place = Place { mount: folder.path().to_owned(), own: folder.path().join("slice/own") };
        assert_eq!(parent_with(&place, &["pids"]).expect("a parent"), folder.path().join("slice"));
        assert_eq!(["", "slice", "slice/own"].map(enabled), ["+pids", "+pids", ""]);
        let root = Place { own: folder.path().to_owned(), ..place.clone() };
        assert_eq!(parent_with(&root, &["pids"]).expect("a parent"), folder.path());
        make("slice", "8\n");
        assert_eq!(parent_with(&place, &["cpu"]).expect_err("it has a process").raw_os_error(), Some(libc::EBUSY));
        assert_eq!(enabled("slice"), "");
    }

    #[test]
    fn a_parent_stays_below_the_root_of_the_hierarchy() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let place = Place { mount: folder.path().to_owned(), own: folder.path().to_owned() };
        assert_eq!(make_parent(&place, "/a/b").expect("made"), folder.path().join("a/b"));
        assert!(make_parent(&place, "../x").is_err());
    }
}
