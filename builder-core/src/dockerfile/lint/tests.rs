use super::super::parse;
use super::*;

fn warnings(text: &str) -> Vec<LintWarning> {
    let file = parse(&Source::new("Dockerfile", text.as_bytes())).expect(text);
    Options::of(&file).filter(&file, check(&file))
}

fn check_rules(text: &str, expected: &[(Rule, usize)]) {
    let found: Vec<_> = warnings(text).into_iter().map(|warning| (warning.rule, warning.line)).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn rules_have_names_and_pages() {
    for rule in Rule::ALL {
        assert_eq!(Rule::find(rule.name()), Some(*rule));
        match rule.url() {
            Some(url) => assert!(url.starts_with("https://docs.docker.com/go/dockerfile/rule/") && url.ends_with('/')),
            None => assert!(*rule == Rule::InvalidBaseImagePlatform || rule.level() == Level::Own, "{rule:?}"),
        }
    }
    assert_eq!(Rule::ALL.iter().filter(|rule| rule.level() != Level::Own).count(), 22);
    assert_eq!(Rule::JsonArgsRecommended.name(), "JSONArgsRecommended");
}

#[test]
fn a_good_file_has_no_findings() {
    check_rules(
        "ARG BASE=alpine\n# base what others begin with\nFROM $BASE AS base\nWORKDIR /app\nEXPOSE 80/udp\n\
         ENV A=1\nFROM base\nWORKDIR sub\nCMD [\"a\"]\n",
        &[],
    );
}

#[test]
fn casing() {
    check_rules("FROM scratch AS Base\n", &[(Rule::StageNameCasing, 1)]);
    check_rules("FROM scratch as base\n", &[(Rule::FromAsCasing, 1)]);
    check_rules("from scratch as base\n", &[]);
    check_rules("FROM scratch\nRUN a\nrun b\n", &[(Rule::ConsistentInstructionCasing, 3)]);
    check_rules("from scratch\nrun a\nRun b\n", &[(Rule::ConsistentInstructionCasing, 3)]);
    check_rules("arg A\nFROM scratch\n", &[]);
}

#[test]
fn stage_names() {
    check_rules("FROM a AS b\nFROM a AS B\n", &[(Rule::StageNameCasing, 2), (Rule::DuplicateStageName, 2)]);
    check_rules(
        "FROM a AS context\nFROM a AS scratch\n",
        &[(Rule::ReservedStageName, 1), (Rule::ReservedStageName, 2)],
    );
}

#[test]
fn deprecated_forms() {
    check_rules("FROM a\nMAINTAINER me\n", &[(Rule::MaintainerDeprecated, 2)]);
    check_rules("FROM a\nRUN b \\\n\n  c\n", &[(Rule::NoEmptyContinuation, 4)]);
}

#[test]
fn platforms_and_bases() {
    check_rules("FROM --platform=$TARGETPLATFORM a\n", &[(Rule::RedundantTargetPlatform, 1)]);
    check_rules("FROM --platform=$BUILDPLATFORM a\n", &[]);
    check_rules("FROM --platform=linux/arm64 a\n", &[(Rule::FromPlatformFlagConstDisallowed, 1)]);
    check_rules("FROM --platform=linux/arm64 a AS build_arm64\n", &[]);
    check_rules("FROM a$NONE\n", &[(Rule::UndefinedArgInFrom, 1)]);
    check_rules("ARG TAG\nFROM a:$TAG\n", &[(Rule::InvalidDefaultArgInFrom, 2)]);
    check_rules("ARG TAG=1\nFROM a:$TAG\n", &[]);
    check_rules("ARG IMAGE\nFROM ${IMAGE:-a}\n", &[]);
    check_rules("FROM ${IMAGE:-a}\n", &[(Rule::UndefinedArgInFrom, 1)]);
    let found = warnings("ARG VERSION=1\nFROM a:1$VERSOIN\n");
    assert_eq!(found[0].detail, "FROM argument 'VERSOIN' is not declared (did you mean VERSION?)");
}

#[test]
fn what_from_says_is_found_in_each_of_its_words() {
    let undefined = (Rule::UndefinedArgInFrom, 1);
    check_rules("FROM --platform=$X a$X\n", &[undefined, undefined]);
    check_rules("ARG X\nFROM a${X:+$Y}\n", &[(Rule::UndefinedArgInFrom, 2)]);
    check_rules("FROM a$SOURCE_DATE_EPOCH\n", &[undefined]);
    check_rules("ARG V=amd64\nFROM --platform=linux/$V a\n", &[]);
    check_rules("FROM --platform=arm64 a\n", &[(Rule::FromPlatformFlagConstDisallowed, 1)]);
    check_rules("FROM --platform=aarch64 a AS b-arm64\n", &[]);
    check_rules("FROM --platform=${TARGETPLATFORM} a\n", &[(Rule::RedundantTargetPlatform, 1)]);
    check_rules("ARG X=${Y:?m}\nARG T\nFROM a:$T\n", &[]);
    check_rules("FROM Base\n", &[(Rule::InvalidDefaultArgInFrom, 1)]);
    let found = warnings("ARG A\nFROM a$B\n");
    assert_eq!(found[0].detail, "FROM argument 'B' is not declared (did you mean A?)");
}

#[test]
fn comments_that_describe() {
    let check = |text: &str, expected: &[(Rule, usize)]| {
        check_rules(&format!("# check=experimental=InvalidDefinitionDescription\n{text}"), expected);
    };
    let found = |line| (Rule::InvalidDefinitionDescription, line);
    check("# foo text\nARG foo\n# base text\nFROM a AS base\n", &[]);
    check("# a b\nARG foo\n# Base text\nFROM a AS Base\n", &[found(3), (Rule::StageNameCasing, 5), found(5)]);
    check("ARG x\n# c\nARG a=1 b c=2\n# z\nARG a b\nFROM a\n", &[found(6)]);
    check("# text\n#\nARG x\n# text\nFROM a\n# text\nRUN x\n", &[]);
    check("  # x text\nARG x\nFROM a\n", &[found(3)]);
}

#[test]
fn heredocs_that_go_on() {
    let check = |options: &str, run: &str, found: bool| {
        let text = format!("# check=experimental={options}\nFROM a\n{run}\n");
        check_rules(&text, if found { &[(Rule::HeredocNoErrexit, 3)] } else { &[] });
    };
    let plain = "RUN <<EOF\na\nb\nEOF";
    check("HeredocNoErrexit", plain, true);
    check("all", plain, false);
    check("InvalidDefinitionDescription", plain, false);
    check("HeredocNoErrexit", "RUN <<EOF\na\n# b\nEOF", false);
    check("HeredocNoErrexit", "RUN <<EOF\nset -eux\na\nEOF", false);
    check("HeredocNoErrexit", "RUN <<EOF\nset -o errexit; a\nb\nEOF", false);
    check("HeredocNoErrexit", "RUN <<EOF\nset -x\na\nEOF", true);
    check("HeredocNoErrexit", "RUN <<EOF\n#!/bin/sh\na\nb\nEOF", false);
    check("HeredocNoErrexit", "RUN cat <<EOF\na\nb\nEOF", false);
    check("HeredocNoErrexit\n# rbuild: heredoc=errexit", "RUN <<EOF\na\nEOF", false);
}

#[test]
fn the_shell_decides_whether_a_heredoc_goes_on() {
    let run = "RUN <<EOF\na\nb\nEOF\n";
    let check = |shell: &str, found: bool| {
        let text = format!("# check=experimental=HeredocNoErrexit\nFROM a\nSHELL {shell}\n{run}");
        check_rules(&text, if found { &[(Rule::HeredocNoErrexit, 4)] } else { &[] });
    };
    check("[\"/bin/bash\", \"-c\"]", true);
    check("[\"busybox\", \"sh\", \"-c\"]", true);
    check("[\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]", true);
    check("[\"/bin/bash\", \"-euo\", \"pipefail\", \"-c\"]", false);
    check("[\"busybox\", \"sh\", \"-ec\"]", false);
    check("[\"bash\", \"-o\", \"errexit\", \"-c\"]", false);
    check("[\"python3\", \"-c\"]", false);
    // It counts to the end of its stage, and for stages that begin with that.
    let shell = "SHELL [\"bash\", \"-e\", \"-c\"]";
    let text = format!(
        "# check=experimental=HeredocNoErrexit\nFROM a AS b\n{run}{shell}\n{run}FROM b AS c\n{run}FROM a\n{run}"
    );
    check_rules(&text, &[(Rule::HeredocNoErrexit, 3), (Rule::HeredocNoErrexit, 18)]);
}

#[test]
fn heredocs_are_mended() {
    let check = |text: &str, expected: Option<&str>| {
        let text = format!("# check=experimental=HeredocNoErrexit\n{text}");
        let mended = fixed(text.as_bytes(), &warnings(&text)).map(|text| String::from_utf8(text).expect("a text"));
        let expected = expected.map(|expected| format!("# check=experimental=HeredocNoErrexit\n{expected}"));
        assert_eq!(mended, expected, "{text}");
        assert_eq!(fixed(text.as_bytes(), &mended.map(|text| warnings(&text)).unwrap_or_default()), None);
    };
    check("FROM a\nRUN <<EOF\nset -e\na\nEOF\n", None);
    check(
        "FROM a\nRUN <<EOF\na\nb\nEOF\nRUN <<-'EOF'\n\ta\n\tb\n\tEOF\nRUN <<EOF\r\na\r\nb\r\nEOF\r\n",
        Some(
            "FROM a\nRUN <<EOF\nset -eu\na\nb\nEOF\nRUN <<-'EOF'\nset -eu\n\ta\n\tb\n\tEOF\nRUN <<EOF\r\nset -eu\r\na\r\nb\r\n\
             EOF\r\n",
        ),
    );
    check(
        "FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nRUN <<EOF\na\nb\nEOF\n",
        Some("FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nRUN <<EOF\nset -eu\na\nb\nEOF\n"),
    );
    check("FROM a\nSHELL [\"python3\", \"-c\"]\nRUN <<EOF\na\nb\nEOF\n", None);
    // Another shell in another stage is nobody's business.
    check(
        "FROM a AS b\nSHELL [\"python3\", \"-c\"]\nFROM a\nRUN <<EOF\na\nb\nEOF\n",
        Some("FROM a AS b\nSHELL [\"python3\", \"-c\"]\nFROM a\nRUN <<EOF\nset -eu\na\nb\nEOF\n"),
    );
}

#[test]
fn check_options() {
    check_rules("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER me\n", &[]);
    check_rules("# check=skip=all\nFROM a\nMAINTAINER me\n", &[]);
    let second = (Rule::MaintainerDeprecated, 5);
    check_rules("FROM a\n# check=skip=all\nMAINTAINER me\n\nMAINTAINER me\n", &[second]);
    check_rules("FROM a\n# text\n# CHECK = skip=MaintainerDeprecated\nMAINTAINER me\n", &[]);
    check_rules("FROM a\n # check=skip=MaintainerDeprecated\nMAINTAINER me\n", &[(Rule::MaintainerDeprecated, 3)]);
    // Only the first one above an instruction counts, and not for what is about the whole file.
    check_rules("FROM a\n# check=x\n# check=skip=all\nMAINTAINER me\n", &[(Rule::MaintainerDeprecated, 4)]);
    check_rules("FROM a\n# check=skip=all\nrun x\n", &[(Rule::ConsistentInstructionCasing, 3)]);
    check_rules("# check=experimental=all\n\n# text\nFROM a AS b\n", &[(Rule::InvalidDefinitionDescription, 4)]);
    check_rules("# text\nFROM a AS b\n", &[]);
    let options = Options::parse("skip=A, B;error=true").expect("well formed");
    assert_eq!((options.skip, options.error), (vec!["A".to_owned(), "B".to_owned()], true));
    assert_eq!(Options::parse("skip"), Err("skip".to_owned()));
    assert_eq!(Options::parse("x=1"), Err("x".to_owned()));
    assert_eq!(Options::parse("error=x"), Err("error=x".to_owned()));
}
