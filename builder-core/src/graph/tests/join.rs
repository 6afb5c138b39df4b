//! Graphs of several platforms become one.

use super::super::*;
use super::{lowered_with, options};

fn joined(text: &str, platforms: &[&str]) -> Graph {
    let graphs = platforms.iter().map(|platform| {
        let platform = platform.parse().expect("a platform");
        lowered_with(text, &Options { platform, explicit_platform: true, name_platform: true, ..options() })
    });
    graphs
        .reduce(|mut graph, other| {
            graph.join(other);
            graph
        })
        .expect("a platform")
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.vertices.iter().map(|vertex| vertex.name.as_str()).collect()
}

#[test]
fn what_does_not_look_at_the_target_is_shared() {
    let text = "FROM --platform=$BUILDPLATFORM alpine:3.20 AS b\nRUN x\nARG TARGETARCH\nRUN y\nFROM scratch\n\
                COPY --from=b / /\nCOPY --from=other:1 /a /\nRUN --mount=from=b,target=/b z";
    let graph = joined(text, &["linux/amd64", "linux/arm64", "linux/arm64/v9"]);
    let count = |text: &str| names(&graph).iter().filter(|name| name.contains(text)).count();
    assert_eq!(
        [count("FROM docker.io/library/alpine"), count("RUN x"), count("RUN y"), count("RUN --mount")],
        [1, 1, 2, 3]
    );
    // Images that are only copied from have the platform of the target.
    assert_eq!(count("FROM docker.io/library/other"), 3);
    let targets: Vec<_> = graph.targets().map(|target| target.config.platform().to_string()).collect();
    assert_eq!(targets, ["linux/amd64", "linux/arm64", "linux/arm64/v9"]);
    for (id, vertex) in graph.vertices.iter().enumerate() {
        for input in vertex.root.into_iter().chain(vertex.op.inputs()) {
            assert!(input.0 < id, "{} comes before what it needs", vertex.name);
        }
    }
    for target in graph.targets() {
        let last = target.history.last().and_then(|step| step.vertex);
        assert_eq!(last, target.root, "the history names the vertices of its own target");
    }
}

#[test]
fn the_same_text_on_another_root_is_not_the_same() {
    let graph = joined("FROM alpine:3.20\nRUN x\nCOPY a /", &["linux/amd64", "linux/arm64"]);
    assert_eq!(graph.vertices.len(), 6);
    assert_ne!(graph.target.root, graph.further_targets[0].root);
}
