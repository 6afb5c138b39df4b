//! [`Tree::patched`]: a tree that says most of what another one says, made of its pieces.

use super::Tree;
use super::piece::PieceWriter;
use crate::rootfs::RootPath;

impl Tree {
    /// This tree with the entries of `with`, and without those that are right in one of the directories `renewed`. Of two
    /// entries with one path, that of `with` stays.
    ///
    /// It is what [`TreeBuilder`](super::TreeBuilder) makes of the same entries; only pieces that differ are written. `None`
    /// if there are hard links, whose numbers one entry alone does not decide.
    pub fn patched<'a>(&self, renewed: impl IntoIterator<Item = &'a RootPath>, with: &Self) -> Option<Self> {
        if self.has_links() || with.has_links() {
            return None;
        }
        if self.is_empty() {
            return Some(with.clone());
        }
        // Entries of `with` come before those with these numbers.
        let places: Vec<usize> = (0..with.len()).map(|new| self.lower_bound(with.path(new))).collect();
        let is_replaced =
            |(new, place): &(usize, &usize)| **place < self.len() && self.path(**place) == with.path(*new);
        let mut gone: Vec<usize> = places.iter().enumerate().filter(is_replaced).map(|(_, place)| *place).collect();
        gone.extend(renewed.into_iter().flat_map(|directory| self.child_numbers(directory)));
        gone.sort_unstable();
        gone.dedup();

        let touched = self.touched(&gone, &places);
        let mut patch = Patch { tree: self, with, gone: &gone, places: &places, copied: 0 };
        let mut pieces = Vec::with_capacity(self.pieces().len());
        let mut next = 0;
        while next < touched.len() {
            if touched[next] {
                let end =
                    touched[next..].iter().position(|touched| !touched).map_or(touched.len(), |length| next + length);
                pieces.extend(patch.rewrite(self.start_of(next), self.start_of(end)).finish());
                next = end;
            } else {
                pieces.push(self.pieces()[next].clone());
                next += 1;
            }
        }
        Some(Self::of_pieces(pieces, Some(self.id())))
    }

    /// Which pieces do not stay: what comes into a piece or goes does not say where the next one begins.
    fn touched(&self, gone: &[usize], places: &[usize]) -> Vec<bool> {
        let mut touched = vec![false; self.pieces().len()];
        for index in gone {
            let (piece, at) = self.place(*index);
            touched[piece] = true;
            // Without its first entry the rest belongs to the piece before.
            if at == 0 && piece > 0 {
                touched[piece - 1] = true;
            }
        }
        for place in places {
            touched[self.place(place.saturating_sub(1)).0] = true;
        }
        touched
    }
}

struct Patch<'a> {
    tree: &'a Tree,
    with: &'a Tree,
    /// Numbers of entries that do not stay, in order.
    gone: &'a [usize],
    /// For each entry of `with` the number of the one that it comes before.
    places: &'a [usize],
    /// How many entries of `with` are written.
    copied: usize,
}

impl Patch<'_> {
    /// Writes what becomes of some entries, those of `with` between them and after them too.
    fn rewrite(&mut self, start: usize, end: usize) -> PieceWriter {
        let mut writer = PieceWriter::new(0, 0);
        for index in start..end {
            self.copy_until(index, &mut writer);
            if self.gone.binary_search(&index).is_err() {
                writer.copy(self.tree.encoded(index));
            }
        }
        self.copy_until(end, &mut writer);
        writer
    }

    /// Writes the entries of `with` that come before an entry.
    fn copy_until(&mut self, index: usize, writer: &mut PieceWriter) {
        while self.places.get(self.copied).is_some_and(|place| *place <= index) {
            writer.copy(self.with.encoded(self.copied));
            self.copied += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::rootfs::RootPath;
    use crate::tree::{ContentDigest, Entry, Node, Time, TreeBuilder, piece};

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
    fn pieces_begin_where_they_do_in_a_tree_that_is_made_at_once() {
        let names: Vec<String> = (0..2400).map(|number| format!("{:03}/{}", number / 2, number % 2)).collect();
        let begins = |at: &usize| piece::begins(names[*at].as_bytes());
        let firsts: Vec<usize> = (0..2400).filter(begins).collect();
        assert!(firsts.len() > 4, "{firsts:?}");
        // Beginnings, what is beside them, and both ends: there, gone, another one, and come.
        let around = firsts.iter().flat_map(|first| first.saturating_sub(3)..(first + 4).min(2400));
        for at in around.chain([0, 1, 2, 2397, 2398, 2399]) {
            let of = |changed: Option<i64>| {
                let number = |number| if number == at { changed } else { Some(1) };
                let entries =
                    names.iter().enumerate().filter_map(|(place, name)| Some((name.as_str(), number(place)?)));
                tree(entries)
            };
            let directory = RootPath::clean(parent(&names[at])).expect("clean");
            let its = |tree: &Tree| {
                let mut builder = TreeBuilder::new();
                tree.children(&directory).for_each(|entry| builder.push(entry));
                builder.finish()
            };
            for (before, after) in
                [(Some(1), None), (Some(1), Some(2)), (None, Some(1)), (Some(1), Some(1)), (None, None)]
            {
                let (before, after) = (of(before), of(after));
                let found = before.patched([&directory], &its(&after)).expect("no hard links");
                assert_eq!(found, after, "{at}");
                let only_new = after.get(&RootPath::clean(&names[at]).expect("clean")).map(|entry| {
                    let mut builder = TreeBuilder::new();
                    builder.push(entry);
                    before.patched([], &builder.finish()).expect("no hard links")
                });
                assert!(only_new.is_none_or(|found| found == after), "{at}");
            }
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
