//! What a tree says, and what its digests cover.

use std::io::Write as _;

use super::*;

/// What is changed of an entry.
type Change = (&'static str, fn(&mut Entry));

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("clean")
}

fn file(name: &str, content: &[u8], link: u32, mtime: i64) -> Entry {
    let node = Node::File { size: content.len() as u64, content: ContentDigest::of(content), link };
    let mtime = Time::from_seconds(mtime);
    let xattrs =
        vec![Xattr { name: b"user.b".to_vec(), value: vec![1] }, Xattr { name: b"user.a".to_vec(), value: vec![] }];
    Entry { path: path(name), node, mode: 0o644, uid: 1, gid: 2, mtime, xattrs }
}

fn tree(entries: impl IntoIterator<Item = Entry>) -> Tree {
    let mut builder = TreeBuilder::new();
    entries.into_iter().for_each(|entry| builder.push(entry));
    builder.finish()
}

/// What a store reads from a file with these bytes.
fn open(bytes: &[u8]) -> Result<Tree, TreeError> {
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(&[b"before", bytes].concat()).expect("written");
    Tree::load(&file, 6, None).expect("readable")
}

fn sample() -> Vec<Entry> {
    let other = |name: &str, node| Entry { node, ..Entry::directory(path(name), 0o755, 0, 0, Time::from_seconds(-5)) };
    vec![
        other("/", Node::Directory { opaque: false }),
        file("/b-file", b"x", 7, 1),
        other("/b", Node::Directory { opaque: true }),
        file("/b/two", b"x", 7, 1),
        other("/c", Node::CharDevice { major: 1, minor: 3 }),
        other("/d", Node::BlockDevice { major: 8, minor: 0 }),
        other("/e", Node::Fifo),
        other("/l", Node::Symlink { target: b"../x\xff".to_vec() }),
        Entry::whiteout(path("/gone")),
    ]
}

#[test]
fn a_tree_keeps_everything_in_walk_order() {
    let tree = tree(sample());
    let paths: Vec<_> = tree.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(paths, ["/", "/b", "/b/two", "/b-file", "/c", "/d", "/e", "/gone", "/l"]);
    assert_eq!(tree.get(&path("/d")).expect("there").node, Node::BlockDevice { major: 8, minor: 0 });
    assert_eq!(tree.get(&path("/l")).expect("there").node, Node::Symlink { target: b"../x\xff".to_vec() });
    assert_eq!(tree.get(&path("/x")), None);
    assert_eq!(tree.below(&path("/b")).map(|entry| entry.path.to_string()).collect::<Vec<_>>(), ["/b", "/b/two"]);
    assert_eq!(tree.content_size(), 1, "hard links count once");
    let again = Tree::parse_untrusted(tree.encode()).expect("own bytes");
    assert_eq!(again, tree);
    assert_eq!(open(&tree.encode()), Ok(tree));
}

#[test]
fn order_of_pushing_and_link_numbers_do_not_matter_and_times_only_for_the_id() {
    let a = tree(sample());
    let mut entries = sample();
    entries.reverse();
    for entry in &mut entries {
        if let Node::File { link, .. } = &mut entry.node {
            *link = 99;
        }
    }
    assert_eq!(tree(entries.clone()).id(), a.id());
    entries[0].mtime = Time::from_seconds(77);
    entries[3].mtime = Time::from_seconds(77);
    let later = tree(entries.clone());
    assert_ne!(later.id(), a.id());
    assert_eq!(later.semantic(), a.semantic());
    entries[3].mode = 0o600;
    assert_ne!(tree(entries).semantic(), a.semantic());
}

#[test]
fn everything_but_times_is_in_the_semantic_digest() {
    let mut digests = std::collections::BTreeMap::from([(tree(sample()).semantic(), "as it was".to_owned())]);
    let mut check = |what: String, entries: Vec<Entry>| {
        if let Some(same) = digests.insert(tree(entries).semantic(), what.clone()) {
            panic!("{what} is not told from {same}");
        }
    };
    let changes: [Change; 6] = [
        ("mode", |entry| entry.mode ^= 0o11),
        ("owner", |entry| entry.uid += 9),
        ("group", |entry| entry.gid += 9),
        ("attribute", |entry| entry.xattrs.push(Xattr { name: b"user.c".to_vec(), value: b"1".to_vec() })),
        ("value", |entry| entry.xattrs.push(Xattr { name: b"user.c".to_vec(), value: b"2".to_vec() })),
        ("path", |entry| entry.path = RootPath::clean(format!("{}x", entry.path)).expect("clean")),
    ];
    // A whiteout has nothing but its path, and every link has the same mode.
    for number in 0..8 {
        for (what, change) in changes.iter().filter(|(what, _)| *what != "mode" || number != 7) {
            let mut entries = sample();
            change(&mut entries[number]);
            check(format!("{what} of {number}"), entries);
        }
    }
    let nodes = [
        (0, Node::Directory { opaque: true }),
        (1, Node::File { size: 1, content: ContentDigest::of(b"y"), link: 7 }),
        (1, Node::File { size: 2, content: ContentDigest::of(b"x"), link: 7 }),
        (1, Node::File { size: 1, content: ContentDigest::of(b"x"), link: 0 }),
        (2, Node::Directory { opaque: false }),
        (4, Node::CharDevice { major: 1, minor: 5 }),
        (4, Node::CharDevice { major: 2, minor: 3 }),
        (4, Node::BlockDevice { major: 1, minor: 3 }),
        (6, Node::File { size: 0, content: ContentDigest::of(b""), link: 0 }),
        (7, Node::Symlink { target: b"../y".to_vec() }),
        (8, Node::Fifo),
    ];
    for (number, node) in nodes {
        let mut entries = sample();
        entries[number].node = node.clone();
        check(format!("{number} as {node:?}"), entries);
    }
    check("none of the last".to_owned(), sample()[..8].to_vec());
}

#[test]
fn the_last_entry_of_a_path_wins_and_a_lone_link_is_a_plain_file() {
    let one = tree([file("/f", b"old", 0, 1), file("/f", b"new", 4, 1)]);
    assert_eq!(one.len(), 1);
    let entry = one.get(&path("/f")).expect("there");
    assert_eq!(entry.node, Node::File { size: 3, content: ContentDigest::of(b"new"), link: 0 });
}

#[test]
fn damaged_bytes_are_noticed() {
    let tree = tree(sample());
    let good = tree.encode();
    assert_eq!(good.len(), tree.encoded_len());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // A head that is another one is that of another tree.
        assert!(open(&bad).is_ok_and(|found| found != tree) || open(&bad).is_err(), "byte {at}");
        // What is made up has the digests that it should have.
        assert!(Tree::parse_untrusted(bad).is_err(), "byte {at}");
    }
    for cut in 0..good.len() {
        assert!(Tree::parse_untrusted(good[..cut].to_vec()).is_err(), "cut at {cut}");
        assert!(open(&good[..cut]).is_err(), "cut at {cut}");
    }
    assert!(Tree::parse_untrusted([&good[..], b"x"].concat()).is_err());
    assert!(open(&[&good[..], b"x"].concat()).is_err());
}

#[test]
fn a_large_tree_has_pieces_whose_damage_is_noticed() {
    let tree = tree((0..5000).map(|number| file(&format!("d/{number:04}"), b"x", 0, 1)));
    let pieces: Vec<_> = tree.piece_views().map(|piece| piece.entries()).collect();
    assert!((10..40).contains(&pieces.len()), "{pieces:?}");
    assert_eq!((pieces[0].start, pieces[pieces.len() - 1].end), (0, 5000));
    assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
    let good = tree.encode();
    assert_eq!(open(&good), Ok(tree.clone()));
    for at in (0..good.len()).step_by(997) {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        assert!(open(&bad).map_or(true, |found| at < HEADER + ROW * pieces.len() && found != tree), "byte {at}");
    }
    for number in [0, 1, 4999, 2500] {
        let wanted = path(&format!("d/{number:04}"));
        assert_eq!(tree.position(&wanted), Some(number));
        assert_eq!(tree.entry(number).path, wanted);
    }
    assert_eq!(tree.position(&path("d/00000")), None);
    assert_eq!(tree.position(&path("e")), None);
    assert_eq!(tree.below(&path("d")).len(), 5000);
}

#[test]
fn facts_about_all_entries() {
    let linked = |name: &str, link| file(name, b"hello", link, 1);
    let directory = |name, opaque| Entry {
        node: Node::Directory { opaque },
        ..Entry::directory(path(name), 0o755, 0, 0, Time::default())
    };
    let check = |entries: Vec<Entry>, (has_links, only_adds, weight): (bool, bool, u64)| {
        let tree = tree(entries);
        let found = (tree.has_links(), tree.only_adds(), tree.weight());
        assert_eq!(found, (has_links, only_adds, weight), "{tree:?}");
    };
    check(vec![], (false, true, 0));
    check(vec![directory("a", false), linked("a/b", 0)], (false, true, 2 * 4096 + 5));
    check(vec![linked("a", 1), linked("b", 1)], (true, true, 2 * 4096 + 5));
    check(vec![directory("a", false), Entry::whiteout(path("b"))], (false, false, 2 * 4096));
    check(vec![directory("a", true)], (false, false, 4096));
}
