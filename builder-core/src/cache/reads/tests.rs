use std::fs;

use super::*;
use crate::cache::CacheStore;
use crate::rootfs::RootPath;
use crate::tree::{ContentDigest, Entry, Node, Stack, Time, Tree, TreeBuilder, Xattr};

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("a path")
}

/// `directory/`, `opaque//`, `-gone`, `link>target`, `file=content`, with `*` and a number for hard links.
fn tree(entries: &[&str]) -> Tree {
    let mut builder = TreeBuilder::new();
    for text in entries {
        let at = |name: &str| {
            Entry::directory(path(name), 0o755, 0, 0, Time::from_seconds(i64::try_from(text.len()).expect("short")))
        };
        let entry = if let Some(name) = text.strip_prefix('-') {
            Entry::whiteout(path(name))
        } else if let Some((name, target)) = text.split_once('>') {
            Entry { node: Node::Symlink { target: target.into() }, ..at(name) }
        } else if let Some((name, content)) = text.split_once('=') {
            let (content, link) = content.split_once('*').unwrap_or((content, "0"));
            let (size, link) = (content.len() as u64, link.parse().expect("a number"));
            Entry { node: Node::File { size, content: ContentDigest::of(content.as_bytes()), link }, ..at(name) }
        } else {
            Entry { node: Node::Directory { opaque: text.ends_with("//") }, ..at(text) }
        };
        builder.push(entry);
    }
    builder.finish()
}

fn stack(layers: &[&[&str]]) -> Stack {
    Stack::new(layers.iter().map(|entries| tree(entries)).collect())
}

fn state(layers: &[&[&str]], at: &str, how: How) -> String {
    Views::new(stack(layers), []).state(0, &path(at), how).expect("the root")
}

const BASE: &[&str] = &["d/", "d/a=1", "d/e/", "d/e/f=2", "l>d", "one=x*1", "two=x*1"];

#[test]
fn a_state_says_what_was_looked_at_and_no_more() {
    let check = |at: &str, how: How, over: &[&str], same: bool| {
        let (before, after) = (state(&[BASE], at, how), state(&[BASE, over], at, how));
        assert_eq!(before == after, same, "{at} {how:?} {over:?}");
    };
    check("d/a", How::Seen, &["other=1"], true);
    // Another time.
    check("d/a", How::Seen, &["d//", "d/a=1"], true);
    check("d/a", How::Seen, &["d/a=2"], false);
    check("d/a", How::Seen, &["-d/a"], false);
    check("d/a", How::Seen, &["d/a/"], false);
    check("d/a", How::Seen, &["d/a>1"], false);
    check("d/a", How::Seen, &["-d"], false);
    check("d/none", How::Seen, &["d/some=1"], true);
    check("d/none", How::Seen, &["d/none="], false);
    check("l", How::Seen, &["l>e"], false);
    check("d", How::Seen, &["d/", "d/new=1", "-d/a"], true);
    check("d", How::Seen, &["d>e"], false);
    check("d", How::Listed, &["other/"], true);
    check("d", How::Listed, &["d/a=2"], true);
    check("d", How::Listed, &["d/e/f=3"], true);
    check("d", How::Listed, &["d/a/"], false);
    check("d", How::Listed, &["d/new=1"], false);
    check("d", How::Listed, &["-d/a"], false);
    check("d", How::Listed, &["d/"], false);
    check("d/a", How::Listed, &["d/new=1"], true);
    check("d", How::Whole, &["other/"], true);
    check("d", How::Whole, &["d/e/f=3"], false);
    check("d", How::Whole, &["d/e/g=3"], false);
    // Of a file with several names the other ones count, and whether they show.
    check("one", How::Seen, &["d/a=2"], true);
    check("one", How::Seen, &["two=y"], false);
    assert_ne!(state(&[BASE], "one", How::Seen), state(&[&["one=x"]], "one", How::Seen));
    assert_eq!(state(&[BASE], "none", How::Seen), state(&[BASE], "none/below", How::Whole), "nothing is nothing");
}

#[test]
fn rights_owners_and_attributes_count() {
    let entry = Entry::directory(path("d"), 0o755, 0, 0, Time::default());
    let of = |entry: &Entry| {
        let mut builder = TreeBuilder::new();
        builder.push(entry.clone());
        Views::new(Stack::new(vec![builder.finish()]), []).state(0, &path("d"), How::Seen).expect("the root")
    };
    let xattrs = vec![Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() }];
    let others = [
        Entry { mode: 0o700, ..entry.clone() },
        Entry { uid: 1, ..entry.clone() },
        Entry { gid: 1, ..entry.clone() },
        Entry { xattrs, ..entry.clone() },
        Entry { node: Node::Fifo, ..entry.clone() },
        Entry { node: Node::CharDevice { major: 1, minor: 3 }, ..entry.clone() },
        Entry { node: Node::BlockDevice { major: 1, minor: 3 }, ..entry.clone() },
    ];
    let mut states: Vec<String> = others.iter().chain([&entry]).map(of).collect();
    states.sort();
    states.dedup();
    assert_eq!(states.len(), others.len() + 1);
    assert_eq!(of(&Entry { mtime: Time::from_seconds(9), ..entry.clone() }), of(&entry));
}

#[test]
fn mounts_have_files_of_their_own() {
    let views = Views::new(stack(&[BASE]), [None, Some(stack(&[&["a=other"]]))]);
    assert_eq!(views.state(1, &path("a"), How::Seen), None);
    assert_eq!(views.state(3, &path("a"), How::Seen), None);
    assert_eq!(views.state(2, &path("a"), How::Seen), Some(state(&[&["a=other"]], "a", How::Seen)));
    let look = |place, state: &str| Look { place, path: "/a".to_owned(), how: How::Seen, state: state.to_owned() };
    let known = views.state(2, &path("a"), How::Seen).expect("a state");
    let looks = [look(2, &known), look(0, &known), look(1, &known), look(2, "")];
    assert_eq!(views.differing(&looks, 2), [&looks[1], &looks[2]]);
    assert_eq!(views.differing(&looks[..1], 2), [&looks[0]; 0]);
}

fn preimage(argument: &str, root: &str) -> Preimage {
    let mut preimage = Preimage::new("run");
    preimage.add("argument 0", argument);
    preimage.add("root", root);
    preimage
}

fn set(definition: &CacheKey, state: &str) -> ReadSet {
    let tree = Tree::empty();
    let record = Record {
        preimage: preimage("make", "1"),
        tree: tree.id(),
        semantic: tree.semantic(),
        created: 1,
        milliseconds: None,
        ran: None,
    };
    let look = Look { place: 0, path: "/a".to_owned(), how: How::Listed, state: state.to_owned() };
    ReadSet { version: VERSION, definition: definition.to_string(), record, looks: vec![look] }
}

#[test]
fn a_definition_is_blind_for_files_only() {
    let of = |argument, root| definition(preimage(argument, "-"), &preimage(argument, root));
    assert_eq!(of("make", "1"), of("make", "2"));
    assert_ne!(of("make", "1"), of("cc", "1"));
    let mut more = preimage("make", "1");
    more.add("secret epoch token", "2");
    assert_ne!(definition(preimage("make", "-"), &more), of("make", "1"));
    assert_ne!(of("make", "-"), preimage("make", "-").key());
}

#[test]
fn sets_come_back_and_damaged_ones_do_not() {
    let state = tempfile::tempdir().expect("temporary directory");
    let store = CacheStore::new(state.path());
    let (one, other) = (preimage("one", "").key(), preimage("other", "").key());
    assert_eq!(store.read_sets(&one, true).expect("read"), []);
    store.put_read_set(&one, &set(&one, "1")).expect("written");
    store.put_read_set(&other, &set(&other, "1")).expect("written");
    assert_eq!(store.read_sets(&one, true).expect("read"), [set(&one, "1")]);
    assert_eq!((store.list().expect("listed").len(), store.list_read_sets().expect("listed").len()), (0, 2));
    let (path, _) = store.list_read_sets().expect("listed").swap_remove(0);
    let good = fs::read(&path).expect("there");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        fs::write(&path, bad).expect("written");
        assert!(!store.is_sound(&path), "byte {at}");
        let known = [&one, &other].map(|key| store.read_sets(key, false).expect("read").len());
        assert_eq!(known.iter().sum::<usize>(), 1, "byte {at}");
    }
    assert_eq!(store.files().expect("listed").len(), 2, "who only wants to know removes nothing");
    let known = [&one, &other].map(|key| store.read_sets(key, true).expect("read").len());
    assert_eq!((known.iter().sum::<usize>(), store.files().expect("listed").len()), (1, 1));
    // One that lies under another name is none, and one of another version.
    store.put_read_set(&one, &set(&other, "1")).expect("written");
    let next = ReadSet { version: VERSION + 1, ..set(&one, "2") };
    store.put_read_set(&one, &next).expect("written");
    store.drop_read_sets(&other).expect("dropped");
    assert!(store.files().expect("listed").iter().any(|path| !store.is_sound(path)));
    assert!(store.read_sets(&one, true).expect("read").len() <= 1);
    store.drop_read_sets(&one).expect("dropped");
    assert_eq!(store.files().expect("listed").len(), 0);
}

#[test]
fn only_so_many_sets_are_kept_and_all_go_together() {
    let state = tempfile::tempdir().expect("temporary directory");
    let store = CacheStore::new(state.path());
    let definition = preimage("make", "").key();
    for number in 0..20 {
        store.put_read_set(&definition, &set(&definition, &number.to_string())).expect("written");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kept = store.read_sets(&definition, true).expect("read");
    assert_eq!((kept.len(), kept[0].looks[0].state.as_str()), (8, "19"), "the last one first");
    assert_eq!(store.drop_read_sets(&definition).expect("dropped"), 8);
    assert_eq!(store.read_sets(&definition, true).expect("read"), []);
}
