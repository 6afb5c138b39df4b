//! Labels that say which commit of a git work tree the context is.

use serde_json::{Value, json};

use crate::env::{Ended, TestEnv, end};
use crate::git::Upstream;

/// Builds with variables; gives the labels of the image, and how the build ended.
fn labels(env: &TestEnv, variables: &[(&str, &str)], options: &str) -> (Value, Ended) {
    let mut command = env.command(format!("build -t labelled --progress=plain {options}").split_whitespace());
    let ended = end(command.env("GIT_CONFIG_GLOBAL", "/dev/null").envs(variables.iter().copied()));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let inspected: Value = serde_json::from_str(&env.ok("inspect labelled").stdout).expect("JSON");
    (inspected[0]["Config"]["Labels"].clone(), ended)
}

const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";
const ENTRYPOINT: &str = "com.docker.image.source.entrypoint";
const ASKED: (&str, &str) = ("BUILDX_GIT_LABELS", "1");
const CHECK_DIRTY: (&str, &str) = ("BUILDX_GIT_CHECK_DIRTY", "1");

// Rows: E16.
#[test]
fn a_work_tree_gives_labels_when_asked() {
    let env = TestEnv::new();
    let tree = Upstream::new(&env, "context");
    tree.git("remote add origin https://user:word@example.com/r.git");
    let dockerfile = format!("FROM scratch\nLABEL {SOURCE}=written\nCOPY a /\n");
    let commit = tree.commit(&[("app/Dockerfile", &dockerfile), ("app/a", "1")]);
    let address = "https://example.com/r.git";
    assert_eq!(labels(&env, &[], "app").0, json!({SOURCE: "written"}));
    let off = [ASKED, ("BUILDX_GIT_INFO", "0")];
    assert_eq!(labels(&env, &off, "app").0, json!({SOURCE: "written"}));

    let all = json!({REVISION: commit, SOURCE: address, ENTRYPOINT: "app/Dockerfile"});
    // A hook of another repository has such variables.
    let (found, ended) = labels(&env, &[ASKED, CHECK_DIRTY, ("GIT_DIR", "/nonexistent")], "app");
    assert_eq!(found, all);
    assert!(ended.stderr.contains("CACHED"), "labels are nothing to steps: {}", ended.stderr);
    let options = format!("--label {REVISION}=mine -f app/Dockerfile app");
    let found = labels(&env, &[ASKED], &options).0;
    assert_eq!(found, json!({REVISION: "mine", SOURCE: address, ENTRYPOINT: "app/Dockerfile"}));

    tree.git("config branch.main.remote fork");
    tree.git("config branch.main.merge refs/heads/main");
    tree.git("remote add fork git@example.com:fork.git");
    env.write("new", "x").write(".git/info/exclude", "new\n");
    assert_eq!(labels(&env, &[ASKED], "app").0[REVISION], json!(commit));
    let found = labels(&env, &[("BUILDX_GIT_LABELS", "full"), CHECK_DIRTY], "app").0;
    let dirty = format!("{commit}-dirty");
    assert_eq!(found, json!({REVISION: dirty, SOURCE: "git@example.com:fork.git", ENTRYPOINT: "app/Dockerfile"}));
}

#[test]
fn labels_that_cannot_be_had_are_one_warning() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    let warned = |variables: &[(&str, &str)], reason: &str| {
        let (found, ended) = labels(&env, variables, ".");
        let warning = format!("warning: labels of BUILDX_GIT_LABELS are missing: {reason}");
        let warnings: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert!(matches!(warnings[..], [only] if only.starts_with(&warning)), "{warnings:?}");
        found
    };
    assert_eq!(warned(&[ASKED], "not a git repository"), json!({"a": "b"}));
    assert_eq!(warned(&[ASKED, ("PATH", "/nonexistent")], "`git` is not installed"), json!({"a": "b"}));
    Upstream::new(&env, "context");
    let found = warned(&[ASKED], "there is no commit that is checked out");
    assert_eq!(found, json!({"a": "b", ENTRYPOINT: "Dockerfile"}));
}
