//! What is refused, where the error points, and what it says to do.

use super::{Options, options, render, try_lower};

fn check_with(text: &str, options: &Options, expected: &str) {
    match try_lower(text, options) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => assert_eq!(render::errors(&errors).trim_end(), expected, "{text}"),
    }
}

fn check(text: &str, expected: &str) {
    check_with(text, &options(), expected);
}

// Rows: A63.
#[test]
fn targets() {
    let with = |text: &str, target: &str, expected: &str| {
        check_with(text, &Options { target: Some(target.to_owned()), ..options() }, expected);
    };
    let text = "FROM scratch AS build\nFROM scratch AS final";
    with(text, "fnal", "error: target stage `fnal` could not be found\nhint: did you mean `final`?");
    with(text, "x", "error: target stage `x` could not be found\nhint: the stages are `build`, `final`");
    with(text, "2", "error: target stage `2` could not be found\nhint: the stages are `build`, `final`");
    with(
        "FROM scratch",
        "x",
        "error: target stage `x` could not be found\nhint: no stage has a name: add `AS name` to a `FROM`",
    );
}

#[test]
fn bases() {
    check(
        "ARG TAG\nFROM $TGA",
        "error: base name `$TGA` is blank after expansion at Dockerfile:2:6 `$TGA`\n\
         hint: argument `TGA` is not declared; did you mean `TAG`?",
    );
    check(
        "ARG TAG\nFROM $TAG",
        "error: base name `$TAG` is blank after expansion at Dockerfile:2:6 `$TAG`\n\
         hint: give the argument a default value, or `--build-arg`",
    );
    check(
        "FROM scratch AS builder\nFROM Bilder",
        "error: `Bilder` is not a stage, and invalid reference `Bilder`: the repository name must be lowercase at \
         Dockerfile:2:6 `Bilder`\nhint: did you mean stage `builder`?",
    );
    check(
        "FROM --platform=$NONE scratch",
        "error: platform `$NONE` is empty after expansion at Dockerfile:1:17 `$NONE`\n\
         hint: declare it before the first `FROM`: `ARG NONE=…`",
    );
    check(
        "FROM --platform=linux/ scratch",
        "error: `linux/` is not a platform: expected os/architecture[/variant], such as `linux/amd64` at \
         Dockerfile:1:17 `linux/`",
    );
}

// Rows: A64.
#[test]
fn circles() {
    check(
        "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /",
        "error: circular dependency between stages: `a` needs (line 2) `b` needs (line 4) `a` at Dockerfile:2:13 `b`",
    );
    check(
        "FROM scratch AS a\nCOPY --from=a / /\nFROM scratch",
        "error: circular dependency between stages: `a` needs (line 2) `a` at Dockerfile:2:13 `a`",
    );
}

#[test]
fn later_stages() {
    check(
        "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nFROM a",
        "error: cannot use stage `b` in stage `a`, because it is defined later at Dockerfile:2:13 `b`\n\
         hint: move stage `b` before stage `a`",
    );
    check(
        "FROM scratch\nCOPY --from=7 / /",
        "error: stage index 7 does not exist: the file has 1 stage at Dockerfile:2:13 `7`",
    );
}

// Rows: A17, A61.
#[test]
fn triggers() {
    check(
        "FROM scratch\nFROM broken-trigger:1 AS x",
        "error: invalid ONBUILD trigger: unknown instruction: RUNN at ONBUILD of broken-trigger:1:1:1 `RUNN` brought \
         by Dockerfile:2:6 `broken-trigger:1`\n\
         hint: the base image brings this instruction; use another base, or have it corrected",
    );
    check(
        "FROM forward-trigger:1 AS x\nFROM scratch AS later\nFROM x",
        "error: cannot use stage `later` in stage `x`, because it is defined later at ONBUILD of forward-trigger:1:1:13 \
         `later` brought by Dockerfile:1:6 `forward-trigger:1`\nhint: move stage `later` before stage `x`",
    );
}

#[test]
fn values() {
    let check = |body: &str, expected: &str| check(&format!("FROM alpine:3.20\n{body}"), expected);
    check("VOLUME /a $NONE", "error: VOLUME is empty after expansion at Dockerfile:2:11 `$NONE`");
    check("ENV A=b\nEXPOSE ${A}/tcp", "error: invalid containerPort: `b` at Dockerfile:3:8 `${A}/tcp`");
    check(
        "ENV A=b\nSTOPSIGNAL $A",
        "error: invalid signal `b` at Dockerfile:3:12 `$A`\nhint: use a number from 1 to 64 or a name such as `SIGTERM`",
    );
    check("ENV A=\"${B:?is missing}\"", "error: B: is missing at Dockerfile:2:7 `\"${B:?is missing}\"`");
    check(
        "ARG MODE=888\nCOPY --chmod=$MODE a /",
        "error: invalid `--chmod` value `888`: expected octal digits up to 7777 or a symbolic mode such as \
         `u=rwX,go=rX` at Dockerfile:3:14 `$MODE`",
    );
    check(
        "ARG URL=https://example.com/x\nCOPY $URL /",
        "error: `COPY` can not fetch `https://example.com/x` at Dockerfile:3:6 `$URL`\nhint: use `ADD`",
    );
    check(
        "ADD --checksum=sha256:0 a b /",
        "error: `--checksum` needs exactly one source at Dockerfile:2:16 `sha256:0`",
    );
    check(
        "ADD --checksum=sha256:0 a /",
        "error: `--checksum` needs an `http://`, `https://` or git source, not `a` at Dockerfile:2:16 `sha256:0`",
    );
    check(
        "RUN --mount=target=/$NONE ls",
        "error: mount target `/` is the root directory at Dockerfile:2:13 `target=/$NONE`",
    );
    check(
        "ARG SHARING=lokced\nRUN --mount=type=cache,target=/c,sharing=$SHARING ls",
        "error: invalid value for sharing: `lokced` at Dockerfile:3:13 `type=cache,target=/c,sharing=$SHARING`\n\
         hint: did you mean `locked`?",
    );
}

#[test]
fn all_errors_come_at_once_in_file_order() {
    check(
        "FROM $A AS x\nFROM alpine:3.20\nVOLUME $B\nUSER ${C:?no}\nCOPY --from=9 / /",
        "error: base name `$A` is blank after expansion at Dockerfile:1:6 `$A`\n\
         hint: declare it before the first `FROM`: `ARG A=…`\n\
         error: stage index 9 does not exist: the file has 2 stages at Dockerfile:5:13 `9`",
    );
    let file = super::parsed("FROM $A AS x\nFROM alpine:3.20\nVOLUME $B\nUSER ${C:?no}\nCOPY --from=9 / /");
    let images = super::resolve(&super::parsed("FROM alpine:3.20"), &options()).expect("resolves");
    let errors = super::lower(&file, &options(), &images).expect_err("four errors");
    let lines: Vec<usize> = errors
        .iter()
        .map(|error| error.location.as_ref().expect("a place"))
        .map(|location| location.source.line(location.span.start))
        .collect();
    assert_eq!(lines, [1, 3, 4, 5]);
    assert!(errors.to_string().ends_with("(and 3 more errors)"));
}

#[test]
fn what_is_not_in_the_file_is_refused_too() {
    let with = |name: &str, value: &str, expected: &str| {
        let mut options = options();
        options.build_args.insert(name.to_owned(), value.to_owned());
        check_with("FROM scratch", &options, expected);
    };
    with(
        "SOURCE_DATE_EPOCH",
        "yesterday",
        "error: `yesterday` is no value for SOURCE_DATE_EPOCH\nhint: it is a number of seconds since 1970, `context`, or the name of a \
         build context or of a stage",
    );
    with("BUILDKIT_DOCKERFILE_CHECK", "skp=x", "error: invalid check option `skp`");
}

#[test]
fn an_image_must_be_resolved_before() {
    let file = super::parsed("FROM alpine:3.20\nCOPY --from=other:1 / /");
    let errors = super::lower(&file, &options(), &super::Images::new()).expect_err("unknown");
    assert_eq!(
        render::errors(&errors),
        "error: image `docker.io/library/alpine:3.20` is not resolved at Dockerfile:1:6 `alpine:3.20`\n\
         error: image `docker.io/library/other:1` is not resolved at Dockerfile:2:13 `other:1`\n"
    );
}
