//! Cache mounts: their sizes, and what replaces them.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;
use crate::stress::{age, leftovers};

/// A step that writes a file of 64 KiB into a cache mount, and one that shows what is there.
fn dockerfile(name: &str) -> String {
    let mount = "RUN --mount=type=cache,target=/c";
    format!(
        "FROM {}\n{mount} sleep 0.02 && head -c 65536 /dev/zero > /c/{name} && mkdir -p /c/d/{name} && echo {name} > /c/d/{name}/small\n\
         {mount} echo {name}; ls /c\n",
        base()
    )
}

// Rows: P11.
#[test]
fn a_cache_mount_is_kept_within_its_size() {
    if !require_sandbox("a_cache_mount_is_kept_within_its_size") {
        return;
    }
    let env = TestEnv::new();
    let seen = |name: &str, options: &str| -> (Vec<String>, String) {
        env.write("Dockerfile", dockerfile(name));
        let shown = env.ok(&format!("build --progress=plain -o type=cacheonly {options} .")).stderr;
        let names = ["a", "b", "c"].iter().filter(|name| {
            shown.lines().any(|line| line.split(' ').nth(2) == Some(name) && line.split(' ').count() == 3)
        });
        (names.map(|name| (*name).to_owned()).collect(), shown)
    };
    assert_eq!(seen("a", "").0, ["a"]);
    assert_eq!(seen("b", "").0, ["a", "b"]);
    let (names, shown) = seen("c", "--cache-mount-size /c=160k");
    assert_eq!(names, ["b", "c"], "{shown}");
    assert!(shown.contains("removing what was not used for longest from cache mount `/c`"), "{shown}");
    // The configuration says the same, and the command line wins.
    env.write("config.json", "{\"cache-mount-sizes\": {\"/c\": \"90k\", \"/other\": \"1\"}}");
    assert_eq!(seen("a", "--config config.json --cache-mount-size /c=0 --no-cache").0, ["a", "b", "c"]);
    assert_eq!(seen("b", "--config config.json --no-cache").0, ["b"]);
    for wrong in ["=1k", "/c", "/c=much"] {
        assert_eq!(env.rbuild(&format!("build --cache-mount-size {wrong} .")).code, 125, "{wrong}");
    }
}

// Rows: P11.
#[test]
fn a_size_for_a_cache_mount_that_no_step_has_is_a_warning() {
    let env = TestEnv::new();
    let mount = "RUN --mount=type=cache,target=/a --mount=type=cache,id=b,target=/b true";
    env.write("Dockerfile", format!("FROM scratch AS run\n{mount}\nFROM scratch\nCOPY Dockerfile /\n"));
    let warnings = |options: &str| {
        // The step has no shell; what is doubtful is said before it runs.
        let shown = env.rbuild(&format!("build --progress=plain -o type=cacheonly {options} .")).stderr;
        shown.lines().filter_map(|line| line.strip_prefix("warning: ").map(str::to_owned)).collect::<Vec<_>>()
    };
    let no = "no step of the build has a cache mount";
    let given = "--cache-mount-size /x=1g --cache-mount-size=/a=1g --cache-mount-size=y=1g";
    assert_eq!(
        warnings(&format!("--target run {given}")),
        [format!("{no} `/x`, `y` that could be kept within a size; there are `/a`, `b`")]
    );
    assert_eq!(warnings("--target run --cache-mount-size b=1g"), [""; 0]);
    // Stages that are not built have no steps.
    let none = format!("{no} `b` that could be kept within a size; none has one");
    assert_eq!(warnings("--cache-mount-size b=1g"), [none]);
    // The configuration is for every build.
    env.write("config.json", "{\"cache-mount-sizes\": {\"/other\": \"1\"}}");
    assert_eq!(warnings("--config config.json"), [""; 0]);
}

#[test]
fn an_import_of_a_cache_mount_that_is_killed_changes_nothing() {
    if !require_sandbox("an_import_of_a_cache_mount_that_is_killed_changes_nothing") {
        return;
    }
    let (from, env) = (TestEnv::new(), TestEnv::new());
    let seen = |env: &TestEnv, command: &str| {
        let mount = "RUN --mount=type=cache,id=words,target=/c";
        env.write("Dockerfile", format!("FROM {}\n{mount} {command}; cat /c/word > /seen || true\n", base()));
        env.ok("build -q --no-cache -o type=local,dest=../files .");
        std::fs::read_to_string(env.path("files/seen")).expect("written")
    };
    let exported = from.path("words.mount");
    seen(&from, "echo theirs > /c/word; head -c 3000000 /dev/urandom > /c/a; head -c 3000000 /dev/urandom > /c/z");
    from.ok(&format!("cache mounts export words -o {}", exported.display()));
    let bytes = std::fs::read(&exported).expect("written");
    let unfinished = || leftovers(&env.path("state")).len();
    let import_half = || {
        let before = unfinished();
        let mut importing = env.command(["cache", "mounts", "import", "-"]);
        let mut child = importing.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(&bytes[..bytes.len() / 2]).expect("read");
        let begun = Instant::now();
        while unfinished() == before {
            assert!(begun.elapsed() < Duration::from_secs(30), "nothing is written");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("killed");
        child.wait().expect("waited for");
    };
    // With nothing there before, and over what is there.
    import_half();
    assert_eq!(env.ok("cache mounts ls --format {{.ID}}").stdout, "");
    assert_eq!(seen(&env, "true"), "");
    assert_eq!(seen(&env, "echo ours > /c/word"), "ours\n");
    import_half();
    assert_eq!(seen(&env, "true"), "ours\n");
    assert!(env.ok("cache verify").stdout.contains("Nothing is damaged"));
    age(&env.path("state"));
    env.ok("prune -f");
    assert_eq!(leftovers(&env.path("state")), Vec::<String>::new());
    // The next one does it.
    env.ok(&format!("cache mounts import {}", exported.display()));
    assert!(env.fails("cache mounts import Dockerfile").contains("error: cannot import `Dockerfile`: not a valid tar"));
    assert_eq!(seen(&env, "true"), "theirs\n");
}
