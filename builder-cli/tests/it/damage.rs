//! Every file of a store in turn is damaged in several ways: the image is the right one all the same, and nothing that can
//! be made again is fatal.
//!
//! `RBUILD_TEST_DAMAGE=all` tries every file with every kind of damage instead of a sample.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;
use crate::web::{Page, Web};

const KINDS: [&str; 7] = ["flip", "cut", "empty", "garbage", "append", "delete", "directory"];

/// Damages a file; `false` if that changes nothing.
fn damage(path: &Path, kind: &str, number: usize) -> bool {
    let bytes = fs::read(path).expect("readable");
    let damaged = match kind {
        "flip" if !bytes.is_empty() => {
            let mut damaged = bytes.clone();
            let at = number * 31 % bytes.len();
            damaged[at] ^= 0x10;
            damaged
        }
        "cut" => bytes[..bytes.len() / 2].to_vec(),
        "garbage" => noise(number, bytes.len().max(40)),
        "append" => [&bytes[..], b"\0more"].concat(),
        _ => Vec::new(),
    };
    match kind {
        "delete" => fs::remove_file(path).expect("removed"),
        "directory" => {
            fs::remove_file(path).expect("removed");
            fs::create_dir(path).expect("made");
        }
        _ if damaged == bytes => return false,
        _ => fs::write(path, damaged).expect("written"),
    }
    true
}

/// Bytes that mean nothing.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// A store with everything that a build leaves, and what the image in it holds.
struct Store {
    env: TestEnv,
    master: PathBuf,
    expected: String,
    _web: Web,
}

impl Store {
    fn new() -> Self {
        let env = TestEnv::new();
        let base = base();
        let web = Web::start();
        let page = web.put("/page", Page { body: b"of a server\n".to_vec(), etag: Some("\"1\""), ..Page::default() });
        env.write(
            "Dockerfile",
            format!(
                "FROM {base} AS build\nCOPY src /src\n\
                 RUN --mount=type=cache,target=/c echo x > /c/x; cat /src/a /src/b > /all; mkdir -p /d/e\n\
                 FROM {base}\nCOPY --from=build /all /all\nRUN cat /all > /two; rm /etc/group\nCOPY src /src\nADD {page} /page\n"
            ),
        );
        env.write("src/a", "first\n").write("src/b", "second\n".repeat(100));
        env.ok("build -q -t app .");
        let expected = files(&env, &env.path("state"));
        env.ok("build -q -t app .");
        let master = env.path("master");
        copy(&env.path("state"), &master);
        Self { env, master, expected, _web: web }
    }

    /// Paths of all files, those that are alike only once each: files of a layer and logs differ in nothing.
    fn files(&self) -> Vec<PathBuf> {
        let listed = Command::new("find").arg(&self.master).args(["-type", "f", "-printf", "%P\\n"]).output();
        let listed = String::from_utf8(listed.expect("ran").stdout).expect("text");
        let mut files: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
        // A store without a version is refused, as anything could be in it.
        files.retain(|path| !path.ends_with("version"));
        files.sort();
        files
    }

    fn run(&self, state: &Path, line: &str) -> crate::env::Ended {
        let mut command = self.env.command(line.split_whitespace());
        end(command.env("RBUILD_ROOT", state))
    }

    /// Damages a file of a copy of the store: builds are right, and one command finds what is left.
    fn survives(&self, path: &Path, kind: &str, number: usize) {
        let state = self.env.path("damaged");
        let what = format!("{kind}: {}", path.display());
        let _ = fs::remove_dir_all(&state);
        copy(&self.master, &state);
        if !damage(&state.join(path), kind, number) {
            return;
        }
        // Some builds find the store as it is, some after another command has looked at it.
        let before = ["cache verify --repair", "du", "images", "cache ls", "explain", "prune -f"];
        let looked = self.run(&state, before[number % before.len()]);
        assert!(looked.code <= 1 && !looked.stderr.contains("panicked"), "{what}: {looked:?}");
        assert_eq!(files(&self.env, &state), self.expected, "{what}");
        let built = self.run(&state, "build --progress=quiet -t app .");
        assert_eq!(built.code, 0, "{what}: {built:?}");
        // What no build read is found by the one command that reads everything.
        let repaired = self.run(&state, "cache verify --repair");
        assert_eq!(repaired.code, 0, "{what}: {repaired:?}");
        let sound = self.run(&state, "cache verify");
        assert_eq!(sound.code, 0, "{what}: {sound:?}");
        let built = self.run(&state, "build --progress=quiet -t app .");
        assert_eq!(built.code, 0, "{what}: {built:?}");
        for line in ["save -o ../app.tar app", "run --rm app cat /two", "prune -a -f"] {
            let ended = self.run(&state, line);
            assert_eq!(ended.code, 0, "{what}, then {line}: {ended:?}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("ran").success());
}

/// What a build exports: names, modes and content of all files.
fn files(env: &TestEnv, state: &Path) -> String {
    let mut command = env.command("build --progress=quiet -o type=tar,dest=../out.tar .".split(' '));
    let ended = end(command.env("RBUILD_ROOT", state));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let script = "mkdir out && tar -C out -xf out.tar && cd out && find . -printf '%P %y %m %l\n' | sort && find . -type f | sort | xargs sha256sum";
    let _ = fs::remove_dir_all(env.path("out"));
    let listed = Command::new("sh").args(["-c", script]).current_dir(env.path("")).output().expect("ran");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).expect("text")
}

#[test]
fn whatever_is_damaged_in_the_store_the_next_build_is_right() {
    let test = "whatever_is_damaged_in_the_store_the_next_build_is_right";
    if !require_sandbox(test) {
        return;
    }
    let all = std::env::var("RBUILD_TEST_DAMAGE").is_ok_and(|value| value == "all");
    let store = Store::new();
    let files_of_store = store.files();
    assert!(files_of_store.len() > 45, "{files_of_store:?}");
    let mut failed = Vec::new();
    for (number, path) in files_of_store.iter().enumerate() {
        for (turn, kind) in KINDS.iter().enumerate() {
            // Locks and the database are opened in ways of their own.
            let is_own = *kind == "directory" && (path.ends_with("lock") || path.ends_with("db.sqlite"));
            if !all && !is_own && (number * 3 + turn) % 28 != 0 {
                continue;
            }
            let tried = std::panic::catch_unwind(AssertUnwindSafe(|| store.survives(path, kind, number + turn)));
            failed.extend(tried.is_err().then(|| format!("{kind}: {}", path.display())));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_damaged_layer_is_named_where_it_cannot_be_made_again_and_made_again_where_it_can() {
    let test = "a_damaged_layer_is_named_where_it_cannot_be_made_again_and_made_again_where_it_can";
    if !require_sandbox(test) {
        return;
    }
    let store = Store::new();
    let expected = &store.expected;
    for (path, content) in [("two", Some("tampered")), ("two", None), ("src/a", Some("other\n")), ("all", Some("x"))] {
        let state = store.env.path("damaged");
        let _ = fs::remove_dir_all(&state);
        copy(&store.master, &state);
        let found = Command::new("find").arg(state.join("snapshots")).args(["-path", &format!("*/fs/{path}")]).output();
        let found = String::from_utf8(found.expect("ran").stdout).expect("text");
        assert!(!found.is_empty(), "{path}");
        for file in found.lines() {
            match content {
                Some(content) => fs::write(file, content).expect("written"),
                None => fs::remove_file(file).expect("removed"),
            }
        }
        let saved = store.run(&state, "save -o ../app.tar app");
        assert_eq!(saved.code, 1, "{saved:?}");
        assert!(saved.stderr.contains(&format!("`/{path}` is damaged in the store")), "{saved:?}");
        assert!(saved.stderr.contains("hint: `rbuild cache verify --repair`"), "{saved:?}");
        // Both ways in which files leave: as an archive, and one by one.
        let local = store.run(&state, "build --progress=plain -o type=local,dest=../local .");
        assert_eq!(local.code, 0, "{local:?}");
        assert!(local.stderr.contains(" was damaged in the store: the files of its layer are made again"), "{local:?}");
        assert_eq!(fs::read_to_string(store.env.path("local/src/a")).expect("there"), "first\n");
        assert_eq!(files(&store.env, &state), *expected, "{path}");
        assert_eq!(store.run(&state, "build --progress=quiet -t app .").code, 0);
        let saved = store.run(&state, "save -o ../app.tar app");
        assert_eq!(saved.code, 0, "{saved:?}");
    }
}
