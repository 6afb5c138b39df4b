use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use super::*;

fn open_directory(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("opens")
}

/// Reads `name` below a detached mount.
fn read(mount: &OwnedFd, name: &str) -> io::Result<String> {
    let file = openat(mount, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

/// Says why a test that needs mounts does nothing.
fn can_mount() -> bool {
    let able = rustix::process::geteuid().is_root();
    if !able {
        eprintln!("skipped: mounting needs root");
    }
    able
}

/// Layers `0..count`, each with a file of its own and one that all share.
fn layers(folder: &Path, count: usize) -> Vec<OwnedFd> {
    (0..count)
        .map(|number| {
            let layer = folder.join(number.to_string());
            fs::create_dir(&layer).expect("made");
            fs::write(layer.join("top"), number.to_string()).expect("written");
            fs::write(layer.join(format!("only-{number}")), "x").expect("written");
            open_directory(&layer)
        })
        .collect()
}

fn check_overlay(count: usize, make: fn(&Overlay<'_>) -> io::Result<OwnedFd>) {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary directory");
    let layers = layers(folder.path(), count);
    let lowers: Vec<_> = layers.iter().rev().map(AsFd::as_fd).collect();
    fs::create_dir(folder.path().join("upper")).expect("made");
    fs::create_dir(folder.path().join("work")).expect("made");
    let (directory, work) = (open_directory(&folder.path().join("upper")), open_directory(&folder.path().join("work")));

    let before = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let upper = Upper { directory: directory.as_fd(), work: work.as_fd(), volatile: true };
    let options = Overlay { lowers: &lowers, upper: Some(upper), userxattr: false, attributes: Attributes::empty() };
    let mount = make(&options).expect("overlay mounts");
    assert_eq!(read(&mount, "top").expect("read"), (count - 1).to_string(), "the uppermost layer wins");
    assert_eq!(read(&mount, "only-0").expect("read"), "x");
    drop(openat(&mount, "new", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).expect("written"));
    assert!(folder.path().join("upper/new").exists());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("readable"), before, "no mount is visible");

    let read_only = overlay(&Overlay { upper: None, ..options }).expect("overlay mounts");
    assert_eq!(read(&read_only, "top").expect("read"), (count - 1).to_string());
    let refused = openat(&read_only, "new2", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644));
    assert_eq!(refused.err(), Some(Errno::ROFS));
}

#[test]
fn one_layer_and_an_upper_directory() {
    check_overlay(1, overlay);
}

#[test]
fn two_layers() {
    check_overlay(2, overlay);
}

#[test]
fn six_hundred_layers() {
    check_overlay(600, overlay);
}

#[test]
fn a_hundred_layers_before_linux_6_5() {
    check_overlay(100, legacy::stack);
}

#[test]
fn an_overlay_needs_a_layer() {
    let nothing = Overlay { lowers: &[], upper: None, userxattr: false, attributes: Attributes::empty() };
    assert_eq!(overlay(&nothing).err().and_then(|error| error.raw_os_error()), Some(libc::EINVAL));
}

#[test]
fn a_bind_mount_can_be_read_only_while_its_original_is_not() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary directory");
    fs::write(folder.path().join("file"), "content").expect("written");
    let mount = bind_path(folder.path(), Attributes::MOUNT_ATTR_RDONLY).expect("bound");
    assert_eq!(read(&mount, "file").expect("read"), "content");
    let refused = openat(&mount, "new", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644));
    assert_eq!(refused.err(), Some(Errno::ROFS));
    fs::write(folder.path().join("other"), "").expect("the original stays writable");
}

#[test]
fn a_tmpfs_has_the_size_and_mode_asked_for() {
    if !can_mount() {
        return;
    }
    let options = Tmpfs { size: Some(1 << 20), mode: 0o1777, swap: false, attributes: Attributes::empty() };
    let mount = tmpfs(&options).expect("tmpfs mounts");
    let status = rustix::fs::fstat(&mount).expect("stat");
    assert_eq!(status.st_mode & 0o7777, 0o1777);
    let size = rustix::fs::fstatvfs(&mount).expect("statvfs");
    assert_eq!(size.f_blocks * size.f_frsize, 1 << 20);
}
