//! Stages that need themselves.

use std::collections::HashSet;

use super::{Base, Foreign, Stages, names_in};
use crate::diagnostic::Span;
use crate::dockerfile::{Instruction, InstructionKind, Word};
use crate::graph::error::{GraphError, GraphErrorKind};

impl Stages<'_> {
    /// Reports stages that need themselves. Only an edge that does not lead back in the file can close a circle.
    pub(super) fn find_cycles(&mut self) {
        let mut edges: Vec<Vec<(usize, Span, usize)>> = Vec::with_capacity(self.list.len());
        for stage in &self.list {
            let mut targets = Vec::new();
            for instruction in stage.body {
                for (name, span) in names_in(instruction) {
                    match self.foreign(&name) {
                        Ok(Foreign::Stage(other)) => targets.push((other, span, instruction.start_line())),
                        Ok(_) | Err(_) => self.has_foreign = true,
                    }
                }
                self.has_foreign |= uses_empty_cache(instruction);
            }
            if let Base::Stage(base) = stage.base {
                targets.push((base, stage.from.image.span, stage.instruction.start_line()));
            }
            edges.push(targets);
        }
        for cycle in cycles(&edges) {
            let mut names = Vec::new();
            for (user, at) in &cycle {
                let (_, span, line) = edges[*user][*at];
                self.circular.insert(span);
                names.push(format!("`{}` needs (line {line})", self.title(*user)));
            }
            let (user, at) = cycle[0];
            let location = self.input.location(edges[user][at].1);
            let text = format!("{} `{}`", names.join(" "), self.title(user));
            self.errors.push(GraphError::new(GraphErrorKind::Cycle(text)).at(location));
        }
    }
}

/// Circles in a graph, each as the edges that make it: (node, number of its edge). Without recursion; every node that
/// was left once is done.
fn cycles(edges: &[Vec<(usize, Span, usize)>]) -> Vec<Vec<(usize, usize)>> {
    let mut done = vec![false; edges.len()];
    let mut found = Vec::new();
    for start in 0..edges.len() {
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        let mut on_path = HashSet::from([start]);
        while let Some((node, next)) = path.pop() {
            if done[node] || next == edges[node].len() {
                done[node] = true;
                on_path.remove(&node);
                continue;
            }
            let to = edges[node][next].0;
            path.push((node, next + 1));
            if on_path.contains(&to) {
                let from = path.iter().position(|(node, _)| *node == to).expect("it is on the path");
                found.push(path[from..].iter().map(|(node, next)| (*node, next - 1)).collect());
            } else if !done[to] {
                path.push((to, 0));
                on_path.insert(to);
            }
        }
    }
    found
}

/// A cache mount without `from=` starts from `scratch`, as if that were written.
fn uses_empty_cache(instruction: &Instruction) -> bool {
    let is_cache = |word: &Word| word.text.split(',').any(|field| field.trim().eq_ignore_ascii_case("type=cache"));
    matches!(&instruction.kind, InstructionKind::Run(run) if run.parts().mounts.iter().any(is_cache))
}
