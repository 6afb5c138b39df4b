//! A copy that changed little: its files are the difference from what the copy left before, and nobody notices.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;
use crate::store::{check_du, on_disk};

/// Files of a context that is large enough.
const FILES: usize = 100;

fn fill(env: &TestEnv) {
    for number in 0..FILES {
        env.write(&format!("src/d{}/f{number}", number % 10), format!("{number:07}\n").repeat(2048));
    }
}

/// Directories of snapshots that are whole, and of those that are derived.
fn snapshots(env: &TestEnv) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let all = fs::read_dir(env.path("state/snapshots")).expect("listed").map(|entry| entry.expect("listed").path());
    let all: Vec<PathBuf> = all.filter(|path| path.is_dir()).collect();
    let with = |name: &str| all.iter().map(|path| path.join(name)).filter(|path| path.exists()).collect();
    (with("fs"), with("delta"))
}

fn files_below(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("listed").map(|entry| entry.expect("listed").path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

/// The one path below `src` that ends like this.
fn one(paths: Vec<PathBuf>, end: &str) -> PathBuf {
    paths.into_iter().map(|path| path.join(end)).find(|path| path.exists()).expect("a snapshot has it")
}

const CHANGED: &str = "src/d1/f1";
const REMOVED: &str = "src/d2/f2";

fn change(env: &TestEnv) {
    env.write(CHANGED, "changed\n").write("src/new", "new\n");
    fs::remove_file(env.context(REMOVED)).expect("removed");
}

#[test]
fn one_changed_file_is_all_that_is_written_and_the_image_is_the_same() {
    let env = TestEnv::new();
    env.write(".dockerignore", "Dockerfile*\n");
    env.write("Dockerfile", "FROM scratch\nCOPY src /app\n")
        .write("Dockerfile.two", "FROM scratch\nCOPY --from=app /app /two\n");
    fill(&env);
    env.ok("build -q -t app:1 .");
    assert!(snapshots(&env).1.is_empty());
    change(&env);
    env.ok("build -q -t app:2 .");
    let (whole, derived) = snapshots(&env);
    assert_eq!((whole.len(), derived.len()), (1, 1));
    // What is new, what changed, and a whiteout.
    assert_eq!(files_below(&derived[0]), 3);

    let named = "build -q --build-context app=docker-image://app:2 -f Dockerfile.two -o type=local,dest=../two .";
    env.ok(named);
    env.ok("build -q -o type=local,dest=../out .");
    env.ok("save -o ../app.tar app:2");
    for directory in ["two/two", "out/app"] {
        assert_eq!(files_below(&env.path(directory)), FILES, "{directory}");
        assert_eq!(fs::read_to_string(env.path(directory).join("d1/f1")).expect("there"), "changed\n");
        assert!(!env.path(directory).join("d2/f2").exists());
        let same = fs::read(env.path(directory).join("d3/f3")).expect("there");
        assert_eq!(same, fs::read(env.context("src/d3/f3")).expect("there"));
    }
    // A store that has never seen the first image makes the same layer.
    let layers = |root: &str| {
        let shown = env.command(["--root", root, "inspect", "--format", "{{json .RootFS}}", "app:2"]).output();
        let shown = String::from_utf8(shown.expect("ran").stdout).expect("text");
        assert!(shown.contains("sha256:"), "{shown}");
        shown
    };
    let here = layers("../state");
    env.ok("--root ../fresh build -q -t app:2 .");
    assert_eq!(here, layers("../fresh"));
    env.ok("rmi app:1 app:2");
    env.ok("prune -a -f");
    env.ok("load -i ../app.tar");
    assert_eq!(layers("../state"), here);
}

#[test]
fn commands_see_the_tree_whatever_lies_below() {
    if !require_sandbox("commands_see_the_tree_whatever_lies_below") {
        return;
    }
    let env = TestEnv::new();
    env.write(".dockerignore", "Dockerfile\n");
    // The first copy puts something where the second one has nothing any more.
    let dockerfile = format!(
        "FROM {}\nRUN mkdir -p /app/d2 && echo below > /app/d2/f2 && echo below > /app/d2/only\n\
         COPY src /app\nRUN cat /app/d1/f1 /app/d2/f2 /app/d2/only > /seen; find /app -type f | wc -l >> /seen\n",
        base()
    );
    env.write("Dockerfile", dockerfile);
    fill(&env);
    env.ok("build -q -t app .");
    change(&env);
    env.ok("build -q -t app .");
    assert_eq!(env.ok("run app cat /seen").stdout, format!("changed\nbelow\nbelow\n{}\n", FILES + 2));
    env.write(CHANGED, "changed again\n");
    env.ok("build -q -t app .");
    assert_eq!(env.ok("run app cat /seen").stdout, format!("changed again\nbelow\nbelow\n{}\n", FILES + 2));
    assert_eq!(env.ok("run app cat /app/d2/f2").stdout, "below\n");
    assert!(env.ok("cache verify").stdout.ends_with("Nothing is damaged\n"));
}

#[test]
fn a_base_stays_as_long_as_it_is_needed_and_is_counted_once() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY src /app\n");
    fill(&env);
    env.ok("build -q -t app .");
    change(&env);
    env.ok("build -q -t app .");
    let (real, check) = (|| on_disk(&env), || check_du(&env, ""));
    check();
    let before = real();
    // The first image has no name any more, and its record goes; its files are those of the second one too.
    env.ok("prune -a -f");
    check();
    assert!(real() > before / 2.0);
    let (whole, derived) = snapshots(&env);
    assert_eq!((whole.len(), derived.len()), (1, 1));
    assert!(env.ok("cache verify").stdout.ends_with("Nothing is damaged\n"));
    env.ok("save -o ../app.tar app");
    env.ok("rmi app");
    env.ok("prune -a -f");
    assert_eq!(snapshots(&env), (vec![], vec![]));
    check();
}

#[test]
fn damage_of_a_base_costs_only_what_needs_the_damaged_file() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY src /app\n");
    let build = || {
        env.ok("build -q -t app .");
        env.ok("save -o ../app.tar app");
    };
    fill(&env);
    env.ok("build -q -t first .");
    change(&env);
    build();
    // The second image has another file there: its snapshot is sound, and survives its base.
    fs::write(one(snapshots(&env).0, "app/d1/f1"), "damaged").expect("written");
    let found = env.rbuild("cache verify").stdout;
    assert_eq!(found.matches("snapshot").count(), 1 + found.matches("snapshots").count(), "{found}");
    assert!(env.ok("cache verify --repair").stdout.contains("1 damaged, removed"));
    assert!(env.ok("cache verify").stdout.ends_with("Nothing is damaged\n"));
    let (whole, derived) = snapshots(&env);
    assert_eq!((whole.len(), derived.len()), (1, 0));
    env.ok("save -o ../app.tar app");

    // Now in a file that both have, and in one that only the derived one has.
    env.write(CHANGED, "changed again\n");
    build();
    assert_eq!(snapshots(&env).1.len(), 1);
    fs::write(one(snapshots(&env).0, "app/d3/f3"), "damaged").expect("written");
    let repaired = env.ok("cache verify --repair").stdout;
    assert!(repaired.contains("2 damaged, removed"), "{repaired}");
    assert_eq!(snapshots(&env), (vec![], vec![]));
    build();
    env.write(CHANGED, "once more\n");
    build();
    fs::write(one(snapshots(&env).1, "app/d1/f1"), "damaged").expect("written");
    assert!(env.ok("cache verify --repair").stdout.contains("1 damaged, removed"));
    build();
    assert!(env.ok("cache verify").stdout.ends_with("Nothing is damaged\n"));
}

#[test]
fn a_build_that_is_killed_leaves_a_store_that_works() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY src /app\n");
    fill(&env);
    env.ok("build -q -t app .");
    for milliseconds in [2, 5, 8, 12, 16, 20, 30, 40, 60, 100] {
        env.write(CHANGED, format!("{milliseconds}\n"));
        let mut build = env.command(["build", "-q", "-t", "app", "."]);
        let mut build = build.stdout(std::process::Stdio::null()).spawn().expect("started");
        std::thread::sleep(Duration::from_millis(milliseconds));
        build.kill().expect("killed, or ended before");
        build.wait().expect("ended");
    }
    env.ok("build -q -t app .");
    env.ok("build -q -o type=local,dest=../out .");
    assert_eq!(fs::read_to_string(env.path("out/app/d1/f1")).expect("there"), "100\n");
    assert!(env.ok("cache verify").stdout.ends_with("Nothing is damaged\n"));
    env.ok("prune -f");
    let left =
        fs::read_dir(env.path("state/snapshots")).expect("listed").map(|entry| entry.expect("listed").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("tmp-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Files of the store that hold trees, and links to those that hold the rest of one.
fn trees(env: &TestEnv) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let entries = |path: PathBuf| fs::read_dir(path).expect("listed").map(|entry| entry.expect("listed").path());
    let all = entries(env.path("state/trees")).flat_map(entries);
    all.partition(|path| path.extension().is_none_or(|extension| extension != "rest"))
}

#[test]
fn what_is_known_of_a_large_copy_is_stored_once_and_each_image_stays_whole() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY src /app\n");
    for number in 0..3000 {
        env.write(&format!("src/d{}/f{number}", number % 100), number.to_string());
    }
    let size = |path: &PathBuf| fs::metadata(path).expect("there").len();
    env.ok("build -q -t first .");
    let (whole, _) = trees(&env);
    let base = whole.iter().max_by_key(|path| size(path)).expect("a tree").clone();
    assert!(trees(&env).1.is_empty() && size(&base) > 200_000, "{whole:?}");
    let change = |content: &str, name: &str| {
        std::thread::sleep(Duration::from_millis(20));
        env.write("src/d7/f7", content);
        env.ok(&format!("build -q -t {name} ."));
    };
    change("second", "second");
    change("third", "third");
    let (whole, rest) = trees(&env);
    assert_eq!(rest.len(), 2);
    for rest in &rest {
        assert!(size(&rest.with_extension("")) < size(&base) / 4, "{whole:?}");
    }
    check_du(&env, "");

    // What the others share with the tree of the first image stays without it.
    env.ok("rmi first");
    env.ok("prune -a -f");
    fs::remove_file(&base).expect("removed");
    check_du(&env, "");
    env.ok("cache verify");
    for (image, content) in [("second", "second"), ("third", "third")] {
        env.write("Copy", format!("FROM {image}\n"));
        env.ok(&format!("build -q -f Copy -o type=local,dest=../{image} ."));
        assert_eq!(files_below(&env.path(image)), 3000);
        assert_eq!(fs::read_to_string(env.path(image).join("app/d7/f7")).expect("there"), content);
    }

    // What they share is damaged: it is said, dropped, and made again.
    let (_, rest) = trees(&env);
    let mut bytes = fs::read(&rest[0]).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&rest[0], bytes).expect("written");
    let found = env.rbuild("cache verify").stdout;
    assert!(found.contains("damaged") && !found.contains("Nothing is damaged"), "{found}");
    change("fourth", "fourth");
    env.write("Copy", "FROM fourth\n");
    env.ok("build -q -f Copy -o type=local,dest=../fourth .");
    assert_eq!(files_below(&env.path("fourth")), 3000);
    env.ok("cache verify --repair");
    assert!(env.ok("cache verify").stdout.ends_with("Nothing is damaged\n"));
}
