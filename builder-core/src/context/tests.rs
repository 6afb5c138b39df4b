//! Contexts on a real file system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use super::*;
use crate::diagnostic::Diagnostic;
use crate::tree::ContentDigest;

/// A context directory and a state directory.
struct Fixture {
    root: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Fixture {
    /// Makes files; `d/` is a directory, `l>t` a symbolic link, `f=text` a file with that content.
    fn new(entries: &[&str]) -> Self {
        let make = || tempfile::tempdir().expect("temporary directory");
        let fixture = Self { root: make(), state: make() };
        for entry in entries {
            fixture.make(entry);
        }
        fixture
    }

    fn make(&self, entry: &str) {
        let at = |name: &str| {
            let path = self.root.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            path
        };
        if let Some((name, target)) = entry.split_once('>') {
            symlink(target, at(name)).expect("made");
        } else if let Some(name) = entry.strip_suffix('/') {
            fs::create_dir_all(at(name)).expect("made");
        } else {
            let (name, text) = entry.split_once('=').unwrap_or((entry, entry));
            fs::write(at(name), text).expect("made");
        }
    }

    fn open(&self, ignore: &str) -> BuildContext {
        let source = IgnoreSource::Text(Source::new(".dockerignore", ignore.as_bytes()));
        BuildContext::open(self.root.path(), &source, self.state.path()).expect("opened")
    }
}

/// Waits until what was written is old enough to be trusted. Change times can't be set, so the clock has to move.
fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

fn request(source: &str) -> Request<'_> {
    Request { source, parents: false, exclude: &[] }
}

/// `name@root: path path(…)`, parenthesised where not included.
fn shown(matches: &[Match]) -> Vec<String> {
    let one = |found: &Match| {
        let paths: Vec<String> = found
            .entries
            .iter()
            .map(|selected| {
                let path = selected.entry.path.to_string();
                if selected.included { path } else { format!("({path})") }
            })
            .collect();
        format!("{}@{}: {}", String::from_utf8_lossy(&found.name), found.root, paths.join(" "))
    };
    matches.iter().map(one).collect()
}

fn select(context: &BuildContext, source: &str) -> Vec<String> {
    shown(&context.select(&request(source)).expect(source))
}

#[test]
fn paths_and_patterns_find_what_they_should() {
    let fixture = Fixture::new(&[
        "a.txt",
        "b.txt",
        "dir/x",
        "dir/sub/y",
        "dir2/z",
        "link>dir",
        "out>/etc",
        "arr[0].txt",
        "up>../../dir/x",
    ]);
    let context = fixture.open("");
    for (source, expected) in [
        ("a.txt", vec!["a.txt@/a.txt: /a.txt"]),
        ("/a.txt", vec!["a.txt@/a.txt: /a.txt"]),
        ("../../a.txt", vec!["a.txt@/a.txt: /a.txt"]),
        ("dir/", vec!["dir@/dir: /dir /dir/sub /dir/sub/y /dir/x"]),
        ("link", vec!["link@/dir: /dir /dir/sub /dir/sub/y /dir/x"]),
        ("link/sub", vec!["sub@/dir/sub: /dir/sub /dir/sub/y"]),
        ("up", vec!["up@/dir/x: /dir/x"]),
        ("*.txt", vec!["a.txt@/a.txt: /a.txt", "arr[0].txt@/arr[0].txt: /arr[0].txt", "b.txt@/b.txt: /b.txt"]),
        ("arr[[]0].txt", vec!["arr[0].txt@/arr[0].txt: /arr[0].txt"]),
        ("dir*/[xz]", vec!["x@/dir/x: /dir/x", "z@/dir2/z: /dir2/z"]),
        ("li*", vec!["link@/dir: /dir /dir/sub /dir/sub/y /dir/x"]),
        ("li*/x", vec![]),
        ("nothing*", vec![]),
    ] {
        assert_eq!(select(&context, source), expected, "{source}");
    }
    let all = context.select(&request(".")).expect("all");
    assert_eq!((all[0].name.as_slice(), all[0].entries.len()), (&b""[..], 13));
}

#[test]
fn nothing_outside_the_root_is_found() {
    let fixture = Fixture::new(&["out>/etc", "deep/out>../../../../etc/passwd", "loop>loop"]);
    let context = fixture.open("");
    for source in ["out/passwd", "deep/out", "../etc/passwd"] {
        assert!(matches!(context.select(&request(source)), Err(ContextError::NotFound { .. })), "{source}");
    }
    assert!(matches!(context.select(&request("loop")), Err(ContextError::Loop(_))));
}

// Rows: A108, E8.
#[test]
fn ignored_files_are_neither_found_nor_entered() {
    let fixture = Fixture::new(&["a/keep/x", "a/y", "b/z", "c/d/e.md", "c/d/f", "top", "empty/"]);
    let check = |ignore: &str, expected: &str| {
        assert_eq!(select(&fixture.open(ignore), "."), [format!("@/: {expected}")], "{ignore}");
    };
    check("", "/ /a /a/keep /a/keep/x /a/y /b /b/z /c /c/d /c/d/e.md /c/d/f /empty /top");
    check("a\nb", "/ /c /c/d /c/d/e.md /c/d/f /empty /top");
    check("*\n!a/keep", "/ /a /a/keep /a/keep/x");
    check("*\n!**/*.md", "/ /c /c/d /c/d/e.md");
    check("**/x", "/ /a /a/keep /a/y /b /b/z /c /c/d /c/d/e.md /c/d/f /empty /top");
    check("*", "/");

    // An unreadable directory that is ignored is not looked into.
    let context = fixture.open("*\n!a/keep");
    let error = context.select(&request("b/z")).expect_err("ignored");
    assert_eq!(error.to_string(), "no such file in the build context: `/b/z`");
    assert_eq!(error.hint().as_deref(), Some("it is excluded by .dockerignore line 1"));
    assert_eq!(context.ignored_by(&RootPath::clean("a/y").expect("clean")).map(|by| by.line), Some(1));
    assert_eq!(context.ignored_by(&RootPath::clean("a/keep/x").expect("clean")), None);
    assert_eq!(select(&context, "a"), ["a@/a: /a /a/keep /a/keep/x"]);
    assert_eq!(select(&context, "[ab]"), ["a@/a: /a /a/keep /a/keep/x"]);
}

#[test]
fn a_missing_path_suggests_the_nearest_name() {
    let fixture = Fixture::new(&["src/main.rs", "Cargo.toml"]);
    let context = fixture.open("");
    let hint = |source| context.select(&request(source)).expect_err("missing").hint();
    assert_eq!(hint("src/mian.rs").as_deref(), Some("did you mean `src/main.rs`?"));
    assert_eq!(hint("scr/main.rs").as_deref(), Some("did you mean `src`?"));
    assert_eq!(hint("xyz").as_deref(), Some("paths are relative to the build context"));
}

#[test]
fn excludes_and_parents_choose_below_a_match() {
    let fixture = Fixture::new(&["a/x.md", "a/y", "a/n/z.md", "a/n/w", "b/c/d/e", "b/c/f", "g/"]);
    let context = fixture.open("");
    let check = |source: &str, parents: bool, exclude: &[&str], expected: &str| {
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let found = context.select(&Request { source, parents, exclude: &exclude }).expect(source);
        assert_eq!(shown(&found).join("; "), expected, "{source}");
    };
    check("a", false, &["*.md"], "a@/a: /a /a/n /a/n/w /a/n/z.md /a/y");
    check("a", false, &["**/*.md"], "a@/a: /a /a/n /a/n/w /a/y");
    check("a", false, &["n"], "a@/a: /a /a/x.md /a/y");
    check("a", false, &["n", "!n/w"], "a@/a: /a (/a/n) /a/n/w /a/x.md /a/y");
    check("b/c/d/e", true, &[], "@/: / (/b) (/b/c) (/b/c/d) /b/c/d/e");
    check("b/./c/d", true, &[], "b@/b: /b (/b/c) /b/c/d /b/c/d/e");
    check("*/n", true, &[], "@/: / (/a) /a/n /a/n/w /a/n/z.md");
    check("**/*.md", true, &[], "@/: / (/a) (/a/n) /a/n/z.md /a/x.md");
    check("none*", true, &[], "@/: /");
    check("a", true, &["a/n"], "@/: / /a /a/x.md /a/y");
    let missing = Request { source: "b/none", parents: true, exclude: &[] };
    assert!(matches!(context.select(&missing), Err(ContextError::NotFound { .. })));
}

#[test]
fn entries_say_what_an_image_keeps() {
    let fixture = Fixture::new(&["f=hello", "l>f", "d/"]);
    let root = fixture.root.path();
    fs::hard_link(root.join("f"), root.join("h")).expect("linked");
    fs::set_permissions(root.join("f"), fs::Permissions::from_mode(0o4755)).expect("set");
    let _socket = UnixListener::bind(root.join("s")).expect("bound");
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234, 567);
    fs::File::open(root.join("f")).and_then(|file| file.set_modified(time)).expect("set");
    rustix::fs::setxattr(root.join("f"), "user.note", b"x", rustix::fs::XattrFlags::empty()).expect("set");
    rustix::fs::mknodat(rustix::fs::CWD, root.join("p"), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("made");

    let context = fixture.open("");
    let all = context.select(&request(".")).expect("all").remove(0);
    let entry = |name: &str| {
        let path = RootPath::clean(name).expect("clean");
        all.entries.iter().find(|selected| selected.entry.path == path).expect(name).entry.clone()
    };
    let file = entry("f");
    assert_eq!(file.node, Node::File { size: 5, content: ContentDigest::of(b"hello"), link: 1 });
    assert_eq!(entry("h").node, file.node);
    assert_eq!((file.mode, file.uid, file.gid), (0o4755, 0, 0));
    assert_eq!((file.mtime.seconds, file.mtime.nanoseconds), (1_234, 567));
    assert_eq!(file.xattrs[0].name, b"user.note");
    assert_eq!(entry("l").node, Node::Symlink { target: b"f".to_vec() });
    assert_eq!(entry("p").node, Node::Fifo);
    assert_eq!(entry("s").node, Node::File { size: 0, content: ContentDigest::of(b""), link: 0 });
    assert!(entry("d").node.is_directory());

    let read = |name: &str, size| {
        let path = RootPath::clean(name).expect("clean");
        context.open_path(&path, size).and_then(std::io::read_to_string)
    };
    assert_eq!(read("f", 5).expect("read"), "hello");
    assert_eq!(context.open_file(&file).and_then(std::io::read_to_string).expect("read"), "hello");
    assert!(context.open_file(&entry("d")).is_err());
    assert_eq!(read("s", 0).expect("read"), "");
    fs::write(root.join("f"), "longer text").expect("written");
    assert!(read("f", 5).is_err() && read("p", 1).is_err() && read("d", 1).is_err());
}

/// How many files the next build has to read: those whose content was replaced behind the index's back keep the old
/// digest, so a digest of the new content proves a reading.
fn digest(fixture: &Fixture, name: &str) -> ContentDigest {
    let context = fixture.open("");
    let found = context.select(&request(name)).expect(name);
    match found[0].entries[0].entry.node {
        Node::File { content, .. } => content,
        _ => panic!("{name} is a file"),
    }
}

#[test]
fn a_write_is_seen_even_when_size_and_mtime_are_put_back() {
    let fixture = Fixture::new(&["f=one", "d/g=one"]);
    for name in ["f", "d/g"] {
        settle();
        assert_eq!(digest(&fixture, name), ContentDigest::of(b"one"));
        let path = fixture.root.path().join(name);
        let modified = fs::metadata(&path).and_then(|found| found.modified()).expect("known");
        fs::write(&path, "two").expect("written");
        fs::File::open(&path).and_then(|file| file.set_modified(modified)).expect("set");
        assert_eq!(digest(&fixture, name), ContentDigest::of(b"two"));
    }
}

#[test]
fn a_file_written_right_after_it_was_read_is_seen() {
    let fixture = Fixture::new(&["f=0"]);
    for round in 1..50 {
        let text = format!("{}", round % 10);
        fs::write(fixture.root.path().join("f"), &text).expect("written");
        assert_eq!(digest(&fixture, "f"), ContentDigest::of(text.as_bytes()), "round {round}");
    }
}

#[test]
fn settled_files_are_not_read_again() {
    let fixture = Fixture::new(&["d/f=one", "d/g=two"]);
    settle();
    let context = fixture.open("");
    let first = context.select(&request("d")).expect("found");
    drop(context);
    // Root can read anything, so unreadable files prove nothing: look at what the index holds.
    let mut index = Index::new(fixture.state.path(), &fixture.root.path().canonicalize().expect("there"));
    let records = index.directory(b"d").expect("remembered");
    assert_eq!(records.iter().map(|(name, _)| name.to_vec()).collect::<Vec<_>>(), [b"f", b"g"]);
    let written = fs::metadata(fixture.state.path().join("contexts")).and_then(|found| found.modified());
    let context = fixture.open("");
    assert_eq!(context.select(&request("d")).expect("found"), first);
    drop(context);
    let again = fs::metadata(fixture.state.path().join("contexts")).and_then(|found| found.modified());
    assert_eq!(written.expect("there"), again.expect("there"), "nothing new, nothing written");
}

#[test]
fn files_that_somebody_can_write_to_are_read_each_time() {
    let fixture = Fixture::new(&["d/f=one", "d/g=two"]);
    settle();
    let writer = fs::File::options().write(true).open(fixture.root.path().join("d/f")).expect("opened");
    let known = || {
        let context = fixture.open("");
        let survey = context.survey(&request("d")).expect("found");
        let settled = context.read(&survey).expect("read").settled;
        drop(context);
        let mut index = Index::new(fixture.state.path(), &fixture.root.path().canonicalize().expect("there"));
        let records = index.directory(b"d");
        (settled, records.iter().flat_map(index::Records::iter).map(|(name, _)| name.to_vec()).collect::<Vec<_>>())
    };
    assert_eq!(known(), (false, vec![b"g".to_vec()]));
    drop(writer);
    assert_eq!(known(), (true, vec![b"f".to_vec(), b"g".to_vec()]));
}

#[test]
fn many_directories_come_in_order_whoever_reads_them() {
    let fixture = Fixture::new(&[]);
    for directory in 0..60 {
        for file in 0..60 {
            fixture.make(&format!("d{directory}/s/f{file}"));
        }
    }
    let context = fixture.open("**/f7\n!d5/s/f7");
    let found = context.select(&request(".")).expect("found").remove(0);
    let paths: Vec<RootPath> = found.entries.iter().map(|selected| selected.entry.path.clone()).collect();
    assert!(paths.is_sorted());
    assert_eq!(paths.len(), 1 + 60 * 2 + 60 * 59 + 1);
    for selected in &found.entries {
        if let Node::File { content, .. } = selected.entry.node {
            assert_eq!(content, ContentDigest::of(selected.entry.path.as_bytes()));
        }
    }
}

// Rows: E15.
#[test]
fn a_file_that_changes_while_it_is_read_is_never_mixed() {
    /// Ends the writer also when an assertion fails.
    struct Stop<'a>(&'a std::sync::atomic::AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let fixture = Fixture::new(&[]);
    let path = fixture.root.path().join("f");
    fs::write(&path, "").expect("written");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut letter = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                letter = (letter + 1) % 26;
                fs::write(&path, vec![b'a' + letter; 1000 + usize::from(letter)]).expect("written");
            }
        });
        let context = fixture.open("");
        for _ in 0..200 {
            match context.select(&request("f")) {
                Ok(found) => {
                    let Node::File { size, content, .. } = found[0].entries[0].entry.node else { panic!("a file") };
                    let letter = u8::try_from(size.saturating_sub(1000)).expect("small");
                    assert!(size == 0 || size >= 1000, "{size} bytes");
                    let whole = vec![b'a' + letter; usize::try_from(size).expect("small")];
                    assert_eq!(content, ContentDigest::of(&whole), "{size} bytes");
                }
                Err(ContextError::Changed(path)) => assert_eq!(path.to_string(), "/f"),
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn the_first_ignore_file_that_exists_is_read_and_links_do_not_lead_out() {
    let fixture = Fixture::new(&["a", "b", ".dockerignore=a", "x.dockerignore=b"]);
    let root = fixture.root.path();
    let open = |names: &[&str]| {
        let files = names.iter().map(|name| root.join(name)).collect();
        BuildContext::open(root, &IgnoreSource::FirstOf(files), fixture.state.path())
    };
    let ignored = |context: &BuildContext, path: &str| context.ignored_by(&RootPath::clean(path).expect("clean"));
    let context = open(&["none.dockerignore", "x.dockerignore", ".dockerignore"]).expect("opened");
    assert_eq!(ignored(&context, "b").map(|by| by.to_string()).as_deref(), Some("x.dockerignore line 1"));
    assert_eq!(ignored(&context, "a"), None);
    assert_eq!(ignored(&open(&["none"]).expect("opened"), "a"), None);
    symlink("/etc/passwd", root.join("evil")).expect("made");
    let error = open(&["evil"]).expect_err("it leads out");
    assert_eq!(error.hint().as_deref(), Some("it is a symbolic link that leads out of the build context"));
    fs::create_dir(root.join("folder")).expect("made");
    assert!(matches!(open(&["folder"]), Err(ContextError::ReadIgnoreFile { .. })));
    assert!(BuildContext::open(&root.join("a"), &IgnoreSource::Nothing, fixture.state.path()).is_err());
}
