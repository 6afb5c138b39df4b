//! [`Terminal::open`]: a terminal that belongs to the sandbox.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::Terminal;
use crate::sys::mount;

impl Terminal {
    /// Opens a terminal in a devpts of its own: for the process it is `/dev/pts/0` and `/dev/console`.
    ///
    /// Returns it together with the controlling end, which the caller reads from, writes to and resizes
    /// (`tcsetwinsize(3)`); reading that gives `EIO` once the process is gone.
    ///
    /// # Errors
    /// As `fsopen(2)` and `pty(7)`.
    pub fn open() -> io::Result<(Self, OwnedFd)> {
        // The group may have no mapping in a user namespace.
        let devpts = mount::devpts(Some(TTY_GROUP)).or_else(|_| mount::devpts(None))?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let controller = openat(&devpts, c"ptmx", flags, Mode::empty())?;
        unlockpt(&controller)?;
        let device = ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        Ok((Self { devpts, device }, controller))
    }
}

/// Group `tty` of every distribution's images; terminals belong to it.
pub(super) const TTY_GROUP: u32 = 5;
