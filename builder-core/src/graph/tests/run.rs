//! What commands see.

use super::super::*;
use super::{lowered, lowered_with, options};
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
