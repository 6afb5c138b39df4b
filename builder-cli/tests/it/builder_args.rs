//! Build arguments that are for the builder.

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

// Rows: A59, A75.
#[test]
fn cache_mounts_have_namespaces() {
    if !require_sandbox("cache_mounts_have_namespaces") {
        return;
    }
    let env = TestEnv::new();
    env.write(
        "Dockerfile",
        format!(
            "FROM {}\nARG N\nRUN --mount=type=cache,target=/c test -e /c/seen && echo old; touch /c/seen\n",
            base()
        ),
    );
    let seen = |number: u32, namespace: &str| {
        let build = format!("build --progress=plain --build-arg N={number} {namespace} .");
        env.ok(&build).stderr.lines().any(|line| line.ends_with(" old"))
    };
    assert!(!seen(1, ""));
    assert!(seen(2, ""));
    assert!(!seen(3, "--build-arg BUILDKIT_CACHE_MOUNT_NS=other"));
    assert!(seen(4, "--build-arg BUILDKIT_CACHE_MOUNT_NS=other"));
}

// Rows: A59.
#[test]
fn steps_have_the_host_name_that_is_asked_for() {
    if !require_sandbox("steps_have_the_host_name_that_is_asked_for") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN cat /proc/sys/kernel/hostname > /name\n", base()));
    for (options, expected) in
        [("", "buildkitsandbox\n"), ("--build-arg BUILDKIT_SANDBOX_HOSTNAME=elsewhere", "elsewhere\n")]
    {
        env.ok(&format!("build -q {options} -o out ."));
        assert_eq!(std::fs::read_to_string(env.context("out/name")).expect("written"), expected);
    }
}

// Rows: A59.
#[test]
fn arguments_for_the_builder_are_not_in_the_environment() {
    if !require_sandbox("arguments_for_the_builder_are_not_in_the_environment") {
        return;
    }
    let env = TestEnv::new();
    let names = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
    let arguments: String = names.map(|name| format!("ARG {name}=true\n")).concat();
    env.write("Dockerfile", format!("FROM {}\n{arguments}RUN env > /env\n", base()));
    // Nobody is told that these are not used.
    let ended = env.ok("build --progress=plain --build-arg BUILDKIT_BUILD_NAME=n -o out .");
    assert!(!ended.stderr.contains("not consumed"), "{}", ended.stderr);
    let seen = std::fs::read_to_string(env.context("out/env")).expect("written");
    assert!(names.iter().all(|name| !seen.contains(name)), "{seen}");
}

#[test]
fn checks_can_be_set_from_outside() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch as x\nCOPY Dockerfile /\n");
    env.ok("build -q .");
    let ended = env.fails("build --progress=quiet --build-arg BUILDKIT_DOCKERFILE_CHECK=error=true .");
    assert!(ended.contains("FromAsCasing"), "{ended}");
    env.ok("build -q --build-arg BUILDKIT_DOCKERFILE_CHECK=error=true;skip=all .");
}
