//! The system calls that name a file, and where in their arguments.

use crate::sys::notify::HANDING_OVER;
use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, c_long,
    sock_filter,
};

/// `AUDIT_ARCH_*` of programs that are compiled for this machine.
pub(super) const NATIVE: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };

/// What a call does with what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks what it is, or changes it. Of a directory that tells how many names are in it.
    Look,
    /// Goes to it, or asks whether that is allowed: of a directory that tells nothing of what is in it.
    Reach,
    /// Takes it away, which a directory refuses that is not empty.
    Remove,
    /// Gives its name to something else, which a directory refuses that is not empty.
    Replace,
    /// Opens it; makes it if this argument has `O_CREAT`, or always if there is none.
    Open(Option<usize>),
    /// Makes it: what is above has to be there.
    Make,
    /// Executes it.
    Run,
    /// Reads the names in the directory that a descriptor is of.
    List,
    /// Is told of what happens in it.
    Watch,
    /// Gives it another name, or what is below it.
    Move,
    /// Makes it the root.
    Chroot,
    /// Sends to the address at this argument, connects to it, or takes it: it may be a path.
    Address,
    /// Sends what the message header at this argument says, or each of as many as this other argument says.
    Messages(Option<usize>),
}

/// Where a path is: the argument with the descriptor that it starts from, if there is one, and the argument with the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) directory: Option<usize>,
    pub(super) path: usize,
}

const fn at(directory: usize, path: usize) -> At {
    At { directory: Some(directory), path }
}

const fn path(path: usize) -> At {
    At { directory: None, path }
}

type Call = (c_long, At, Kind);

/// Each call; one with two paths twice.
const CALLS: &[Call] = &[
    (libc::SYS_openat, at(0, 1), Kind::Open(Some(2))),
    // Its flags are in memory.
    (libc::SYS_openat2, at(0, 1), Kind::Open(None)),
    (libc::SYS_newfstatat, at(0, 1), Kind::Look),
    (libc::SYS_statx, at(0, 1), Kind::Look),
    (libc::SYS_faccessat, at(0, 1), Kind::Reach),
    (libc::SYS_faccessat2, at(0, 1), Kind::Reach),
    (libc::SYS_readlinkat, at(0, 1), Kind::Reach),
    (libc::SYS_fchmodat, at(0, 1), Kind::Reach),
    (FCHMODAT2, at(0, 1), Kind::Reach),
    (libc::SYS_fchownat, at(0, 1), Kind::Reach),
    (libc::SYS_utimensat, at(0, 1), Kind::Reach),
    (libc::SYS_unlinkat, at(0, 1), Kind::Remove),
    (libc::SYS_name_to_handle_at, at(0, 1), Kind::Look),
    (libc::SYS_chdir, path(0), Kind::Reach),
    (libc::SYS_truncate, path(0), Kind::Look),
    (libc::SYS_statfs, path(0), Kind::Look),
    (libc::SYS_getxattr, path(0), Kind::Look),
    (libc::SYS_lgetxattr, path(0), Kind::Look),
    (libc::SYS_setxattr, path(0), Kind::Look),
    (libc::SYS_lsetxattr, path(0), Kind::Look),
    (libc::SYS_listxattr, path(0), Kind::Look),
    (libc::SYS_llistxattr, path(0), Kind::Look),
    (libc::SYS_removexattr, path(0), Kind::Look),
    (libc::SYS_lremovexattr, path(0), Kind::Look),
    (SETXATTRAT, at(0, 1), Kind::Look),
    (GETXATTRAT, at(0, 1), Kind::Look),
    (LISTXATTRAT, at(0, 1), Kind::Look),
    (REMOVEXATTRAT, at(0, 1), Kind::Look),
    (libc::SYS_mkdirat, at(0, 1), Kind::Make),
    (libc::SYS_mknodat, at(0, 1), Kind::Make),
    (libc::SYS_symlinkat, at(1, 2), Kind::Make),
    (libc::SYS_linkat, at(0, 1), Kind::Look),
    (libc::SYS_linkat, at(2, 3), Kind::Make),
    (libc::SYS_renameat, at(0, 1), Kind::Move),
    (libc::SYS_renameat, at(2, 3), Kind::Replace),
    (libc::SYS_renameat2, at(0, 1), Kind::Move),
    // It may be an exchange.
    (libc::SYS_renameat2, at(2, 3), Kind::Move),
    (libc::SYS_execve, path(0), Kind::Run),
    (libc::SYS_execveat, at(0, 1), Kind::Run),
    (libc::SYS_inotify_add_watch, path(1), Kind::Watch),
    (libc::SYS_getdents64, at(0, 0), Kind::List),
    (libc::SYS_chroot, path(0), Kind::Chroot),
    (libc::SYS_connect, path(1), Kind::Address),
    (libc::SYS_bind, path(1), Kind::Address),
    (libc::SYS_sendto, path(4), Kind::Address),
    (libc::SYS_sendmsg, path(1), Kind::Messages(None)),
    (libc::SYS_sendmmsg, path(1), Kind::Messages(Some(2))),
];

/// Calls that only old machines have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[Call] = &[
    (libc::SYS_open, path(0), Kind::Open(Some(1))),
    (libc::SYS_creat, path(0), Kind::Make),
    (libc::SYS_stat, path(0), Kind::Look),
    (libc::SYS_lstat, path(0), Kind::Look),
    (libc::SYS_access, path(0), Kind::Reach),
    (libc::SYS_readlink, path(0), Kind::Reach),
    (libc::SYS_chmod, path(0), Kind::Reach),
    (libc::SYS_chown, path(0), Kind::Reach),
    (libc::SYS_lchown, path(0), Kind::Reach),
    (libc::SYS_utime, path(0), Kind::Reach),
    (libc::SYS_utimes, path(0), Kind::Reach),
    (libc::SYS_futimesat, at(0, 1), Kind::Reach),
    (libc::SYS_unlink, path(0), Kind::Remove),
    (libc::SYS_rmdir, path(0), Kind::Remove),
    (libc::SYS_mkdir, path(0), Kind::Make),
    (libc::SYS_mknod, path(0), Kind::Make),
    (libc::SYS_symlink, path(1), Kind::Make),
    (libc::SYS_link, path(0), Kind::Look),
    (libc::SYS_link, path(1), Kind::Make),
    (libc::SYS_rename, path(0), Kind::Move),
    (libc::SYS_rename, path(1), Kind::Replace),
    (libc::SYS_getdents, at(0, 0), Kind::List),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[Call] = &[];

/// Numbers that `libc` has no names for; the same on all machines.
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const REMOVEXATTRAT: c_long = 466;

/// What a call names.
pub(super) fn named(number: i64) -> impl Iterator<Item = (At, Kind)> {
    let all = CALLS.iter().chain(OLD_CALLS);
    all.filter(move |(call, ..)| *call == number).map(|(_, at, kind)| (*at, *kind))
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Low half, on a little endian machine; both supported ones are.
const FOURTH_ARGUMENT: u32 = 16 + 3 * 8;

/// A filter that announces these calls, and every call of another architecture. What another filter refuses it cannot allow:
/// of several answers the kernel takes the strictest (`seccomp(2)`).
pub(in crate::executor) fn filter() -> Vec<sock_filter> {
    let mut numbers: Vec<u32> =
        CALLS.iter().chain(OLD_CALLS).filter_map(|(number, ..)| u32::try_from(*number).ok()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let count = u8::try_from(numbers.len()).expect("fewer than 240 calls");
    let sends = u32::try_from(libc::SYS_sendmsg).expect("a number");
    let mut program = vec![load(ARCHITECTURE), jump_if(NATIVE, 0, count + 8), load(NUMBER)];
    // The message with the descriptor itself: nobody could let it go on.
    program.push(jump_if(sends, 0, 5));
    for (offset, half) in [(FOURTH_ARGUMENT, HANDING_OVER & 0xffff_ffff), (FOURTH_ARGUMENT + 4, HANDING_OVER >> 32)] {
        let half = u32::try_from(half).expect("half of it");
        let left = if offset == FOURTH_ARGUMENT { (0, 2) } else { (count + 1, 0) };
        program.extend([load(offset), jump_if(half, left.0, left.1)]);
    }
    program.push(load(NUMBER));
    // Each one that matches jumps over the rest and over what lets the others pass.
    program.extend(numbers.into_iter().zip(0..).map(|(number, at)| jump_if(number, count - at, 0)));
    program.push(answer(SECCOMP_RET_ALLOW));
    program.push(answer(SECCOMP_RET_USER_NOTIF));
    program
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn jump_if(value: u32, equal: u8, other: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, equal, other, value)
}

fn answer(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, value)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("codes are small"), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, as the kernel's machine does it.
    fn run(architecture: u32, number: u32) -> u32 {
        run_with(architecture, number, 0)
    }

    fn run_with(architecture: u32, number: u32, fourth: u64) -> u32 {
        let program = filter();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) & 7 {
                BPF_LD => {
                    loaded = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FOURTH_ARGUMENT => u32::try_from(fourth & 0xffff_ffff).expect("half of it"),
                        _ => u32::try_from(fourth >> 32).expect("half of it"),
                    }
                }
                BPF_JMP => at += usize::from(if loaded == k { jt } else { jf }),
                _ => return k,
            }
        }
    }

    #[test]
    fn calls_that_name_files_are_announced_and_no_others() {
        let number = |call: c_long| u32::try_from(call).expect("a number");
        for (call, ..) in CALLS.iter().chain(OLD_CALLS) {
            assert_eq!(run(NATIVE, number(*call)), SECCOMP_RET_USER_NOTIF, "{call}");
        }
        for call in [libc::SYS_read, libc::SYS_write, libc::SYS_mmap, libc::SYS_fstat, libc::SYS_recvmsg] {
            assert_eq!(run(NATIVE, number(call)), SECCOMP_RET_ALLOW, "{call}");
        }
        let sends = number(libc::SYS_sendmsg);
        assert_eq!(run_with(NATIVE, sends, HANDING_OVER), SECCOMP_RET_ALLOW);
        assert_eq!(run_with(NATIVE, sends, HANDING_OVER ^ 1), SECCOMP_RET_USER_NOTIF);
        assert_eq!(run_with(NATIVE, sends, HANDING_OVER ^ (1 << 40)), SECCOMP_RET_USER_NOTIF);
        assert_eq!(run_with(NATIVE, number(libc::SYS_openat), HANDING_OVER), SECCOMP_RET_USER_NOTIF);
        // Another architecture has other numbers.
        assert_eq!(run(0x4000_0003, number(libc::SYS_read)), SECCOMP_RET_USER_NOTIF);
    }

    #[test]
    fn calls_that_nobody_could_follow_are_refused() {
        let refused =
            ["io_uring_setup", "io_uring_enter", "open_by_handle_at", "fanotify_init", "unshare", "setns", "mount"];
        for (name, _) in crate::executor::seccomp::allowed() {
            assert!(!refused.contains(&name), "{name}");
        }
    }

    #[test]
    fn every_allowed_call_that_names_a_file_is_known() {
        // What looks as if, and takes descriptors only, or names something else.
        let others = "arch_prctl cachestat inotify_rm_watch close_range fchdir fchmod fchown fgetxattr flistxattr fremovexattr fsetxattr fstat \
                      fstatfs statmount mq_open mq_unlink pidfd_open timer_create timerfd_create epoll_create \
                      epoll_create1 memfd_create listmount ftruncate landlock_create_ruleset";
        let signs = "open stat xattr link chmod chown exec dir mknod trunc utime access creat rename chroot dents watch \
                     handle uselib mount connect bind sendto sendm";
        let others: Vec<&str> = others.split_whitespace().collect();
        let known: Vec<i64> = CALLS.iter().chain(OLD_CALLS).map(|(number, ..)| *number).collect();
        for (name, number) in crate::executor::seccomp::allowed() {
            if signs.split_whitespace().any(|sign| name.contains(sign)) && !others.contains(&name) {
                assert!(known.contains(&number), "{name}");
            }
        }
    }
}
