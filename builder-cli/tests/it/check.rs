//! `--check`, `--call=targets`, `--call=outline`.

use crate::env::TestEnv;

const DOCKERFILE: &str = "\
ARG VERSION=1
# tools has what the build needs
FROM scratch AS tools
# TOKEN lets you in
ARG TOKEN=none
maintainer someone
RUN --mount=type=secret,id=key,required=true --mount=type=cache,target=/root/.cache true
# app is the result
from tools as App
CMD run
";

#[test]
fn findings_are_shown_and_counted() {
    let env = TestEnv::new();
    env.write("Dockerfile", DOCKERFILE);
    let ended = env.rbuild("build --check .");
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    insta::assert_snapshot!(ended.stdout);
    let json: serde_json::Value =
        serde_json::from_str(&env.rbuild("build --call=check,format=json .").stdout).expect("JSON");
    assert!(json["warnings"][0]["ruleName"].is_string());
    assert_eq!(json["sources"][0]["filename"], "Dockerfile");
    env.write("Dockerfile", "FROM scratch\nCOPY a /\n");
    assert_eq!(env.ok("build --check .").stdout, "Check complete, no warnings found.\n");
}

#[test]
fn a_check_asks_no_registry() {
    let env = TestEnv::new();
    // Nothing listens there.
    env.write("Dockerfile", "FROM 127.0.0.1:1/missing AS base\nRUN echo $UNKNOWN_BASE_MAY_SET_IT\n");
    env.ok("build --check .");
}

#[test]
fn targets_and_outline_describe_the_file() {
    let env = TestEnv::new();
    env.write("Dockerfile", DOCKERFILE);
    let targets = env.ok("build --call=targets .").stdout;
    let outline = env.ok("build --call=outline --build-arg TOKEN=x .").stdout;
    insta::assert_snapshot!(format!("{targets}\n{outline}"));
    let json: serde_json::Value =
        serde_json::from_str(&env.ok("build --call=targets,format=json .").stdout).expect("JSON");
    assert_eq!(json["targets"][1]["default"], true);
}
