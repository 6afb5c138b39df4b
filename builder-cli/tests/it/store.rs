//! `prune` and `du`, and stores that are not ours.

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

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
    insta::assert_snapshot!(env.fails("images"));
}
