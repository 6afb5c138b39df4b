//! What commands see.

use super::super::*;
use super::{lowered, lowered_with, options, try_lower};
use crate::dockerfile::Network;

fn runs(graph: &Graph) -> Vec<&RunOp> {
    let run = |vertex| match vertex {
        &Vertex { op: Op::Run(ref run), .. } => Some(run),
        _ => None,
    };
    graph.vertices.iter().filter_map(run).collect()
}

/// The environment of the last `RUN`, without the `PATH`.
fn env_of(text: &str, options: &Options) -> String {
    let graph = lowered_with(text, options);
    let env = &runs(&graph).pop().expect("a RUN").env;
    let pairs = env.to_vec().into_iter().filter(|(name, _)| *name != "PATH");
    pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

// Rows: A53.
#[test]
fn the_later_one_of_arg_and_env_wins() {
    let check = |body: &str, expected: &str| {
        assert_eq!(env_of(&format!("FROM alpine:3.20\n{body}\nRUN x"), &options()), expected, "{body}");
    };
    check("ARG A=arg\nENV A=env", "A=env");
    check("ENV A=env\nARG A=arg", "A=arg");
    check("ENV A=env\nARG A", "A=env");
    check("ARG A=1\nARG A=2", "A=2");
    check("ENV A=env\nFROM alpine:3.20\nARG A=other", "A=other");
}

#[test]
fn an_argument_reaches_the_stages_built_on_its_stage_and_no_others() {
    let options = &options();
    assert_eq!(env_of("FROM alpine:3.20 AS a\nARG A=1\nFROM a\nRUN x", options), "A=1");
    assert_eq!(
        env_of("FROM alpine:3.20 AS a\nARG A=1\nRUN y\nFROM alpine:3.20\nCOPY --from=a / /\nRUN x", options),
        ""
    );
    assert_eq!(env_of("FROM alpine:3.20 AS a\nARG A=arg\nFROM a\nENV A=env\nRUN x", options), "A=env");
    assert_eq!(env_of("FROM alpine:3.20 AS a\nENV A=env\nFROM a\nARG A=arg\nRUN x", options), "A=arg");
}

#[test]
fn a_build_argument_needs_a_declaration() {
    let mut options = options();
    options.build_args.insert("A".to_owned(), "given".to_owned());
    assert_eq!(env_of("FROM alpine:3.20\nRUN x", &options), "");
    assert_eq!(env_of("FROM alpine:3.20\nARG A\nRUN x", &options), "A=given");
    assert_eq!(env_of("FROM alpine:3.20\nARG A=default\nRUN x", &options), "A=given");
    assert_eq!(env_of("ARG A=global\nFROM alpine:3.20\nRUN x", &options), "");
    assert_eq!(env_of("ARG A=global\nFROM alpine:3.20\nARG A=own\nRUN x", &super::options()), "A=own");
    assert_eq!(env_of("ARG A=global\nFROM alpine:3.20\nARG A\nRUN x", &super::options()), "A=global");
}

// Rows: A59.
#[test]
fn arguments_of_the_builder_never_reach_a_command() {
    let text = "FROM alpine:3.20\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x";
    assert_eq!(env_of(text, &options()), "");
}

// Rows: A57.
#[test]
fn proxies_are_seen_and_not_keyed_unless_declared() {
    let mut options = options();
    options.build_args.insert("HTTP_PROXY".to_owned(), "p".to_owned());
    options.build_args.insert("ftp_proxy".to_owned(), String::new());
    let graph = lowered_with("FROM alpine:3.20\nRUN x\nARG HTTP_PROXY\nRUN y", &options);
    let unkeyed: Vec<Vec<&str>> =
        runs(&graph).iter().map(|run| run.unkeyed_env.iter().map(|(name, _)| name.as_str()).collect()).collect();
    assert_eq!(unkeyed, [["HTTP_PROXY", "http_proxy"]; 2]);
    assert_eq!(runs(&graph)[1].env.get("HTTP_PROXY"), Some("p"));
    assert_eq!(graph.target.history[0].entry.created_by, "RUN /bin/sh -c x # buildkit");
    assert_eq!(graph.target.history[2].entry.created_by, "RUN |1 HTTP_PROXY=p /bin/sh -c y # buildkit");
    assert!(graph.unused_build_args.is_empty());
}

#[test]
fn the_network_of_the_build_is_the_default() {
    let options = Options { network: Network::None, ..options() };
    let graph = lowered_with("FROM alpine:3.20\nRUN a\nRUN --network=default b\nRUN --network=host c", &options);
    let networks: Vec<_> = runs(&graph).iter().map(|run| run.network).collect();
    assert_eq!(networks, [Network::None, Network::None, Network::Host]);
}

#[test]
fn secrets_are_stars_in_names() {
    let graph = lowered("FROM alpine:3.20\nENV T=env\nRUN --mount=type=secret,id=t,env=T echo $T \"$T\" '$T' $U");
    assert!(graph.vertices[1].name.ends_with("echo **** \"****\" '$T' $U"), "{}", graph.vertices[1].name);
}

#[test]
fn a_vertex_knows_what_it_reads() {
    let graph = lowered(
        "FROM alpine:3.20 AS a\nRUN x\nFROM other:1 AS b\nRUN --mount=from=a,target=/a --mount=type=cache,from=a,target=/c y",
    );
    let last = graph.vertices.last().expect("a vertex");
    assert_eq!(last.op.inputs(), [VertexId(1), VertexId(1)]);
    for (id, vertex) in graph.vertices.iter().enumerate() {
        assert!(vertex.op.inputs().into_iter().chain(vertex.root).all(|input| input.0 < id));
    }
}

fn only_run(text: &str) -> RunOp {
    let runs = lowered(text).vertices.into_iter().filter_map(|vertex| match vertex.op {
        Op::Run(run) => Some(run),
        _ => None,
    });
    runs.last().expect("a RUN")
}

// Rows: A45.
#[test]
fn heredocs_that_end_at_their_first_failure() {
    let check = |run: &str, expected: &[&str]| {
        assert_eq!(only_run(&format!("# rbuild: heredoc=errexit\nFROM scratch\n{run}\n")).args, expected, "{run}");
    };
    check("RUN <<EOF\na\nb\nEOF", &["/bin/sh", "-c", "set -e\na\nb\n"]);
    check("RUN <<-EOF\n\ta\nEOF", &["/bin/sh", "-c", "set -e\na\n"]);
    check("SHELL [\"busybox\", \"ash\", \"-c\"]\nRUN <<EOF\na\nEOF", &["busybox", "ash", "-c", "set -e\na\n"]);
    check("RUN cat <<EOF\na\nEOF", &["/bin/sh", "-c", "cat <<EOF\na\nEOF"]);
    check("RUN <<EOF\n#!/bin/sh\na\nEOF", &["/bin/sh", "-c", "/dev/pipes/EOF"]);
    check("RUN a", &["/bin/sh", "-c", "a"]);

    let text = "# rbuild: heredoc=errexit\nFROM scratch\nSHELL [\"cmd\", \"/S\"]\nRUN <<EOF\na\nEOF\n";
    let errors = try_lower(text, &options()).expect_err("no POSIX shell");
    assert_eq!(errors.first().kind, GraphErrorKind::ErrexitShell("cmd /S".to_owned()));
}

// Rows: A6.
#[test]
fn a_line_that_no_argument_can_hold_is_read_from_a_file() {
    for (length, file) in [((128 << 10) - 1, false), (128 << 10, true)] {
        let line = "x".repeat(length);
        let run = only_run(&format!("FROM scratch\nRUN {line}\n"));
        let script = run.script.map(|script| (script.name, script.body));
        if file {
            assert_eq!(run.args, ["/bin/sh", "-c", ". /dev/pipes/RUN"]);
            assert_eq!(script, Some(("RUN".to_owned(), line.clone())));
        } else {
            assert_eq!((run.args.last(), script), (Some(&line), None));
        }
    }
    let line = "x".repeat(128 << 10);
    let graph = lowered(&format!("FROM scratch\nRUN {line}\n"));
    assert_eq!(graph.target.history[0].entry.created_by, format!("RUN /bin/sh -c {line} # buildkit"));
    let other = only_run(&format!("FROM scratch\nSHELL [\"pwsh\"]\nRUN {line}\n"));
    assert_eq!((other.args.len(), other.script.is_none()), (2, true));
}
