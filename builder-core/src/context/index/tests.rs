use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;

use rustix::fs::FileType;

use super::*;
use crate::tree::{ContentDigest, Time, Xattr};

fn record(number: u64) -> Record {
    let time = Time { seconds: -5, nanoseconds: 7 };
    Record {
        stamp: Stamp { device: 1, inode: number, size: 3, modified: time, changed: time },
        content: ContentDigest::of(&number.to_le_bytes()),
        xattrs: vec![Xattr { name: b"user.a".to_vec(), value: vec![0; 300] }],
    }
}

fn names(index: &mut Index, path: &str) -> Vec<String> {
    let records = index.directory(path.as_bytes());
    records.iter().flat_map(Records::iter).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
}

#[test]
fn records_come_back_and_names_that_are_gone_do_not() {
    let state = tempfile::tempdir().expect("temporary directory");
    let open = || Index::new(state.path(), Path::new("/context"));
    let mut index = open();
    index.remember(b"d", vec![(b"b".to_vec(), record(2)), (b"a".to_vec(), record(1))], None);
    index.remember(b"", vec![(b"x".to_vec(), record(3))], None);
    index.save(|_| true).expect("written");

    let mut again = open();
    let records = again.directory(b"d").expect("known");
    let mut reader = records.reader();
    assert_eq!(reader.find(b"0"), None);
    assert_eq!(reader.find(b"a"), Some(record(1)));
    assert_eq!(reader.find(b"aa"), None);
    assert_eq!(reader.find(b"b"), Some(record(2)));
    assert_eq!(reader.find(b"c"), None);

    let mut listing = Names::one(b"b", FileType::RegularFile);
    listing.push(b"c", FileType::RegularFile);
    again.remember(b"d", vec![(b"c".to_vec(), record(4))], Some(&listing));
    again.save(|_| true).expect("written");
    assert_eq!(names(&mut open(), "d"), ["b", "c"]);
    assert_eq!(names(&mut open(), ""), ["x"]);
    assert!(Index::new(state.path(), Path::new("/other")).directory(b"d").is_none());
}

/// An index with directories `d0`, `d1`, …, each with so many files.
fn filled(state: &Path, directories: Range<u64>, files: u8) -> PathBuf {
    let mut index = Index::new(state, Path::new("/context"));
    for number in directories {
        let records = (0..files).map(|file| (vec![b'a' + file], record(number))).collect();
        index.remember(format!("d{number}").as_bytes(), records, None);
    }
    index.save(|_| true).expect("written");
    index.file
}

/// The numbers of the directories that are known, each as it was filled. They are asked for in another order than they
/// are written.
fn known(state: &Path) -> BTreeSet<u64> {
    let mut index = Index::new(state, Path::new("/context"));
    let mut is_known = |number: &u64| {
        let records = index.directory(format!("d{number}").as_bytes());
        records.is_some_and(|records| {
            assert!(records.iter().count() > 0);
            assert!(records.iter().all(|(_, found)| found == record(*number)), "directory {number}");
            true
        })
    };
    (0..200).rev().filter(|number| is_known(number)).collect()
}

/// Where the table ends, and the records begin.
fn end_of_table(bytes: &[u8]) -> usize {
    16 + 32 + usize::try_from(u64::from_le_bytes(bytes[8..16].try_into().expect("eight"))).expect("small")
}

#[test]
fn equal_indexes_are_equal_files_and_many_small_directories_come_back() {
    let (one, other) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
    let first = filled(one.path(), 0..150, 3);
    filled(other.path(), 70..150, 3);
    let second = filled(other.path(), 0..70, 3);
    assert_eq!(fs::read(first).expect("read"), fs::read(second).expect("read"));
    assert_eq!(known(one.path()), (0..150).collect());
}

#[test]
fn a_damaged_table_is_an_empty_index() {
    let state = tempfile::tempdir().expect("temporary directory");
    let file = filled(state.path(), 0..5, 3);
    let good = fs::read(&file).expect("read");
    let check = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).expect("written");
        assert_eq!(known(state.path()), BTreeSet::new(), "{what}");
    };
    let end = end_of_table(&good);
    for at in 0..end {
        for bit in [1, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= bit;
            check(&bad, &format!("byte {at}"));
        }
        check(&good[..at], &format!("cut at {at}"));
    }
    let mut long = good.clone();
    long[8..16].fill(0xff);
    check(&long, "a table without end");
    let old = b"rbindex1";
    check(&[&old[..], blake3::hash(old).as_bytes()].concat(), "version 1");
    fs::write(&file, &good).expect("written");
    assert_eq!(known(state.path()), (0..5).collect());
}

/// The only directory that is asked for, if it is known: pieces are read alone then.
fn known_alone(state: &Path) -> BTreeSet<u64> {
    let index = || Index::new(state, Path::new("/context"));
    (0..20).filter(|number| index().directory(format!("d{number}").as_bytes()).is_some()).collect()
}

#[test]
fn damaged_records_lose_the_directories_of_their_piece_and_nothing_else() {
    const PIECE: usize = 16 << 10;
    let state = tempfile::tempdir().expect("temporary directory");
    let check = |bytes: &[u8], expected: &BTreeSet<u64>, what: &str| {
        fs::write(super::super::place(state.path(), Path::new("/context")), bytes).expect("written");
        assert_eq!(known(state.path()), *expected, "together, {what}");
        assert_eq!(known_alone(state.path()), *expected, "alone, {what}");
    };
    // Directories longer than a piece, and shorter ones.
    for (directories, files) in [(4, 50), (4, 90), (20, 7)] {
        let file = filled(state.path(), 0..directories, files);
        let good = fs::read(&file).expect("read");
        let start = end_of_table(&good);
        let count = usize::try_from(directories).expect("small");
        let length = (good.len() - start) / count;
        // Where they are: in the order of their names as text.
        let mut names: Vec<String> = (0..directories).map(|number| number.to_string()).collect();
        names.sort();
        let without = |is_lost: &dyn Fn(Range<usize>) -> bool| -> BTreeSet<u64> {
            let places = (0..count).map(|at| at * length..(at + 1) * length);
            let left = places.zip(&names).filter(|(place, _)| !is_lost(place.clone()));
            left.map(|(_, name)| name.parse().expect("a number")).collect()
        };
        for at in (0..length * count).step_by(PIECE / 3 - 1).chain([length * count - 1]) {
            let mut bad = good.clone();
            bad[start + at] ^= 1;
            let piece = at / PIECE * PIECE..(at / PIECE + 1) * PIECE;
            let left = without(&|place| place.start < piece.end && piece.start < place.end);
            assert!((1..count).contains(&left.len()));
            check(&bad, &left, &format!("byte {at} of {files} files"));
            let left = without(&|place| place.end > piece.start);
            check(&good[..start + at], &left, &format!("cut at {at} of {files} files"));
        }
        fs::remove_file(&file).expect("removed");
    }
}

#[test]
fn what_was_damaged_is_known_again_once_it_was_read_again() {
    let state = tempfile::tempdir().expect("temporary directory");
    // Each directory has pieces of its own, but for its ends.
    let file = filled(state.path(), 0..9, 100);
    let length = |bytes: &[u8]| (bytes.len() - end_of_table(bytes)) / 9;
    let damage = |number: usize| {
        let mut bad = fs::read(&file).expect("read");
        let at = end_of_table(&bad) + length(&bad) * number + length(&bad) / 2;
        bad[at] ^= 1;
        fs::write(&file, bad).expect("written");
    };
    let without = |number| (0..9).filter(|other| *other != number).collect::<BTreeSet<u64>>();
    damage(3);
    assert_eq!(known(state.path()), without(3));
    let before = fs::read(&file).expect("read");
    filled(state.path(), 3..4, 5);
    assert_eq!(fs::read(&file).expect("read"), before, "it is in the second file");
    assert_eq!(known(state.path()), (0..9).collect());
    // What is written whole is without the damage.
    damage(4);
    filled(state.path(), 9..10, 100);
    assert_eq!(known(state.path()), (0..10).filter(|number| *number != 4).collect());
    filled(state.path(), 4..5, 100);
    assert_eq!(known(state.path()), (0..10).collect());
}

#[test]
fn what_was_not_read_is_written_too() {
    let state = tempfile::tempdir().expect("temporary directory");
    let file = filled(state.path(), 0..150, 3);
    let before = fs::read(&file).expect("read");
    // One is read, one is changed, and a new one makes it necessary to write all.
    let mut index = Index::new(state.path(), Path::new("/context"));
    assert!(index.directory(b"d77").is_some());
    index.remember(b"d5", vec![(b"z".to_vec(), record(5))], None);
    index.remember(b"d150", vec![(b"a".to_vec(), record(150))], None);
    // Another process takes the file away meanwhile: what is open stays.
    fs::remove_file(&file).expect("removed");
    index.save(|_| true).expect("written");
    assert_ne!(fs::read(&file).expect("read"), before);
    assert_eq!(index.directory(b"d5").expect("known").iter().count(), 4);
    assert_eq!(known(state.path()), (0..151).collect());
    // Directories that are gone go, once there is a new one.
    index.remember(b"d151", vec![(b"a".to_vec(), record(151))], None);
    index.save(|path| !path.starts_with(b"d7")).expect("written");
    let is_gone = |number: &u64| number.to_string().starts_with('7');
    assert_eq!(known(state.path()), (0..152).filter(|number| !is_gone(number)).collect());
}

#[test]
fn a_few_changes_are_written_beside_the_rest() {
    let state = tempfile::tempdir().expect("temporary directory");
    let open = || Index::new(state.path(), Path::new("/context"));
    let name = |number: u64| format!("d{number}").into_bytes();
    let first = filled(state.path(), 0..20, 50);
    let more = open().more_file();
    let before = fs::read(&first).expect("read");
    let known = |number: u64| open().directory(&name(number)).and_then(|records| records.reader().find(b"a"));
    let change = |number, to| {
        let mut index = open();
        index.remember(&name(number), vec![(b"a".to_vec(), record(to))], None);
        index.save(|_| true).expect("written");
    };
    change(3, 103);
    change(4, 104);
    assert_eq!(fs::read(&first).expect("read"), before);
    assert_eq!([known(2), known(3), known(4)], [2, 103, 104].map(|number| Some(record(number))));

    // A damaged one is as good as none.
    let good = fs::read(&more).expect("read");
    for damage in [0, 8, 50, good.len() - 1] {
        let mut bad = good.clone();
        bad[damage] ^= 1;
        fs::write(&more, bad).expect("written");
        assert_eq!([known(3), known(2)], [3, 2].map(|number| Some(record(number))), "byte {damage}");
    }
    fs::write(&more, &good).expect("written");

    // Too many, or a new directory: all is written, and what was beside it does not count any more.
    change(5, 105);
    assert_ne!(fs::read(&first).expect("read"), before);
    assert!(!more.exists());
    fs::write(&more, &good).expect("written");
    change(20, 120);
    change(3, 203);
    assert_eq!([known(3), known(4), known(5), known(20)], [203, 104, 105, 120].map(|number| Some(record(number))));
    assert!(more.exists());
}

#[test]
fn nothing_new_writes_nothing() {
    let state = tempfile::tempdir().expect("temporary directory");
    let mut index = Index::new(state.path(), Path::new("/context"));
    assert!(index.directory(b"").is_none());
    index.save(|_| true).expect("nothing to do");
    assert!(!state.path().join("contexts").exists());
}
