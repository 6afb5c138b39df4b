//! A store on a file system that cannot be written: what only reads works, the rest says why not.

use std::path::Path;
use std::process::Command;

use crate::env::{TestEnv, require_sandbox};
use crate::registry::{Registry, base};

/// A directory that is mounted at a second place, read-only; it is unmounted with the test.
struct ReadOnly(std::path::PathBuf);

impl ReadOnly {
    fn of(directory: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir(at).expect("a directory");
        let mount = |arguments: &[&str]| {
            let ended = Command::new("mount").args(arguments).arg(at).status();
            ended.is_ok_and(|status| status.success())
        };
        let bound = mount(&["--bind", directory.to_str().expect("text")]);
        let mounted = Self(at.to_owned());
        (bound && mount(&["-o", "remount,bind,ro"])).then_some(mounted)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_read_only_store_can_be_read_and_nothing_else() {
    let test = "a_read_only_store_can_be_read_and_nothing_else";
    if !require_sandbox(test) {
        return;
    }
    let (registry, env) = (Registry::start(), TestEnv::new());
    let name = registry.name("app:1");
    env.write("Dockerfile", format!("FROM {}\nRUN echo text > /text\n", base()));
    env.ok(&format!("build -q -t {name} ."));
    for without_lock in [false, true] {
        if without_lock {
            for name in ["lock", "db.sqlite-shm"] {
                std::fs::remove_file(env.path("state").join(name)).expect("removed");
            }
        }
        let Some(mounted) = ReadOnly::of(&env.path("state"), &env.path(&format!("ro-{without_lock}"))) else {
            println!("{test}: skipped, nothing can be mounted here");
            return;
        };
        let root = format!("--root {}", mounted.0.display());
        for reads in [
            "images",
            &format!("inspect {name}"),
            &format!("history {name}"),
            "history ls",
            "history inspect",
            "history logs",
            "explain",
            "du -v",
            "cache ls",
            "cache verify",
            "cache mounts ls",
            "build --dry-run .",
            &format!("save -o ../saved.tar {name}"),
            &format!("push -q {name}"),
        ] {
            let ended = env.ok(&format!("{root} {reads}"));
            assert!(!ended.stderr.contains("read-only"), "{reads}: {}", ended.stderr);
        }
        for writes in [
            "build -q .",
            &format!("tag {name} other:1"),
            &format!("rmi {name}"),
            &format!("pull {name}"),
            "prune -f",
            "cache prune -f",
            "cache verify --repair",
            "history rm latest",
        ] {
            let failed = env.fails(&format!("{root} {writes}"));
            assert!(failed.starts_with("exit code: 1\n"), "{writes}: {failed}");
            assert!(failed.to_lowercase().contains("read-only file"), "{writes}: {failed}");
            assert_eq!(failed.matches("hint: use a store on a writable filesystem").count(), 1, "{writes}: {failed}");
        }
    }
    // What was sent and saved is whole.
    let other = TestEnv::new();
    other.ok(&format!("load -i {}", env.context("../saved.tar").display()));
    assert_eq!(other.ok(&format!("run --rm {name} cat /text")).stdout, "text\n");
    let third = TestEnv::new();
    third.ok(&format!("pull -q {name}"));
    env.ok("cache verify");
    env.ok("build -q .");
}
