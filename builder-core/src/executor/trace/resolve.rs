//! From a path as a process names it to the paths that the kernel looks at for it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2, readlinkat};
use rustix::io::Errno;

use super::PathUse;
use crate::rootfs::RootPath;

/// Most symbolic links in one path, as in Linux (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Bytes of a path with a component that is too long for any file system, where it may be the whole that is too long.
const PATH_LONG: usize = 3800;

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Found {
    /// This, which is there.
    There(RootPath, OwnedFd),
    /// This, which is not there.
    Missing(RootPath),
    /// This, which is in `/proc` or `/sys`, and no way back to files.
    Special(RootPath),
    /// Nothing of interest: a path that the kernel refuses.
    Nothing,
}

/// It cannot be said what a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclear(pub(super) String);

/// Looks `path` up from the directory `from` in `root`, links followed. `note` gets each link on the way, and each directory
/// that `..` leaves.
///
/// Nothing outside of `root` is ever looked at, whatever the path and its links say, and nothing is opened but with `O_PATH`.
pub(super) fn resolve(
    root: &impl AsFd,
    from: &RootPath,
    path: &[u8],
    note: &mut dyn FnMut(RootPath, PathUse),
) -> Result<Found, Unclear> {
    let goes_up = path.split(|byte| *byte == b'/').any(|component| component == b"..");
    // Without links and `..` a path is what it says, and one question is enough.
    if !goes_up {
        let Ok(plain) = from.join(path) else { return Err(too_long()) };
        if is_special(&plain) {
            return special(&plain);
        }
        match open(root, &plain) {
            Ok(file) if !is_link(&file) => return Ok(Found::There(plain, file)),
            Ok(_) | Err(Errno::LOOP) => {}
            Err(errno) => return missing(plain, errno),
        }
    }
    step_by_step(root, from, path, note)
}

fn step_by_step(
    root: &impl AsFd,
    from: &RootPath,
    path: &[u8],
    note: &mut dyn FnMut(RootPath, PathUse),
) -> Result<Found, Unclear> {
    let components = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut at = if path.starts_with(b"/") { RootPath::root() } else { from.clone() };
    let mut pending = components(path);
    let mut links = 0;
    while let Some(component) = pending.pop() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                note(at.clone(), PathUse::Touched);
                at = at.parent().unwrap_or_default();
                continue;
            }
            _ => {}
        }
        let next = at.child(&component);
        let goes_up = pending.iter().any(|component| component == b"..");
        let rest = || pending.iter().rev().fold(next.clone(), |path, name| path.join(name).unwrap_or(path));
        if is_special(&next) {
            // Where that goes up, links there decide where it comes out.
            return if goes_up { Err(Unclear(format!("it goes through `{next}`"))) } else { special(&rest()) };
        }
        let file = match open(root, &next) {
            Ok(file) => file,
            Err(errno) => {
                if goes_up {
                    // It decides, wherever the rest would lead.
                    note(next.clone(), PathUse::Missing);
                }
                return missing(rest(), errno);
            }
        };
        if !is_link(&file) {
            at = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Ok(Found::Nothing);
        }
        let Ok(target) = readlinkat(&file, c"", Vec::new()) else {
            return Err(Unclear(format!("the link `{next}` cannot be read")));
        };
        note(next, PathUse::Touched);
        let target = target.as_bytes();
        if target.starts_with(b"/") {
            at = RootPath::root();
        }
        pending.extend(components(target));
    }
    match open(root, &at) {
        Ok(file) => Ok(Found::There(at, file)),
        Err(errno) => missing(at, errno),
    }
}

/// Opens a path that has no links; a link itself at its end.
fn open(root: &impl AsFd, path: &RootPath) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match openat2(root, path.as_relative(), flags, Mode::empty(), how) {
            // Something was renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn is_link(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file)
        .is_ok_and(|facts| rustix::fs::FileType::from_raw_mode(facts.st_mode) == rustix::fs::FileType::Symlink)
}

fn missing(path: RootPath, errno: Errno) -> Result<Found, Unclear> {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Ok(Found::Missing(path)),
        // From a directory far below the process may get another answer.
        Errno::NAMETOOLONG if path.as_bytes().len() > PATH_LONG => Err(too_long()),
        Errno::NAMETOOLONG => Ok(Found::Nothing),
        errno => Err(Unclear(format!("`{path}` cannot be looked at: {errno}"))),
    }
}

fn too_long() -> Unclear {
    Unclear("it uses a path that is too long from the root".to_owned())
}

/// Whether a path is in a file system that says something about processes, not about files.
fn is_special(path: &RootPath) -> bool {
    let first = path.components().next();
    matches!(first, Some(b"proc" | b"sys"))
}

/// Paths there are left out, but for those that lead back to files: `/proc/self/cwd/x`, `/proc/1/root/x`, `/proc/self/fd/3/x`.
fn special(path: &RootPath) -> Result<Found, Unclear> {
    let components: Vec<&[u8]> = path.components().collect();
    let leads_back = components.windows(2).any(|pair| matches!(pair[0], b"cwd" | b"root"))
        || components.windows(3).any(|three| three[0] == b"fd" || three[0] == b"map_files");
    if components.first() == Some(&b"proc".as_slice()) && leads_back {
        return Err(Unclear(format!("it goes through `{path}`")));
    }
    Ok(Found::Special(path.clone()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_steps_up_are_followed_inside_the_root() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("app/src")).expect("made");
        fs::write(at("app/src/main.c"), "").expect("written");
        symlink("src", at("app/link")).expect("linked");
        symlink("/app/link/main.c", at("entry")).expect("linked");
        symlink("loop", at("loop")).expect("linked");
        symlink("/proc/self/fd", at("fd")).expect("linked");
        let root = File::open(folder.path()).expect("opened");
        let check = |from: &str, path: &str, expected: &str, on_the_way: &[&str]| {
            let mut noted = Vec::new();
            let from = RootPath::clean(from).expect("a path");
            let found = resolve(&root, &from, path.as_bytes(), &mut |path, _| noted.push(path.to_string()));
            let found = match found {
                Ok(Found::There(path, _)) => path.to_string(),
                Ok(Found::Missing(path)) => format!("no {path}"),
                Ok(Found::Nothing | Found::Special(_)) => "nothing".to_owned(),
                Err(Unclear(why)) => why,
            };
            assert_eq!(
                (found.as_str(), noted),
                (expected, on_the_way.iter().map(ToString::to_string).collect()),
                "{path}"
            );
        };
        check("/app", "src/main.c", "/app/src/main.c", &[]);
        check("/app/src", "/app", "/app", &[]);
        check("/app", "link/main.c", "/app/src/main.c", &["/app/link"]);
        check("/app", "link", "/app/src", &["/app/link"]);
        check("/", "entry", "/app/src/main.c", &["/entry", "/app/link"]);
        check("/app/src", "../src/./main.c", "/app/src/main.c", &["/app/src"]);
        check("/app", "../../../app/src", "/app/src", &["/app", "/", "/"]);
        check("/app", "link/../none", "no /app/none", &["/app/link", "/app/src"]);
        check("/app", "src/main.c/x", "no /app/src/main.c/x", &[]);
        check("/app", "none/../link", "no /app/link", &["/app/none"]);
        check("/", "proc/../entry", "it goes through `/proc`", &[]);
        check("/", "loop", "nothing", &["/loop"; 40]);
        check("/", "/proc/self/status", "nothing", &[]);
        check("/", "/proc/self/cwd", "nothing", &[]);
        check("/", "/proc/self/cwd/x", "it goes through `/proc/self/cwd/x`", &[]);
        check("/", "fd/3", "nothing", &["/fd"]);
        check("/", "fd/3/x", "it goes through `/proc/self/fd/3/x`", &["/fd"]);
    }
}
