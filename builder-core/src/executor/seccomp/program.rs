//! From rules to a program of the kernel's classic BPF machine. See `seccomp(2)` and the kernel's
//! `userspace-api/seccomp_filter.rst`.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};

/// What a call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// `EPERM`.
    Refuse,
    /// `ENOSYS`.
    NoSuchCall,
}

/// How the action of a call is found. Conditions look at the low 32 bits of the first argument, which is all that the kernel
/// itself uses of it in these calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    Always(Action),
    /// Allowed if none of these bits is set.
    NoBits(u32),
    /// Allowed if it is one of these values.
    OneOf(Vec<u32>),
    /// Allowed below `end`, but not for the values of `except`.
    BelowExcept {
        end: u32,
        except: Vec<u32>,
    },
}

/// The rules for the calls of one architecture.
#[derive(Debug)]
pub(in crate::executor) struct Architecture {
    /// `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// Sorted by call number.
    pub(super) rules: Vec<(u32, Rule)>,
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Low half of `args[0]` on a little endian machine; both supported ones are.
const FIRST_ARGUMENT: u32 = 16;

/// A number with this bit is a call of x32 (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;

/// From a call number on, one rule applies.
type Range<'a> = (u32, &'a Rule);

pub(super) fn compile(architectures: &[Architecture]) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    for architecture in architectures {
        let mut block = vec![load(NUMBER)];
        block.extend(tree(&ranges(architecture)));
        // Another architecture: over this block.
        program.push(jump(BPF_JEQ, architecture.audit, 1, 0));
        program.push(jump_always(block.len()));
        program.extend(block);
    }
    program.push(answer(Action::NoSuchCall));
    program
}

const REFUSE: Rule = Rule::Always(Action::Refuse);
const NO_SUCH_CALL: Rule = Rule::Always(Action::NoSuchCall);

/// Cuts all numbers into ranges with one rule each; neighbours differ.
fn ranges(architecture: &Architecture) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = vec![(0, &REFUSE)];
    let mut put = |from: u32, rule| match ranges.last_mut() {
        Some((start, last)) if *start == from => *last = rule,
        Some((_, last)) if *last == rule => {}
        _ => ranges.push((from, rule)),
    };
    let mut end = 0;
    for (number, rule) in &architecture.rules {
        if *number > end {
            put(end, &REFUSE);
        }
        put(*number, rule);
        end = number + 1;
    }
    // Newer calls, and all of x32.
    debug_assert!(end <= X32, "call numbers are small");
    put(end, &NO_SUCH_CALL);
    ranges
}

/// A binary search over the ranges, with the number in the accumulator.
fn tree(ranges: &[Range<'_>]) -> Vec<sock_filter> {
    match ranges {
        [] => vec![answer(Action::Refuse)],
        [(_, rule)] => leaf(rule),
        _ => {
            let (below, above) = ranges.split_at(ranges.len() / 2);
            let (start, below, above) = (above[0].0, tree(below), tree(above));
            let mut code = match u8::try_from(below.len()) {
                Ok(skip) => vec![jump(BPF_JGE, start, skip, 0)],
                Err(_) => vec![jump(BPF_JGE, start, 0, 1), jump_always(below.len())],
            };
            code.extend(below);
            code.extend(above);
            code
        }
    }
}

fn leaf(rule: &Rule) -> Vec<sock_filter> {
    let (allow, refuse) = (answer(Action::Allow), answer(Action::Refuse));
    let equal = |value: &u32, skip: usize| jump(BPF_JEQ, *value, narrow(skip), 0);
    match rule {
        Rule::Always(action) => vec![answer(*action)],
        Rule::NoBits(bits) => {
            vec![load(FIRST_ARGUMENT), code(BPF_ALU | BPF_AND | BPF_K, *bits), jump(BPF_JEQ, 0, 0, 1), allow, refuse]
        }
        Rule::OneOf(values) => {
            let mut code = vec![load(FIRST_ARGUMENT)];
            // A match jumps over the other comparisons and over `refuse`.
            code.extend(values.iter().enumerate().map(|(at, value)| equal(value, values.len() - at)));
            code.extend([refuse, allow]);
            code
        }
        Rule::BelowExcept { end, except } => {
            let mut code = vec![load(FIRST_ARGUMENT), jump(BPF_JGE, *end, narrow(except.len() + 1), 0)];
            code.extend(except.iter().enumerate().map(|(at, value)| equal(value, except.len() - at)));
            code.extend([allow, refuse]);
            code
        }
    }
}

fn narrow(skip: usize) -> u8 {
    u8::try_from(skip).expect("rules compare with few values")
}

fn load(offset: u32) -> sock_filter {
    code(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn answer(action: Action) -> sock_filter {
    let value = match action {
        Action::Allow => SECCOMP_RET_ALLOW,
        Action::Refuse => SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
        Action::NoSuchCall => SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
    };
    code(BPF_RET | BPF_K, value)
}

fn jump_always(skip: usize) -> sock_filter {
    code(BPF_JMP | BPF_JA, u32::try_from(skip).expect("a program has at most 4096 instructions"))
}

fn jump(comparison: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { jt: if_true, jf: if_false, ..code(BPF_JMP | comparison | BPF_K, value) }
}

fn code(operation: u32, k: u32) -> sock_filter {
    let code = u16::try_from(operation).expect("operations of classic BPF have 16 bits");
    sock_filter { code, jt: 0, jf: 0, k }
}
