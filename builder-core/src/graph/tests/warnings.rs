//! Warnings that need values or images, and how they are silenced.

use super::{lowered, lowered_with, options, render};

fn check(text: &str, expected: &str) {
    assert_eq!(render::warnings(&lowered(text)).trim_end(), expected, "{text}");
}

// Rows: A27.
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

/// Rules and lines of what is found below `FROM alpine:3.20`, which is line 1.
fn check_rules(body: &str, expected: &[(&str, usize)]) {
    let graph = lowered(&format!("FROM alpine:3.20\n{body}"));
    let found: Vec<_> = graph.warnings.iter().map(|(warning, _)| (warning.rule.name(), warning.line)).collect();
    assert_eq!(found, expected, "{body}");
}

#[test]
fn commands() {
    let json = |line| ("JSONArgsRecommended", line);
    check_rules("CMD x\nENTRYPOINT y", &[json(2), json(3)]);
    check_rules("CMD", &[json(2)]);
    check_rules("SHELL [\"sh\"]\nCMD x", &[]);
    check_rules("SHELL [\"sh\"]\nFROM alpine:3.20\nCMD x", &[json(4)]);
    let twice = ("MultipleInstructionsDisallowed", 2);
    check_rules("CMD [\"x\"]\nCMD [\"y\"]", &[twice]);
    check_rules("HEALTHCHECK NONE\nHEALTHCHECK NONE", &[twice]);
    check_rules("ENTRYPOINT [\"x\"]\nentrypoint [\"y\"]", &[twice, ("ConsistentInstructionCasing", 3)]);
    check(
        "FROM alpine:3.20\nCMD [\"x\"]\ncmd [\"y\"]\nCMD []",
        "warning: MultipleInstructionsDisallowed line 2: Multiple cmd instructions should not be used in the same stage \
         because only the last one will be used\nwarning: ConsistentInstructionCasing line 3: Command 'cmd' should match \
         the case of the command majority (uppercase)\nwarning: MultipleInstructionsDisallowed line 3: Multiple CMD \
         instructions should not be used in the same stage because only the last one will be used",
    );
    // A stage is judged by what stands in it, not by its base.
    check_rules("CMD [\"x\"]\nFROM alpine:3.20\nCMD [\"y\"]", &[]);
}

// Rows: A33.
#[test]
fn keys_and_values() {
    let legacy = |line| ("LegacyKeyValueFormat", line);
    check_rules("ENV a b\nLABEL c d", &[legacy(2), legacy(3)]);
    check_rules("ENV a=b c=d", &[]);
    let secret = |line| ("SecretsUsedInArgOrEnv", line);
    check_rules("ARG API_KEY\nENV PASSWORD=1 secret=2 KEYS=3", &[secret(2), secret(3), secret(3)]);
    check_rules("ENV PUBLIC_KEY=1 KEY_FILE=2 TOKEN_VERSION=3 MONKEY=4 AUTHOR=5", &[]);
    check_rules("ENV K=TOKEN\nENV MY_$K=1", &[secret(3)]);
    check_rules("ONBUILD ENV TOKEN 1", &[]);
}

#[test]
fn paths_and_ports() {
    let workdir = |line| ("WorkdirRelativePath", line);
    check_rules("WORKDIR b\nWORKDIR c", &[workdir(2)]);
    check_rules("ENV X=/x\nWORKDIR $X/y\nWORKDIR c", &[]);
    check_rules("WORKDIR \"/a b\"", &[]);
    check_rules("EXPOSE $NONE 80", &[]);
    check_rules("WORKDIR /a\nFROM alpine:3.20\nWORKDIR b", &[workdir(4)]);
    check_rules("EXPOSE 80/TCP 81/udp", &[("ExposeProtoCasing", 2)]);
    check_rules("EXPOSE 1:2 127.0.0.1:3:4 :5", &[("ExposeInvalidFormat", 2), ("ExposeInvalidFormat", 2)]);
    check_rules("ENV P=\"80/Tcp 8080:81\"\nEXPOSE $P", &[("ExposeProtoCasing", 3), ("ExposeInvalidFormat", 3)]);
}

#[test]
fn stages_that_nobody_needs_are_judged_by_the_file_alone() {
    let text = "FROM alpine:3.20 AS Unused\nCMD x\nENV a b\nMAINTAINER me\nFROM alpine:3.20";
    let rules =
        |graph: crate::graph::Graph| graph.warnings.iter().map(|(warning, _)| warning.rule.name()).collect::<Vec<_>>();
    assert_eq!(rules(lowered(text)), ["StageNameCasing", "MaintainerDeprecated"]);
    let options = crate::graph::Options { all_stages: true, ..options() };
    let all = ["StageNameCasing", "JSONArgsRecommended", "LegacyKeyValueFormat", "MaintainerDeprecated"];
    assert_eq!(rules(lowered_with(text, &options)), all);
}

#[test]
fn copies_of_what_is_ignored() {
    let text = "FROM alpine:3.20 AS a\nCOPY secret ./x $N /\nADD b/../secret http://h/secret /\n\
                # check=skip=CopyIgnoredFile\nCOPY secret /\nFROM a\nCOPY --from=a /secret /\nCOPY <<secret /\n\nsecret\n";
    let source = crate::diagnostic::Source::new("Dockerfile", text.as_bytes());
    let file = crate::dockerfile::parse(&source).expect("well formed");
    let ignore = |text: &str| {
        crate::context::IgnoreFile::parse(crate::diagnostic::Source::new(".dockerignore", text.as_bytes()))
            .expect("valid")
    };
    let mut graph = lowered(text);
    graph.warnings.clear();
    graph.check_ignored(&file, &ignore("secret\n!other"));
    assert_eq!(graph.warnings, []);
    graph.check_ignored(&file, &ignore("secret"));
    assert_eq!(
        render::warnings(&graph).trim_end(),
        "warning: CopyIgnoredFile line 2: Attempting to Copy file \"secret\" that is excluded by .dockerignore\n\
         warning: CopyIgnoredFile line 3: Attempting to Add file \"secret\" that is excluded by .dockerignore"
    );
}

// Rows: P10.
#[test]
fn secrets_of_steps_whose_results_count() {
    let mount = "--mount=type=secret,id";
    let text = format!(
        "# check=experimental=SecretNotInKey\nFROM alpine:3.20\nRUN {mount}=a true\nRUN {mount}=b,env=B --mount=type=ssh true\n\
         # cache=1h\nRUN {mount}=a true\n# check=skip=SecretNotInKey\nRUN {mount}=c true\nRUN {mount}=keyed true\n"
    );
    let check = |text: &str, expected: &[(&str, usize)]| {
        let source = crate::diagnostic::Source::new("Dockerfile", text.as_bytes());
        let file = crate::dockerfile::parse(&source).expect("well formed");
        let mut graph = lowered(text);
        graph.join(lowered(text));
        graph.check_secrets(&file, &|_, id| id != "keyed");
        let found: Vec<_> = graph.warnings.iter().map(|(warning, _)| (warning.rule.name(), warning.line)).collect();
        assert_eq!(found, expected, "{text}");
    };
    let found = |line| ("SecretNotInKey", line);
    check(&text, &[found(3), found(4), found(8)]);
    check(&text.replace("SecretNotInKey\nFROM", "all\nFROM"), &[]);
    check(&text.replace("experimental", "skip"), &[]);
    // Above one step it is asked for there.
    let one =
        format!("FROM alpine:3.20\nRUN {mount}=a true\n# check=experimental=SecretNotInKey\nRUN {mount}=a true 1\n");
    check(&one, &[found(4)]);
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
fn triggers_warn_where_their_stage_begins() {
    check(
        "FROM alpine:3.20 AS a\nONBUILD LABEL a=$FOO\nFROM a AS b\nFROM a\nCOPY --from=b / /",
        "warning: UndefinedVar line 3: Usage of undefined variable '$FOO'\n\
         warning: UndefinedVar line 4: Usage of undefined variable '$FOO'",
    );
    let graph = lowered("FROM alpine:3.20 AS a\n# check=skip=all\nONBUILD EXPOSE 1/TCP\nFROM \\\n  a AS b");
    let lines: Vec<_> = graph.warnings.iter().map(|(warning, _)| (warning.line, warning.last_line)).collect();
    assert_eq!(lines, [(4, 5)], "nothing stands above a trigger");
}

#[test]
fn warnings_of_a_line_come_as_buildkit_finds_them() {
    let rules = |text: &str| {
        let graph = lowered(text);
        graph.warnings.iter().map(|(warning, _)| warning.rule.name()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        rules("FROM alpine:3.20\nENV TOKEN $X\nLABEL a=$Y b=$Y"),
        "UndefinedVar LegacyKeyValueFormat SecretsUsedInArgOrEnv UndefinedVar UndefinedVar"
    );
    assert_eq!(rules("FROM alpine:3.20\nCMD x\nCMD []"), "JSONArgsRecommended MultipleInstructionsDisallowed");
    assert_eq!(
        rules("FROM --platform=linux/amd64 ${X:-alpine:3.20} as B"),
        "StageNameCasing FromAsCasing UndefinedArgInFrom FromPlatformFlagConstDisallowed"
    );
}

#[test]
fn an_image_without_layers_has_no_platform() {
    let found = |name: &str| lowered(&format!("FROM --platform=linux/riscv64 {name} AS linux")).warnings.len();
    assert_eq!(found("arm:1"), 1);
    assert_eq!(found("empty-arm:1"), 0);
}

#[test]
fn nothing_is_said_of_variables_that_an_unknown_image_may_set() {
    let source =
        crate::diagnostic::Source::new("Dockerfile", &b"FROM far/away:1 AS a\nLABEL a=$A\nFROM a\nLABEL b=$B"[..]);
    let file = crate::dockerfile::parse(&source).expect("well formed");
    let mut images = crate::graph::Images::new();
    let plan = crate::graph::plan(&file, &options(), &images).expect("a plan");
    for image in plan.missing {
        let guess = crate::graph::KnownImage::guess(&image.platform);
        images.insert(image, guess);
    }
    assert_eq!(crate::graph::lower(&file, &options(), &images).expect("a graph").warnings, []);
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

// Rows: A56.
#[test]
fn arguments_that_nobody_takes_are_named() {
    let mut options = options();
    for name in ["USED", "IN_UNUSED_STAGE", "GLOBAL", "B", "A", "http_proxy", "TARGETOS", "BUILDKIT_INLINE_CACHE"] {
        options.build_args.insert(name.to_owned(), "1".to_owned());
    }
    let text = "ARG GLOBAL\nFROM scratch\nARG IN_UNUSED_STAGE\nFROM scratch\nONBUILD ARG USED";
    assert_eq!(lowered_with(text, &options).unused_build_args, ["A", "B"]);
}
