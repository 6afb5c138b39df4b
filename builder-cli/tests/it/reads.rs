//! `--trace-reads`: what commands look at of copied files, and what would be enough to copy.

use serde_json::Value;

use crate::cache::build;
use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

/// What `explain` says of the reads of the last step.
fn reads(env: &TestEnv) -> Value {
    let document: Value = serde_json::from_str(&env.ok("explain --json").stdout).expect("JSON");
    document["steps"].as_array().and_then(|steps| steps.last()).expect("a step")["reads"].clone()
}

fn project(run: &str) -> TestEnv {
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nWORKDIR /app\nCOPY . .\n{run}\n", base()));
    env.write("main.c", "main\n").write("README", "text\n").write("doc/guide", "text\n").write("doc/more", "text\n");
    env.write("src/a.c", "a\n").write("src/b.c", "b\n").write("inc/all.h", "h\n").write("inc/none.h", "n\n");
    env.write(".dockerignore", "id\nDockerfile\n.dockerignore\n");
    env
}

// Rows: P22.
#[test]
fn a_copy_of_what_was_read_runs_nothing_for_other_files() {
    if !require_sandbox("a_copy_of_what_was_read_runs_nothing_for_other_files") {
        return;
    }
    let env = project("RUN cat main.c src/*.c inc/all.h > /out; test ! -e inc/missing.h");
    build(&env, "--trace-reads");
    let found = reads(&env);
    let copy = &found["copies"][0];
    assert_eq!((&copy["step"], &copy["files"], &copy["read"]), (&3.into(), &8.into(), &4.into()), "{found}");
    assert_eq!((&found["unknown"], &copy["proposal"]), (&Value::Null, &"copy".into()), "{found}");
    let lines: Vec<&str> = copy["lines"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    assert_eq!(lines, ["COPY main.c ./", "COPY inc/all.h ./inc/", "COPY src/ ./src/"]);
    let text = env.ok("explain").stdout;
    let said = "read 4 of 8 files that step 3 copied; this would be enough up to here, in place of step 3:";
    assert!(text.contains(said) && text.contains("\n      COPY src/ ./src/\n"), "{text}");

    // As it is, a file that nobody reads runs the command again.
    env.write("README", "changed\n");
    assert_eq!(build(&env, "").0.len(), 2);
    // As proposed, it does not; what is read does, and a new name in a directory that was listed.
    let dockerfile = std::fs::read_to_string(env.context("Dockerfile")).expect("read");
    env.write("Dockerfile", dockerfile.replace("COPY . .", &lines.join("\n")));
    build(&env, "");
    env.write("README", "changed again\n").write("doc/new", "new\n");
    assert_eq!(build(&env, "").0, [""; 0]);
    env.write("inc/all.h", "changed\n");
    assert_eq!(build(&env, "").0.len(), 2);
    env.write("src/c.c", "c\n");
    assert_eq!(build(&env, "").0.len(), 2);
}

#[test]
fn a_trace_is_no_part_of_a_key_and_is_found_again() {
    if !require_sandbox("a_trace_is_no_part_of_a_key_and_is_found_again") {
        return;
    }
    let env = project("RUN cat main.c > /one\nRUN cat src/b.c > /two");
    let (_, id) = build(&env, "");
    assert_eq!(reads(&env), Value::Null);
    assert_eq!(build(&env, "--trace-reads"), (Vec::new(), id.clone()), "everything hits");
    let text = env.ok("explain").stdout;
    assert!(text.contains("not traced: its result was known; `--no-cache-filter"), "{text}");
    assert_eq!(build(&env, "--trace-reads --no-cache").1, id);
    // What the first command needs stays in front of the second.
    let found = reads(&env);
    assert_eq!(found["copies"][0]["read"], 1);
    assert_eq!(found["copies"][0]["lines"], serde_json::json!(["COPY main.c ./", "COPY src/b.c ./src/"]));
    // The trace of the earlier build serves.
    build(&env, "--trace-reads");
    let again = reads(&env);
    assert_eq!(again["copies"], found["copies"]);
    assert!(again["traced_in"].is_string(), "{again}");
}

#[test]
fn what_cannot_be_said_is_not_proposed() {
    if !require_sandbox("what_cannot_be_said_is_not_proposed") {
        return;
    }
    let check = |run: &str, expected: &str| {
        let env = project(run);
        build(&env, "--trace-reads");
        let text = env.ok("explain").stdout;
        assert!(text.contains(expected), "{run}\n{text}");
        assert!(!text.contains("in place of"), "{run}\n{text}");
    };
    check("RUN cat /proc/self/cwd/main.c", "it may look at more: it goes through `/proc/self/cwd/main.c`");
    check("RUN ls src inc doc; cat main.c README", "read 8 of 8 files that step 3 copied\n");
    check("RUN echo *; cat main.c", "step 3 copied, and names in its directories; if those do not matter, this");
    check("RUN cd / && true", "read 0 of 8 files that step 3 copied: it can stand before that step");
    check(
        "RUN cat main.c < /proc/self/root/app/README\nRUN cat main.c",
        "step 4, which is between them, may look at more",
    );
}
