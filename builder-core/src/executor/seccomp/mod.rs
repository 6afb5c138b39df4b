//! The default filter of system calls.
//!
//! One program for all processes of a sandbox, compiled once: a decision tree over call numbers, so that it is short (loading
//! it is part of the cost of every step) and quick. What it decides:
//!
//! | call | answer |
//! |---|---|
//! | allowed by name (`syscalls.rs`) | allowed |
//! | `clone` with a `CLONE_NEW*` flag | `EPERM` |
//! | `clone3` | `ENOSYS`: its flags are in memory, where a filter cannot look; libc falls back to `clone` |
//! | `personality` | allowed for 0, 8, 0x20000, 0x20008 and the query 0xffffffff |
//! | `socket` | `EPERM` for `AF_ALG`, `AF_VSOCK` and families without use in containers |
//! | newer than everything in the table | `ENOSYS`, so that libc falls back |
//! | any other | `EPERM` |
//!
//! A process can make calls of more than one architecture, and each has numbers of its own:
//!
//! - i386 programs on x86-64 get the same rules with i386 numbers. `socketcall` has its arguments in memory, so a 32-bit
//!   program can still ask for any family with it; glibc for i386 cannot open a socket in another way, and moby
//!   allows it too (it leaves `AF_ALG` there to AppArmor and SELinux).
//! - x32 does not exist: `ENOSYS`, as on kernels without it, which are the rule.
//! - 32-bit ARM on 64-bit ARM does not exist: `ENOSYS`.

mod program;
mod syscalls;

use program::{Action, Rule};

pub(super) use program::Architecture;

/// `AUDIT_ARCH_*` of `linux/audit.h`: ELF machine, 64 bit, little endian.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

/// Compiles the default filter for the machine that this runs on.
///
/// Returns `None` on a machine that has no table.
pub(super) fn default_filter() -> Option<Vec<libc::sock_filter>> {
    let architectures: &[Architecture] = if cfg!(target_arch = "x86_64") {
        &[table(X86_64, |row| row.1), table(I386, |row| row.2)]
    } else if cfg!(target_arch = "aarch64") {
        &[table(AARCH64, |row| row.3)]
    } else {
        return None;
    };
    Some(program::compile(architectures))
}

/// The rules of one architecture; `number` picks its column.
fn table(audit: u32, number: fn(&(&str, i16, i16, i16)) -> i16) -> Architecture {
    let present = |row| u32::try_from(number(row)).ok();
    let mut rules: Vec<(u32, Rule)> =
        syscalls::ALLOWED.iter().filter_map(|row| Some((present(row)?, Rule::Always(Action::Allow)))).collect();
    rules.extend(syscalls::CONDITIONAL.iter().filter_map(|row| Some((present(row)?, condition(row.0)))));
    rules.sort_unstable_by_key(|(number, _)| *number);
    rules.dedup_by_key(|(number, _)| *number);
    Architecture { audit, rules }
}

/// Every `CLONE_NEW*` flag but that of time namespaces, which share a bit with the exit signal.
const CLONE_NEW: u32 = 0x7e02_0000;

/// Address families below [`FAMILIES_END`] that containers do not get: obsolete networks, ISDN, CAIF, and above all
/// `AF_ALG` (38, CVE-2026-31431) and `AF_VSOCK` (40).
const REFUSED_FAMILIES: [u32; 9] = [12, 19, 20, 23, 25, 34, 37, 38, 40];

/// First address family that is too new to be allowed.
const FAMILIES_END: u32 = 46;

/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the query.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn condition(name: &str) -> Rule {
    match name {
        "clone" => Rule::NoBits(CLONE_NEW),
        "personality" => Rule::OneOf(PERSONALITIES.to_vec()),
        "socket" => Rule::BelowExcept { end: FAMILIES_END, except: REFUSED_FAMILIES.to_vec() },
        // clone3
        _ => Rule::Always(Action::NoSuchCall),
    }
}

/// Names and numbers of the calls that this machine's programs may make.
#[cfg(test)]
pub(super) fn allowed() -> impl Iterator<Item = (&'static str, i64)> {
    let native = |row: &(&'static str, i16, i16, i16)| if cfg!(target_arch = "aarch64") { row.3 } else { row.1 };
    let rows = syscalls::ALLOWED.iter().filter(move |row| native(row) != syscalls::NONE);
    rows.map(move |row| (row.0, native(row).into()))
}

#[cfg(test)]
mod tests;
