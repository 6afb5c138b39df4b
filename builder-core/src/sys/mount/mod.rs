//! Detached mounts through the new mount API (Linux 5.2, `mount_setattr` 5.12).
//!
//! A mount is a descriptor here. Until it is attached it is in no namespace: no `mountinfo` shows it, and when the last
//! descriptor is closed (by `kill -9` too) the kernel takes it away. Directories in it can be used at once, with the
//! descriptor as the `dirfd` of `openat(2)`.
//!
//! ```text
//! fsopen("overlay") ── fsconfig("lowerdir+", …) ── fsconfig(create) ── fsmount ──► OwnedFd
//! open_tree(path, OPEN_TREE_CLONE) ─────────────────────────────────────────────► OwnedFd
//! ```

mod legacy;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::result;

/// `MOUNT_ATTR_*` flags: read-only, nosuid, nodev, noexec.
pub use rustix::mount::MountAttrFlags as Attributes;

/// `MS_PRIVATE` for `mount_setattr(2)`.
const PRIVATE: u64 = libc::MS_PRIVATE;

/// What of a mount [`set_attributes`] changes. See `mount_setattr(2)`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Whether a call means one mount, or that and every mount below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the mount itself.
    One,
    /// The whole tree of mounts.
    Tree,
}

/// Adds `attributes` to a mount, and cuts it off from mount events of its original (`MS_PRIVATE`).
///
/// # Errors
/// As `mount_setattr(2)`; `EPERM` if the mount belongs to another user namespace and its flags are locked.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, depth: Depth) -> io::Result<()> {
    let attr = MountAttr { attr_set: u64::from(attributes.bits()), propagation: PRIVATE, ..MountAttr::default() };
    let recursive = if depth == Depth::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attr` is a `struct mount_attr` of the size given; mount_setattr(2) only reads both.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    result(returned).map(drop)
}

/// Clones what `file` (a directory or a file, `O_PATH` will do) shows, with the mounts below it, as a detached mount: a
/// bind mount that is not attached yet. Mount events do not travel between the clone and its original.
///
/// # Errors
/// As `open_tree(2)`; `EINVAL` if `file` is on a mount of another mount namespace.
pub fn bind(file: impl AsFd, attributes: Attributes) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(file, c"", flags)?;
    set_attributes(&mount, attributes, Depth::Tree)?;
    Ok(mount)
}

/// As [`bind`], for a path on the host; the last component may be a link and is followed.
///
/// # Errors
/// As [`bind`], and those of opening the path.
pub fn bind_path(path: &Path, attributes: Attributes) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(CWD, path, flags)?;
    set_attributes(&mount, attributes, Depth::Tree)?;
    Ok(mount)
}

/// A new tmpfs.
#[derive(Debug, Clone, Copy)]
pub struct Tmpfs {
    /// Largest size in bytes; `None` is the kernel's default, half of the memory.
    pub size: Option<u64>,
    /// Permission bits of its root directory.
    pub mode: u32,
    /// Whether its pages may go to swap; secrets must not. Ignored before Linux 6.4, which has no such option.
    pub swap: bool,
    /// Flags of the mount.
    pub attributes: Attributes,
}

/// Makes an empty tmpfs, detached. Its root belongs to root.
///
/// # Errors
/// As `fsopen(2)` and `fsmount(2)`.
pub fn tmpfs(options: &Tmpfs) -> io::Result<OwnedFd> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", c"tmpfs")?;
    fsconfig_set_string(&context, c"mode", format!("{:o}", options.mode))?;
    if let Some(size) = options.size {
        fsconfig_set_string(&context, c"size", size.to_string())?;
    }
    if !options.swap {
        // Unknown before 6.4, refused in a user namespace: then the pages may be swapped, as with other builders.
        let _ = fsconfig_set_flag(&context, c"noswap");
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes)?)
}

/// A new private instance of devpts; terminals are numbered from 0 in it.
///
/// The nodes belong to group `gid` (5 is `tty` in the images of all distributions) when one is given.
///
/// # Errors
/// As `fsopen(2)` and `fsmount(2)`; `EINVAL` if `gid` has no mapping in the user namespace.
pub fn devpts(gid: Option<u32>) -> io::Result<OwnedFd> {
    let context = fsopen(c"devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", c"devpts")?;
    fsconfig_set_flag(&context, c"newinstance")?;
    fsconfig_set_string(&context, c"ptmxmode", c"0666")?;
    fsconfig_set_string(&context, c"mode", c"0620")?;
    if let Some(gid) = gid {
        fsconfig_set_string(&context, c"gid", gid.to_string())?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A stack of directories shown as one, see the kernel's `filesystems/overlayfs.rst`.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// The read-only directories, the **uppermost first**; at least one. Any number works: more than 450 are first
    /// stacked into a read-only overlay of their own, which the file system allows once.
    pub lowers: &'a [BorrowedFd<'a>],
    /// Where changes go, and an empty directory on the same file system for the kernel's own use.
    pub upper: Option<Upper<'a>>,
    /// Keep overlay's own attributes in `user.overlay.*`: needed in a user namespace (Linux 5.11).
    pub userxattr: bool,
    /// Flags of the mount.
    pub attributes: Attributes,
}

/// The writable part of an [`Overlay`].
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    /// The directory that receives changes.
    pub directory: BorrowedFd<'a>,
    /// The kernel's work directory.
    pub work: BorrowedFd<'a>,
    /// Do not flush the whole upper file system when the overlay goes away (Linux 5.10). The kernel leaves
    /// `work/incompat/volatile` behind and refuses a work directory that has it, so each mount needs a fresh one.
    pub volatile: bool,
}

/// The kernel takes 500 (`OVL_MAX_STACK`); the rest is head room.
const LAYERS_AT_ONCE: usize = 450;

/// Makes an overlay, detached.
///
/// Layers are passed as descriptors (Linux 6.13), else as `/proc/self/fd/N` through `lowerdir+` (6.5), else through
/// `mount(2)`, which takes some 220 of them. A single lower directory without an upper one gives a read-only bind
/// mount, because overlayfs refuses that.
///
/// # Errors
/// `EINVAL` when the kernel cannot stack so many layers, or file systems that cannot be stacked; `ENODEV` without
/// overlayfs; `EPERM` in a user namespace before Linux 5.11; otherwise as `fsconfig(2)`.
pub fn overlay(overlay: &Overlay<'_>) -> io::Result<OwnedFd> {
    let lowers = overlay.lowers;
    if lowers.len() > LAYERS_AT_ONCE {
        let (above, below) = lowers.split_at(LAYERS_AT_ONCE - 1);
        let below = self::overlay(&Overlay { lowers: below, upper: None, ..*overlay })?;
        let mut lowers = above.to_vec();
        lowers.push(below.as_fd());
        return self::overlay(&Overlay { lowers: &lowers, ..*overlay });
    }
    match (lowers, &overlay.upper) {
        ([], _) => Err(Errno::INVAL.into()),
        ([only], None) => bind(only, overlay.attributes | MountAttrFlags::MOUNT_ATTR_RDONLY),
        _ => match stack(overlay) {
            // What an overlayfs that does not know `lowerdir+` says, sooner or later.
            Err(Errno::INVAL) => legacy::stack(overlay),
            other => Ok(other?),
        },
    }
}

fn stack(overlay: &Overlay<'_>) -> Result<OwnedFd, Errno> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What `/proc/mounts` shows as the device.
    fsconfig_set_string(&context, c"source", c"overlay")?;
    if let Some(upper) = &overlay.upper {
        set_directory(&context, c"upperdir", upper.directory)?;
        set_directory(&context, c"workdir", upper.work)?;
        if upper.volatile {
            fsconfig_set_flag(&context, c"volatile")?;
        }
    }
    for lower in overlay.lowers {
        set_directory(&context, c"lowerdir+", *lower)?;
    }
    if overlay.userxattr {
        fsconfig_set_flag(&context, c"userxattr")?;
    }
    // Some kernels turn these on by default. With them an upper directory holds references to lower files instead of
    // what changed, and is no layer any more.
    for (option, value) in [(c"redirect_dir", c"nofollow"), (c"metacopy", c"off"), (c"index", c"off")] {
        fsconfig_set_string(&context, option, value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, overlay.attributes)
}

/// One directory as a descriptor, or as the path through which the kernel finds that descriptor.
fn set_directory(context: &OwnedFd, key: &std::ffi::CStr, directory: BorrowedFd<'_>) -> Result<(), Errno> {
    match fsconfig_set_fd(context, key, directory) {
        Err(Errno::INVAL | Errno::BADF) => {
            fsconfig_set_string(context, key, format!("/proc/self/fd/{}", directory.as_raw_fd()))
        }
        other => other,
    }
}

/// Attaches a detached mount on top of `target`, a directory or file opened with `O_PATH`. Only for a process in a mount
/// namespace of its own.
///
/// # Errors
/// As `move_mount(2)`; `ENOTDIR` when one is a directory and the other is not.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

#[cfg(test)]
mod tests;
