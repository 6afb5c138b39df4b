//! `--call=outline` and `--call=targets`, and graphs for people.

use super::super::*;
use super::{lowered, lowered_with, options, parsed};

const FILE: &str = "\
# BASE is the tag
ARG BASE=3.$MINOR
ARG MINOR=20
ARG BASE=3.$MINOR
ARG IGNORED=1
# build compiles
FROM alpine:$BASE AS build
# MODE of the compiler
ARG MODE=debug
ARG MINOR
RUN --mount=type=secret,id=token --mount=type=cache,target=/c x
RUN --mount=type=secret,id=token,required --mount=type=ssh y

FROM --platform=linux/amd64 scratch AS unused
ARG NEVER=1

FROM scratch
COPY --from=build / /
";

// Rows: A16.
#[test]
fn an_outline_holds_what_has_an_effect() {
    let mut options = options();
    options.build_args.insert("MODE".to_owned(), "release".to_owned());
    let outline = serde_json::to_value(&lowered_with(FILE, &options).outline).expect("serialises");
    let expected = serde_json::json!({
        "args": [
            {"name": "MINOR", "value": "20", "line": 3},
            {"name": "BASE", "value": "3.20", "line": 4},
            {"name": "MODE", "value": "release", "description": "of the compiler", "line": 9},
        ],
        "secrets": [{"name": "token", "required": true, "line": 11}],
        "ssh": [{"name": "default", "required": false, "line": 12}],
        "cache": [{"ID": "/c", "line": 11}],
    });
    assert_eq!(outline, expected);
    options.target = Some("build".to_owned());
    let outline = lowered_with(FILE, &options).outline;
    assert_eq!((outline.name.as_deref(), outline.description.as_deref()), (Some("build"), Some("compiles")));
}

#[test]
fn targets_are_listed_in_file_order() {
    let expected = serde_json::json!([
        {"name": "build", "default": false, "description": "compiles", "base": "alpine:$BASE", "line": 7},
        {"name": "unused", "default": false, "base": "scratch", "platform": "linux/amd64", "line": 14},
        {"default": true, "base": "scratch", "line": 17},
    ]);
    assert_eq!(serde_json::to_value(targets(&parsed(FILE))).expect("serialises"), expected);
}

#[test]
fn a_graph_can_be_drawn() {
    let graph = lowered("FROM alpine:3.20 AS a\nRUN \"x\"\nFROM scratch\nCOPY --from=a / /");
    assert_eq!(
        to_dot(&graph).lines().skip(3).filter(|line| !line.contains("FROM")).collect::<Vec<_>>(),
        [
            r#"  v1 [label="[a 2/2] RUN \"x\""];"#,
            "  v0 -> v1;",
            r#"  v2 [label="[stage-1 1/1] COPY --from=a / /", style=bold];"#,
            "  v1 -> v2 [style=dashed];",
            "}",
        ]
    );
}

#[test]
fn a_graph_is_described_as_json() {
    let json = to_json(&lowered("FROM alpine:3.20\nWORKDIR /a\nLABEL x=$Y"));
    assert_eq!(json["vertices"][1]["op"], serde_json::json!({"type": "workdir", "path": "/a", "user": ""}));
    assert_eq!(json["vertices"][1]["location"], serde_json::json!({"file": "Dockerfile", "line": 2, "column": 1}));
    assert_eq!(json["target"]["root"], 1);
    assert_eq!(json["target"]["history"][0], serde_json::json!({"createdBy": "WORKDIR /a", "vertex": 1}));
    assert_eq!(json["warnings"][0]["rule"], "UndefinedVar");
}
