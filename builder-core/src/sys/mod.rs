//! Kernel calls that have no safe wrapper, and the only `unsafe` of the workspace.
//!
//! - [`mount`]: detached mounts: made, configured and filled before anything can see them, attached (if ever) by a
//!   process that has its own mount namespace. Nothing here adds a line to the caller's own `mountinfo`.
//! - `clone`: a child process that borrows the caller's memory until it executes a program.
//! - `child`: what such a child calls.
//! - `bpf`: a device filter for a cgroup.
//! - `lease`: whether somebody can write to a file.
//! - `notify`: system calls of a child that wait until they were looked at.

pub(crate) mod bpf;
pub(crate) mod child;
pub(crate) mod clone;
pub(crate) mod lease;
pub mod mount;
pub(crate) mod notify;

use std::io;

/// Turns the `-1` of a libc wrapper into the error that it left in `errno`.
fn result(returned: libc::c_long) -> io::Result<libc::c_long> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
