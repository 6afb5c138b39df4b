//! What instructions leave in the image's config.

use serde_json::{Value, json};

use super::{lowered, lowered_with, options};
use crate::oci::ImageConfig;

fn config(text: &str) -> ImageConfig {
    lowered(text).target.config
}

/// Checks the keys of `expected` in the config that containers get; `null` is a key that is not written.
fn check(text: &str, expected: &Value) {
    let config = serde_json::to_value(config(text).config).expect("serialises");
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(config.get(key).unwrap_or(&Value::Null), value, "{key} of\n{text}");
    }
}

#[test]
fn an_entrypoint_clears_a_command_that_its_own_stage_did_not_set() {
    let base = "FROM rich:1\n";
    check(base, &json!({"Entrypoint": ["/entry"], "Cmd": ["arg"], "ArgsEscaped": null}));
    check(&format!("{base}ENTRYPOINT [\"x\"]"), &json!({"Entrypoint": ["x"], "Cmd": null}));
    check(&format!("{base}CMD [\"c\"]\nENTRYPOINT [\"x\"]"), &json!({"Entrypoint": ["x"], "Cmd": ["c"]}));
    check(&format!("{base}ENTRYPOINT [\"x\"]\nCMD [\"c\"]"), &json!({"Entrypoint": ["x"], "Cmd": ["c"]}));
    check(&format!("{base}CMD [\"c\"]"), &json!({"Entrypoint": ["/entry"], "Cmd": ["c"], "ArgsEscaped": true}));
    check(&format!("{base}ENTRYPOINT []"), &json!({"Entrypoint": null, "Cmd": null}));
    check("FROM alpine:3.20 AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"x\"]", &json!({"Entrypoint": ["x"], "Cmd": null}));
}

#[test]
fn the_shell_form_takes_the_shell_of_the_stage() {
    check("FROM alpine:3.20\nCMD a  b", &json!({"Cmd": ["/bin/sh", "-c", "a  b"], "ArgsEscaped": true}));
    check("FROM rich:1\nENTRYPOINT a", &json!({"Entrypoint": ["/bin/bash", "-c", "a"], "ArgsEscaped": null}));
    check("FROM rich:1\nSHELL [\"s\"]\nCMD a", &json!({"Cmd": ["s", "a"], "Shell": ["s"]}));
}

#[test]
fn everything_is_inherited_but_triggers() {
    check(
        "FROM rich:1",
        &json!({"User": "app", "WorkingDir": "/srv/app/", "Labels": {"a": "base"}, "ExposedPorts": {"1/tcp": {}},
            "Volumes": {"/data": {}}, "Shell": ["/bin/bash", "-c"], "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5}}),
    );
    assert_eq!(config("FROM rich:1").author, "someone");
    check("FROM onbuild:1", &json!({"OnBuild": null}));
    check("FROM alpine:3.20 AS a\nONBUILD RUN x\nFROM a", &json!({"OnBuild": null}));
    check("FROM alpine:3.20 AS a\nONBUILD RUN x", &json!({"OnBuild": ["RUN x"]}));
}

// Rows: A34.
#[test]
fn a_path_is_there_even_without_a_base() {
    let default = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    check("FROM scratch\nENV A=1", &json!({"Env": [default, "A=1"], "WorkingDir": "/"}));
    check("FROM rich:1\nENV A=2 B=3", &json!({"Env": ["A=2", "NOVALUE", default, "B=3"]}));
    check("FROM alpine:3.20", &json!({"Env": ["PATH=/usr/bin:/bin"]}));
}

// Rows: A111.
#[test]
fn an_environment_keeps_the_order_of_first_definition() {
    check("FROM alpine:3.20\nENV Z=1\nENV A=1\nENV Z=2", &json!({"Env": ["PATH=/usr/bin:/bin", "Z=2", "A=1"]}));
}

#[test]
fn an_argument_after_env_is_for_commands_only() {
    check(
        "FROM alpine:3.20\nENV A=env\nARG A=arg\nLABEL a=$A",
        &json!({
            "Env": ["PATH=/usr/bin:/bin", "A=env"], "Labels": {"a": "arg"},
        }),
    );
}

#[test]
fn working_directories_join() {
    let workdir = |text: &str| config(text).config.working_dir;
    assert_eq!(workdir("FROM rich:1\nWORKDIR sub"), "/srv/app/sub");
    assert_eq!(workdir("FROM rich:1\nWORKDIR a//b/../c/"), "/srv/app/a/c");
    assert_eq!(workdir("FROM rich:1\nWORKDIR ../../../.."), "/");
    assert_eq!(workdir("FROM rich:1\nENV D=x\nWORKDIR $D/y"), "/srv/app/x/y");
}

#[test]
fn healthchecks_replace_each_other_whole() {
    check("FROM rich:1\nHEALTHCHECK NONE", &json!({"Healthcheck": {"Test": ["NONE"]}}));
    check(
        "FROM rich:1\nHEALTHCHECK --retries=2 CMD [\"a\", \"b\"]",
        &json!({"Healthcheck": {"Test": ["CMD", "a", "b"], "Retries": 2}}),
    );
    check("FROM rich:1\nHEALTHCHECK CMD a b", &json!({"Healthcheck": {"Test": ["CMD-SHELL", "a b"]}}));
}

#[test]
fn the_image_says_what_was_asked_for_or_what_its_base_says() {
    let with = |text: &str, platform: &str, explicit_platform: bool| {
        let platform = platform.parse().expect("a platform");
        let options = super::Options { platform, explicit_platform, ..options() };
        lowered_with(text, &options).target.config.platform().to_string()
    };
    assert_eq!(with("FROM scratch", "linux/arm/v6", true), "linux/arm/v6");
    assert_eq!(with("FROM arm:1", "linux/amd64", false), "linux/arm64");
    assert_eq!(with("FROM arm:1", "linux/amd64", true), "linux/amd64");
    assert_eq!(with("FROM --platform=linux/s390x alpine:3.20", "linux/amd64", true), "linux/amd64");
}

#[test]
fn history_names_the_vertices_that_make_its_layers() {
    let graph = lowered("FROM alpine:3.20\nENV A=1\nRUN x\nWORKDIR /\nWORKDIR /w");
    let vertices: Vec<_> = graph.target.history.iter().map(|step| step.vertex.map(|vertex| vertex.0)).collect();
    assert_eq!(vertices, [None, Some(1), None, Some(2)]);
    let empty: Vec<_> = graph.target.history.iter().map(|step| step.entry.empty_layer).collect();
    assert_eq!(empty, [true, false, true, false]);
    assert!(graph.target.history.iter().all(|step| step.entry.comment == "buildkit.dockerfile.v0"));
    assert_eq!(graph.target.base_history.len(), 1);
}

#[test]
fn the_epoch_comes_from_the_argument_or_its_global_default() {
    let with = |text: &str, given: Option<&str>, option| {
        let mut options = super::Options { source_date_epoch: option, ..options() };
        options.build_args.extend(given.map(|value| ("SOURCE_DATE_EPOCH".to_owned(), value.to_owned())));
        lowered_with(text, &options).source_date_epoch
    };
    let plain = "FROM scratch";
    let default = "ARG SOURCE_DATE_EPOCH=5\nFROM scratch";
    assert_eq!(with(plain, None, None), None);
    assert_eq!(with(plain, Some("7"), Some(6)), Some(7));
    assert_eq!(with(plain, None, Some(6)), Some(6));
    assert_eq!(with(default, None, None), Some(5));
    assert_eq!(with(default, Some("7"), None), Some(7));
    assert_eq!(with(plain, Some(""), Some(6)), None);
}

#[test]
fn a_path_is_kept_as_it_is_written_and_a_relative_one_is_cleaned() {
    for (body, expected) in [
        ("WORKDIR /app/", "/app/"),
        ("WORKDIR //a/./b/..", "//a/./b/.."),
        ("WORKDIR /a/\nWORKDIR b/../c/", "/a/c"),
        ("WORKDIR /a/\nWORKDIR $NONE", "/a/"),
        ("WORKDIR $NONE", "/"),
    ] {
        let graph = lowered(&format!("FROM scratch\n{body}"));
        assert_eq!(graph.target.config.config.working_dir, expected, "{body}");
        let step = graph.target.history.last().expect("an entry");
        assert_eq!(step.entry.created_by, format!("WORKDIR {expected}"), "{body}");
    }
}

#[test]
fn a_child_stage_takes_the_environment_before_arguments() {
    let graph = lowered("FROM scratch AS a\nENV A=1 B=2\nARG C=3 A=arg\nENV B=5\nRUN x\nFROM a\nARG E=6\nRUN y");
    let names = |vertex: &crate::graph::Vertex| match &vertex.op {
        crate::graph::Op::Run(run) => {
            run.env.to_vec().iter().map(|(name, value)| (*name, *value)).fold(String::new(), |text, (name, value)| {
                if name == "PATH" { text + "PATH " } else { text + name + value + " " }
            })
        }
        _ => String::new(),
    };
    let runs: Vec<_> = graph.vertices.iter().map(names).collect();
    assert_eq!(runs, ["PATH C3 Aarg B5 ", "C3 PATH A1 B5 E6 "]);
}

#[test]
fn names_that_expand_to_nothing_are_names() {
    check("FROM scratch\nLABEL $NONE=1", &json!({"Labels": {"": "1"}}));
    check("FROM scratch\nENV PATH=/ $NONE=1", &json!({"Env": ["PATH=/", "=1"]}));
}
