use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};

use super::*;

/// Runs a program as the kernel would; the answer is `None` for allowed, or the error number.
fn run(program: &[sock_filter], audit: u32, number: u32, argument: u64) -> Option<i32> {
    let mut at = 0;
    let mut accumulator = 0;
    loop {
        let instruction = program[at];
        let k = instruction.k;
        at += 1;
        let mut branch = |taken: bool| {
            at += usize::from(if taken { instruction.jt } else { instruction.jf });
        };
        match u32::from(instruction.code) {
            c if c == BPF_LD | BPF_W | BPF_ABS => {
                accumulator = match k {
                    0 => number,
                    4 => audit,
                    16 => u32::try_from(argument & 0xffff_ffff).expect("masked"),
                    _ => panic!("load from {k}"),
                }
            }
            c if c == BPF_ALU | BPF_AND | BPF_K => accumulator &= k,
            c if c == BPF_JMP | BPF_JEQ | BPF_K => branch(accumulator == k),
            c if c == BPF_JMP | BPF_JGE | BPF_K => branch(accumulator >= k),
            c if c == BPF_JMP | BPF_JA => at += k as usize,
            c if c == BPF_RET | BPF_K => {
                return match k & 0xffff_0000 {
                    SECCOMP_RET_ALLOW => None,
                    SECCOMP_RET_ERRNO => Some((k & 0xffff).cast_signed()),
                    other => panic!("answer {other:#x}"),
                };
            }
            other => panic!("operation {other:#x}"),
        }
    }
}

fn filter() -> Vec<sock_filter> {
    program::compile(&[table(X86_64, |row| row.1), table(I386, |row| row.2)])
}

const ALLOWED: Option<i32> = None;
const REFUSED: Option<i32> = Some(libc::EPERM);
const UNKNOWN: Option<i32> = Some(libc::ENOSYS);

#[test]
fn every_listed_call_is_allowed_and_every_other_refused() {
    let program = filter();
    for (audit, column) in [(X86_64, 0), (I386, 1)] {
        let number = |row: &(&str, i16, i16, i16)| u32::try_from([row.1, row.2][column]).ok();
        let allowed: Vec<u32> = syscalls::ALLOWED.iter().filter_map(number).collect();
        let special: Vec<u32> = syscalls::CONDITIONAL.iter().filter_map(number).collect();
        let newest = *allowed.iter().chain(&special).max().expect("not empty");
        for call in (0..1000).filter(|call| !special.contains(call)) {
            let expected = match call {
                call if allowed.contains(&call) => ALLOWED,
                call if call > newest => UNKNOWN,
                _ => REFUSED,
            };
            assert_eq!(run(&program, audit, call, 0), expected, "call {call} of {audit:#x}");
        }
    }
}

#[test]
fn single_calls_get_the_answer_of_the_profile() {
    let program = filter();
    let (clone, clone3, socket, personality) = (56, 435, 41, 135);
    let (keyctl, mount, unshare, io_uring_setup, userfaultfd) = (250, 165, 272, 425, 323);
    for (audit, call, argument, expected) in [
        (X86_64, clone, 0x11, ALLOWED),
        (X86_64, clone, 0x0002_0011, REFUSED),
        (X86_64, clone, 0x1000_0011, REFUSED),
        (X86_64, clone, 0x4000_0000, REFUSED),
        (X86_64, clone3, 0, UNKNOWN),
        (X86_64, socket, 1, ALLOWED),
        (X86_64, socket, 2, ALLOWED),
        (X86_64, socket, 10, ALLOWED),
        (X86_64, socket, 16, ALLOWED),
        (X86_64, socket, 38, REFUSED),
        (X86_64, socket, 40, REFUSED),
        (X86_64, socket, 46, REFUSED),
        (X86_64, socket, 0x1_0000_0026, REFUSED),
        (X86_64, personality, 0, ALLOWED),
        (X86_64, personality, 0x2_0008, ALLOWED),
        (X86_64, personality, 0xffff_ffff, ALLOWED),
        (X86_64, personality, 0x4_0000, REFUSED),
        (X86_64, keyctl, 0, REFUSED),
        (X86_64, mount, 0, REFUSED),
        (X86_64, unshare, 0, REFUSED),
        (X86_64, io_uring_setup, 0, REFUSED),
        (X86_64, userfaultfd, 0, REFUSED),
        (X86_64, 5000, 0, UNKNOWN),
        // x32: read, and a number of its own.
        (X86_64, 0x4000_0000, 0, UNKNOWN),
        (X86_64, 0x4000_0200, 0, UNKNOWN),
        // i386: mount, umount, clone with a user namespace, socket, clone3.
        (I386, 21, 0, REFUSED),
        (I386, 52, 0, REFUSED),
        (I386, 120, 0x1000_0011, REFUSED),
        (I386, 120, 0x11, ALLOWED),
        (I386, 359, 38, REFUSED),
        (I386, 359, 2, ALLOWED),
        (I386, 435, 0, UNKNOWN),
        // Another architecture altogether.
        (AARCH64, 0, 0, UNKNOWN),
    ] {
        assert_eq!(run(&program, audit, call, argument), expected, "call {call} of {audit:#x} with {argument:#x}");
    }
}

#[test]
fn the_program_is_short_and_ends_on_every_path() {
    let program = filter();
    assert!(program.len() < 700, "{} instructions: loading them is part of every step", program.len());
    assert!(program.len() < 4096, "BPF_MAXINSNS");
    let last = program.last().expect("not empty");
    assert_eq!(u32::from(last.code), BPF_RET | BPF_K);
}

#[test]
fn a_long_jump_reaches_its_target() {
    // Every second call: more than 255 instructions on either side of the first comparison.
    let rules = (0..600).map(|number| (number * 2, Rule::Always(Action::Allow))).collect();
    let program = program::compile(&[Architecture { audit: X86_64, rules }]);
    for call in 0..1198 {
        let expected = if call % 2 == 0 { ALLOWED } else { REFUSED };
        assert_eq!(run(&program, X86_64, call, 0), expected, "call {call}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_numbers_are_those_of_this_machine() {
    for (name, number) in [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("openat2", libc::SYS_openat2),
        ("rseq", libc::SYS_rseq),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("mseal", libc::SYS_mseal),
    ] {
        let row = syscalls::ALLOWED.iter().find(|row| row.0 == name).expect("listed");
        assert_eq!(i64::from(row.1), number, "{name}");
    }
}
