//! [`spawn`]: a child process that borrows the caller's memory until it executes a program, as `vfork(2)` does, with the
//! namespaces, the cgroup and the pidfd of `clone3(2)`.
//!
//! Nothing of the caller's memory is copied, neither pages nor page tables, so a start costs the same however large the
//! caller is; and no page of the caller becomes copy-on-write.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::result;

/// What a child gets of its own.
#[derive(Debug, Default)]
pub(crate) struct CloneOptions<'a> {
    /// `CLONE_NEW*` flags.
    pub(crate) namespaces: u64,
    /// The cgroup (v2) that it starts in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether debuggers may look at this process. A child that changes its user takes that away from the memory that
    /// both share; it is given back then.
    pub(crate) dumpable: bool,
}

/// See `clone(2)`; all members are 64 bits wide.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `linux/sched.h`; the constant of the libc crate has too few bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The stack of a child, with a page below it that faults.
#[derive(Debug)]
pub(crate) struct Stack {
    base: *mut c_void,
}

// SAFETY: the address is only a number here; who uses the memory is settled by the functions that take the stack.
unsafe impl Send for Stack {}

/// Bytes; pages are only taken when they are touched. A child of the sandbox needs some 10 KiB in a debug build.
const STACK_SIZE: usize = 256 * 1024;
/// Bytes below the stack that fault; a multiple of every page size in use.
const GUARD_SIZE: usize = 64 * 1024;

impl Stack {
    pub(crate) fn new() -> io::Result<Self> {
        let length = GUARD_SIZE + STACK_SIZE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no other memory, mmap(2).
        let base = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the range lies in the mapping made above, which nothing else uses, mprotect(2).
        let returned = unsafe { libc::mprotect(stack.lowest(), STACK_SIZE, libc::PROT_READ | libc::PROT_WRITE) };
        result(returned.into())?;
        Ok(stack)
    }

    fn lowest(&self) -> *mut c_void {
        self.base.wrapping_byte_add(GUARD_SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no child runs on it: `spawn` returns after the child left it, and
        // `spawn_beside` hands the stack back only with its child's end, munmap(2).
        unsafe { libc::munmap(self.base, GUARD_SIZE + STACK_SIZE) };
    }
}

/// Starts a child that runs `run(argument)` in this memory, on `stack`, and waits until it has executed a program or ended.
/// What `run` returns is then its exit code.
///
/// While it runs, the calling thread is stopped and the child stands in for it: it has its own descriptors, signal
/// dispositions, credentials and namespaces, but the memory is shared with all threads. So `run` may do what a thread may, and writes
/// to atomics in `argument` are seen after the return. It must not wait for another thread: one that was about to take
/// away a lock lives on, but a `SIGKILL` of this process would leave it waiting.
///
/// All signals are blocked in the child. A panic in `run` aborts the child.
///
/// Returns the child's pidfd, and its id, which is valid until it is waited for.
///
/// # Errors
/// As `clone(2)`.
pub(crate) fn spawn<T: Sync>(
    options: &CloneOptions<'_>,
    stack: &mut Stack,
    argument: &T,
    run: fn(&T) -> i32,
) -> io::Result<(OwnedFd, u32)> {
    let blocked = BlockedSignals::block()?;
    // `spawn` does not return while the child uses `argument` or `stack`, because of CLONE_VFORK.
    let started = start(options, stack, libc::CLONE_VFORK, argument, run);
    drop(blocked);
    if options.dumpable {
        // In a user namespace our own files in /proc would stay closed to us, prctl(2) PR_SET_DUMPABLE.
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
    started
}

/// Starts a child that shares this memory and runs beside this process, on `stack`, until `run` returns.
///
/// `run` may only make raw system calls: the child has no thread-local storage of its own, so `errno`, allocation and panics
/// are out. It lives on when this process is killed. The caller ends it, and waits for it, before it drops the stack.
///
/// # Errors
/// As `clone(2)`.
pub(crate) fn spawn_beside(
    stack: &mut Stack,
    namespaces: u64,
    argument: i32,
    run: fn(&i32) -> i32,
) -> io::Result<(OwnedFd, u32)> {
    let kept: *mut i32 = stack.lowest().cast();
    // SAFETY: the lower end of the writable part, 16-aligned; the child works at the upper end.
    unsafe { kept.write(argument) };
    // SAFETY: initialised just now, and the caller keeps the stack until the child has ended.
    let argument = unsafe { &*kept };
    let blocked = BlockedSignals::block()?;
    let options = CloneOptions { namespaces, ..CloneOptions::default() };
    let started = start(&options, stack, 0, argument, run);
    drop(blocked);
    started
}

/// What the child finds at the top of its stack.
struct Packet<T> {
    argument: *const T,
    run: fn(&T) -> i32,
}

fn start<T: Sync>(
    options: &CloneOptions<'_>,
    stack: &mut Stack,
    flags: i32,
    argument: &T,
    run: fn(&T) -> i32,
) -> io::Result<(OwnedFd, u32)> {
    let mut pidfd: i32 = -1;
    let mut flags = u64::from(flags.cast_unsigned());
    flags |= u64::from((libc::CLONE_VM | libc::CLONE_PIDFD).cast_unsigned()) | options.namespaces;
    let mut cgroup = 0;
    if let Some(directory) = options.cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = u64::from(directory.as_raw_fd().cast_unsigned());
    }
    // The packet lies at the upper end of the child's stack, below it the child works.
    let size = (STACK_SIZE - size_of::<Packet<T>>()) & !15;
    let packet: *mut Packet<T> = stack.lowest().wrapping_byte_add(size).cast();
    // SAFETY: in the writable part of the mapping, 16-aligned, and nothing else uses it while `stack` is borrowed.
    unsafe { packet.write(Packet { argument, run }) };
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: libc::SIGCHLD.cast_unsigned().into(),
        stack: stack.lowest().expose_provenance() as u64,
        stack_size: size as u64,
        cgroup,
        ..CloneArgs::default()
    };
    // SAFETY: the stack is 16-aligned and unused, `packet` is initialised, and `enter` never returns; that both outlive the child
    // is what the callers see to.
    let returned = unsafe { clone3(&args, packet.cast(), enter::<T>) };
    if returned < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-returned).unwrap_or(libc::EINVAL)));
    }
    // SAFETY: on success the kernel stored a new descriptor there, which nobody else owns, clone(2) CLONE_PIDFD.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pidfd, u32::try_from(returned).unwrap_or(0)))
}

/// The first function on the child's stack. It is `extern "C"`, so a panic aborts instead of unwinding into nothing.
unsafe extern "C" fn enter<T>(packet: *mut c_void) -> ! {
    // SAFETY: `start` wrote a packet of this type there.
    let Packet { argument, run } = unsafe { packet.cast::<Packet<T>>().read() };
    // SAFETY: the caller of `spawn` keeps it borrowed, and that of `spawn_beside` keeps it on this stack.
    let code = run(unsafe { &*argument });
    super::child::exit(code)
}

type Entry = unsafe extern "C" fn(*mut c_void) -> !;

/// The bare system call: in the child, which has another stack, there is nowhere to return to.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, packet: *mut c_void, entry: Entry) -> libc::c_long {
    let returned: libc::c_long;
    // SAFETY: the caller vouches for stack, packet and entry; the parent continues at `2:` with its registers as they were,
    // clone(2), syscall(2).
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => returned,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") packet,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    returned
}

/// The bare system call: in the child, which has another stack, there is nowhere to return to.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, packet: *mut c_void, entry: Entry) -> libc::c_long {
    let returned: libc::c_long;
    // SAFETY: the caller vouches for stack, packet and entry; the parent continues at `2:` with its registers as they were,
    // clone(2), syscall(2).
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") std::ptr::from_ref(args).expose_provenance() as libc::c_long => returned,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x20") packet,
            in("x21") entry,
        );
    }
    returned
}

/// Other machines have no sandbox.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_: &CloneArgs, _: *mut c_void, _: Entry) -> libc::c_long {
    -libc::c_long::from(libc::ENOSYS)
}

/// All signals are blocked in this thread while it lives: a handler must not run in a child on shared memory.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn block() -> io::Result<Self> {
        let mut all = empty_set();
        let mut before = empty_set();
        // SAFETY: `all` is a signal set, sigfillset(3).
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: both are signal sets, pthread_sigmask(3).
        let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        if error == 0 { Ok(Self { before }) } else { Err(io::Error::from_raw_os_error(error)) }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` is the set that was in force, pthread_sigmask(3).
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: a signal set is plain bits, and all zero is the empty one on Linux, sigsetops(3).
    unsafe { std::mem::zeroed() }
}
