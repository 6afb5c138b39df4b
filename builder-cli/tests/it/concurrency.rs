//! Several processes share one store.

use std::process::Stdio;

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

// Rows: A75.
#[test]
fn two_builds_at_once_run_a_step_once() {
    if !require_sandbox("two_builds_at_once_run_a_step_once") {
        return;
    }
    let env = TestEnv::new();
    env.write(
        "Dockerfile",
        format!("FROM {}\nRUN --mount=type=cache,target=/c echo run >> /c/log; sleep 1\nRUN echo done > /x\n", base()),
    );
    let builds: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("app:{number}");
            env.command(["build", "-q", "-t", &name, "."]).stdout(Stdio::piped()).spawn().expect("starts")
        })
        .collect();
    let ids: Vec<_> = builds
        .into_iter()
        .map(|build| {
            let output = build.wait_with_output().expect("ends");
            assert!(output.status.success());
            output.stdout
        })
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    env.write("Dockerfile", format!("FROM {}\nRUN --mount=type=cache,target=/c cat /c/log\n", base()));
    let log = env.ok("build --progress=plain .").stderr;
    assert_eq!(log.matches(" run\n").count(), 1, "{log}");
}

#[test]
fn independent_stages_run_at_the_same_time() {
    if !require_sandbox("independent_stages_run_at_the_same_time") {
        return;
    }
    let env = TestEnv::new();
    // Each waits for the other: one after the other they would never end.
    let meet = |me: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/c touch /c/{me}; i=0; while [ ! -e /c/{other} ]; do i=$((i+1)); [ $i -lt 300 ] || exit 1; sleep 0.1; done; touch /{me}\n"
        )
    };
    let base = base();
    env.write(
        "Dockerfile",
        format!(
            "FROM {base} AS a\n{}FROM {base} AS b\n{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
            meet("a", "b"),
            meet("b", "a")
        ),
    );
    env.ok("build -q -j 2 .");
}
