//! `prune` and `du`, and stores that are not ours.

use std::process::Command;

use crate::env::{TestEnv, end, require_sandbox};
use crate::recorder::Recorder;
use crate::registry::{Registry, base};
use crate::remote_cache::publish_base;

#[test]
fn pruning_gives_space_back_and_keeps_images() {
    if !require_sandbox("pruning_gives_space_back_and_keeps_images") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN dd if=/dev/zero of=/big bs=1M count=3 && echo kept > /x\n", base()));
    env.ok("build -q -t kept .");
    env.write("Dockerfile", format!("FROM {}\nRUN dd if=/dev/zero of=/other bs=1M count=5\n", base()));
    env.ok("build -q -t gone .");
    env.ok("rmi gone");
    let before = env.ok("du").stdout;
    assert!(before.contains("Build"), "{before}");
    let pruned = env.ok("prune -a -f").stdout;
    assert!(pruned.contains("Total reclaimed space:") || pruned.contains("Total:"), "{pruned}");
    assert_eq!(env.ok("images -q").stdout.lines().count(), 1);
    assert_eq!(env.ok("run kept cat /x").stdout, "kept\n");
}

#[test]
fn the_build_cache_is_listed_and_goes_by_item() {
    if !require_sandbox("the_build_cache_is_listed_and_goes_by_item") {
        return;
    }
    let env = TestEnv::new();
    let run = "RUN --mount=type=cache,target=/c echo x > /c/x && dd if=/dev/zero of=/big bs=1M count=3 # step one";
    env.write("Dockerfile", format!("FROM {} AS a\n{run}\nFROM a\nRUN true\n", base()));
    env.ok("build -q -o type=cacheonly .");
    let listed = env.ok("builder du --format {{.Type}}\\t{{.InUse}}\\t{{.Description}}").stdout;
    assert!(listed.contains("exec.cachemount\tfalse\t/c\n"), "{listed}");
    assert!(listed.contains("regular\tfalse\tRUN echo x > /c/x"), "{listed}");
    let table = env.ok("cache ls --filter description~=step").stdout;
    assert!(table.starts_with("ID  ") && table.contains("Total:\t\t3.1"), "{table}");
    assert!(env.ok("cache ls --verbose").stdout.contains("\nType:         exec.cachemount\n"));
    env.fails("cache ls --filter color=red");

    let nothing = env.ok("cache prune -f");
    assert!(nothing.stderr.contains("results of steps stay: `--all`"), "{}", nothing.stderr);
    let pruned = env.ok("cache prune -f --verbose --filter type=exec.cachemount").stdout;
    assert!(pruned.contains("1 item\n") && pruned.contains("  /c\n"), "{pruned}");
    assert_eq!(env.ok("cache ls --filter type=exec.cachemount --format json").stdout, "");
    assert!(
        env.ok("build --progress=plain -o type=cacheonly .").stderr.contains("CACHED"),
        "the steps are still there"
    );
    let pruned = env.ok("builder prune -f --max-used-space 1m").stdout;
    assert!(pruned.contains("MB\n"), "{pruned}");
    // The files are gone, what is known about the step is not: it hits.
    let again = env.ok("build --progress=plain -o type=cacheonly .").stderr;
    assert_eq!(again.matches("CACHED").count(), 3, "{again}");
    env.ok("prune -a -f");
    let again = env.ok("build --progress=plain -o type=cacheonly .").stderr;
    assert_eq!(again.matches("CACHED").count(), 0, "{again}");
}

/// Bytes of the store, as `du` of the machine counts them.
pub(crate) fn on_disk(env: &TestEnv) -> f64 {
    let real = end(Command::new("du").args(["-s", "--block-size=1"]).arg(env.path("state"))).stdout;
    real.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("bytes")
}

/// `rbuild du` says the same.
pub(crate) fn check_du(env: &TestEnv, what: &str) {
    let told: f64 = env.ok("du --format {{.Size}}").stdout.lines().map(bytes).sum();
    let real = on_disk(env);
    assert!((told - real).abs() < real / 100.0, "{what}: {told} {real}");
}

/// `3.38MB` as bytes.
fn bytes(size: &str) -> f64 {
    let digits = size.trim_end_matches(char::is_alphabetic);
    let unit = match &size[digits.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        _ => 1e9,
    };
    digits.parse::<f64>().expect("a number") * unit
}

/// What `du` says is what is there.
#[test]
fn du_is_what_the_disk_says() {
    let env = TestEnv::new();
    env.write("file", "content ".repeat(10_000)).write("Dockerfile", "FROM scratch\nCOPY file /\nADD file /other/\n");
    env.ok("build -q -t app .");
    env.write("file", "other ".repeat(10_000));
    env.ok("build -q -o type=cacheonly .");
    check_du(&env, "");
}

#[test]
fn garbage_is_collected_after_builds() {
    if !require_sandbox("garbage_is_collected_after_builds") {
        return;
    }
    let env = TestEnv::new();
    let dockerfile = |size: &str| format!("FROM {}\nRUN dd if=/dev/zero of=/big bs=1M count={size}\n", base());
    env.write("off.json", r#"{"gc": false}"#).write("on.json", r#"{"gc": [{"max-used-space": "2m"}]}"#);
    env.write("Dockerfile", dockerfile("3"));
    env.ok("--config off.json build --progress=plain -o type=cacheonly .");
    assert!(!env.path("state/collected").exists());
    env.write("Dockerfile", dockerfile("4"));
    let noted = env.ok("--config on.json build --progress=plain -o type=cacheonly .").stderr;
    assert!(noted.contains("from the build cache"), "{noted}");
    let files = env.ok("cache ls --format {{.Size}} --filter description~=big").stdout;
    assert!(!files.contains("MB"), "{files}");
    // Not again so soon.
    env.write("Dockerfile", dockerfile("5"));
    assert!(
        !env.ok("--config on.json build --progress=plain -o type=cacheonly .").stderr.contains("from the build cache")
    );
}

#[test]
fn the_bases_of_results_stay_with_them() {
    if !require_sandbox("the_bases_of_results_stay_with_them") {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let image = format!("{}/base:1", recorder.address);
    publish_base(&image);
    let env = TestEnv::new();
    let dockerfile =
        format!("FROM {image} AS build\nCOPY a /a\nRUN cat /a > /b\nFROM scratch\nCOPY --from=build /b /\n");
    env.write("Dockerfile", dockerfile).write("a", "1");
    env.ok("build -q -t app .");
    recorder.take();
    for line in ["prune -f", "image prune -f", "cache prune -f --filter type=exec.cachemount"] {
        env.ok(line);
        let again = env.ok("build --progress=plain -t app .").stderr;
        assert_eq!(again.matches("CACHED").count(), 4, "{line}: {again}");
        env.write("a", line);
        env.ok("build -q -t app .");
        assert_eq!(recorder.take(), Vec::<String>::new(), "{line}");
    }
    env.ok("rmi app");
    env.ok("prune -a -f");
    let blobs = std::fs::read_dir(env.path("state/content/blobs/sha256")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "with the results go their bases");
}

#[test]
fn garbage_is_what_the_filters_of_a_policy_say() {
    if !require_sandbox("garbage_is_what_the_filters_of_a_policy_say") {
        return;
    }
    let env = TestEnv::new();
    env.write("off.json", r#"{"gc": false}"#);
    env.write(
        "Dockerfile",
        format!("FROM {}\nRUN echo one > /one\nRUN --mount=type=cache,target=/c echo two > /c/x\n", base()),
    );
    env.ok("--config off.json build -q -o type=cacheonly .");
    let shown = || env.ok("cache ls --format {{.Description}}").stdout;
    let collect = |filter: &str, number: usize| {
        let _ = std::fs::remove_file(env.path("state/collected"));
        env.write("on.json", format!(r#"{{"gc": [{{"filter": [{filter}], "keep-duration": "0s"}}]}}"#));
        // Garbage is collected after a build that ran something.
        env.write("other", format!("FROM {}\nRUN echo {number} > /other\n", base()));
        env.ok("--config on.json build -q -f other -o type=cacheonly .");
    };
    assert!(shown().contains("> /one") && shown().contains("echo two"), "{}", shown());
    collect(r#""description~=nothing""#, 1);
    assert!(shown().contains("> /one"), "{}", shown());
    collect(r#""type=regular,type=exec.cachemount", "description~=/one""#, 2);
    assert!(
        !shown().contains("> /one") && shown().contains("echo two") && shown().contains("1 > /other"),
        "{}",
        shown()
    );
    let mounts = || env.ok("cache mounts ls --format {{.ID}}").stdout;
    assert_eq!(mounts(), "/c\n");
    collect(r#""mutable", "inuse=false""#, 3);
    assert_eq!(mounts(), "");
    assert!(shown().contains("echo two"), "{}", shown());
}

#[test]
fn damage_is_found_named_and_removed() {
    if !require_sandbox("damage_is_found_named_and_removed") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo text > /file\n", base()));
    env.ok("build -q -t app .");
    assert!(env.ok("cache verify").stdout.ends_with("Nothing is damaged\n"));
    let files = |area: &str| {
        let found = std::process::Command::new("find").arg(env.path("state").join(area)).args(["-type", "f"]).output();
        let found = String::from_utf8(found.expect("ran").stdout).expect("text");
        found.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let in_snapshot = files("snapshots").into_iter().find(|path| path.ends_with("/fs/file")).expect("the file");
    std::fs::write(&in_snapshot, "tixt\n").expect("written");
    let records = files("cache/records");
    std::fs::write(&records[0], "garbage").expect("written");
    let found = env.command(["cache", "verify", "--json"]).output().expect("ran");
    assert_eq!(found.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).expect("JSON");
    let kinds: Vec<&str> =
        found["damaged"].as_array().expect("a list").iter().filter_map(|d| d["kind"].as_str()).collect();
    assert_eq!(kinds, ["snapshot", "record"], "{found}");
    assert_eq!(found["damaged"][0]["images"][0], "docker.io/library/app:latest", "{found}");
    let repaired = env.ok("cache verify --repair").stdout;
    assert!(repaired.contains("2 damaged, removed"), "{repaired}");
    assert!(env.ok("cache verify").stdout.ends_with("Nothing is damaged\n"));
    env.ok("build -q -t app .");
    assert_eq!(env.ok("run app cat /file").stdout, "text\n");
}

#[test]
fn pruned_images_are_listed_as_docker_lists_them() {
    let env = TestEnv::new();
    for content in ["one", "two"] {
        env.write("file", content).write("Dockerfile", "FROM scratch\nCOPY file /\n");
        env.ok("build -q -t app .");
    }
    let dangling = env.ok("image prune -f").stdout;
    let named = env.ok("image prune -a -f").stdout;
    let nothing = env.ok("image prune -a -f").stdout;
    let shown = |text: &str| {
        let lines = text.lines().map(|line| line.split_inclusive(": ").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("|")
    };
    let total = "|Total reclaimed space: ";
    assert_eq!(shown(&dangling), format!("Deleted Images:|deleted: |deleted: |{total}"), "{dangling}");
    assert_eq!(shown(&named), format!("Deleted Images:|untagged: |deleted: |deleted: |{total}"), "{named}");
    assert_eq!(nothing, "Total reclaimed space: 0B\n");
}

#[test]
fn what_leaves_is_not_kept_in_the_store_as_well() {
    let env = TestEnv::new();
    env.write("file", "content ".repeat(100_000)).write("Dockerfile", "FROM scratch\nCOPY file /\n");
    let blobs = || {
        let files = |name: &str| std::fs::read_dir(env.path("state/content").join(name)).into_iter().flatten();
        files("blobs/sha256").chain(files("tmp")).map(|file| file.expect("an entry").path()).collect::<Vec<_>>()
    };
    for output in ["type=oci,dest=o.tar", "type=docker,dest=d.tar", "type=oci,dest=l,tar=false", "type=tar,dest=t.tar"]
    {
        env.ok(&format!("build --progress=quiet -o {output} ."));
        assert_eq!(blobs(), <[std::path::PathBuf; 0]>::default(), "{output}");
    }
    env.fails("build --progress=quiet -o type=oci,dest=file/o.tar .");
    assert_eq!(blobs(), <[std::path::PathBuf; 0]>::default(), "after a failure");
    env.ok("build --progress=quiet -t app -o type=oci,dest=o.tar -o type=image .");
    env.ok("save -o saved.tar app");
    assert_eq!(blobs().len(), 1, "the config, and nothing of the layer");
    env.ok(&format!("load -i {}", env.context("saved.tar").display()));
    assert_eq!(env.ok("images -q").stdout.lines().count(), 1);
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let env = TestEnv::new();
    std::fs::write(env.path("state/precious"), "data").expect("written");
    env.write("Dockerfile", "FROM scratch\n");
    insta::assert_snapshot!(env.fails("build --progress=quiet ."));
    assert!(env.path("state/precious").exists());
    std::fs::remove_file(env.path("state/precious")).expect("removed");
    std::fs::write(env.path("state/version"), "999\n").expect("written");
    let refused = env.fails("images");
    insta::assert_snapshot!(refused);
    for line in ["history ls", "history rm --all", "cache ls", "prune -a -f", "cache verify --repair"] {
        assert_eq!(env.fails(line), refused, "{line}");
    }
    std::fs::write(env.path("state/version"), "2\n").expect("written");
    let refused = env.fails("images");
    assert!(refused.contains("has format 2; this program knows formats from 3 on"), "{refused}");
    assert_eq!(std::fs::read_to_string(env.path("state/version")).expect("there"), "2\n");
}

#[test]
fn an_image_with_rewritten_times_heals_when_a_tree_was_damaged() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY file /\n").write("file", "x");
    let line = "build -q --source-date-epoch=1 --rewrite-timestamp -t app .";
    env.ok(line);
    let trees = crate::env::end(std::process::Command::new("find").arg(env.path("state/trees")).args(["-type", "f"]));
    for tree in trees.stdout.lines() {
        std::fs::write(tree, "damaged").expect("written");
    }
    env.ok(line);
    env.ok("save -o ../app.tar app");
}
