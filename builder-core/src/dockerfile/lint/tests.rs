use super::super::parse;
use super::*;

fn warnings(text: &str) -> Vec<LintWarning> {
    let file = parse(&Source::new("Dockerfile", text.as_bytes())).expect(text);
    Options::of(&file).filter(&file, check(&file, &|_| true))
}

fn check_rules(text: &str, expected: &[(Rule, usize)]) {
    let found: Vec<_> = warnings(text).into_iter().map(|warning| (warning.rule, warning.line)).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn rules_have_names_and_pages() {
    for rule in Rule::ALL {
        assert_eq!(Rule::find(rule.name()), Some(*rule));
        assert!(rule.url().starts_with("https://docs.docker.com/go/dockerfile/rule/") && rule.url().ends_with('/'));
    }
    assert_eq!(Rule::ALL.len(), 22);
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
    check_rules("FROM a\nENV a b\nLABEL c d\n", &[(Rule::LegacyKeyValueFormat, 2), (Rule::LegacyKeyValueFormat, 3)]);
    check_rules("FROM a\nRUN b \\\n\n  c\n", &[(Rule::NoEmptyContinuation, 4)]);
}

#[test]
fn commands() {
    check_rules("FROM a\nCMD x\nENTRYPOINT y\n", &[(Rule::JsonArgsRecommended, 2), (Rule::JsonArgsRecommended, 3)]);
    check_rules("FROM a AS b\nSHELL [\"sh\"]\nCMD x\nFROM b\nCMD y\n", &[]);
    let twice = (Rule::MultipleInstructionsDisallowed, 2);
    check_rules("FROM a\nCMD [\"x\"]\nCMD [\"y\"]\n", &[twice]);
    check_rules("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK NONE\nFROM a\nHEALTHCHECK NONE\n", &[twice]);
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
fn other_instructions() {
    check_rules("FROM a\nWORKDIR b\nWORKDIR c\n", &[(Rule::WorkdirRelativePath, 2)]);
    check_rules("FROM a\nWORKDIR $X\nWORKDIR c\n", &[]);
    check_rules(
        "FROM a\nARG API_KEY\nENV PASSWORD=1 PUBLIC_KEY=2 KEYS=3\n",
        &[(Rule::SecretsUsedInArgOrEnv, 2), (Rule::SecretsUsedInArgOrEnv, 3)],
    );
    check_rules("FROM a\nEXPOSE 80/TCP\nEXPOSE 1:2\n", &[(Rule::ExposeProtoCasing, 2), (Rule::ExposeInvalidFormat, 3)]);
}

#[test]
fn check_options() {
    check_rules("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER me\n", &[]);
    check_rules("# check=skip=all\nFROM a\nMAINTAINER me\nCMD x\n", &[]);
    let cmd = (Rule::JsonArgsRecommended, 5);
    check_rules("FROM a\n# check=skip=all\nMAINTAINER me\n\nCMD x\n", &[cmd]);
    check_rules("FROM a\n# check=skip=JSONArgsRecommended\nCMD x\n", &[]);
    check_rules("# check=experimental=all\n\n# text\nFROM a AS b\n", &[(Rule::InvalidDefinitionDescription, 4)]);
    check_rules("# text\nFROM a AS b\n", &[]);
    let options = Options::parse("skip=A, B;error=true").expect("well formed");
    assert_eq!((options.skip, options.error), (vec!["A".to_owned(), "B".to_owned()], true));
    assert_eq!(Options::parse("skip"), Err("skip".to_owned()));
    assert_eq!(Options::parse("x=1"), Err("x".to_owned()));
    assert_eq!(Options::parse("error=x"), Err("error=x".to_owned()));
}

#[test]
fn unneeded_stages_are_not_judged() {
    let file = parse(&Source::new("Dockerfile", &b"FROM a AS b\nCMD x\nFROM a\n"[..])).expect("well formed");
    assert!(check(&file, &|index| index == 1).is_empty());
    assert_eq!(check(&file, &|_| true).len(), 1);
}
