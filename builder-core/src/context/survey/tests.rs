//! Whether a fingerprint tells all that reading would.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags, XattrFlags};

use crate::context::{BuildContext, Fingerprint, IgnoreSource, Match, Reading, Request};
use crate::diagnostic::Source;
use crate::rootfs::RootPath;
use crate::tree::{Entry, Time};

const IGNORE: &str = "**/*.log\nout\n!out/keep\n";

/// A change of the files below a directory, and whether it changes what is selected.
type Change = (&'static str, bool, fn(&Path));

const CHANGES: [Change; 34] = [
    ("nothing", false, |_| ()),
    ("content", true, |root| fs::write(root.join("file"), "TWO").expect("written")),
    ("content in place, size and time restored", true, |root| in_place(&root.join("file"), "new")),
    ("content deep below", true, |root| in_place(&root.join("dir/sub/deep"), "new!")),
    ("written again with what was in it", false, |root| fs::write(root.join("file"), "one").expect("written")),
    ("another file with the same content", false, |root| {
        fs::write(root.join("x.log"), "one").expect("written");
        set_mode(&root.join("x.log"), 0o644);
        fs::rename(root.join("x.log"), root.join("file")).expect("renamed");
    }),
    ("time", false, |root| touch(&root.join("file"), SystemTime::UNIX_EPOCH)),
    ("mode", true, |root| set_mode(&root.join("file"), 0o755)),
    ("mode of a directory", true, |root| set_mode(&root.join("dir/sub"), 0o700)),
    ("mode of the top", true, |root| set_mode(root, 0o711)),
    ("attribute", true, |root| set_attribute(&root.join("file"), b"1")),
    ("attribute of a directory", true, |root| set_attribute(&root.join("dir"), b"1")),
    ("value of an attribute of a directory", true, |root| set_attribute(&root.join("dir/sub"), b"2")),
    ("content of a hidden file", true, |root| in_place(&root.join(".hidden"), "H")),
    ("hidden file removed", true, |root| fs::remove_file(root.join(".hidden")).expect("removed")),
    ("new hidden directory", true, |root| fs::create_dir(root.join("dir/.new")).expect("made")),
    ("renamed", true, |root| fs::rename(root.join("file"), root.join("renamed")).expect("renamed")),
    ("directory renamed", true, |root| fs::rename(root.join("dir"), root.join("dir2")).expect("renamed")),
    ("names swapped", true, |root| swap(root, "file", "other")),
    ("directories swapped", true, |root| swap(root, "dir", "more")),
    ("new file", true, |root| fs::write(root.join("dir/new"), "").expect("written")),
    ("new empty directory", true, |root| fs::create_dir(root.join("dir/new")).expect("made")),
    ("new ignored file", false, |root| fs::write(root.join("dir/x.log"), "x").expect("written")),
    ("removed", true, |root| fs::remove_file(root.join("dir/sub/deep")).expect("removed")),
    ("target of a link", true, |root| relink(root, "link", "other")),
    ("file becomes a link", true, |root| relink(root, "other", "file")),
    ("directory becomes a link", true, |root| {
        fs::rename(root.join("dir"), root.join("dir.log")).expect("renamed");
        symlink("dir.log", root.join("dir")).expect("linked");
    }),
    ("file becomes an empty directory", true, |root| {
        fs::remove_file(root.join("other")).expect("removed");
        fs::create_dir(root.join("other")).expect("made");
    }),
    ("hard link broken", true, |root| {
        fs::copy(root.join("hard1"), root.join("x.log")).expect("copied");
        fs::rename(root.join("x.log"), root.join("hard1")).expect("renamed");
    }),
    ("hard links of two files instead of one", true, |root| {
        fs::remove_file(root.join("hard1")).expect("removed");
        fs::hard_link(root.join("twin"), root.join("hard1")).expect("linked");
    }),
    ("one more name", true, |root| fs::hard_link(root.join("file"), root.join("dir/name")).expect("linked")),
    ("fifo", true, |root| {
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, mode, 0).expect("made");
    }),
    ("ignored directory gets something that is not", true, |root| {
        fs::write(root.join("out/keep"), "").expect("written");
    }),
    ("ignored directory gets more that is ignored", false, |root| {
        fs::write(root.join("out/more"), "").expect("written");
    }),
];

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

fn touch(path: &Path, time: SystemTime) {
    let times = FileTimes::new().set_modified(time);
    fs::File::open(path).and_then(|file| file.set_times(times)).expect("touched");
}

/// Other bytes of the same length in the same file, whose time is then what it was.
fn in_place(path: &Path, content: &str) {
    let modified = fs::metadata(path).and_then(|found| found.modified()).expect("readable");
    let file = fs::File::options().write(true).open(path).expect("writable");
    std::os::unix::fs::FileExt::write_all_at(&file, content.as_bytes(), 0).expect("written");
    file.set_times(FileTimes::new().set_modified(modified)).expect("restored");
}

fn set_attribute(path: &Path, value: &[u8]) {
    let file = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).expect("opened");
    rustix::fs::fsetxattr(file, "user.test", value, XattrFlags::empty()).expect("set");
}

fn swap(root: &Path, a: &str, b: &str) {
    for (from, to) in [(a, "x"), (b, a), ("x", b)] {
        fs::rename(root.join(from), root.join(to)).expect("renamed");
    }
}

fn relink(root: &Path, name: &str, target: &str) {
    fs::remove_file(root.join(name)).expect("removed");
    symlink(target, root.join(name)).expect("linked");
}

/// A directory of every kind of thing; all of it old enough to be trusted.
fn plant() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary directory");
    let root = folder.path();
    for directory in ["dir/sub", "more", "out"] {
        fs::create_dir_all(root.join(directory)).expect("made");
        set_mode(&root.join(directory), 0o755);
    }
    set_mode(&root.join("dir"), 0o755);
    let files = [("file", "one"), ("other", "two"), ("dir/sub/deep", "deep"), ("more/m", "m"), ("hard1", "h")];
    for (name, content) in
        files.into_iter().chain([(".hidden", "h"), ("twin", "h"), ("out/old", "o"), ("dir/a.log", "log")])
    {
        fs::write(root.join(name), content).expect("written");
        set_mode(&root.join(name), 0o644);
        touch(&root.join(name), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    }
    fs::hard_link(root.join("hard1"), root.join("hard2")).expect("linked");
    fs::hard_link(root.join("twin"), root.join("twin2")).expect("linked");
    symlink("file", root.join("link")).expect("linked");
    set_attribute(&root.join("dir/sub"), b"1");
    settle();
    folder
}

/// Change times can't be set, so the clock has to move.
fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

/// What is seen, and what reading it gives; times of what is no regular file left out.
fn look(root: &Path, state: &Path, ignore: &str, request: &Request<'_>) -> (Fingerprint, Reading) {
    let ignore = IgnoreSource::Text(Source::new(".dockerignore", ignore.as_bytes()));
    let context = BuildContext::open(root, &ignore, state).expect("opened");
    let survey = context.survey(request).expect("surveyed");
    let mut reading = context.read(&survey).expect("read");
    for selected in reading.matches.iter_mut().flat_map(|found| &mut found.entries) {
        if !selected.entry.node.is_file() {
            selected.entry.mtime = Time::default();
        }
    }
    (survey.fingerprint(), reading)
}

const ALL: Request<'_> = Request { source: ".", parents: false, exclude: &[] };

/// The files without any times.
fn timeless(matches: &[Match]) -> Vec<Match> {
    let mut matches = matches.to_vec();
    for selected in matches.iter_mut().flat_map(|found| &mut found.entries) {
        selected.entry.mtime = Time::default();
    }
    matches
}

#[test]
fn every_change_shows_in_the_fingerprint() {
    let state = tempfile::tempdir().expect("temporary directory");
    for (change, changes_selection, make) in CHANGES {
        let folder = plant();
        let (before, read) = look(folder.path(), state.path(), IGNORE, &ALL);
        assert!(read.settled, "{change}");
        assert_eq!(look(folder.path(), state.path(), IGNORE, &ALL).0, before, "{change}: nothing changed yet");
        make(folder.path());
        let (after, again) = look(folder.path(), state.path(), IGNORE, &ALL);
        assert_eq!(timeless(&again.matches) != timeless(&read.matches), changes_selection, "{change}");
        if changes_selection {
            assert_ne!(after, before, "{change}");
        }
        if after == before {
            assert_eq!(again.matches, read.matches, "{change}");
        }
    }
}

/// Entries by path, the one that matched left out.
fn by_path(found: &Match) -> BTreeMap<RootPath, Entry> {
    found.entries[1..].iter().map(|selected| (selected.entry.path.clone(), selected.entry.clone())).collect()
}

#[test]
fn what_changed_replaces_what_was() {
    let state = tempfile::tempdir().expect("temporary directory");
    let ignore = || IgnoreSource::Text(Source::new(".dockerignore", b"**/*.log\nout\n".as_slice()));
    let open = |folder: &Path| BuildContext::open(folder, &ignore(), state.path()).expect("opened");
    let (mut patched, mut left) = (0, Vec::new());
    for (change, _, make) in CHANGES {
        let folder = plant();
        for name in ["hard2", "twin2"] {
            fs::remove_file(folder.path().join(name)).expect("removed");
        }
        // Enough beside it that a change is one of little.
        for number in 0..40 {
            fs::create_dir_all(folder.path().join(format!("many/{}", number % 4))).expect("made");
            fs::write(folder.path().join(format!("many/{}/{number}", number % 4)), number.to_string())
                .expect("written");
        }
        settle();
        let context = open(folder.path());
        let before = context.survey(&ALL).expect("surveyed");
        let base = before.outline().expect("plain");
        let reading = context.read(&before).expect("read");
        assert!(reading.settled, "{change}");
        drop(context);
        make(folder.path());
        let context = open(folder.path());
        let after = context.survey(&ALL).expect("surveyed");
        let Some(now) = after.outline() else {
            left.push(change);
            continue;
        };
        let changes = context.read_changes(&after, &base, &now).expect("read").expect("few");
        let mut found = by_path(&reading.matches[0]);
        found.retain(|path, _| path.parent().is_some_and(|parent| !changes.renewed.contains(&parent)));
        found.extend(by_path(&changes.found));
        let whole = context.read(&after).expect("read");
        assert_eq!(found, by_path(&whole.matches[0]), "{change}");
        assert_eq!(changes.found.entries[0], whole.matches[0].entries[0], "{change}");
        assert!(changes.found.entries.len() <= 20, "{change}: {} were read", changes.found.entries.len());
        patched += 1;
    }
    let linked = ["hard links of two files instead of one", "one more name"];
    assert_eq!((patched, left.as_slice()), (CHANGES.len() - 2, &linked[..]));
}

#[test]
fn entries_of_some_directories_come_in_the_order_of_all() {
    let folder = tempfile::tempdir().expect("temporary directory");
    for path in ["a/b/c", "a/b-", "d", "e/f/g/h", "e/f/i"] {
        fs::create_dir_all(folder.path().join(path)).expect("made");
        fs::write(folder.path().join(path).join("0"), "").expect("written");
        fs::write(folder.path().join(path).join("z"), "").expect("written");
    }
    fs::write(folder.path().join("e/last"), "").expect("written");
    let state = tempfile::tempdir().expect("temporary directory");
    let context = BuildContext::open(folder.path(), &IgnoreSource::Nothing, state.path()).expect("opened");
    let survey = context.survey(&ALL).expect("surveyed");
    let [seen] = survey.matches.as_slice() else { panic!("one match") };
    let count = seen.directories.len();
    assert_eq!(count, 12, "with the one above the match");
    for mask in 0..1_u32 << count {
        let wanted: Vec<bool> = (0..count).map(|slot| mask >> slot & 1 == 1).collect();
        let mut expected = seen.order();
        expected.retain(|(slot, number)| {
            wanted[*slot] || seen.directories[*slot].entries[*number].child.is_some_and(|child| wanted[child])
        });
        assert_eq!(seen.order_of(&wanted), expected, "{wanted:?}");
    }
}

#[test]
fn what_is_asked_for_shows_in_the_fingerprint() {
    let folder = plant();
    let state = tempfile::tempdir().expect("temporary directory");
    let exclude = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<String>>();
    let (file, sub) = (exclude(&["file"]), exclude(&["**/sub"]));
    let mut seen: HashMap<[u8; 32], Vec<Match>> = HashMap::new();
    let mut count = 0;
    for ignore in [IGNORE, "", "file\n", "*\n!file\n", "dir\n", "dir\n!dir/sub/deep\n", "dir/sub/deep\n"] {
        for (source, parents, exclude) in [
            (".", false, &[][..]),
            (".", false, &file),
            (".", false, &sub),
            ("[a-ko-z]*", false, &[]),
            ("[f]ile", false, &[]),
            ("./[f]ile", true, &[]),
            ("dir*", false, &[]),
            ("**/deep", true, &[]),
            ("m*", false, &[]),
        ] {
            let request = Request { source, parents, exclude };
            let (fingerprint, reading) = look(folder.path(), state.path(), ignore, &request);
            assert!(reading.settled);
            let earlier = seen.entry(*fingerprint.as_bytes()).or_insert_with(|| reading.matches.clone());
            assert_eq!(*earlier, reading.matches, "{ignore:?} {source}");
            count += 1;
        }
    }
    assert!(seen.len() > count / 2, "{} of {count}", seen.len());
}

#[test]
fn what_was_written_just_now_is_not_settled() {
    let folder = plant();
    let state = tempfile::tempdir().expect("temporary directory");
    assert!(look(folder.path(), state.path(), "", &ALL).1.settled);
    // Until the clock has ticked, another write need not show.
    let mut caught = false;
    for round in 0..20 {
        fs::write(folder.path().join("file"), format!("{round}")).expect("written");
        caught |= !look(folder.path(), state.path(), "", &ALL).1.settled;
    }
    assert!(caught, "each reading came 10 ms after its write");
    settle();
    assert!(look(folder.path(), state.path(), "", &ALL).1.settled);
}
