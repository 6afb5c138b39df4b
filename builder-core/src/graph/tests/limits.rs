//! Large and hostile input takes time and memory in proportion.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::super::*;
use super::{lowered, options, parsed};

/// A time that quadratic work on these inputs exceeds by far, and a slow machine does not.
const PATIENCE: Duration = Duration::from_secs(20);

fn within_patience(text: &str) -> Graph {
    let start = Instant::now();
    let graph = lowered(text);
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    graph
}

#[test]
fn five_thousand_stages_in_a_chain() {
    let mut text = "FROM scratch AS s0\n".to_owned();
    for stage in 1..5_000 {
        let _ = writeln!(text, "FROM s{} AS s{stage}\nENV V{stage}=1\nRUN x", stage - 1);
    }
    let graph = within_patience(&text);
    assert_eq!(graph.vertices.len(), 4_999);
    assert_eq!(graph.target.history.len(), 2 * 4_999);
    assert_eq!(graph.target.config.config.env.len(), 5_000);
}

#[test]
fn five_thousand_stages_that_copy_from_each_other() {
    let mut text = "FROM scratch AS s0\nCOPY a /\n".to_owned();
    for stage in 1..5_000 {
        let _ = writeln!(text, "FROM scratch AS s{stage}\nCOPY --from=s{} / /\nCOPY --from=s0 / /", stage - 1);
    }
    assert_eq!(within_patience(&text).vertices.len(), 1 + 2 * 4_999);
}

#[test]
fn five_thousand_stages_in_a_circle() {
    let mut text = String::new();
    for stage in 0..5_000 {
        let _ = writeln!(text, "FROM scratch AS s{stage}\nCOPY --from=s{} / /", (stage + 1) % 5_000);
    }
    let start = Instant::now();
    let errors = lower(&parsed(&text), &options(), &Images::new()).expect_err("a circle");
    assert!(matches!(errors.first().kind, GraphErrorKind::Cycle(_)));
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn five_thousand_unknown_images() {
    let mut text = String::new();
    for stage in 0..5_000 {
        let _ = writeln!(text, "FROM image{stage}x AS stage{stage}");
    }
    let options = Options { all_stages: true, ..options() };
    let start = Instant::now();
    assert_eq!(plan(&parsed(&text), &options, &Images::new()).expect("a plan").missing.len(), 5_000);
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn many_variables_and_many_commands() {
    let mut text = "FROM alpine:3.20\n".to_owned();
    for index in 0..20_000 {
        let _ = writeln!(text, "ENV V{index}=1\nRUN x");
    }
    let graph = within_patience(&text);
    let Some(Vertex { op: Op::Run(run), .. }) = graph.vertices.last() else { panic!("no RUN") };
    assert_eq!(run.env.to_vec().len(), 20_001);
}

#[test]
fn many_undefined_variables() {
    let mut text = "FROM alpine:3.20\n".to_owned();
    for index in 0..5_000 {
        let _ = writeln!(text, "ENV V{index}x=$U{index}y");
    }
    assert_eq!(within_patience(&text).warnings.len(), 5_000);
}

#[test]
fn a_history_out_of_proportion_is_an_error() {
    let mut options = options();
    options.build_args.insert("A".to_owned(), "x".repeat(1 << 20));
    let text = "FROM scratch\nARG A\n".to_owned() + &"RUN x\n".repeat(100);
    let errors = lower(&parsed(&text), &options, &Images::new()).expect_err("too long");
    assert!(matches!(errors.first().kind, GraphErrorKind::HistoryTooLong { .. }));
    assert_eq!(errors.iter().count(), 1);
}

#[test]
fn triggers_and_stages_do_not_multiply() {
    let mut text = "FROM scratch AS base\n".to_owned() + &"ONBUILD RUN x\n".repeat(1_000);
    for stage in 0..1_000 {
        let _ = writeln!(text, "FROM base AS s{stage}");
    }
    let options = Options { all_stages: true, ..options() };
    let errors = plan(&parsed(&text), &options, &Images::new()).expect_err("a million");
    assert!(matches!(errors.first().kind, GraphErrorKind::Triggers { .. }));
}

#[test]
fn doubling_variables_stop() {
    let mut text = "FROM scratch\nENV A=xxxxxxxxxxxxxxxx\n".to_owned();
    for _ in 0..40 {
        text.push_str("ENV A=$A$A$A$A\n");
    }
    assert!(lower(&parsed(&text), &options(), &Images::new()).is_err());
}
