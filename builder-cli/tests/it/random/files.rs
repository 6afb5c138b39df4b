//! Random files of a context, and random changes of them.

use std::fmt::Write as _;
use std::fs::{self, FileTimes};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};

use super::dice::Dice;
use super::image::brief;
use crate::keys::in_place;

const NAMES: &str = "a b c x y top1 top2 d.log link src sub lib data p.tar new .a .env .c";
const PATTERNS: &str = "*.log src/sub !src/sub/x */a b **/x data lib/link new* !src/a * !* p.tar top2";

/// Other content of the same size is likely.
fn content(dice: &mut Dice) -> String {
    let lines = 1 + dice.below(3);
    (0..lines).map(|_| format!("{}{}\n", dice.pick(&["#", "-", "+"]), dice.below(5))).collect()
}

/// A time among few, so that many files share one.
fn age(path: &Path, dice: &mut Dice) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + dice.roll() % 2);
    let times = FileTimes::new().set_modified(time);
    // Devices and the like have no time that can be set this way.
    let _ = fs::File::open(path).and_then(|file| file.set_times(times));
}

/// A new context.
pub(super) fn plant(root: &Path, dice: &mut Dice) {
    for old in fs::read_dir(root).expect("readable") {
        let old = old.expect("readable").path();
        let _ = if old.is_dir() && !old.is_symlink() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
    }
    for folder in ["src/sub", "lib", "data"] {
        fs::create_dir_all(root.join(folder)).expect("made");
    }
    for name in
        "src/a src/b src/sub/x src/sub/y lib/a lib/c data/x top1 src/d.log a sub/a b .env src/.a .c/x".split(' ')
    {
        if dice.chance(85) {
            write(&root.join(name), &content(dice));
            age(&root.join(name), dice);
        }
    }
    let _ = symlink(dice.word("a sub ../lib missing"), root.join("src/link"));
    let _ = symlink(dice.word("../src ../top1 c"), root.join("lib/link"));
    archive(root, dice);
}

/// Gives files rights and attributes that git does not keep.
pub(super) fn set_modes(root: &Path, dice: &mut Dice) {
    for path in all(root).iter().filter(|path| !path.is_symlink()) {
        let mode = [0o600, 0o664, 0o775, 0o755][dice.below(4)];
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        if dice.chance(50) {
            // Not every file system has them.
            let _ = setxattr(path, "user.k", b"1", XattrFlags::empty());
        }
    }
}

/// Files that weigh enough for snapshots of copies to be differences from earlier ones.
pub(super) fn plant_heavy(root: &Path) {
    for number in 0..40 {
        write(&root.join(format!("src/{MANY}/heavy/{number}")), &format!("{number:07}\n").repeat(4096));
    }
}

/// So many files that what was made of them before is worth to begin with.
pub(super) fn plant_many(root: &Path, dice: &mut Dice) {
    let count = [300, 1500, 3000][dice.below(3)];
    // With hard links nothing is made of an earlier tree.
    let has_links = dice.chance(30);
    for number in 0..count {
        let place = format!("src/{MANY}/{}/{}/{number}", number % 7, number % 40);
        write(&root.join(&place), &content(dice));
        if number % 90 == 0 {
            let _ = symlink("../0", root.join(format!("{place}.link")));
        }
        if has_links && number % 110 == 0 {
            let _ = fs::hard_link(root.join(&place), root.join(format!("src/{MANY}/{number}.hard")));
        }
    }
}

/// The directory in which there may be many files.
const MANY: &str = "many";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("below a root")).expect("made");
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set");
}

/// An archive with a file or two.
fn archive(root: &Path, dice: &mut Dice) {
    let mut builder = tar::Builder::new(Vec::new());
    for _ in 0..=dice.below(2) {
        let text = content(dice);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(if dice.chance(50) { 0o644 } else { 0o755 });
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, dice.word("in/a in/b a"), text.as_bytes()).expect("in memory");
    }
    fs::write(root.join("p.tar"), builder.into_inner().expect("in memory")).expect("written");
}

/// All paths below a directory but itself, sorted.
fn all(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("readable") {
            let path = entry.expect("readable").path();
            if fs::symlink_metadata(&path).expect("there").is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Everything of a directory that may matter, in words.
pub(super) fn state(root: &Path) -> String {
    let mut text = String::new();
    let paths = all(root);
    for path in std::iter::once(&root.to_owned()).chain(&paths) {
        let found = fs::symlink_metadata(path).expect("there");
        let below = path.strip_prefix(root).expect("below");
        let _ = write!(text, "{} {:o} {}:{}", below.display(), found.mode(), found.uid(), found.gid());
        if found.is_symlink() {
            let _ = write!(text, " {}", fs::read_link(path).expect("a link").display());
        } else {
            let mut names = [0; 4096];
            let length = listxattr(path, &mut names).unwrap_or(0);
            for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                let mut value = [0; 100];
                let size = getxattr(path, name, &mut value).unwrap_or(0);
                let _ = write!(text, " {}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(&value[..size]));
            }
        }
        if found.is_file() {
            let _ = write!(text, " {}", brief(&fs::read(path).expect("readable")));
            // Which names are one file.
            if found.nlink() > 1 {
                let same = |other: &&PathBuf| fs::symlink_metadata(other).is_ok_and(|other| other.ino() == found.ino());
                let first = paths.iter().find(same).expect("itself at least");
                let _ = write!(text, " = {}", first.strip_prefix(root).expect("below").display());
            }
        }
        text.push('\n');
    }
    text
}

/// The names of symbolic links: what is copied through one has its name.
pub(super) fn links(root: &Path) -> impl Iterator<Item = String> {
    let links = all(root).into_iter().filter(|path| path.is_symlink());
    links.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
}

/// Copies a directory with everything about it.
pub(super) fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

/// As a name: any file, and anything at all.
pub(super) const FILES: &str = "*files";
pub(super) const EVERYTHING: &str = "*";

/// What a change was of.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    pub(super) what: String,
    /// Names that explanations may speak of.
    pub(super) names: Vec<String>,
    /// No step may run again because of it.
    pub(super) nothing: bool,
}

impl Changed {
    pub(super) fn of(what: impl Into<String>, names: &str) -> Self {
        Self { what: what.into(), names: vec![names.to_owned()], nothing: false }
    }
}

/// Other patterns of an ignore file.
pub(super) fn patterns(old: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<&str> = old.lines().collect();
    if !lines.is_empty() && dice.chance(40) {
        lines.remove(dice.below(lines.len()));
    }
    if dice.chance(80) {
        lines.insert(dice.below(lines.len() + 1), dice.word(PATTERNS));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Makes a random change below a directory.
#[expect(clippy::too_many_lines, reason = "a table of changes")]
pub(super) fn change(root: &Path, dice: &mut Dice) -> Changed {
    let keep = |path: &&PathBuf| !matches!(path.file_name().and_then(|name| name.to_str()), Some("Dockerfile"));
    let paths: Vec<PathBuf> = all(root).iter().filter(keep).cloned().collect();
    let is = |wanted: fn(&fs::FileType) -> bool| -> Vec<&PathBuf> {
        paths.iter().filter(|path| fs::symlink_metadata(path).is_ok_and(|found| wanted(&found.file_type()))).collect()
    };
    let (files, folders) = (is(fs::FileType::is_file), is(fs::FileType::is_dir));
    let few = paths.iter().filter(|path| !path.components().any(|part| part.as_os_str() == MANY)).count();
    if files.len() < 3 || few > 90 {
        plant(root, dice);
        return Changed::of("planted", EVERYTHING);
    }
    let file = files[dice.below(files.len())].clone();
    let other = files[dice.below(files.len())].clone();
    let links: Vec<&PathBuf> = is(fs::FileType::is_symlink);
    let any = if dice.chance(15) && !links.is_empty() {
        links[dice.below(links.len())].clone()
    } else {
        paths[dice.below(paths.len())].clone()
    };
    let folder = folders.get(dice.below(folders.len().max(1))).map_or_else(|| root.to_owned(), |path| (*path).clone());
    let new = folder.join(dice.word(NAMES));
    let aside = root.join(".aside");
    let mut nothing = false;
    // Files below a directory, behind a link, with other names, have names of their own.
    let alone = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1);
    let is_small = alone(&file) && alone(&other) && alone(&any);
    let what;
    let mut at = vec![&file];
    match dice.below(33) {
        0..3 => {
            what = "edited in place, size and time restored";
            let mut bytes = fs::read(&file).expect("readable");
            if let Some(last) = bytes.len().checked_sub(2).and_then(|at| bytes.get_mut(at)) {
                *last = if *last == b'1' { b'2' } else { b'1' };
            }
            if !file.ends_with("p.tar") {
                in_place(&file, &String::from_utf8_lossy(&bytes));
            }
        }
        3 | 4 => {
            what = "another file with its name, size and time";
            let found = fs::metadata(&file).expect("there");
            let text: String =
                content(dice).chars().cycle().take(usize::try_from(found.len()).expect("small")).collect();
            fs::write(&aside, text).expect("written");
            fs::set_permissions(&aside, found.permissions()).expect("set");
            chown(&aside, Some(found.uid()), Some(found.gid())).expect("set");
            let times = FileTimes::new().set_modified(found.modified().expect("a time"));
            fs::File::open(&aside).and_then(|opened| opened.set_times(times)).expect("set");
            fs::rename(&aside, &file).expect("renamed");
        }
        5 | 6 => {
            what = "written";
            fs::write(&file, content(dice)).expect("written");
        }
        7 | 8 => {
            what = "swapped";
            at.push(&other);
            for (from, to) in [(&file, &aside), (&other, &file), (&aside, &other)] {
                let _ = fs::rename(from, to);
            }
        }
        9 => {
            what = "renamed";
            at = vec![&any, &new];
            let _ = fs::rename(&any, &new);
        }
        10 | 11 => {
            what = "mode";
            let of = if dice.chance(40) && folder != root { &folder } else { &any };
            at = vec![of];
            let mode = [0o600, 0o644, 0o755, 0o700, 0o4755, 0o1777][dice.below(6)];
            if !of.is_symlink() {
                fs::set_permissions(of, fs::Permissions::from_mode(mode)).expect("set");
            }
        }
        12 => {
            what = "owner";
            at = vec![&any];
            let owner = u32::try_from(dice.below(3)).expect("small");
            let _ = std::os::unix::fs::lchown(&any, Some(owner), Some(owner));
        }
        13 => {
            what = "attribute";
            at = vec![&any];
            if !fs::symlink_metadata(&any).is_ok_and(|found| found.is_symlink()) {
                let value = dice.pick(&["1", "2"]);
                let _ = if dice.chance(30) {
                    removexattr(&any, "user.k")
                } else {
                    setxattr(&any, "user.k", value.as_bytes(), XattrFlags::empty())
                };
            }
        }
        14 => {
            what = "another name";
            at.push(&new);
            let _ = fs::remove_file(&new);
            let _ = fs::hard_link(&file, &new);
        }
        15 => {
            what = "a copy of its own";
            let _ = fs::copy(&file, &aside);
            let _ = fs::rename(&aside, &file);
        }
        16 | 17 => {
            what = "link";
            at = vec![&new];
            let target = dice.word("a b sub ../src ../lib/a ../.. missing . x");
            if fs::symlink_metadata(&new).is_ok_and(|found| !found.is_dir()) {
                let _ = fs::remove_file(&new);
            }
            let _ = symlink(target, &new);
        }
        18 if folder != root => {
            what = "a link instead of the directory";
            at = vec![&folder];
            let moved = root.join(dice.word("new lib sub moved"));
            if fs::rename(&folder, &moved).is_ok() {
                let _ = symlink(moved.strip_prefix(root).expect("below"), &folder);
            }
        }
        19 => {
            what = "another kind";
            at = vec![&any];
            if fs::symlink_metadata(&any).is_ok_and(|found| found.is_dir()) {
                fs::remove_dir_all(&any).expect("removed");
                fs::write(&any, content(dice)).expect("written");
            } else {
                fs::remove_file(&any).expect("removed");
                write(&any.join(dice.word(NAMES)), &content(dice));
            }
        }
        20 => {
            what = "removed";
            at = vec![&any];
            let _ = if fs::symlink_metadata(&any).is_ok_and(|found| found.is_dir()) {
                fs::remove_dir_all(&any)
            } else {
                fs::remove_file(&any)
            };
        }
        21..24 => {
            what = "new";
            at = vec![&new];
            if fs::symlink_metadata(&new).is_err() {
                let _ = if dice.chance(30) { fs::create_dir(&new) } else { fs::write(&new, content(dice)) };
            }
        }
        24 => {
            let name = root.join(".dockerignore");
            let mut text = if dice.chance(60) { fs::read_to_string(&name).unwrap_or_default() } else { String::new() };
            let _ = writeln!(text, "{}", dice.word(PATTERNS));
            fs::write(name, text).expect("written");
            return Changed::of("ignore patterns", EVERYTHING);
        }
        25 => {
            let at = root.join("p.tar");
            let _ = fs::remove_dir_all(&at);
            archive(root, dice);
            return Changed::of("archive", FILES);
        }
        26 => {
            what = "directories swapped";
            at = vec![&folder, &any];
            if any.is_dir() && !any.starts_with(&folder) && !folder.starts_with(&any) {
                for (from, to) in [(&folder, &aside), (&any, &folder), (&aside, &any)] {
                    let _ = fs::rename(from, to);
                }
            }
        }
        31 | 32 if any.is_symlink() => {
            what = "another target";
            at = vec![&any];
            fs::remove_file(&any).expect("removed");
            symlink(dice.word("a b c sub ../src"), &any).expect("linked");
        }
        27 => {
            what = "touched";
            nothing = true;
            age(&file, dice);
            age(&folder, dice);
        }
        28 => {
            what = "written again";
            nothing = true;
            fs::write(&file, fs::read(&file).expect("readable")).expect("written");
        }
        29 => {
            what = "all touched";
            nothing = true;
            for path in &files {
                age(path, dice);
            }
        }
        _ => {
            what = "longer, time restored";
            let time = fs::metadata(&file).and_then(|found| found.modified()).expect("a time");
            fs::write(&file, content(dice)).expect("written");
            let opened = fs::File::options().write(true).open(&file).expect("open");
            opened.set_times(FileTimes::new().set_modified(time)).expect("set");
        }
    }
    let below = |path: &&PathBuf| path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
    let mut names: Vec<String> = at.iter().map(below).collect();
    let what = format!("{} {what}", names.join(", "));
    if !is_small || !at.iter().all(|path| alone(path) || fs::symlink_metadata(path).is_err()) {
        names.push(FILES.to_owned());
    }
    // What is in an archive has names of its own.
    if names.iter().any(|name| name.contains("p.tar")) {
        names.push(FILES.to_owned());
    }
    Changed { what, names, nothing }
}
