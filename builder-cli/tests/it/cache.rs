//! The same build twice, touched files, early cutoff.

use std::time::{Duration, SystemTime};

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

/// Builds with machine-readable progress; gives the names of the steps that ran, and the id of the image.
pub(crate) fn build(env: &TestEnv, options: &str) -> (Vec<String>, String) {
    let ended = env.ok(&format!("build --progress=rawjson --iidfile id {options} ."));
    let mut ran = Vec::new();
    for line in ended.stderr.lines() {
        let status: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            let name = vertex["name"].as_str().expect("a name");
            let step = name.starts_with('[') && !name.starts_with("[internal]") && !name.contains("] FROM ");
            if step && vertex["completed"].is_string() && vertex["cached"] != true {
                ran.push(name.split("] ").nth(1).unwrap_or(name).to_owned());
            }
        }
    }
    (ran, std::fs::read_to_string(env.context("id")).expect("written"))
}

fn example() -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {} AS build\nCOPY src /src\nRUN cat /src/* > /all\nRUN grep -v '^#' /all > /app\nFROM scratch\nCOPY --from=build /app /app\nCOPY readme /\n",
        base()
    );
    env.write("Dockerfile", dockerfile).write("src/a", "1\n").write("src/b", "# comment\n2\n").write("readme", "r");
    env.write(".dockerignore", "id\n");
    env
}

#[test]
fn a_second_build_runs_nothing_and_gives_the_same_image() {
    if !require_sandbox("a_second_build_runs_nothing_and_gives_the_same_image") {
        return;
    }
    let env = example();
    let (first, id) = build(&env, "");
    assert_eq!(first.len(), 5, "{first:?}");
    assert_eq!(build(&env, ""), (Vec::new(), id.clone()));
    // Touched, not changed.
    let later = SystemTime::now() + Duration::from_secs(100);
    let file = std::fs::File::options().append(true).open(env.context("src/a")).expect("open");
    file.set_modified(later).expect("touched");
    assert_eq!(build(&env, ""), (Vec::new(), id));
}

#[test]
fn a_step_that_makes_the_same_again_ends_the_chain() {
    if !require_sandbox("a_step_that_makes_the_same_again_ends_the_chain") {
        return;
    }
    let env = example();
    let (_, id) = build(&env, "");
    env.write("src/b", "# another comment\n2\n");
    let (ran, again) = build(&env, "");
    assert_eq!(ran, ["COPY src /src", "RUN cat /src/* > /all", "RUN grep -v '^#' /all > /app"]);
    assert_eq!(again, id, "the image keeps its id");
    env.write("src/b", "3\n");
    let (ran, other) = build(&env, "");
    assert_eq!(ran.len(), 4, "{ran:?}");
    assert_ne!(other, id);
}

// Rows: B9.
#[test]
fn no_cache_runs_everything_or_the_named_stages() {
    if !require_sandbox("no_cache_runs_everything_or_the_named_stages") {
        return;
    }
    let env = example();
    build(&env, "");
    assert_eq!(build(&env, "--no-cache").0.len(), 5);
    assert_eq!(build(&env, "--no-cache-filter build").0.len(), 3);
    assert_eq!(build(&env, "").0.len(), 0);
}

// Rows: A77, A84.
#[test]
fn limits_and_secrets_do_not_run_steps_again() {
    if !require_sandbox("limits_and_secrets_do_not_run_steps_again") {
        return;
    }
    let env = example();
    build(&env, "");
    assert_eq!(
        build(&env, "--ulimit nofile=1000 --shm-size 1m --add-host a:1.2.3.4 --secret id=x,src=readme").0.len(),
        2,
        "a new host name is part of the key of RUN"
    );
    assert_eq!(build(&env, "--ulimit nofile=2000 --shm-size 2m --add-host a:1.2.3.5").0, Vec::<String>::new());
}

// Rows: A54.
#[test]
fn arguments_matter_from_their_line_on() {
    if !require_sandbox("arguments_matter_from_their_line_on") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo a > /a\nARG X=1\nRUN echo $X > /b\n", base()));
    build(&env, "");
    assert_eq!(build(&env, "--build-arg X=2").0, ["RUN echo 2 > /b"]);
    assert_eq!(build(&env, "--build-arg X=1").0, Vec::<String>::new());
}
