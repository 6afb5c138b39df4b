//! The device filter of a cgroup (v2). See `bpf(2)` and the kernel's `admin-guide/cgroup-v2.rst`, "Device controller".

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::result;

/// A device that the filter lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    /// A block device, otherwise a character device.
    pub(crate) block: bool,
    pub(crate) major: u32,
    /// Without a number all of them.
    pub(crate) minor: Option<u32>,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Device {
    /// A character device that may be read and written.
    pub(crate) const fn character(major: u32, minor: Option<u32>) -> Self {
        Self { block: false, major, minor, read: true, write: true }
    }
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The part of `union bpf_attr` that loading needs.
#[repr(C)]
#[derive(Debug, Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part of `union bpf_attr` that attaching needs.
#[repr(C)]
#[derive(Debug, Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Operations of the machine, `linux/bpf.h`.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_ACC_*` and `BPF_DEVCG_DEV_*`.
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const KIND_BLOCK: i32 = 1;
const KIND_CHARACTER: i32 = 2;

/// Loads a program that allows to make any node, and to open only the devices given.
///
/// # Errors
/// `EPERM` without `CAP_BPF`, `ENOSYS` or `EINVAL` where the kernel has no such programs.
pub(crate) fn load_device_filter(devices: &[Device]) -> io::Result<OwnedFd> {
    let program = device_filter(devices);
    let attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: program.as_ptr().expose_provenance() as u64,
        license: c"MIT".as_ptr().expose_provenance() as u64,
        ..LoadAttr::default()
    };
    // SAFETY: `attr` leads to the program and its licence, which are only read, bpf(2).
    let returned = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<LoadAttr>()) };
    let descriptor = RawFd::try_from(result(returned)?).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: a new descriptor that nobody else owns, bpf(2).
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Puts a device filter on a cgroup; it stays until the cgroup is removed.
pub(crate) fn attach_device_filter(filter: impl AsFd, cgroup: impl AsFd) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        attach_bpf_fd: filter.as_fd().as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attr` holds plain numbers, bpf(2).
    let returned = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attr, size_of::<AttachAttr>()) };
    result(returned).map(drop)
}

/// Registers: 1 is the context (`struct bpf_cgroup_dev_ctx`: access and kind, major, minor), 2 the kind, 3 the access, 4 the
/// major, 5 the minor number, 0 the answer.
fn device_filter(devices: &[Device]) -> Vec<Instruction> {
    let op = |code, destination: u8, source: u8, offset, immediate| Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    };
    let allow = [op(MOVE, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)];
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(MOVE_REGISTER, 3, 2, 0, 0),
        op(AND, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
        // Making a node, and no more than that.
        op(JUMP_NOT_EQUAL, 3, 0, 2, ACCESS_MKNOD),
    ];
    program.extend(allow);
    for device in devices {
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let kind = if device.block { KIND_BLOCK } else { KIND_CHARACTER };
        let refused = [(device.read, ACCESS_READ), (device.write, ACCESS_WRITE)];
        let refused = refused.iter().filter(|(allowed, _)| !allowed).fold(0, |bits, (_, bit)| bits | bit);
        let mut checks = vec![(2, kind), (4, number(device.major))];
        checks.extend(device.minor.map(|minor| (5, number(minor))));
        let mut rule = Vec::new();
        if refused != 0 {
            // Register 6: what is asked for and refused.
            rule.extend([op(MOVE_REGISTER, 6, 3, 0, 0), op(AND, 6, 0, 0, refused)]);
            checks.push((6, 0));
        }
        for (index, (register, value)) in checks.iter().enumerate() {
            // Past the checks that are left, and past the two instructions that allow.
            let rest = i16::try_from(checks.len() - index + 1).unwrap_or(i16::MAX);
            rule.push(op(JUMP_NOT_EQUAL, *register, 0, rest, *value));
        }
        program.extend(rule);
        program.extend(allow);
    }
    program.extend([op(MOVE, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}
