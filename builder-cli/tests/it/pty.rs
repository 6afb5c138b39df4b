//! Runs a command on a terminal of its own.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs `command` on a terminal of this size; gives its exit code and everything that it wrote.
pub(crate) fn run(command: &mut Command, columns: u16, rows: u16) -> (i32, Vec<u8>) {
    let controller: OwnedFd =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&controller).expect("granted");
    unlockpt(&controller).expect("unlocked");
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&controller, size).expect("sized");
    let name = ptsname(&controller, Vec::new()).expect("a name");
    let open = || File::options().read(true).write(true).open(name.to_str().expect("text")).expect("its other end");
    let mut child = command.stdin(open()).stdout(open()).stderr(open()).spawn().expect("starts");
    // Our copies of the other end are closed with the command.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = File::from(controller);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    (child.wait().expect("ends").code().unwrap_or(-1), bytes)
}
