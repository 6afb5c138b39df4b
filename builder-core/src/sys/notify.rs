//! System calls of another process that wait until they were looked at: `seccomp_unotify(2)`.
//!
//! A process installs a filter that names calls ([`install_listener`]) and hands the descriptor over. Whoever has it gets each
//! of these calls before it is made ([`receive`]), and lets it go on ([`proceed`]). Nothing about the call changes.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::result;

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notification {
    /// Its identity, for [`proceed`].
    pub(crate) id: u64,
    /// The thread that makes it, as this process numbers it; 0 if it cannot see it.
    pub(crate) thread: u32,
    /// `AUDIT_ARCH_*`
    pub(crate) architecture: u32,
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

/// Wakes the process on the processor of whoever answers it, which halves the time of an answer (Linux 6.6); `libc` has no
/// name for it.
const SYNC_WAKE_UP: u64 = 1;

/// Installs a filter in this thread and gives the descriptor on which calls are announced for which it says
/// `SECCOMP_RET_USER_NOTIF`. Needs `CAP_SYS_ADMIN` or no-new-privileges. Allocates nothing.
///
/// # Errors
/// `EBUSY` if a filter of this kind is in force already, `EINVAL` before Linux 5.0.
pub(crate) fn install_listener(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // Without it a signal interrupts a call that waits, which programs may not expect of it (Linux 5.19).
    let with_signals_held = flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let install = |flags: libc::c_ulong| {
        // SAFETY: the program is only read, seccomp(2).
        let returned =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        result(returned)
    };
    let returned = match install(with_signals_held) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(flags)?,
        other => other?,
    };
    let number = i32::try_from(returned).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: a new descriptor, which nobody else owns, seccomp(2) SECCOMP_FILTER_FLAG_NEW_LISTENER.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Fourth argument of the call that hands a listener over. The kernel does not look at it; filters can.
pub(crate) const HANDING_OVER: u64 = 0x6c69_7374_656e_6572;

/// A header of ancillary data with one descriptor: `cmsg(3)`, `SCM_RIGHTS`.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    descriptor: libc::c_int,
}

/// Sends four bytes, and a descriptor if there is one, with [`HANDING_OVER`]. Allocates nothing.
///
/// # Errors
/// As `sendmsg(2)`.
pub(crate) fn hand_over(socket: BorrowedFd<'_>, bytes: [u8; 4], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    const LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<libc::c_int>();
    let mut bytes = bytes;
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: numbers only, cmsg(3).
    let mut rights: Rights = unsafe { std::mem::zeroed() };
    // SAFETY: numbers and pointers, for all of which zero is a value, sendmsg(2).
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(descriptor) = descriptor {
        rights.header.cmsg_len = LENGTH;
        rights.header.cmsg_level = libc::SOL_SOCKET;
        rights.header.cmsg_type = libc::SCM_RIGHTS;
        rights.descriptor = descriptor.as_raw_fd();
        message.msg_control = (&raw mut rights).cast();
        message.msg_controllen = size_of::<Rights>();
    }
    // SAFETY: the message and what it points to live until the call returns, sendmsg(2).
    let returned = unsafe {
        libc::syscall(libc::SYS_sendmsg, socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL, HANDING_OVER)
    };
    result(returned).map(drop)
}

/// Asks the kernel to hand the processor over with each answer. A kernel that cannot is only slower.
pub(crate) fn answer_at_once(listener: BorrowedFd<'_>) {
    // SAFETY: the argument is a number, seccomp_unotify(2).
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
}

/// Takes the next call; waits for one.
///
/// # Errors
/// `ENOENT` if the process ended meanwhile, `EINTR`.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: numbers only, and the kernel wants all of them to be zero.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such structure, seccomp_unotify(2).
    let returned = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    result(returned.into())?;
    Ok(Notification {
        id: call.id,
        thread: call.pid,
        architecture: call.data.arch,
        number: call.data.nr.into(),
        arguments: call.data.args,
    })
}

/// Whether the call still waits: otherwise its thread's number may be another's by now.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the number is only read, seccomp_unotify(2).
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Lets a call go on as if nobody had looked (Linux 5.5).
///
/// # Errors
/// `ENOENT` if the process ended meanwhile.
pub(crate) fn proceed(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1);
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
    // SAFETY: the structure is only read, seccomp_unotify(2).
    let returned = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    result(returned.into()).map(drop)
}

/// Bytes of a page, or of a part of one.
const PAGE: u64 = 4096;

/// Copies memory of another process up to the first page that is not there; says how much that is.
///
/// # Errors
/// `EPERM` if the kernel does not allow to look into that process, `EFAULT` if nothing is at the address, `ESRCH` if it ended.
pub(crate) fn read_memory(thread: u32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let pid = libc::pid_t::try_from(thread).map_err(|_| io::ErrorKind::InvalidInput)?;
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // What can be read is cut at the pieces: one for the rest of the first page, one for what follows.
    let first = usize::try_from(PAGE - address % PAGE).unwrap_or(buffer.len()).min(buffer.len());
    let at = |address: u64| std::ptr::without_provenance_mut(usize::try_from(address).unwrap_or(usize::MAX));
    let remote = [
        libc::iovec { iov_base: at(address), iov_len: first },
        libc::iovec { iov_base: at(address.wrapping_add(first as u64)), iov_len: buffer.len() - first },
    ];
    // SAFETY: the kernel writes at most the length of `buffer` to it; the other addresses are not of this process,
    // process_vm_readv(2).
    let returned = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), 2, 0) };
    let length = result(returned as libc::c_long)?;
    Ok(usize::try_from(length).unwrap_or(0))
}
