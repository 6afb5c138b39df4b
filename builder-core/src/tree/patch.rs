//! [`Tree::patched`]: a tree that says most of what another one says, made from its bytes.

use std::ops::Range;

use super::Tree;
use super::encoding::Writer;
use super::parts::Parts;
use crate::rootfs::RootPath;

impl Tree {
    /// This tree with the entries of `with`, and without those that are right in one of the directories `renewed`. Of two
    /// entries with one path, that of `with` stays.
    ///
    /// It is what [`TreeBuilder`](super::TreeBuilder) makes of the same entries, without decoding those that stay. `None`
    /// if there are hard links, whose numbers one entry alone does not decide.
    pub fn patched<'a>(&self, renewed: impl IntoIterator<Item = &'a RootPath>, with: &Self) -> Option<Self> {
        let size = self.as_bytes().len() + with.as_bytes().len();
        let mut patch = Patch { writer: Writer::new(self.len() + with.len(), size), linked: false };
        let places: Vec<usize> = (0..with.len()).map(|new| self.lower_bound(with.path(new))).collect();
        let replaced = places
            .iter()
            .enumerate()
            .filter(|(new, place)| **place < self.len() && self.path(**place) == with.path(*new));
        let mut gone: Vec<usize> = replaced.map(|(_, place)| *place).collect();
        gone.extend(renewed.into_iter().flat_map(|directory| self.child_numbers(directory)));
        gone.sort_unstable();
        gone.dedup();

        let mut gone = gone.into_iter().peekable();
        let mut at = 0;
        let mut keep_until = |end: usize, patch: &mut Patch| {
            while let Some(next) = gone.next_if(|next| *next < end) {
                patch.copy(self, at..next);
                at = next + 1;
            }
            patch.copy(self, at..end);
            at = at.max(end);
        };
        for (new, place) in places.into_iter().enumerate() {
            keep_until(place, &mut patch);
            patch.copy(with, new..new + 1);
        }
        keep_until(self.len(), &mut patch);
        (!patch.linked).then(|| patch.writer.finish())
    }
}

struct Patch {
    writer: Writer,
    linked: bool,
}

impl Patch {
    fn copy(&mut self, from: &Tree, entries: Range<usize>) {
        if entries.is_empty() {
            return;
        }
        let mut start = self.writer.bytes.len();
        self.writer.bytes.extend_from_slice(from.encoded_range(entries.clone()));
        for index in entries {
            let encoded = from.encoded(index);
            let Parts { link, times, .. } = Parts::of(encoded);
            self.linked |= link != 0;
            let end = start + encoded.len();
            self.writer.note_within(start..end, start + times.start..start + times.end);
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::rootfs::RootPath;
    use crate::tree::{ContentDigest, Entry, Node, Time, TreeBuilder};

    fn tree<'a>(entries: impl IntoIterator<Item = (&'a str, i64)>) -> Tree {
        let mut builder = TreeBuilder::new();
        for (name, number) in entries {
            let path = RootPath::clean(name).expect("clean");
            let node = if name.ends_with('/') {
                Node::Directory { opaque: false }
            } else if name.ends_with('l') {
                Node::Symlink { target: number.to_string().into_bytes() }
            } else {
                Node::File { size: 1, content: ContentDigest::of(&number.to_le_bytes()), link: 0 }
            };
            builder.push(Entry { node, ..Entry::directory(path, 0o755, 0, 0, Time::from_seconds(number)) });
        }
        builder.finish()
    }

    /// A path as the entry's and its parent's.
    fn parent(name: &str) -> &str {
        let name = name.trim_end_matches('/');
        name.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    #[test]
    fn a_patched_tree_is_the_one_that_is_made_of_its_entries() {
        let all = ["/", "a/", "a/b/", "a/b/c", "a/b-", "a/bl", "a-/", "a-/x", "b", "b.d/", "b.d/e/", "b.d/e/f", "z"];
        let directories = ["", "a", "a/b", "a-", "b.d", "b.d/e"];
        let mut random = 7_u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for round in 0..3000 {
            let mut some =
                |number, share| all.iter().filter(|_| next(share) != 0).map(|name| (*name, number)).collect::<Vec<_>>();
            let (old, with) = (some(1, 5), some(2, 2));
            let renewed: HashSet<&str> = directories.iter().copied().filter(|_| next(3) == 0).collect();
            let stays = |name: &str| name == "/" || !renewed.contains(parent(name));
            let mut expected: BTreeMap<&str, i64> = old.iter().copied().filter(|(name, _)| stays(name)).collect();
            expected.extend(with.iter().copied());
            let paths: Vec<RootPath> = renewed.iter().map(|name| RootPath::clean(name).expect("clean")).collect();
            let found = tree(old.clone()).patched(&paths, &tree(with.clone())).expect("no hard links");
            let expected = tree(expected);
            assert_eq!(found, expected, "round {round}: {old:?} with {with:?}, anew {renewed:?}");
            assert_eq!((found.id(), found.semantic()), (expected.id(), expected.semantic()));
        }
    }

    #[test]
    fn hard_links_are_left_to_others() {
        let linked = |names: &[&str]| {
            let mut builder = TreeBuilder::new();
            for name in names {
                let path = RootPath::clean(name).expect("clean");
                let node = Node::File { size: 1, content: ContentDigest::of(b"x"), link: 1 };
                builder.push(Entry { node, ..Entry::directory(path, 0o755, 0, 0, Time::default()) });
            }
            builder.finish()
        };
        let plain = tree([("x", 1)]);
        assert_eq!(plain.patched([], &linked(&["a", "b"])), None);
        assert_eq!(linked(&["a", "b"]).patched([], &plain), None);
        assert!(linked(&["a"]).patched([], &plain).is_some(), "a group of one is none");
    }
}
