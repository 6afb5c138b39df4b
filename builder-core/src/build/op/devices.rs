//! `RUN --device`: which devices of this machine a step gets, and what comes with them.
//!
//! Devices have names in specifications that the administrator installs, `vendor.com/class=name`.
//! Format: Container Device Interface specification 1.0, in JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::mounts::ShownMount;
use crate::build::error::StepError;
use crate::executor::{Device, MountSource};
use crate::graph::{DeviceOp, RunOp};
use crate::rootfs::RootPath;
use crate::sys::mount::{Attributes, bind_path};

/// Annotation that gives a device a further name within its kind, as in BuildKit.
const CLASS: &str = "org.mobyproject.buildkit.device.class";

/// Largest specification that is read, in bytes.
const MAX_SPEC: u64 = 4 << 20;

/// What the devices of a step come to on this machine.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What the command sees of them, for the key; empty for a step without devices.
    pub(crate) seen: String,
    pub(crate) nodes: Vec<Device>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) groups: Vec<u32>,
    mounts: Vec<(PathBuf, RootPath, bool)>,
    /// One that is required and does not exist.
    missing: Option<String>,
}

impl Found {
    /// Refuses a step that lacks a device that it requires.
    pub(crate) fn check(&self) -> Result<(), StepError> {
        match &self.missing {
            Some(name) => Err(StepError::MissingDevice { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The files of the host that belong to the devices.
    pub(crate) fn mounts(&self) -> Result<Vec<(RootPath, ShownMount)>, StepError> {
        let shown = |(host, target, read_only): &(PathBuf, RootPath, bool)| {
            let io = |source| StepError::Io { what: format!("cannot mount {}", host.display()), source };
            let is_directory = host.metadata().map_err(io)?.is_dir();
            let source = MountSource::Detached(bind_path(host, Attributes::MOUNT_ATTR_NOSUID).map_err(io)?);
            Ok((target.clone(), ShownMount { source, read_only: *read_only, is_directory }))
        };
        self.mounts.iter().map(shown).collect()
    }
}

/// Looks the devices of a step up. Nothing is read for a step without devices.
pub(crate) fn find(
    op: &RunOp,
    aliases: &BTreeMap<String, String>,
    directories: &[PathBuf],
) -> Result<Found, StepError> {
    let mut found = Found::default();
    if op.devices.is_empty() {
        return Ok(found);
    }
    let mut specs = None;
    let mut done = BTreeSet::new();
    for device in &op.devices {
        if device.name.starts_with('/') {
            host_device(&device.name, &mut found)?;
            continue;
        }
        let specs = match &mut specs {
            Some(specs) => specs,
            none => none.insert(Specs::read(directories)?),
        };
        let name = aliases.get(&device.name).unwrap_or(&device.name);
        let names = specs.names(name)?;
        if names.is_empty() {
            missing(device, &mut found);
        }
        for name in names.into_iter().filter(|name| done.insert(name.clone())) {
            specs.add(&name, &mut found)?;
        }
    }
    Ok(found)
}

fn missing(device: &DeviceOp, found: &mut Found) {
    let _ = writeln!(found.seen, "{}: none", device.name);
    if device.required {
        found.missing.get_or_insert_with(|| device.name.clone());
    }
}

/// `HOST[:TARGET][:rwm]`, of the command line.
fn host_device(text: &str, found: &mut Found) -> Result<(), StepError> {
    let wrong = || StepError::Device { name: text.to_owned(), reason: "it is not `NODE[:NODE][:rwm]`".to_owned() };
    let mut parts = text.split(':');
    let host = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let (target, access) = match rest[..] {
        [] => (host, "rwm"),
        [target] if target.starts_with('/') => (target, "rwm"),
        [access] => (host, access),
        [target, access] => (target, access),
        _ => return Err(wrong()),
    };
    if access.is_empty() || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(wrong());
    }
    let _ = writeln!(found.seen, "{target} {access}");
    found.nodes.push(Device {
        path: RootPath::clean(target).map_err(|_| wrong())?,
        host: host.into(),
        mode: 0o666,
        uid: 0,
        gid: 0,
        read: access.contains('r'),
        write: access.contains('w'),
    });
    Ok(())
}

/// Every specification of this machine.
struct Specs {
    /// By qualified name.
    devices: BTreeMap<String, Entry>,
}

struct Entry {
    file: PathBuf,
    class: Option<String>,
    /// Those of the device, then those of all devices of its file.
    edits: [Edits; 2],
}

#[derive(Deserialize)]
struct Spec {
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    devices: Vec<SpecDevice>,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

#[derive(Deserialize)]
struct SpecDevice {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

/// What a device brings. Keys that are not here change nothing about the command, or are refused by name.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<SpecMount>,
    additional_gids: Vec<u32>,
    hooks: Vec<serde_json::Value>,
    intel_rdt: Option<serde_json::Value>,
    net_devices: Vec<serde_json::Value>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: String,
    host_path: Option<PathBuf>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecMount {
    host_path: PathBuf,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

impl Specs {
    /// Reads the files `*.json` of the directories; of two devices with one name that of the later directory counts.
    fn read(directories: &[PathBuf]) -> Result<Self, StepError> {
        let mut devices = BTreeMap::new();
        for directory in directories {
            let mut files: Vec<PathBuf> =
                fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
            files.sort();
            for file in files {
                read_spec(&file, &mut devices)?;
            }
        }
        Ok(Self { devices })
    }

    /// The devices that a name stands for: one, `=*` for all of a kind, the first of a kind without a name, or those of
    /// a class.
    fn names(&self, asked: &str) -> Result<Vec<String>, StepError> {
        let (kind, name) = asked.split_once('=').map_or((asked, None), |(kind, name)| (kind, Some(name)));
        if !is_kind(kind) {
            let reason = "a device is named `vendor.com/class=name`".to_owned();
            return Err(StepError::Device { name: asked.to_owned(), reason });
        }
        let of_kind = || {
            let own = |name: &&String| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('='));
            self.devices.keys().filter(own).cloned()
        };
        Ok(match name {
            None | Some("") => of_kind().take(1).collect(),
            Some("*") => of_kind().collect(),
            Some(_) if self.devices.contains_key(asked) => vec![asked.to_owned()],
            Some(class) => of_kind().filter(|name| self.devices[name].class.as_deref() == Some(class)).collect(),
        })
    }

    fn add(&self, name: &str, found: &mut Found) -> Result<(), StepError> {
        let entry = &self.devices[name];
        let wrong = |reason: String| StepError::Device { name: name.to_owned(), reason };
        let _ = writeln!(found.seen, "{name}");
        for edits in &entry.edits {
            let refused = [
                ("hooks", edits.hooks.len()),
                ("netDevices", edits.net_devices.len()),
                ("intelRdt", edits.intel_rdt.iter().len()),
            ];
            if let Some((what, _)) = refused.iter().find(|(_, count)| *count > 0) {
                return Err(wrong(format!("`{}` asks for `{what}`, which rbuild does not do", entry.file.display())));
            }
            for pair in &edits.env {
                let (name, value) = pair.split_once('=').ok_or_else(|| wrong(format!("`{pair}` is no variable")))?;
                let _ = writeln!(found.seen, "env {name}={value}");
                found.env.push((name.to_owned(), value.to_owned()));
            }
            for node in &edits.device_nodes {
                let _ = writeln!(found.seen, "node {}", node.path);
                let access = node.permissions.as_deref().unwrap_or("rwm");
                found.nodes.push(Device {
                    path: RootPath::clean(&node.path).map_err(|error| wrong(error.to_string()))?,
                    host: node.host_path.clone().unwrap_or_else(|| node.path.clone().into()),
                    mode: node.file_mode.unwrap_or(0o666) & 0o7777,
                    uid: node.uid,
                    gid: node.gid,
                    read: access.contains('r'),
                    write: access.contains('w'),
                });
            }
            for mount in &edits.mounts {
                let _ = writeln!(found.seen, "mount {}", mount.container_path);
                let target = RootPath::clean(&mount.container_path).map_err(|error| wrong(error.to_string()))?;
                let read_only = mount.options.iter().any(|option| option == "ro");
                found.mounts.push((mount.host_path.clone(), target, read_only));
            }
            found.groups.extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        }
        Ok(())
    }
}

fn read_spec(file: &Path, devices: &mut BTreeMap<String, Entry>) -> Result<(), StepError> {
    use std::io::Read as _;
    let wrong = |reason: String| StepError::DeviceSpec { path: file.to_owned(), reason };
    let mut text = Vec::new();
    let opened = fs::File::open(file).and_then(|file| file.take(MAX_SPEC).read_to_end(&mut text));
    opened.map_err(|error| wrong(error.to_string()))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if !is_kind(&spec.kind) {
        return Err(wrong(format!("`{}` is not a kind of devices", spec.kind)));
    }
    for device in spec.devices {
        let class = device.annotations.get(CLASS).or_else(|| spec.annotations.get(CLASS)).cloned();
        let edits = [device.edits, spec.edits.clone()];
        devices.insert(format!("{}={}", spec.kind, device.name), Entry { file: file.to_owned(), class, edits });
    }
    Ok(())
}

/// `vendor.com/class`
fn is_kind(kind: &str) -> bool {
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    kind.split_once('/').is_some_and(|(vendor, class)| word(vendor) && word(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(text: &str) -> Specs {
        let folder = tempfile::tempdir().expect("temporary directory");
        fs::write(folder.path().join("a.json"), text).expect("written");
        fs::write(folder.path().join("b.txt"), "not a specification").expect("written");
        Specs::read(&[folder.path().to_owned(), "/no/such/directory".into()]).expect("read")
    }

    const SPEC: &str = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/dev", "containerEdits": {"env": ["ALL=1"]}, "devices": [
        {"name": "a", "containerEdits": {"env": ["A=1"], "deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/null", "permissions": "r"}]}},
        {"name": "b", "annotations": {"org.mobyproject.buildkit.device.class": "big"}, "containerEdits": {"mounts": [{"hostPath": "/etc", "containerPath": "/e", "options": ["ro"]}]}},
        {"name": "c", "annotations": {"org.mobyproject.buildkit.device.class": "big"}, "containerEdits": {"hooks": [{"path": "/bin/x"}]}}
    ]}"#;

    #[test]
    fn names_stand_for_one_all_the_first_or_a_class() {
        let specs = specs(SPEC);
        let names = |asked: &str| specs.names(asked).map(|names| names.join(" ")).map_err(|error| error.to_string());
        assert_eq!(names("vendor.com/dev=a").as_deref(), Ok("vendor.com/dev=a"));
        assert_eq!(names("vendor.com/dev").as_deref(), Ok("vendor.com/dev=a"));
        assert_eq!(names("vendor.com/dev=*").as_deref(), Ok("vendor.com/dev=a vendor.com/dev=b vendor.com/dev=c"));
        assert_eq!(names("vendor.com/dev=big").as_deref(), Ok("vendor.com/dev=b vendor.com/dev=c"));
        assert_eq!(names("vendor.com/other=a").as_deref(), Ok(""));
        for wrong in ["vendor", "vendor.com/", "/dev=a", "-v/a=b"] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_device_brings_what_its_file_says() {
        let specs = specs(SPEC);
        let mut found = Found::default();
        specs.add("vendor.com/dev=a", &mut found).expect("known");
        specs.add("vendor.com/dev=b", &mut found).expect("known");
        assert_eq!(found.env[0], ("A".to_owned(), "1".to_owned()));
        assert_eq!((found.nodes[0].host.as_path(), found.nodes[0].write), (Path::new("/dev/null"), false));
        assert_eq!(found.mounts[0].1.to_string(), "/e");
        assert!(found.seen.contains("env ALL=1\n") && found.seen.contains("mount /e\n"), "{}", found.seen);
        let error = specs.add("vendor.com/dev=c", &mut found).expect_err("hooks").to_string();
        assert!(error.contains("asks for `hooks`"), "{error}");
    }

    #[test]
    fn nodes_of_the_host_are_read_as_docker_reads_them() {
        let device = |text: &str| {
            let mut found = Found::default();
            host_device(text, &mut found).ok()?;
            let device = found.nodes.remove(0);
            Some(format!("{} {} {}{}", device.host.display(), device.path, device.read, device.write))
        };
        assert_eq!(device("/dev/fuse").as_deref(), Some("/dev/fuse /dev/fuse truetrue"));
        assert_eq!(device("/dev/a:/dev/b").as_deref(), Some("/dev/a /dev/b truetrue"));
        assert_eq!(device("/dev/a:/dev/b:r").as_deref(), Some("/dev/a /dev/b truefalse"));
        assert_eq!(device("/dev/a:rm").as_deref(), Some("/dev/a /dev/a truefalse"));
        assert_eq!(device("/dev/a:/dev/b:x"), None);
        assert_eq!(device("/dev/a:/dev/b:r:w"), None);
    }
}
