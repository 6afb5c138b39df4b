//! How two preimages, and two trees, differ. Pure.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Preimage;
use crate::tree::{Entry, Node, Tree};

/// A field of a preimage that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its name: `env PATH`, `root`, `mount /src`.
    pub name: String,
    /// Its value before; `None` if there was none.
    pub before: Option<String>,
    /// Its value now; `None` if there is none.
    pub after: Option<String>,
}

/// A path that is not the same in two trees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeChange {
    /// The path.
    pub path: String,
    /// What became of it.
    pub change: Change,
    /// For a changed path, what differs: `content`, `mode 644 → 755`. For a new one that equals one that is gone, and the
    /// reverse, the other name: `renamed from /a`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

/// The fields that differ, in their order now; those that are gone come last.
pub fn fields(before: &Preimage, after: &Preimage) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    let mut old: Vec<_> = before.fields.iter().map(Some).collect();
    for field in &after.fields {
        // Several fields may have one name; they correspond in their order.
        let at = old.iter().position(|old| old.is_some_and(|old| old.name == field.name));
        let old = at.and_then(|at| old[at].take());
        if old != Some(field) {
            let before = old.map(|old| old.value.clone());
            changes.push(FieldChange { name: field.name.clone(), before, after: Some(field.value.clone()) });
        }
    }
    for gone in old.into_iter().flatten() {
        changes.push(FieldChange { name: gone.name.clone(), before: Some(gone.value.clone()), after: None });
    }
    changes
}

/// How many fields two preimages have in common; 0 for different ops.
pub fn likeness(one: &Preimage, other: &Preimage) -> usize {
    if one.op != other.op {
        return 0;
    }
    one.fields.iter().filter(|field| other.fields.contains(field)).count()
}

/// How many paths that are no directories two trees have in common, whatever is there.
pub fn common_paths(one: &Tree, other: &Tree) -> usize {
    let is_leaf = |entry: &Entry| !entry.node.is_directory();
    let paths: HashSet<_> = one.iter().filter(is_leaf).map(|entry| entry.path).collect();
    other.iter().filter(is_leaf).filter(|entry| paths.contains(&entry.path)).count()
}

/// Whether two preimages are of the same command, or of a directory made at the same path. Copies say only what they
/// result in: no two are the same.
pub fn same_command(one: &Preimage, other: &Preimage) -> bool {
    fn says(preimage: &Preimage) -> Vec<(&str, &str)> {
        let is_said = |name: &str| name.starts_with("argument ") || name == "script" || name == "path";
        let said = preimage.fields.iter().filter(|field| is_said(&field.name));
        said.map(|field| (field.name.as_str(), field.value.as_str())).collect()
    }
    one.op == other.op && !says(one).is_empty() && says(one) == says(other)
}

/// The paths that differ apart from times, sorted; at most `limit`, and how many there are.
pub fn trees(before: &Tree, after: &Tree, limit: usize) -> (Vec<TreeChange>, usize) {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    let (mut changes, mut count) = (Vec::new(), 0);
    let mut alone = Vec::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(old), Some(new)) => old.path.cmp(&new.path),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => break,
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        if let Some(change) = changed(old.as_ref(), new.as_ref()) {
            count += 1;
            if changes.len() < limit {
                if change.change != Change::Changed {
                    alone.push((changes.len(), old.or(new).expect("one of them is there")));
                }
                changes.push(change);
            }
        }
    }
    note_renamed(&mut changes, alone);
    (changes, count)
}

/// Pairs files that are new with those that are gone. `alone` has the entry of each change that has one, by its number.
fn note_renamed(changes: &mut [TreeChange], alone: Vec<(usize, Entry)>) {
    let says_much = |node: &Node| matches!(node, Node::File { size: 1.., .. } | Node::Symlink { .. });
    let alone = alone.into_iter().filter(|(_, entry)| says_much(&entry.node));
    let (new, mut gone): (Vec<_>, Vec<_>) = alone.partition(|(at, _)| changes[*at].change == Change::Added);
    for (to, new) in new {
        let Some(found) = gone.iter().position(|(_, old)| details(old, &new).is_empty()) else { continue };
        let (from, _) = gone.swap_remove(found);
        changes[to].details.push(format!("renamed from {}", changes[from].path));
        changes[from].details.push(format!("renamed to {}", changes[to].path));
    }
}

fn changed(old: Option<&Entry>, new: Option<&Entry>) -> Option<TreeChange> {
    let (change, details) = match (old, new) {
        (Some(old), Some(new)) => {
            let details = details(old, new);
            if details.is_empty() {
                return None;
            }
            (Change::Changed, details)
        }
        (None, Some(_)) => (Change::Added, Vec::new()),
        _ => (Change::Removed, Vec::new()),
    };
    let path = &old.or(new)?.path;
    // The root of what is mounted or copied.
    let path = if path.is_root() { "/".to_owned() } else { path.to_string() };
    Some(TreeChange { path, change, details })
}

fn details(old: &Entry, new: &Entry) -> Vec<String> {
    let mut details = Vec::new();
    match (&old.node, &new.node) {
        (Node::File { content: before, link: old, .. }, Node::File { content: after, link: new, .. }) => {
            if before != after {
                details.push("content".to_owned());
            }
            if old != new {
                details.push("hard links".to_owned());
            }
        }
        (Node::Symlink { target: before }, Node::Symlink { target: after }) if before != after => {
            let text = |target: &[u8]| String::from_utf8_lossy(target).into_owned();
            details.push(format!("target {} → {}", text(before), text(after)));
        }
        (before, after) if before != after => return vec![format!("{} → {}", kind(before), kind(after))],
        _ => {}
    }
    if old.mode != new.mode {
        details.push(format!("mode {:o} → {:o}", old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        details.push(format!("owner {}:{} → {}:{}", old.uid, old.gid, new.uid, new.gid));
    }
    if old.xattrs != new.xattrs {
        let names = new.xattrs.iter().filter(|xattr| !old.xattrs.contains(xattr));
        let names = names.chain(old.xattrs.iter().filter(|old| !new.xattrs.iter().any(|new| new.name == old.name)));
        let names: Vec<_> = names.map(|xattr| String::from_utf8_lossy(&xattr.name).into_owned()).collect();
        details.push(format!("attribute {}", names.join(", ")));
    }
    details
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::Directory { opaque: true } => "a replaced directory",
        Node::Directory { .. } => "a directory",
        Node::File { .. } => "a file",
        Node::Symlink { .. } => "a symbolic link",
        Node::CharDevice { .. } | Node::BlockDevice { .. } => "a device",
        Node::Fifo => "a named pipe",
        Node::Whiteout => "removed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::RootPath;
    use crate::tree::{ContentDigest, Time, TreeBuilder, Xattr};

    fn preimage(fields: &[(&str, &str)]) -> Preimage {
        let mut preimage = Preimage::new("run");
        for (name, value) in fields {
            preimage.add(*name, value);
        }
        preimage
    }

    #[test]
    fn fields_that_differ_are_named_with_both_values() {
        let before = preimage(&[("argument 0", "make"), ("env A", "1"), ("host", "a"), ("host", "b"), ("env B", "2")]);
        let after = preimage(&[("argument 0", "make"), ("env A", "2"), ("host", "a"), ("host", "c"), ("env C", "3")]);
        let found: Vec<_> = fields(&before, &after)
            .into_iter()
            .map(|change| (change.name, change.before.unwrap_or_default(), change.after.unwrap_or_default()))
            .collect();
        let expected = [("env A", "1", "2"), ("host", "b", "c"), ("env C", "", "3"), ("env B", "2", "")];
        assert_eq!(found, expected.map(|(name, old, new)| (name.to_owned(), old.to_owned(), new.to_owned())));
        assert_eq!(fields(&before, &before), []);
        assert_eq!(likeness(&before, &after), 2);
        assert!(same_command(&before, &after));
        assert!(!same_command(&before, &preimage(&[("argument 0", "make"), ("argument 1", "all")])));
        assert!(!same_command(&preimage(&[("result", "a")]), &preimage(&[("result", "a")])));
    }

    #[test]
    fn paths_that_differ_are_named_with_what_differs() {
        let entry = |path: &str| Entry {
            node: Node::File { size: 1, content: ContentDigest::of(b"x"), link: 0 },
            ..Entry::directory(RootPath::clean(path).expect("clean"), 0o644, 0, 0, Time::default())
        };
        let tree = |entries: Vec<Entry>| {
            let mut builder = TreeBuilder::new();
            for entry in entries {
                builder.push(entry);
            }
            builder.finish()
        };
        let touched = Entry { mtime: Time::from_seconds(9), ..entry("/same") };
        let xattr = Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() };
        let before = tree(["/a", "/b", "/c", "/gone", "/same", "/x"].map(entry).into());
        let after = tree(vec![
            Entry { mode: 0o755, uid: 5, ..entry("/a") },
            Entry { node: Node::File { size: 1, content: ContentDigest::of(b"y"), link: 0 }, ..entry("/b") },
            Entry { node: Node::Symlink { target: b"b".to_vec() }, ..entry("/c") },
            Entry { mode: 0o600, ..entry("/more") },
            entry("/new"),
            touched,
            Entry { xattrs: vec![xattr], ..entry("/x") },
        ]);
        let (found, count) = trees(&before, &after, 100);
        let found: Vec<_> =
            found.iter().map(|c| format!("{} {:?} {}", c.path, c.change, c.details.join("; "))).collect();
        let expected = [
            "/a Changed mode 644 → 755; owner 0:0 → 5:0",
            "/b Changed content",
            "/c Changed a file → a symbolic link",
            "/gone Removed renamed to /new",
            "/more Added ",
            "/new Added renamed from /gone",
            "/x Changed attribute user.a",
        ];
        assert_eq!(found, expected);
        assert_eq!((count, trees(&before, &after, 2).0.len()), (7, 2));
        assert_eq!(common_paths(&before, &after), 5);
        assert_eq!(trees(&before, &before, 9).1, 0);
    }
}
