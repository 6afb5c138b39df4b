//! Copies of a context in which nothing changed are known without planning them, and never when something did.

use std::fs::{self, FileTimes};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::cache::build;
use crate::env::{TestEnv, end};
use crate::keys::in_place;

/// A change of the context.
type Change = (&'static str, fn(&TestEnv));

/// The cache keys of the steps of the last build: for copies they are their results.
fn keys(env: &TestEnv) -> Vec<String> {
    keys_in(env, "../state")
}

fn keys_in(env: &TestEnv, root: &str) -> Vec<String> {
    let text = env.ok(&format!("--root {root} history inspect --format json")).stdout;
    let build: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    build["Steps"].as_array().expect("steps").iter().map(|step| step["Key"].to_string()).collect()
}

/// The files of the store about contexts, with that ending.
fn files(env: &TestEnv, memo: bool) -> Vec<PathBuf> {
    let all = fs::read_dir(env.path("state/contexts")).into_iter().flatten();
    let all = all.map(|entry| entry.expect("readable").path()).filter(|path| path.is_file());
    all.filter(|path| path.extension().is_some_and(|ending| ending == "memo") == memo).collect()
}

fn forget_index(env: &TestEnv) {
    for file in files(env, false) {
        fs::remove_file(file).expect("removed");
    }
}

/// Builds until nothing is read again. The clock has to go on for that, as change times can't be set.
fn settle(env: &TestEnv) {
    std::thread::sleep(std::time::Duration::from_millis(40));
    build(env, "");
    assert_eq!(files(env, true).len(), 1, "a memo is written");
}

/// Whether a build takes what it knows from the memo: then it does not look into the index, nor write one.
fn is_recalled(env: &TestEnv) -> bool {
    forget_index(env);
    assert_eq!(build(env, "").0, [""; 0], "all steps hit");
    files(env, false).is_empty()
}

fn example() -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = "FROM scratch\nCOPY --exclude=left . /all/\nCOPY src/a* to/\nADD --chown=1:2 src /\nCOPY --chmod=go= --parents src/./**/x /parents/\n";
    env.write("Dockerfile", dockerfile).write(".dockerignore", "id\n*.log\nDockerfile\n.dockerignore\n");
    env.write("src/a1", "one").write("src/a2", "two").write("src/sub/x", "x").write("src/left", "l");
    symlink("a1", env.context("src/link")).expect("linked");
    settle(&env);
    env
}

#[test]
fn nothing_changed_is_seen_without_reading_anything() {
    let env = example();
    assert!(is_recalled(&env));
    assert!(is_recalled(&env));
    let known = keys(&env);

    // A damaged memo is none.
    let memo = files(&env, true).remove(0);
    let mut bytes = fs::read(&memo).expect("readable");
    bytes[20] ^= 1;
    fs::write(&memo, bytes).expect("written");
    assert!(!is_recalled(&env));
    assert_eq!(keys(&env), known);
    assert!(is_recalled(&env), "it was written again");

    // Who verifies wants everything to be read.
    forget_index(&env);
    let (ran, _) = build(&env, "--verify-cache=100");
    assert_eq!((ran.as_slice(), files(&env, false).len()), (&[][..], 1));

    // Records that are gone are made again, although the files are known.
    env.ok("build -q --no-cache .");
    assert_eq!(keys(&env), known);
    fs::remove_dir_all(env.path("state/cache")).expect("removed");
    assert_eq!(build(&env, "").0.len(), 4);
    assert_eq!(keys(&env), known);
    assert!(is_recalled(&env));
}

/// What the store knows of whole directories.
fn bases(env: &TestEnv) -> Option<Vec<u8>> {
    let file = files(env, false).into_iter().find(|path| path.extension().is_some_and(|ending| ending == "bases"));
    file.map(|file| fs::read(file).expect("readable"))
}

#[test]
fn a_copy_of_a_directory_is_made_from_the_one_before() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY src /app/\n");
    for number in 0..2000 {
        env.write(&format!("src/{}/d{}/f{number}", number % 5, number % 200), number.to_string());
    }
    let pause = || std::thread::sleep(std::time::Duration::from_millis(40));
    pause();
    build(&env, "");
    let base = bases(&env).expect("written");
    // Each step comes to what a store that has nothing makes of it. The base stays while little differs from it.
    let mut round = 0;
    let mut check = |change: &str, stays: bool| {
        pause();
        assert_eq!(build(&env, "").0.len(), 1, "{change}");
        let known = keys(&env);
        round += 1;
        let fresh = format!("../fresh{round}");
        let layers = |root: &str| {
            env.ok(&format!("--root {root} build -q -t app ."));
            env.ok(&format!("--root {root} inspect --format {{{{.RootFS}}}} app")).stdout
        };
        let layers_here = layers("../state");
        assert!(layers_here.contains("sha256:"), "{layers_here}");
        assert_eq!(layers_here, layers(&fresh), "{change}");
        assert_eq!(known, keys_in(&env, &fresh), "{change}");
        assert_eq!(bases(&env).expect("there") == base, stays, "{change}");
    };
    env.write("src/2/d7/f7", "other");
    check("a file", true);
    env.write("src/2/d7/f7", "7").write("src/new/deep/f", "new");
    check("a new directory, the file back", true);
    // Small files that had to be opened are kept, and not trusted.
    let kept = files(&env, false).into_iter().find(|path| path.extension().is_some_and(|ending| ending == "contents"));
    let kept = kept.expect("they are kept");
    let mut bytes = fs::read(&kept).expect("readable");
    bytes.iter_mut().step_by(3).for_each(|byte| *byte ^= 1);
    fs::write(&kept, bytes).expect("written");
    env.write("src/2/d7/f7", "after damage");
    check("a file, and kept contents are damaged", true);
    fs::remove_dir_all(env.context("src/0/d5")).expect("removed");
    check("a directory gone", true);
    fs::rename(env.context("src/4/d9"), env.context("src/4/d9x")).expect("renamed");
    symlink("d1", env.context("src/4/d9")).expect("linked");
    check("a directory becomes a link", true);
    fs::hard_link(env.context("src/1/d1/f1"), env.context("src/2/d2/name")).expect("linked");
    check("a hard link", true);
    fs::remove_file(env.context("src/2/d2/name")).expect("removed");
    fs::remove_dir_all(env.path("state/trees")).expect("removed");
    env.write("src/2/d7/f7", "once more");
    check("the tree is gone", false);
}

#[test]
fn files_of_a_copy_that_is_known_can_be_read() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY . /to/\n")
        .write("a/b", "content")
        .write(".dockerignore", "id\n*.tar\n");
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(40));
        env.ok("build -q -o type=cacheonly .");
    }
    forget_index(&env);
    env.ok("build -q -o type=tar,dest=out.tar .");
    let mut archive = tar::Archive::new(fs::File::open(env.context("out.tar")).expect("written"));
    let mut found = String::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        if entry.path().expect("a path") == Path::new("to/a/b") {
            std::io::Read::read_to_string(&mut entry, &mut found).expect("read");
        }
    }
    assert_eq!(found, "content");
}

#[test]
fn whatever_changes_is_noticed() {
    let env = example();
    let fresh = TestEnv::new();
    let changes: [Change; 15] = [
        ("content", |env| _ = env.write("src/a1", "ONE")),
        ("content in place, size and time restored", |env| in_place(&env.context("src/a1"), "new")),
        ("another one right after it", |env| in_place(&env.context("src/a1"), "old")),
        ("mode", |env| fs::set_permissions(env.context("src/a1"), fs::Permissions::from_mode(0o600)).expect("set")),
        ("renamed", |env| fs::rename(env.context("src/a2"), env.context("src/a3")).expect("renamed")),
        ("new", |env| _ = env.write("src/new", "n")),
        ("new, and ignored", |env| _ = env.write("x.log", "n")),
        ("no longer ignored", |env| _ = env.write(".dockerignore", "id\nDockerfile\n.dockerignore\n")),
        ("ignored", |env| _ = env.write(".dockerignore", "id\nDockerfile\n.dockerignore\nsrc/new\n")),
        ("removed", |env| fs::remove_file(env.context("src/sub/x")).expect("removed")),
        ("target of a link", |env| {
            fs::remove_file(env.context("src/link")).expect("removed");
            symlink("a3", env.context("src/link")).expect("linked");
        }),
        ("a file and its name", |env| fs::hard_link(env.context("src/a1"), env.context("src/a0")).expect("linked")),
        ("a copy of it", |env| {
            fs::remove_file(env.context("src/a0")).expect("removed");
            fs::copy(env.context("src/a1"), env.context("src/a0")).expect("copied");
        }),
        ("another source", |env| _ = env.write("Dockerfile", "FROM scratch\nCOPY --chmod=700 src /x\n")),
        ("nothing but times", |env| {
            let file = fs::File::open(env.context("src/a1")).expect("open");
            file.set_times(FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH)).expect("set");
        }),
    ];
    for (change, make) in changes {
        make(&env);
        build(&env, "");
        let at_once = keys(&env);
        settle(&env);
        let later = keys(&env);
        // The same context with a store that knows nothing.
        let _ = fs::remove_dir_all(fresh.path("state"));
        let mut command = env.command(["build", "-q", "."]);
        assert_eq!(end(command.env("RBUILD_ROOT", fresh.path("state"))).code, 0);
        assert_eq!((&at_once, &later), (&keys(&fresh), &keys(&fresh)), "{change}");
        assert!(is_recalled(&env), "{change}: and then nothing changes");
    }
}

#[test]
fn the_file_that_changed_is_named_after_many_builds_without_a_change() {
    let env = example();
    assert!(is_recalled(&env));
    env.write("src/sub/x", "other");
    assert_eq!(build(&env, "").0.len(), 3);
    let text = env.ok("explain").stdout;
    assert!(text.contains("/all/src/sub/x (content)"), "{text}");
}
