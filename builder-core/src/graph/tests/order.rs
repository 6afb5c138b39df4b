//! Which stages and images a target needs.

use super::super::*;
use super::{options, parsed, resolve};

/// The needed stages and the images that are asked for in the first round.
fn check(text: &str, target: Option<&str>, stages: &[usize], missing: &[&str]) {
    let options = Options { target: target.map(str::to_owned), ..options() };
    let plan = plan(&parsed(text), &options, &Images::new()).expect("a plan");
    let numbers: Vec<usize> = plan.stages.iter().map(|stage| stage.index).collect();
    assert_eq!(numbers, stages, "{text}");
    let names: Vec<String> = plan.missing.iter().map(|request| request.reference.familiar()).collect();
    assert_eq!(names, missing, "{text}");
}

#[test]
fn only_needed_stages_ask_for_images() {
    let text = "FROM a:1 AS one\nFROM b:1 AS two\nRUN --mount=from=c:1,target=/c x\nFROM one AS three\nCOPY --from=two / /\nFROM d:1";
    check(text, None, &[3], &["d:1"]);
    check(text, Some("three"), &[0, 1, 2], &["a:1", "b:1", "c:1"]);
    check(text, Some("TWO"), &[1], &["b:1", "c:1"]);
    check(text, Some("0"), &[0], &["a:1"]);
}

#[test]
fn every_stage_is_needed_for_checks() {
    let options = Options { all_stages: true, ..options() };
    let plan = plan(&parsed("FROM a:1\nFROM b:1"), &options, &Images::new()).expect("a plan");
    assert_eq!((plan.stages.len(), plan.missing.len()), (2, 2));
}

#[test]
fn names_of_stages_come_before_images() {
    check("FROM a:1 AS alpine\nFROM alpine", None, &[0, 1], &["a:1"]);
    check("FROM a:1 AS B\nFROM scratch\nCOPY --from=b / /", None, &[0, 1], &["a:1"]);
    // A later stage is no base: this is an image.
    check("FROM b AS a\nFROM c:1 AS b\nFROM a", None, &[0, 2], &["b:latest"]);
}

#[test]
fn the_last_of_two_stages_with_one_name_wins() {
    let text = "FROM a:1 AS x\nFROM b:1 AS x\nFROM scratch\nCOPY --from=x / /";
    check(text, None, &[1, 2], &["b:1"]);
    check(text, Some("x"), &[1], &["b:1"]);
    check("FROM a:1 AS x\nFROM x AS x\nRUN y", Some("x"), &[0, 1], &["a:1"]);
}

#[test]
fn the_last_of_two_stages_with_one_name_wins_even_if_it_comes_later() {
    let file = parsed("FROM a:1 AS x\nFROM b:1 AS y\nCOPY --from=x / /\nFROM c:1 AS x");
    let errors = plan(&file, &Options { target: Some("y".into()), ..options() }, &Images::new()).expect_err("too late");
    assert!(errors.to_string().contains("`x`"), "{errors}");
}

#[test]
fn a_base_is_looked_up_as_it_is_written() {
    check("FROM a:1 AS Build\nFROM build", None, &[0, 1], &["a:1"]);
    let file = parsed("FROM a:1 AS Build\nFROM Build");
    let errors = plan(&file, &options(), &Images::new()).expect_err("no image has such a name");
    assert!(errors.to_string().contains("must be lowercase"), "{errors}");
    assert_eq!(errors.iter().next().expect("one").hint.as_deref(), Some("did you mean stage `build`?"));
}

#[test]
fn an_image_is_asked_for_once_a_platform() {
    let text = "FROM a:1 AS x\nFROM --platform=linux/arm64 a:1\nCOPY --from=x / /\nCOPY --from=a:1 / /";
    check(text, None, &[0, 1], &["a:1", "a:1"]);
}

#[test]
fn triggers_of_a_base_may_need_more() {
    let file = parsed("FROM onbuild:1");
    let first = plan(&file, &options(), &Images::new()).expect("a plan");
    assert_eq!(first.missing.len(), 1);
    let images = resolve(&file, &options()).expect("resolves");
    let names: Vec<String> = images.keys().map(|request| request.reference.familiar()).collect();
    assert_eq!(names, ["alpine:3.20", "onbuild:1"]);
    let uses = plan(&file, &options(), &images).expect("a plan").uses;
    assert_eq!(uses[1].location.source.name(), "ONBUILD of onbuild:1");
    assert!(uses[1].origin.is_some() && uses[0].origin.is_none());
}

#[test]
fn an_unknown_image_may_be_a_misspelled_stage() {
    let file = parsed("FROM a:1 AS builder\nFROM scratch\nCOPY --from=bulider /a /\nCOPY --from=zzz /a /");
    let plan = plan(&file, &options(), &Images::new()).expect("a plan");
    let hints: Vec<_> = plan.missing.iter().map(|image| plan.first_use(image).expect("used").hint.clone()).collect();
    assert_eq!(hints, [Some("did you mean stage `builder`?".to_owned()), None]);
    let file = parsed("FROM later\nFROM a:1 AS later\nFROM 0");
    let plan = super::plan(&file, &Options { target: Some("0".into()), ..options() }, &Images::new()).expect("a plan");
    assert_eq!(plan.uses[0].hint.as_deref(), Some("stage `later` is defined later; move it before its first use"));
}
