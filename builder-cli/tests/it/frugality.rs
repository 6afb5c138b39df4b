//! A cached build does almost nothing.

use std::process::Command;

use crate::env::{TestEnv, program, require_sandbox, require_strace};
use crate::registry::base;

// Rows: P20.
#[test]
fn what_changes_the_config_only_touches_no_storage() {
    let env = TestEnv::new();
    let words = "ENV A=1\nLABEL a=b\nEXPOSE 80\nUSER 7\nCMD [\"a\"]\nENTRYPOINT [\"b\"]\nVOLUME /v\nSTOPSIGNAL 9\n\
                 SHELL [\"/bin/sh\"]\nHEALTHCHECK CMD true\nARG X=1\nONBUILD RUN true\nMAINTAINER me\n";
    env.write("Dockerfile", format!("FROM {}\n{}", base(), words.repeat(5)));
    let ended = env.ok("build --progress=plain -t app .");
    assert!(!ended.stderr.contains("] ENV") && ended.stderr.contains("] FROM"), "{}", ended.stderr);
    let entries = |name: &str| std::fs::read_dir(env.path("state").join(name)).map_or(0, Iterator::count);
    assert_eq!((entries("snapshots"), entries("cache/records")), (0, 0), "nothing was unpacked or remembered");
    let history = env.ok("history app --format {{.Size}}").stdout;
    assert_eq!(history.lines().filter(|size| *size == "0B").count(), 12 * 5 + 1, "and CMD of the base: {history}");
    let layers = env.ok("inspect app --format {{json.RootFS.Layers}}");
    assert_eq!(layers.stdout.matches("sha256:").count(), 1, "{}", layers.stdout);
}

#[test]
fn a_cached_build_makes_no_connection_mount_process_or_sync() {
    let test = "a_cached_build_makes_no_connection_mount_process_or_sync";
    if !require_sandbox(test) || !require_strace(test) {
        return;
    }
    let env = TestEnv::new();
    let steps: String = (0..20).map(|n| format!("RUN echo {n} > /{n}\n")).collect();
    env.write("Dockerfile", format!("FROM {}\nCOPY Dockerfile /\n{steps}", base()));
    env.ok("build -q -t app .");
    let log = env.path("strace");
    let traced = env.command([""; 0]);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", log.to_str().expect("text"), "-e"])
        .arg("trace=connect,socket,mount,fsopen,fsmount,move_mount,open_tree,clone,clone3,fork,vfork,execve,fsync,fdatasync,sync,syncfs")
        .arg(program())
        .args(["build", "-q", "-t", "app", "."])
        .current_dir(env.context(""))
        .env_clear();
    for (name, value) in traced.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let ended = crate::env::end(&mut command);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let calls = std::fs::read_to_string(log).expect("written");
    let unwanted: Vec<&str> = calls
        .lines()
        .filter(|line| !line.contains("execve(") || !line.contains("rbuild"))
        .filter(|line| !line.contains("CLONE_THREAD") && !line.contains("socketpair") && !line.contains("+++"))
        .filter(|line| !line.contains("resumed>"))
        .collect();
    assert_eq!(unwanted, Vec::<&str>::new());
    let threads = calls.matches("CLONE_THREAD").count();
    assert!(threads <= 2, "{threads} threads");
}
