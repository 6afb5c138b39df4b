//! Limits of RUN steps on the command line: each arrives in the step, or is refused with a reason.

use std::path::Path;
use std::process::Command;

use crate::env::{Ended, TestEnv, end, lines_of_steps, program, require_sandbox};
use crate::registry::base;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Whether this machine has cgroup v2 only.
fn unified() -> bool {
    Path::new(CGROUPS).join("cgroup.controllers").exists()
}

/// Whether limits can be set here at all; says so if not.
#[expect(clippy::print_stdout, reason = "a test that skips says so")]
fn require_cgroups(test: &str) -> bool {
    let found = unified() || Path::new(CGROUPS).join("pids").exists();
    if !found {
        println!("{test}: skipped, this machine has no cgroups below {CGROUPS}");
    }
    found && require_sandbox(test)
}

fn build(env: &TestEnv, step: &str, options: &str) -> Ended {
    env.write("Dockerfile", format!("FROM {}\nRUN {step}\n", base()));
    env.rbuild(&format!("build --progress=plain --no-cache {options} ."))
}

#[test]
fn b20_every_limit_arrives_in_the_step() {
    if !require_cgroups("b20_every_limit_arrives_in_the_step") {
        return;
    }
    let env = TestEnv::new();
    // Controller, files of v1, file of v2.
    let files = [
        ("memory", "memory.limit_in_bytes", "memory.max"),
        ("pids", "pids.max", "pids.max"),
        ("cpuset", "cpuset.cpus", "cpuset.cpus"),
        ("cpuset", "cpuset.mems", "cpuset.mems"),
        ("cpu", "cpu.shares", "cpu.weight"),
        ("cpu", "cpu.cfs_quota_us cpu.cfs_period_us", "cpu.max"),
    ];
    let shown: Vec<String> = files
        .map(|(controller, v1, v2)| {
            let paths = if unified() {
                format!("{CGROUPS}/{v2}")
            } else {
                v1.split(' ').map(|file| format!("{CGROUPS}/{controller}/{file} ")).collect()
            };
            format!("echo limit: $(cat {paths})")
        })
        .into();
    let options = "--memory 64m --resource pids=50 --cpuset-cpus 0 --cpuset-mems 0 --cpu-shares 512 --cpu-period 50000 \
                   --cpu-quota 25000 --ulimit nofile=100:200 --shm-size 1m";
    let more = "echo limit: $(ulimit -n) $(ulimit -Hn) $(df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2); \
                echo limit: $(grep Cpus_allowed_list /proc/self/status)";
    let built = build(&env, &format!("{}; {more}", shown.join("; ")), options);
    let said = lines_of_steps(&built.stderr, "limit:");
    let weight = if unified() { "20" } else { "512" };
    let expected = ["67108864", "50", "0", "0", weight, "25000 50000", "100 200 1024", "Cpus_allowed_list: 0"];
    assert_eq!(said, expected, "{}", built.stderr);
}

#[test]
fn b19_the_cgroup_of_a_step_is_in_the_one_asked_for() {
    let test = "b19_the_cgroup_of_a_step_is_in_the_one_asked_for";
    if !require_cgroups(test) {
        return;
    }
    let env = TestEnv::new();
    let name = format!("rbuild-test-{}", env.mark());
    let options = format!("--cgroup-parent /{name}/inner --pids-limit 1000");
    // Makes it, with its controllers.
    assert_eq!(build(&env, "true", &options).code, 0);
    let parent = Path::new(CGROUPS).join(if unified() { "" } else { "pids" }).join(&name);
    std::fs::write(parent.join("pids.max"), "4").expect("it is there, and has the controller");
    let built = build(&env, "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; wait", &options);
    // It is the caller's to remove; the steps' are gone.
    std::fs::remove_dir(parent.join("inner")).and_then(|()| std::fs::remove_dir(&parent)).expect("nothing is in it");
    for other in ["memory", "cpu", "devices", "unified"].map(|other| Path::new(CGROUPS).join(other).join(&name)) {
        let _ = std::fs::remove_dir(other.join("inner")).and_then(|()| std::fs::remove_dir(other));
    }
    assert!(built.code != 0 && built.stderr.contains("fork"), "{}", built.stderr);
    let refused = build(&env, "true", "--cgroup-parent ../x");
    assert!(refused.stderr.contains("cannot limit cgroup-parent"), "{}", refused.stderr);
}

#[test]
fn b20_values_that_are_no_limits_are_refused() {
    if !require_cgroups("b20_values_that_are_no_limits_are_refused") {
        return;
    }
    let env = TestEnv::new();
    for (options, error, hint) in [
        ("--cpuset-cpus 4095", "cannot limit cpuset", "the kernel does not take this value"),
        ("--cpuset-cpus x", "cannot limit cpuset", "the kernel does not take this value"),
        ("--cpu-quota 1", "cannot limit cpu", "the kernel does not take this value"),
        ("--ulimit nofile=4294967295", "cannot set the limit `nofile`", "only root can raise a limit"),
        ("--memory 2m --memory-swap 1m", "--memory-swap is less than --memory", "it is memory and swap together"),
        ("--memory 1x", "--memory: `1x` is not a size", "a size is a number with a unit"),
        ("--resource gpu=1", "--resource `gpu=1`: there is no such limit", "cpuset-mems, pids"),
        ("--ulimit files=1", "unknown resource `files`", ""),
    ] {
        let refused = build(&env, "true", options);
        let said = &refused.stderr;
        assert!(refused.code != 0 && said.contains(error) && said.contains(hint), "{options}: {said}");
    }
    // What is no limit is none.
    let none = "--memory 0 --cpu-quota -1 --pids-limit -1 --cpu-shares 0 --shm-size 0 --memory-swap -1";
    assert_eq!(build(&env, "true", none).code, 0);
}

#[test]
fn b20_without_the_controller_a_limit_is_an_error() {
    let test = "b20_without_the_controller_a_limit_is_an_error";
    if !require_cgroups(test) {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN true\n", base()));
    let mut command = Command::new("unshare");
    let script = "mount --make-rprivate / && umount -a -l -t cgroup,cgroup2 && exec \"$@\"";
    command.args(["-m", "sh", "-c", script, "sh"]).arg(program());
    command.args(["build", "--progress=plain", "--no-cache", "--pids-limit", "5", "."]);
    command.current_dir(env.context("")).env("RBUILD_ROOT", env.path("state")).env("HOME", env.path("home"));
    let refused = end(&mut command);
    let said = &refused.stderr;
    assert!(refused.code != 0 && said.contains("cannot limit pids") && said.contains("hint: "), "{said}");
}

#[test]
fn a71_memory_that_runs_out_is_said_so() {
    if !require_cgroups("a71_memory_that_runs_out_is_said_so") {
        return;
    }
    let env = TestEnv::new();
    let failed = build(&env, "head -c 100000000 /dev/zero | tail", "--memory 16m --memory-swap 16m");
    assert!(failed.stderr.contains("out of memory: killed by the kernel"), "{}", failed.stderr);
}
