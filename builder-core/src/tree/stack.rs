//! [`Stack`]: layers on top of each other, seen as one root filesystem.

use std::collections::BTreeMap;

use super::{Entry, Node, StateDigest, Tree, TreeBuilder};
use crate::rootfs::RootPath;

/// Most symbolic links followed in one path, as in Linux (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// The trees of a root filesystem, lowest first. Cloning is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stack {
    trees: Vec<Tree>,
}

/// An entry, and which layer it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Index of the layer, 0 the lowest.
    pub layer: usize,
    /// The entry; never a whiteout.
    pub entry: Entry,
}

/// A path cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Links lead to links without end.
    #[error("too many symbolic links in `{0}`")]
    Loop(RootPath),
    /// A component that should be a directory is something else.
    #[error("`{0}` is not a directory")]
    NotADirectory(RootPath),
    /// The target of a link is not a path.
    #[error("the target of the symbolic link `{0}` is not a valid path")]
    Target(RootPath),
    /// A relative link in an archive leads above the directory that it is unpacked into.
    #[error("a symbolic link in `{0}` leads out of the directory that the archive is unpacked into")]
    Outside(RootPath),
}

impl Stack {
    /// The stack of these trees, lowest first.
    pub fn new(trees: Vec<Tree>) -> Self {
        Self { trees }
    }

    /// The trees, lowest first.
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// Puts a layer on top.
    pub fn push(&mut self, tree: Tree) {
        self.trees.push(tree);
    }

    /// Identity of what the stack holds, times left out.
    pub fn state(&self) -> StateDigest {
        let mut hasher = blake3::Hasher::new();
        for tree in self.trees.iter().filter(|tree| !tree.is_empty()) {
            hasher.update(tree.semantic().as_bytes());
        }
        StateDigest::new(*hasher.finalize().as_bytes())
    }

    /// The entry of exactly this path; symbolic links are not followed. The root always exists.
    pub fn lookup(&self, path: &RootPath) -> Option<Found> {
        for (layer, tree) in self.trees.iter().enumerate().rev() {
            if let Some(entry) = tree.get(path) {
                return (entry.node != Node::Whiteout).then_some(Found { layer, entry });
            }
            if hides_below(tree, path) {
                return None;
            }
        }
        path.is_root()
            .then(|| Found { layer: 0, entry: Entry::directory(RootPath::root(), 0o755, 0, 0, super::Time::default()) })
    }

    /// Follows symbolic links in `path`, those in its last component included if `follow_last`; absolute links start
    /// at the root. What does not exist is taken as it is written.
    ///
    /// # Errors
    /// Every case of [`ResolveError`].
    pub fn resolve(&self, path: &RootPath, follow_last: bool) -> Result<RootPath, ResolveError> {
        self.resolve_noting(path, follow_last, &mut |_| {})
    }

    /// The same; `note` gets each path that is looked up on the way.
    ///
    /// # Errors
    /// Every case of [`ResolveError`].
    pub fn resolve_noting(
        &self,
        path: &RootPath,
        follow_last: bool,
        note: &mut dyn FnMut(&RootPath),
    ) -> Result<RootPath, ResolveError> {
        let mut pending: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut resolved = RootPath::root();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    resolved = resolved.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = resolved.child(&component);
            note(&next);
            match self.lookup(&next).map(|found| found.entry.node) {
                Some(Node::Symlink { target }) if follow_last || !pending.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ResolveError::Loop(path.clone()));
                    }
                    if target.is_empty() || target.contains(&0) || target.len() > 4095 {
                        return Err(ResolveError::Target(next));
                    }
                    if target.starts_with(b"/") {
                        resolved = RootPath::root();
                    }
                    pending.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                Some(Node::Directory { .. }) | None => resolved = next,
                Some(_) if pending.iter().all(|rest| rest.is_empty() || rest == b".") => resolved = next,
                Some(_) => return Err(ResolveError::NotADirectory(next)),
            }
        }
        Ok(resolved)
    }

    /// Everything at `path` and below it, in order, as the merged filesystem shows it: no whiteout, no opaque mark.
    /// Symbolic links are not followed. Empty if `path` does not exist.
    pub fn select(&self, path: &RootPath) -> Vec<Found> {
        let mut merged: BTreeMap<RootPath, Found> = BTreeMap::new();
        for (layer, tree) in self.trees.iter().enumerate() {
            if hides_below(tree, path) {
                merged.clear();
            }
            for mut entry in tree.below(path) {
                let hides = match &mut entry.node {
                    Node::Directory { opaque } => std::mem::take(opaque),
                    _ => true,
                };
                if hides {
                    remove_below(&mut merged, &entry.path);
                }
                if entry.node == Node::Whiteout {
                    merged.remove(&entry.path);
                } else {
                    merged.insert(entry.path.clone(), Found { layer, entry });
                }
            }
        }
        merged.into_values().collect()
    }

    /// The names in a directory, sorted, each with its entry. Empty if it is not a directory.
    pub fn children(&self, directory: &RootPath) -> Vec<Found> {
        let mut merged: BTreeMap<RootPath, Found> = BTreeMap::new();
        for (layer, tree) in self.trees.iter().enumerate() {
            let own = tree.get(directory).map(|entry| entry.node);
            if hides_below(tree, directory) || own.is_some_and(|node| node != Node::Directory { opaque: false }) {
                merged.clear();
            }
            for mut entry in tree.children(directory) {
                match &mut entry.node {
                    Node::Whiteout => {
                        merged.remove(&entry.path);
                        continue;
                    }
                    Node::Directory { opaque } => *opaque = false,
                    _ => {}
                }
                merged.insert(entry.path.clone(), Found { layer, entry });
            }
        }
        merged.into_values().collect()
    }

    /// The whole merged filesystem as one tree.
    pub fn flatten(&self) -> Tree {
        let mut builder = TreeBuilder::new();
        // Numbers are unique within one layer only.
        let mut numbers: BTreeMap<(usize, u32), u32> = BTreeMap::new();
        for Found { layer, mut entry } in self.select(&RootPath::root()) {
            if let Node::File { link, .. } = &mut entry.node
                && *link != 0
            {
                let next = u32::try_from(numbers.len()).expect("fewer than 2^32 paths") + 1;
                *link = *numbers.entry((layer, *link)).or_insert(next);
            }
            builder.push(entry);
        }
        builder.finish()
    }
}

/// Whether a layer hides what lower layers have at `path` through one of the directories above it.
fn hides_below(tree: &Tree, path: &RootPath) -> bool {
    path.ancestors().any(|ancestor| match tree.get(&ancestor) {
        Some(Entry { node: Node::Directory { opaque }, .. }) => opaque,
        Some(_) => true,
        None => false,
    })
}

fn remove_below(merged: &mut BTreeMap<RootPath, Found>, directory: &RootPath) {
    let below: Vec<RootPath> = merged
        .range(directory.clone()..)
        .take_while(|(path, _)| path.starts_with(directory))
        .filter(|(path, _)| *path != directory)
        .map(|(path, _)| path.clone())
        .collect();
    for path in below {
        merged.remove(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ContentDigest, Time};

    fn path(text: &str) -> RootPath {
        RootPath::clean(text).expect("clean")
    }

    /// `d/` directory, `D/` opaque directory, `-x` whiteout, `l>t` link, else a file holding its own text.
    fn tree(entries: &[&str]) -> Tree {
        let mut builder = TreeBuilder::new();
        for text in entries {
            let directory = |name: &str, opaque| Entry {
                node: Node::Directory { opaque },
                ..Entry::directory(path(name), 0o755, 0, 0, Time::default())
            };
            builder.push(if let Some(name) = text.strip_prefix('-') {
                Entry::whiteout(path(name))
            } else if let Some((name, target)) = text.split_once('>') {
                Entry { node: Node::Symlink { target: target.into() }, ..directory(name, false) }
            } else if let Some(name) = text.strip_suffix("//") {
                directory(name, true)
            } else if let Some(name) = text.strip_suffix('/') {
                directory(name, false)
            } else {
                let (name, content) = text.split_once('=').unwrap_or((text, text));
                let content = ContentDigest::of(content.as_bytes());
                Entry { node: Node::File { size: 1, content, link: 0 }, ..directory(name, false) }
            });
        }
        builder.finish()
    }

    fn shown(stack: &Stack, at: &str) -> Vec<String> {
        stack.select(&path(at)).iter().map(|found| format!("{}:{}", found.layer, found.entry.path)).collect()
    }

    #[test]
    fn upper_layers_replace_remove_and_hide() {
        let stack = Stack::new(vec![
            tree(&["a/", "a/x", "a/y", "b/", "b/z", "c", "d/", "d/e/", "d/e/f"]),
            tree(&["a/", "-a/x", "b//", "b/new", "c/", "c/in", "-d/e"]),
        ]);
        assert_eq!(shown(&stack, "/"), ["1:/a", "0:/a/y", "1:/b", "1:/b/new", "1:/c", "1:/c/in", "0:/d"]);
        assert_eq!(shown(&stack, "/a"), ["1:/a", "0:/a/y"]);
        assert_eq!(shown(&stack, "/d/e"), [""; 0]);
        assert_eq!(shown(&stack, "/d/e/f"), [""; 0]);
        for (at, layer) in [("/a/y", Some(0)), ("/a/x", None), ("/b/z", None), ("/c/in", Some(1)), ("/d/e/f", None)] {
            assert_eq!(stack.lookup(&path(at)).map(|found| found.layer), layer, "{at}");
        }
        assert!(stack.lookup(&RootPath::root()).is_some());
        for directory in ["/", "/a", "/b", "/c", "/d", "/d/e", "/none", "/a/y"] {
            let depth = path(directory).components().count() + 1;
            let mut expected = stack.select(&path(directory));
            expected.retain(|found| found.entry.path.components().count() == depth);
            assert_eq!(stack.children(&path(directory)), expected, "{directory}");
        }
        assert_eq!(stack.flatten().len(), 7);
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let stack = Stack::new(vec![tree(&[
            "run/",
            "var/",
            "var/run>/run",
            "up>../../../etc",
            "etc/",
            "loop>loop",
            "f",
            "rel>var/run/x",
            "dot>./var/.",
        ])]);
        for (input, last, expected) in [
            ("/var/run/x", true, "/run/x"),
            ("/var/run", false, "/var/run"),
            ("/var/run", true, "/run"),
            ("/up/passwd", true, "/etc/passwd"),
            ("/rel", true, "/run/x"),
            ("/not/there", true, "/not/there"),
            ("/dot/run", true, "/run"),
        ] {
            assert_eq!(stack.resolve(&path(input), last).expect(input), path(expected), "{input}");
        }
        assert_eq!(stack.resolve(&path("/loop/x"), true), Err(ResolveError::Loop(path("/loop/x"))));
        assert_eq!(stack.resolve(&path("/f/x"), true), Err(ResolveError::NotADirectory(path("/f"))));
    }

    #[test]
    fn the_state_ignores_times_and_empty_layers_and_sees_content_and_order() {
        let (a, b) = (tree(&["f=1"]), tree(&["f=2"]));
        let state = |trees: &[&Tree]| Stack::new(trees.iter().map(|tree| (*tree).clone()).collect()).state();
        assert_eq!(state(&[&a, &Tree::empty(), &b]), state(&[&a, &b]));
        assert_ne!(state(&[&a, &b]), state(&[&b, &a]));
        assert_ne!(state(&[&a]), state(&[]));
    }
}
