//! Warnings that need values or images, and how they are silenced.

use super::{lowered, lowered_with, options, render};

fn check(text: &str, expected: &str) {
    assert_eq!(render::warnings(&lowered(text)).trim_end(), expected, "{text}");
}

#[test]
fn undefined_variables() {
    let check = |body: &str, expected: &str| check(&format!("FROM alpine:3.20\n{body}"), expected);
    check("LABEL a=$FOO", "warning: UndefinedVar line 2: Usage of undefined variable '$FOO'");
    check(
        "ENV FOOBAR=1\nCOPY $FOBAR /",
        "warning: UndefinedVar line 3: Usage of undefined variable '$FOBAR' (did you mean $FOOBAR?)",
    );
    check("ARG FOO\nLABEL a=$FOO c='$X' d=\\$Y", "");
    check("LABEL a=${FOO:-x}", "warning: UndefinedVar line 2: Usage of undefined variable '$FOO'");
    check("RUN echo $FOO\nCMD [\"$FOO\"]", "");
    check("RUN --mount=target=/a$FOO x", "warning: UndefinedVar line 2: Usage of undefined variable '$FOO'");
    check("COPY <<E /x\n$FOO\nE", "warning: UndefinedVar line 2: Usage of undefined variable '$FOO'");
    check("COPY <<'E' /x\n$FOO\nE", "");
}

#[test]
fn platforms_of_bases() {
    check(
        "FROM arm:1",
        "warning: InvalidBaseImagePlatform line 1: Base image arm:1 was pulled with platform \"linux/arm64\", expected \
         \"linux/amd64\" for current build",
    );
    check("FROM --platform=linux/arm64 arm:1 AS arm64", "");
}

#[test]
fn values_that_only_expansion_shows() {
    check(
        "FROM alpine:3.20\nENV D=x P=80/TCP\nWORKDIR $D\nEXPOSE $P",
        "warning: WorkdirRelativePath line 3: Relative workdir \"x\" can have unexpected results if the base image \
         changes\nwarning: ExposeProtoCasing line 4: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
    );
    check(
        "FROM alpine:3.20\nWORKDIR rel",
        "warning: WorkdirRelativePath line 2: Relative workdir \"rel\" can have unexpected results if the base image \
         changes",
    );
}

#[test]
fn a_shell_that_the_base_chose_is_meant() {
    check("FROM rich:1\nCMD x", "");
    check(
        "FROM alpine:3.20\nCMD x",
        "warning: JSONArgsRecommended line 2: JSON arguments recommended for CMD to prevent unintended behavior related \
         to OS signals",
    );
}

#[test]
fn checks_can_be_switched_off() {
    check("# check=skip=UndefinedVar\nFROM alpine:3.20\nLABEL a=$FOO", "");
    check("FROM alpine:3.20\n# check=skip=UndefinedVar\nLABEL a=$FOO\nLABEL a=1", "");
    let mut options = options();
    options.build_args.insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "skip=all".to_owned());
    assert_eq!(render::warnings(&lowered_with("FROM alpine:3.20\nLABEL a=$FOO", &options)), "");
}

#[test]
fn a_trigger_of_a_stage_warns_once() {
    check(
        "FROM alpine:3.20 AS a\nONBUILD LABEL a=$FOO\nFROM a AS b\nFROM a\nCOPY --from=b / /",
        "warning: UndefinedVar line 2: Usage of undefined variable '$FOO'",
    );
}

#[test]
fn warnings_can_be_errors() {
    let graph = lowered("# check=error=true\nFROM alpine:3.20\nLABEL a=$FOO");
    let violations = graph.violations().expect("one");
    assert_eq!(
        render::errors(&violations),
        "error: lint violation of UndefinedVar: Usage of undefined variable '$FOO' at Dockerfile:3:9 `$FOO`\n"
    );
    assert!(lowered("# check=error=true\nFROM alpine:3.20").violations().is_none());
    assert!(lowered("FROM alpine:3.20\nLABEL a=$FOO").violations().is_none());
}

#[test]
fn arguments_that_nobody_takes_are_named() {
    let mut options = options();
    for name in ["USED", "IN_UNUSED_STAGE", "GLOBAL", "B", "A", "http_proxy", "TARGETOS", "BUILDKIT_INLINE_CACHE"] {
        options.build_args.insert(name.to_owned(), "1".to_owned());
    }
    let text = "ARG GLOBAL\nFROM scratch\nARG IN_UNUSED_STAGE\nFROM scratch\nONBUILD ARG USED";
    assert_eq!(lowered_with(text, &options).unused_build_args, ["A", "B"]);
}
