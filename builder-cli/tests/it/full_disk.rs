//! A store on a disk that is full.

use std::process::Command;

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

/// A small tmpfs that is unmounted with the test.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_one_error_and_the_store_works_afterwards() {
    let test = "a_full_disk_is_one_error_and_the_store_works_afterwards";
    if !require_sandbox(test) {
        return;
    }
    let env = TestEnv::new();
    let small = Small(env.path("small"));
    std::fs::create_dir(&small.0).expect("a directory");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(&small.0).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("{test}: skipped, a tmpfs cannot be mounted here");
        return;
    }
    let root = small.0.join("store");
    env.write("Dockerfile", format!("FROM {}\nRUN dd if=/dev/zero of=/big bs=1M count=64\n", base()));
    let shown = env.fails(&format!("--root {} build --progress=quiet -t app .", root.display()));
    assert!(shown.contains("No space left on device"), "{shown}");
    let bytes: Vec<u8> = (0..32u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    env.write("big", bytes).write("Dockerfile", format!("FROM {}\nCOPY big /\nRUN true\n", base()));
    let shown = env.fails(&format!("--root {} build --progress=quiet -t app .", root.display()));
    assert!(shown.contains("No space left on device") && shown.contains("hint: "), "{shown}");
    env.write("Dockerfile", format!("FROM {}\nRUN echo small > /x\n", base()));
    env.ok(&format!("--root {} build -q -t app .", root.display()));
}
