//! What a child calls between `clone3` and `execve`, where `rustix` has no wrapper: system calls on prepared arguments, no
//! allocation.

use std::ffi::{CStr, CString, NulError, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use super::result;

/// Strings in the form that `execve(2)` takes.
#[derive(Debug)]
pub(crate) struct StringArray {
    /// Owns what `pointers` points to.
    strings: Vec<CString>,
    /// Ends with a null pointer.
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead to the strings that the array owns, and nothing changes them.
unsafe impl Send for StringArray {}
// SAFETY: as above.
unsafe impl Sync for StringArray {}

impl StringArray {
    pub(crate) fn new<I: IntoIterator<Item = Vec<u8>>>(strings: I) -> Result<Self, NulError> {
        let strings: Vec<CString> = strings.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { strings, pointers })
    }

    /// The first string; empty if there is none.
    pub(crate) fn first(&self) -> &CStr {
        self.strings.first().map_or(c"", |string| string.as_c_str())
    }
}

/// Executes a program; returns only if that failed.
pub(crate) fn execve(program: &CStr, args: &StringArray, env: &StringArray) -> io::Error {
    // SAFETY: a C string and two null-terminated arrays of C strings, execve(2).
    unsafe { libc::execve(program.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process, without running anything else.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends the process, _exit(2).
    unsafe { libc::_exit(code) }
}

/// Installs a system call filter in this thread. Needs `CAP_SYS_ADMIN` or no-new-privileges.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // The filter itself is no reason to slow speculation down; as runc does.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program is only read, seccomp(2).
    let returned =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    result(returned).map(drop)
}

/// Sets every signal to its default action; those that the caller ignored would stay ignored in the program.
pub(crate) fn reset_signals() {
    // SAFETY: all zero is `SIG_DFL` without flags and with an empty mask, sigaction(2).
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in 1..=64 {
        // SAFETY: `default` is a valid action. Signals that cannot be set are refused, sigaction(2).
        unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    }
}

/// Lets all signals through.
pub(crate) fn unblock_signals() -> io::Result<()> {
    let none: u64 = 0;
    // SAFETY: the kernel's signal set is 64 bits wide, rt_sigprocmask(2).
    let returned = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
    result(returned).map(drop)
}

/// Marks every descriptor from 3 on to be closed by `execve`. See `close_range(2)`, Linux 5.11.
pub(crate) fn close_rest_on_exec() -> io::Result<()> {
    // SAFETY: only flags of descriptors change, close_range(2).
    let returned = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    result(returned).map(drop)
}

/// Sets a resource limit of this process; [`u64::MAX`] is none.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is only read, prlimit(2).
    let returned =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, ptr::null_mut::<libc::rlimit64>()) };
    result(returned).map(drop)
}

/// Makes the cgroup that this process is in the root of what it sees of the hierarchy.
pub(crate) fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: a cgroup namespace changes nothing about memory or descriptors, unshare(2).
    let returned = unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    result(returned.into()).map(drop)
}

/// Gives this thread a network namespace of its own.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: a network namespace changes nothing about memory or descriptors, unshare(2).
    let returned = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    result(returned.into()).map(drop)
}

/// Gives this process a mount namespace of its own.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: a mount namespace changes nothing about memory or descriptors, unshare(2).
    let returned = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    result(returned.into()).map(drop)
}

/// Starts a new, empty session keyring. See `keyctl(2)`.
pub(crate) fn join_session_keyring() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring, keyctl_join_session_keyring(3).
    let returned = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
    result(returned).map(drop)
}

/// Brings the loopback device of this network namespace up. See `netdevice(7)`.
pub(crate) fn loopback_up(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: all zero is a valid request: an empty name and a union of plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: the request is an initialised `struct ifreq`, which the call reads, netdevice(7).
    let returned = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    result(returned.into()).map(drop)
}

/// Whether the current directory lies below the current root; `getcwd(2)` says `(unreachable)` of any other.
pub(crate) fn current_directory_is_inside() -> io::Result<bool> {
    let mut path = [0u8; 4096 + 32];
    // SAFETY: the kernel writes at most the length given, getcwd(2).
    let returned = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    result(returned)?;
    Ok(path[0] == b'/')
}

/// Makes `descriptor` number 0 and closes every other one. `errno` is written only if the kernel is too old to do that,
/// so a process that shares another's may use it.
pub(crate) fn keep_only(descriptor: i32) {
    // SAFETY: the descriptor is open; who calls this owns all descriptors of the process, dup2(2).
    let kept = unsafe { rustix::fd::BorrowedFd::borrow_raw(descriptor) };
    let _ = rustix::stdio::dup2_stdin(kept);
    // SAFETY: who calls this owns all descriptors of the process, close_range(2).
    unsafe { libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0) };
}

/// Borrows a descriptor by number, in a process that keeps numbers because it may not drop owners.
pub(crate) fn borrow_descriptor<'a>(descriptor: i32) -> std::os::fd::BorrowedFd<'a> {
    debug_assert!(descriptor >= 0, "an open descriptor");
    // SAFETY: the number is that of a descriptor which only the caller closes, and not before it is done with this.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) }
}

/// Closes a descriptor by number, without touching `errno`.
pub(crate) fn close_descriptor(descriptor: i32) {
    // SAFETY: the caller owns the number, close(2).
    unsafe { rustix::io::close(descriptor) };
}
