//! What the kernel opens besides a program that it executes: the interpreter of a script, the loader of a binary.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// What is read of a script's first line, as in the kernel (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;

/// What a program needs to be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Needs {
    /// Itself, or it is refused.
    Nothing,
    /// What is at this path.
    Interpreter(Vec<u8>),
    /// It is of a kind that the kernel may have been told about (`binfmt_misc`), or cannot be read here.
    Unknown,
}

/// What a program needs to be executed. `file` is open with `O_PATH`.
pub(super) fn needs(file: &OwnedFd) -> Needs {
    use std::os::fd::AsRawFd as _;
    let Ok(facts) = fstat(file) else { return Needs::Unknown };
    let (kind, mode) = (FileType::from_raw_mode(facts.st_mode), Mode::from_raw_mode(facts.st_mode));
    if kind != FileType::RegularFile || !mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH) {
        return Needs::Nothing;
    }
    // The very file that was looked at, whatever has its name by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = openat(CWD, path, flags, Mode::empty()).map(File::from) else { return Needs::Unknown };
    let mut head = [0; HEAD];
    let Ok(length) = file.read_at(&mut head, 0) else { return Needs::Unknown };
    let head = &head[..length];
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let word = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
        return word.map_or(Needs::Nothing, |word| Needs::Interpreter(word.to_vec()));
    }
    if head.is_empty() {
        return Needs::Nothing;
    }
    if !head.starts_with(b"\x7fELF\x02\x01") || head.len() < 64 {
        return Needs::Unknown;
    }
    loader(&file, head).map_or(Needs::Nothing, Needs::Interpreter)
}

/// The loader that a 64-bit ELF file names (`elf(5)`, `PT_INTERP`).
fn loader(file: &File, head: &[u8]) -> Option<Vec<u8>> {
    const PT_INTERP: u32 = 3;
    let number = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let (headers, size, count) = (number(head, 32)?, short(54)?, short(56)?);
    for index in 0..u64::from(count) {
        let mut header = [0; 56];
        file.read_exact_at(&mut header, headers.checked_add(index * u64::from(size))?).ok()?;
        if header[..4] == PT_INTERP.to_le_bytes() {
            let mut path = vec![0; usize::try_from(number(&header, 32)?).ok()?.min(HEAD)];
            file.read_exact_at(&mut path, number(&header, 8)?).ok()?;
            return path.split(|byte| *byte == 0).next().map(<[u8]>::to_vec);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn scripts_and_binaries_name_what_executes_them() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let of = |path: &Path| {
            let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("opened");
            match needs(&file) {
                Needs::Nothing => None,
                Needs::Interpreter(path) => Some(String::from_utf8(path).expect("text")),
                Needs::Unknown => Some("?".to_owned()),
            }
        };
        let check = |content: &str, expected: Option<&str>| {
            let path = folder.path().join("script");
            std::fs::write(&path, content).expect("written");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
            assert_eq!(of(&path).as_deref(), expected, "{content:?}");
        };
        check("#! /app/bin/tool -x\nmore", Some("/app/bin/tool"));
        check("#!tool", Some("tool"));
        check("#!\n", None);
        check("", None);
        check("text", Some("?"));
        check("\x7fELF\x02\x01 cut off", Some("?"));
        std::fs::write(folder.path().join("data"), "text").expect("written");
        assert_eq!(of(&folder.path().join("data")), None, "nobody may execute it");
        assert_eq!(of(folder.path()), None);
        // A program that is linked dynamically.
        let own = std::env::current_exe().expect("this test");
        let loader = of(&own).expect("a loader");
        assert!(Path::new(&loader).exists(), "{loader}");
    }
}
