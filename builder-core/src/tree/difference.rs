//! [`differences`]: what two trees do not say the same about, found without decoding what they agree on.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::parts::Parts;
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
        // Where trees agree, they do so for long, and then their pieces do.
        if no_links && let Some(same) = same_piece(before, old, after, new) {
            (old, new) = (old + same, new + same);
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

/// How many entries the piece has that begins at these numbers in both trees; `None` if there is no such piece.
fn same_piece(before: &Tree, old: usize, after: &Tree, new: usize) -> Option<usize> {
    let ((old, 0), (new, 0)) = (before.place(old), after.place(new)) else { return None };
    let (old, new) = (before.pieces().get(old)?, after.pieces().get(new)?);
    (old.row.digest == new.row.digest).then(|| old.count())
}

/// The members of each group of hard links.
fn groups(tree: &Tree) -> HashMap<u32, Vec<usize>> {
    let mut groups: HashMap<u32, Vec<usize>> = HashMap::new();
    if !tree.has_links() {
        return groups;
    }
    for index in 0..tree.len() {
        let link = Parts::of(tree.encoded(index)).link;
        if link != 0 {
            groups.entry(link).or_default().push(index);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::RootPath;
    use crate::tree::{ContentDigest, Node, Time, TreeBuilder, piece};

    /// `d/` directory, `f=2` a file with link group 2; the rest a file.
    fn tree(entries: &[&str]) -> Tree {
        let mut builder = TreeBuilder::new();
        for text in entries {
            let path = |text: &str| RootPath::clean(text).expect("clean");
            let (name, link) =
                text.split_once('=').map_or((*text, 0), |(name, link)| (name, link.parse().expect("number")));
            let file = Node::File { size: 5, content: ContentDigest::of(b"hello"), link };
            let node = if name.ends_with('/') { Node::Directory { opaque: false } } else { file };
            builder.push(Entry { node, ..Entry::directory(path(name), 0o755, 0, 0, Time::default()) });
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

        let many: Vec<String> = (0..3000).map(|number| format!("{number:04}")).collect();
        let without = |gone: &[usize]| {
            let left = many.iter().enumerate().filter(|(number, _)| !gone.contains(number));
            left.map(|(_, name)| name.as_str()).collect::<Vec<_>>()
        };
        check(&without(&[]), &without(&[]), &[]);
        check(&without(&[]), &without(&[0, 1564, 2999]), &["-/0000", "-/1564", "-/2999"]);
        // Pieces begin elsewhere.
        let begins = |number: &usize| piece::begins(many[*number].as_bytes());
        let firsts: Vec<usize> = (1..3000).filter(begins).collect();
        assert!((5..25).contains(&firsts.len()), "{firsts:?}");
        for first in firsts {
            check(&without(&[]), &without(&[first]), &[&format!("-/{first:04}")]);
            check(
                &without(&[first]),
                &without(&[first - 1]),
                &[&format!("-/{:04}", first - 1), &format!("+/{first:04}")],
            );
        }
        check(&without(&[70, 150]), &without(&[70, 100]), &["-/0100", "+/0150"]);
    }
}
