//! Overlays before Linux 6.5, whose overlayfs knows only the options of `mount(2)`: one string of at most a page, in which
//! each layer is a path.
//!
//! The mount is made in a mount namespace of a thread, and cloned out of it, so that it shows nowhere either. The
//! kernel takes only layers on mounts of that namespace; so each is opened again by its path, and compared with the original.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::{Depth, OpenTreeFlags, Overlay, open_tree, set_attributes};
use crate::sys::result;

/// A directory, and where it was found.
struct Known {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Makes the overlay; `ENAMETOOLONG` from about 220 layers on.
pub(super) fn stack(overlay: &Overlay<'_>) -> io::Result<OwnedFd> {
    let lowers: Vec<Known> = overlay.lowers.iter().map(|lower| known(*lower)).collect::<io::Result<_>>()?;
    let upper =
        overlay.upper.map(|upper| Ok::<_, io::Error>([known(upper.directory)?, known(upper.work)?])).transpose()?;
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| make(overlay, &lowers, upper.as_ref()));
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })?;
    set_attributes(&made, overlay.attributes, Depth::One)?;
    Ok(made)
}

fn known(directory: BorrowedFd<'_>) -> io::Result<Known> {
    let status = fstat(directory)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
    Ok(Known { path, device: status.st_dev, inode: status.st_ino })
}

/// Runs in a thread of its own, whose namespace ends with it.
fn make(overlay: &Overlay<'_>, lowers: &[Known], upper: Option<&[Known; 2]>) -> io::Result<OwnedFd> {
    // SAFETY: the thread leaves the working directory and the mounts of the others, and does nothing else with them, unshare(2).
    let returned = unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) };
    result(returned.into())?;
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let lowers: Vec<OwnedFd> = lowers.iter().map(reopen).collect::<io::Result<_>>()?;
    let upper: Vec<OwnedFd> = upper.into_iter().flatten().map(reopen).collect::<io::Result<_>>()?;
    let path = |directory: &OwnedFd| format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mut options = format!("lowerdir={}", lowers.iter().map(path).collect::<Vec<_>>().join(":"));
    for (key, directory) in ["upperdir", "workdir"].into_iter().zip(&upper) {
        options.extend([",", key, "=", &path(directory)]);
    }
    if overlay.upper.is_some_and(|upper| upper.volatile) {
        options.push_str(",volatile");
    }
    if overlay.userxattr {
        options.push_str(",userxattr");
    }
    options.push_str(",redirect_dir=nofollow,metacopy=off,index=off");
    if options.len() >= rustix::param::page_size() {
        return Err(Errno::NAMETOOLONG.into());
    }
    // Any directory will do: only this thread sees it. The options are read before /proc is covered.
    let options = std::ffi::CString::new(options)?;
    mount(c"overlay", c"/proc", c"overlay", MountFlags::empty(), Some(options.as_c_str()))?;
    Ok(open_tree(CWD, c"/proc", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

fn reopen(known: &Known) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let directory = openat(CWD, &known.path, flags, Mode::empty())?;
    let status = fstat(&directory)?;
    // Renamed or replaced meanwhile.
    if (status.st_dev, status.st_ino) == (known.device, known.inode) { Ok(directory) } else { Err(Errno::STALE.into()) }
}
