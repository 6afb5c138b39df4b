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

impl Small {
    /// One of so many KiB at `path`; nothing if none can be mounted.
    fn mount(path: std::path::PathBuf, kib: u32) -> Option<Self> {
        std::fs::create_dir_all(&path).expect("a directory");
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(path))
    }
}

/// A project whose steps need more and more space: about 2, 5, 8 and 11 MiB.
fn project() -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {}\nRUN dd if=/dev/urandom of=/big bs=1k count=3000 2>/dev/null\nCOPY data /data\nRUN touch /end\n",
        base()
    );
    let bytes: Vec<u8> = (0..750_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    env.write("data", bytes).write("Dockerfile", dockerfile);
    env
}

fn is_one_error_with_a_hint(what: &str, shown: &str) {
    assert!(shown.starts_with("exit code: 1\n"), "{what}: {shown}");
    assert_eq!(shown.matches("error: ").count(), 1, "{what}: {shown}");
    assert!(shown.contains("No space left") || shown.contains("no storage space"), "{what}: {shown}");
    assert!(shown.contains("hint: free some space"), "{what}: {shown}");
}

#[test]
fn wherever_the_disk_of_the_store_is_full_the_store_is_whole_afterwards() {
    let test = "wherever_the_disk_of_the_store_is_full_the_store_is_whole_afterwards";
    if !require_sandbox(test) {
        return;
    }
    // The base image, the command itself, the files of COPY, the archive.
    for kib in [300, 1500, 3000, 6000, 9000] {
        let env = project();
        let Some(small) = Small::mount(env.path("small"), kib) else {
            println!("{test}: skipped, a tmpfs cannot be mounted here");
            return;
        };
        let root = format!("--root {}", small.0.join("store").display());
        let output = "--progress=quiet -o type=oci,dest=../image.tar";
        let failed = env.fails(&format!("{root} build {output} ."));
        if failed.contains("did not complete successfully") {
            let hint = "hint: the disk of the store at [TMP]/small/store was full: free some space";
            assert!(failed.contains(hint), "{kib} KiB: {failed}");
        } else {
            is_one_error_with_a_hint(&format!("{kib} KiB"), &failed);
        }
        assert!(!env.path("image.tar").exists(), "{kib} KiB: {failed}");
        env.ok(&format!("{root} cache verify"));
        let enlarged = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&small.0).status();
        assert!(enlarged.is_ok_and(|status| status.success()));
        env.ok(&format!("{root} build {output} ."));
        env.ok(&format!("{root} cache verify"));
    }
}

#[test]
fn a_full_disk_at_the_destination_leaves_nothing_half_written() {
    let test = "a_full_disk_at_the_destination_leaves_nothing_half_written";
    if !require_sandbox(test) {
        return;
    }
    let env = project();
    env.ok("build -q -t app:1 .");
    let Some(small) = Small::mount(env.path("small"), 2000) else {
        println!("{test}: skipped, a tmpfs cannot be mounted here");
        return;
    };
    for command in [
        "build --progress=quiet -o type=oci,dest=../small/x.tar .",
        "build --progress=quiet -o type=docker,dest=../small/x.tar .",
        "build --progress=quiet -o type=tar,dest=../small/x.tar .",
        "build --progress=quiet -o ../small/files .",
        "save -o ../small/x.tar app:1",
    ] {
        is_one_error_with_a_hint(command, &env.fails(command));
        assert_eq!(std::fs::read_dir(&small.0).expect("listed").count(), 0, "{command}");
    }
    let strict = "build --progress=quiet --cache-to type=local,dest=../small/cache,strict .";
    is_one_error_with_a_hint(strict, &env.fails(strict));
    let warned = env.ok("build --progress=plain --cache-to type=local,dest=../small/cache .").stderr;
    assert!(warned.contains("the cache was not written to") && warned.contains("No space left"), "{warned}");
    env.ok("cache verify");
    env.ok("save -o ../whole.tar app:1");
    drop(small);
    let small = Small::mount(env.path("small"), 4000).expect("mounted before");
    let root = format!("--root {}", small.0.join("store").display());
    is_one_error_with_a_hint("load", &env.fails(&format!("{root} load -i ../whole.tar")));
    env.ok(&format!("{root} cache verify"));
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
