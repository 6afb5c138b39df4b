//! [`Graph::join`]: the graphs of several platforms as one, in which what is the same is done once.

use std::collections::HashMap;

use super::{Graph, Target, Vertex, VertexId};
use crate::diagnostic::Location;

impl Graph {
    /// Adds the graph of another platform of the same Dockerfile.
    ///
    /// A vertex that does the same to the same files is not added again: a stage `FROM --platform=$BUILDPLATFORM` that
    /// does not look at the target platform runs once for all of them.
    pub fn join(&mut self, other: Self) {
        let mut known: HashMap<Place, Vec<VertexId>> = HashMap::new();
        for (id, vertex) in self.vertices.iter().enumerate() {
            known.entry(Place::of(vertex)).or_default().push(VertexId(id));
        }
        let mut numbers: Vec<VertexId> = Vec::with_capacity(other.vertices.len());
        for mut vertex in other.vertices {
            vertex.root = vertex.root.map(|root| numbers[root.0]);
            vertex.op.renumber(|input| numbers[input.0]);
            let places = known.entry(Place::of(&vertex)).or_default();
            let same = |id: &&VertexId| {
                let one = &self.vertices[id.0];
                (one.root, one.no_cache, one.time_to_live) == (vertex.root, vertex.no_cache, vertex.time_to_live)
                    && one.cache_reads == vertex.cache_reads
                    && one.op == vertex.op
            };
            if let Some(id) = places.iter().find(same) {
                numbers.push(*id);
                continue;
            }
            let id = VertexId(self.vertices.len());
            places.push(id);
            numbers.push(id);
            self.vertices.push(vertex);
        }
        for mut target in std::iter::once(other.target).chain(other.further_targets) {
            renumber(&mut target, &numbers);
            self.further_targets.push(target);
        }
        for warning in other.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}

fn renumber(target: &mut Target, numbers: &[VertexId]) {
    target.root = target.root.map(|root| numbers[root.0]);
    for step in &mut target.history {
        step.vertex = step.vertex.map(|vertex| numbers[vertex.0]);
    }
}

/// Where a vertex is written: only vertices of one place are compared.
#[derive(PartialEq, Eq, Hash)]
struct Place(Option<(String, usize)>, Option<usize>);

impl Place {
    fn of(vertex: &Vertex) -> Self {
        let start = |location: &Location| location.span.start;
        let location = vertex.location.as_ref();
        Self(
            location.map(|location| (location.source.name().to_owned(), start(location))),
            vertex.origin.as_ref().map(start),
        )
    }
}
