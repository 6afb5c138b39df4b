//! Options that change the image without an instruction.

use serde_json::{Value, json};

use crate::env::{TestEnv, end};

/// The config of the image `app`.
fn built(env: &TestEnv, options: &str) -> Value {
    env.ok(&format!("build -q --pull=never -o type=oci,dest=out.tar {options} ."));
    let image = format!("oci-archive:{}", env.context("out.tar").display());
    let ended = end(std::process::Command::new("skopeo").args(["inspect", "--config", &image]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn env_with_base() -> TestEnv {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nLABEL a=base b=base\nENV A=1 B=2\n");
    env.ok("build -q -t base .");
    env.write("Dockerfile", "FROM nothing AS x\nENV C=3\nLABEL c=own\nFROM x\nCOPY Dockerfile /own\n");
    env
}

// Rows: B29, B30.
#[test]
fn the_first_base_variables_and_labels_can_be_changed() {
    let env = env_with_base();
    let config = built(&env, "--from base --env C=4 --env D=5 --unsetenv A --unsetlabel b");
    let variables: Vec<&str> =
        config["config"]["Env"].as_array().expect("an environment").iter().filter_map(Value::as_str).collect();
    assert_eq!(variables[1..], ["B=2", "C=4", "D=5"]);
    assert_eq!(config["config"]["Labels"], json!({"a": "base", "c": "own"}));
    let config = built(&env, "--from base --inherit-labels=false");
    assert_eq!(config["config"]["Labels"], json!({"c": "own"}));
}

// Rows: B28, B29.
#[test]
fn history_and_times_can_be_left_out() {
    let env = env_with_base();
    let config = built(&env, "--from base --omit-history --timestamp 5 --iidfile id --iidfile-raw raw");
    assert_eq!((&config["history"], &config["created"]), (&Value::Null, &json!("1970-01-01T00:00:05Z")));
    let text = |name: &str| std::fs::read_to_string(env.context(name)).expect("written");
    assert_eq!(text("id"), format!("sha256:{}", text("raw")));
    let listed = end(std::process::Command::new("skopeo").args([
        "copy",
        &format!("oci-archive:{}", env.context("out.tar").display()),
        &format!("dir:{}", env.context("dir").display()),
    ]));
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    env.ok("build -q --from base --timestamp 5 -o type=tar,dest=files.tar .");
    let mut archive = tar::Archive::new(std::fs::File::open(env.context("files.tar")).expect("written"));
    for entry in archive.entries().expect("a tar") {
        assert_eq!(entry.expect("an entry").header().mtime().expect("a time"), 5);
    }
}

// Rows: B11.
#[test]
fn a_registry_without_an_answer_is_no_error_if_the_image_is_here() {
    let env = env_with_base();
    env.write("Dockerfile", "FROM 127.0.0.1:1/base\n");
    env.ok("tag base 127.0.0.1:1/base");
    assert!(env.fails("build -q --pull .").contains("127.0.0.1"));
    assert!(env.fails("build -q --pull=always .").contains("127.0.0.1"));
    env.ok("build -q --pull=newer .");
}
