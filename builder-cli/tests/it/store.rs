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
