//! [`differences`]: what two trees do not say the same about, found without decoding what they agree on.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::{Entry, Tree};
use crate::rootfs::compare_paths;

/// A path that two trees do not say the same about, times included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The entry of the first tree.
    pub before: Option<Entry>,
    /// The entry of the second tree.
    pub after: Option<Entry>,
}

/// Every path that differs, in order; `None` if there are more than `limit`.
///
/// A hard link is the same only if its group has the same paths in both trees. So a group is either the same or differs
/// in all of its paths.
pub fn differences(before: &Tree, after: &Tree, limit: usize) -> Option<Vec<Difference>> {
    let (old_groups, new_groups) = (groups(before), groups(after));
    let same_group = |old: u32, new: u32| match (old_groups.get(&old), new_groups.get(&new)) {
        (None, None) => true,
        (Some(old), Some(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| before.path(*old) == after.path(*new))
        }
        _ => false,
    };
    let same = |old: usize, new: usize| {
        let (one, other) = (Parts::of(before.encoded(old)), Parts::of(after.encoded(new)));
        one.head == other.head && one.tail == other.tail && same_group(one.link, other.link)
    };
    let no_links = old_groups.is_empty() && new_groups.is_empty();
    let mut found = Vec::new();
    let (mut old, mut new) = (0, 0);
    while old < before.len() || new < after.len() {
        // Where trees agree, they do so for long, and then their bytes do.
        if no_links && same_run(before, old, after, new) {
            (old, new) = (old + RUN, new + RUN);
            continue;
        }
        let order = match (old < before.len(), new < after.len()) {
            (true, true) => compare_paths(before.path(old), after.path(new)),
            (true, false) => Ordering::Less,
            _ => Ordering::Greater,
        };
        if order.is_ne() || !same(old, new) {
            if found.len() == limit {
                return None;
            }
            let before = order.is_le().then(|| before.entry(old));
            found.push(Difference { before, after: order.is_ge().then(|| after.entry(new)) });
        }
        old += usize::from(order.is_le());
        new += usize::from(order.is_ge());
    }
    Some(found)
}

/// Entries that are compared at once.
const RUN: usize = 64;

fn same_run(before: &Tree, old: usize, after: &Tree, new: usize) -> bool {
    old + RUN <= before.len()
        && new + RUN <= after.len()
        && before.encoded_range(old..old + RUN) == after.encoded_range(new..new + RUN)
}

impl Tree {
    /// Whether it takes nothing away from lower layers: no whiteout, no opaque directory.
    pub fn only_adds(&self) -> bool {
        (0..self.len()).map(|index| Parts::of(self.encoded(index))).all(|parts| match parts.kind {
            b'w' => false,
            b'd' => parts.rest.first() == Some(&0),
            _ => true,
        })
    }

    /// About what it takes to write the tree out: the bytes of its files, and a block for each entry.
    pub fn weight(&self) -> u64 {
        let mut linked = HashSet::new();
        let mut size = |parts: Parts<'_>| if parts.link == 0 || linked.insert(parts.link) { parts.size } else { 0 };
        (0..self.len()).map(|index| size(Parts::of(self.encoded(index))) + BLOCK).sum()
    }
}

/// What an entry takes besides the bytes of its file.
const BLOCK: u64 = 4096;

/// The members of each group of hard links.
fn groups(tree: &Tree) -> HashMap<u32, Vec<usize>> {
    let mut groups: HashMap<u32, Vec<usize>> = HashMap::new();
    for index in 0..tree.len() {
        let link = Parts::of(tree.encoded(index)).link;
        if link != 0 {
            groups.entry(link).or_default().push(index);
        }
    }
    groups
}

/// The encoding of an entry, cut around the number of its link group.
pub(super) struct Parts<'a> {
    kind: u8,
    /// Everything before the number.
    head: &'a [u8],
    /// The number; 0 for what is no file.
    pub(super) link: u32,
    /// Where its times are.
    pub(super) times: Range<usize>,
    /// Everything after it.
    tail: &'a [u8],
    /// What depends on the kind, and the attributes.
    rest: &'a [u8],
    /// Length of a file in bytes.
    size: u64,
}

impl<'a> Parts<'a> {
    pub(super) fn of(encoded: &'a [u8]) -> Self {
        let path = usize::from(u16::from_le_bytes([encoded[0], encoded[1]]));
        // Kind, mode, owner and group, time; then of a file size and digest. See `encoding`.
        let times = 2 + path + 1 + 12..2 + path + 1 + 12 + 12;
        let (kind, rest) = (encoded[2 + path], &encoded[times.end..]);
        if kind != b'f' {
            return Self { kind, head: encoded, link: 0, times, tail: &[], rest, size: 0 };
        }
        let (size, after) = rest.split_at(8);
        let (head, tail) = encoded.split_at(encoded.len() - after.len() + 32);
        let (link, tail) = tail.split_at(4);
        let link = u32::from_le_bytes(link.try_into().expect("four bytes"));
        let size = u64::from_le_bytes(size.try_into().expect("eight bytes"));
        Self { kind, head, link, times, tail, rest, size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::RootPath;
    use crate::tree::{ContentDigest, Node, Time, TreeBuilder};

    /// `d/` directory, `o//` opaque directory, `-x` whiteout, `f=2` a file with link group 2; the rest a file.
    fn tree(entries: &[&str]) -> Tree {
        let mut builder = TreeBuilder::new();
        for text in entries {
            let path = |text: &str| RootPath::clean(text).expect("clean");
            let (name, link) =
                text.split_once('=').map_or((*text, 0), |(name, link)| (name, link.parse().expect("number")));
            let file = Node::File { size: 5, content: ContentDigest::of(b"hello"), link };
            let node = if name.ends_with('/') { Node::Directory { opaque: name.ends_with("//") } } else { file };
            builder.push(match name.strip_prefix('-') {
                Some(gone) => Entry::whiteout(path(gone)),
                None => Entry { node, ..Entry::directory(path(name), 0o755, 0, 0, Time::default()) },
            });
        }
        builder.finish()
    }

    #[test]
    fn only_what_differs_is_found() {
        let check = |before: &[&str], after: &[&str], expected: &[&str]| {
            let (before, after) = (tree(before), tree(after));
            let found = differences(&before, &after, 100).expect("below the limit");
            let shown: Vec<String> = found
                .iter()
                .map(|found| match (&found.before, &found.after) {
                    (Some(before), Some(_)) => format!("~{}", before.path),
                    (Some(before), None) => format!("-{}", before.path),
                    (None, Some(after)) => format!("+{}", after.path),
                    (None, None) => unreachable!("a difference has a side"),
                })
                .collect();
            assert_eq!(shown, expected);
            assert_eq!(differences(&before, &after, expected.len()).map(|found| found.len()), Some(expected.len()));
            assert!(expected.is_empty() || differences(&before, &after, expected.len() - 1).is_none());
        };
        check(&["a/", "a/x", "b"], &["a/", "a/x", "b"], &[]);
        check(&["a/", "a/x", "b"], &["a/", "a/y", "b/"], &["-/a/x", "+/a/y", "~/b"]);
        check(&[], &["a"], &["+/a"]);
        check(&["a"], &[], &["-/a"]);
        // The group of `b` has another number because there is one before it now; it is the same group.
        check(&["b=1", "c=1"], &["a=1", "aa=1", "b=2", "c=2"], &["+/a", "+/aa"]);
        check(&["a=1", "b=1", "c=1"], &["a=1", "b=1", "c"], &["~/a", "~/b", "~/c"]);
        check(&["a=1", "b=1", "c=2", "d=2"], &["a=1", "b=2", "c=1", "d=2"], &["~/a", "~/b", "~/c", "~/d"]);

        let many: Vec<String> = (0..3 * RUN).map(|number| format!("{number:04}")).collect();
        let without = |gone: &[usize]| {
            let left = many.iter().enumerate().filter(|(number, _)| !gone.contains(number));
            left.map(|(_, name)| name.as_str()).collect::<Vec<_>>()
        };
        check(&without(&[]), &without(&[]), &[]);
        check(&without(&[]), &without(&[0, RUN, 3 * RUN - 1]), &["-/0000", "-/0064", "-/0191"]);
        check(&without(&[70, 150]), &without(&[70, 100]), &["-/0100", "+/0150"]);
    }

    #[test]
    fn what_hides_lower_layers_is_known() {
        assert!(tree(&["a/", "a/b"]).only_adds());
        assert!(!tree(&["a/", "-b"]).only_adds());
        assert!(!tree(&["a//"]).only_adds());
        assert_eq!(tree(&["a/", "a/b"]).weight(), 2 * 4096 + 5);
        assert_eq!(tree(&["a=1", "b=1"]).weight(), 2 * 4096 + 5);
    }
}
