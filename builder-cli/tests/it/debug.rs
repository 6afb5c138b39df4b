//! `rbuild debug`.

use std::io::Write as _;
use std::process::Stdio;

use crate::env::TestEnv;

#[test]
fn the_syntax_tree_is_json() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch AS a\nCOPY --chown=1 <<EOF /x\nhi\nEOF\n");
    let tree: serde_json::Value = serde_json::from_str(&env.ok("debug ast").stdout).expect("JSON");
    assert_eq!(tree[0]["instruction"], "from");
    assert_eq!(tree[1]["heredocs"][0]["content"], "hi\n");
}

#[test]
fn words_are_expanded_from_standard_input() {
    let env = TestEnv::new();
    let mut child =
        env.command(["debug", "words"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let request = br#"[{"mode": "word", "input": "${A:-x}-$B", "env": ["B=1"]}]"#;
    child.stdin.take().expect("piped").write_all(request).expect("written");
    let output = child.wait_with_output().expect("ends").stdout;
    let answer: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    assert_eq!(answer[0]["ok"], "x-1");
}

#[test]
fn the_graph_is_dot_and_json() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch AS a\nCOPY x /\nFROM scratch\nCOPY --from=a [\"/x\", \"/y z\"]\n");
    let dot = env.ok("debug graph").stdout;
    assert!(dot.starts_with("digraph build {") && dot.contains("v0 -> v1 [style=dashed];"), "{dot}");
    let json: serde_json::Value = serde_json::from_str(&env.ok("debug graph --format json").stdout).expect("JSON");
    assert_eq!(json["vertices"][1]["op"]["type"], "copy");
    assert_eq!(json["vertices"][1]["op"]["from"], 0);
    assert_eq!(json["target"]["root"], 1);
}
