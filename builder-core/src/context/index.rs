//! [`Index`]: which content the files of a context had when they were last read.
//!
//! One file a context, `STATE/contexts/<BLAKE3 of its canonical path>`, version 1, numbers little-endian:
//!
//! ```text
//! "rbindex1"
//! directory × n:  path length (2)  path  length of the records in bytes (4)
//!     record × m, sorted by name:
//!         name length (1)  name  device (8)  inode (8)  size (8)  mtime seconds (8) nanoseconds (4)
//!         ctime seconds (8) nanoseconds (4)  content digest (32)  length of the attributes in bytes (4)
//!         attribute: name length (1)  name  value length (4)  value
//! BLAKE3 of everything before (32)
//! ```
//!
//! What changed of a few directories since is in a second file beside it, `….more`, so that not all is written again:
//!
//! ```text
//! "rbmore1\n"  the last 32 bytes of the first file
//! directory × n, as above: each stands for the one with its path there
//! BLAKE3 of everything before (32)
//! ```
//!
//! A damaged, foreign or missing file is an empty index. It only saves time: it is not synced, and who writes last wins.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Names;
use crate::reader::Reader;
use crate::small_file;
use crate::tree::{ContentDigest, Time, Xattr};

const MAGIC: &[u8; 8] = b"rbindex1";
const MORE_MAGIC: &[u8; 8] = b"rbmore1\n";

/// The second file is at most one part in so many of the first.
const MORE_SHARE: usize = 8;

/// What the kernel says of a file, as far as a change of its content or attributes has to change it: `ctime` moves with
/// every write, even one that sets `mtime` back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: Time,
    pub(super) changed: Time,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stamp: Stamp,
    pub(super) content: ContentDigest,
    pub(super) xattrs: Vec<Xattr>,
}

/// The records of one directory.
#[derive(Debug, Clone)]
pub(super) struct Records {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

/// The index of one context.
#[derive(Debug)]
pub(super) struct Index {
    file: PathBuf,
    loaded: Option<Loaded>,
    /// Directories with new records; they replace what was loaded.
    changed: HashMap<Vec<u8>, Records>,
}

#[derive(Debug, Default)]
struct Loaded {
    directories: HashMap<Vec<u8>, Records>,
    /// Those that the second file has, or is going to have.
    more: HashSet<Vec<u8>>,
    /// The last bytes of the first file, and its length.
    file: Option<([u8; 32], usize)>,
}

impl Index {
    /// Names the index of a context; nothing is read yet.
    pub(super) fn new(state: &Path, canonical_root: &Path) -> Self {
        Self { file: super::place(state, canonical_root), loaded: None, changed: HashMap::new() }
    }

    /// What is known of the files in a directory.
    pub(super) fn directory(&mut self, path: &[u8]) -> Option<Records> {
        if let Some(records) = self.changed.get(path) {
            return Some(records.clone());
        }
        self.loaded().directories.get(path).cloned()
    }

    /// Remembers files of a directory. Old records stay unless `listing`, all names in the directory, is given and lacks
    /// them.
    pub(super) fn remember(&mut self, path: &[u8], mut new: Vec<(Vec<u8>, Record)>, listing: Option<&Names>) {
        new.sort_by(|a, b| a.0.cmp(&b.0));
        let old = self.directory(path);
        let old = old.iter().flat_map(Records::iter).filter(|(name, _)| {
            new.binary_search_by(|(other, _)| other.as_slice().cmp(name)).is_err()
                && listing.is_none_or(|all| all.has(name))
        });
        let mut all: Vec<(Vec<u8>, Record)> = old.map(|(name, record)| (name.to_vec(), record)).collect();
        all.append(&mut new);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut bytes = Vec::new();
        for (name, record) in &all {
            encode(name, record, &mut bytes);
        }
        let range = 0..bytes.len();
        self.changed.insert(path.to_vec(), Records { bytes: Arc::new(bytes), range });
    }

    /// Writes what is new, if anything is.
    pub(super) fn save(&mut self, exists: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        self.loaded();
        let (file, more_file) = (self.file.clone(), self.more_file());
        let loaded = self.loaded.as_mut().expect("just loaded");
        let known = loaded.directories.len();
        let untouched = loaded.directories.keys().filter(|path| !self.changed.contains_key(*path)).count();
        loaded.more.extend(self.changed.keys().cloned());
        loaded.directories.extend(self.changed.drain());
        let is_new = loaded.directories.len() > known;
        if let Some((first, length)) = loaded.file.filter(|_| !is_new) {
            let bytes =
                encode_all(&[MORE_MAGIC, &first], loaded.more.iter().map(|path| (path, &loaded.directories[path])));
            if bytes.len() <= length / MORE_SHARE {
                return small_file::write(&more_file, &bytes);
            }
        }
        // Directories that are gone are looked for only when there are new ones, and they may be many.
        if is_new && untouched > loaded.directories.len() / 2 {
            loaded.directories.retain(|path, _| exists(path));
        }
        let bytes = encode_all(&[MAGIC], loaded.directories.iter());
        loaded.more.clear();
        loaded.file = bytes.last_chunk().map(|last| (*last, bytes.len()));
        small_file::write(&file, &bytes)?;
        // What it says is in the first file now, which it does not belong to any more.
        let _ = small_file::remove(&more_file);
        Ok(())
    }

    fn loaded(&mut self) -> &mut Loaded {
        let more = self.more_file();
        self.loaded.get_or_insert_with(|| {
            let mut loaded = fs::read(&self.file).ok().and_then(Loaded::parse).unwrap_or_default();
            if let Some((first, _)) = loaded.file
                && let Some(found) = fs::read(more).ok().and_then(|bytes| directories(bytes, &[MORE_MAGIC, &first]))
            {
                loaded.more.extend(found.keys().cloned());
                loaded.directories.extend(found);
            }
            loaded
        })
    }

    fn more_file(&self) -> PathBuf {
        self.file.with_extension("more")
    }
}

/// Directories as bytes, with what comes before them and a digest of all that.
fn encode_all<'a>(head: &[&[u8]], directories: impl Iterator<Item = (&'a Vec<u8>, &'a Records)> + Clone) -> Vec<u8> {
    let size = directories.clone().map(|(path, records)| path.len() + records.range.len() + 6).sum::<usize>();
    let mut bytes = head.concat();
    bytes.reserve(size + 32);
    for (path, records) in directories {
        let Ok(length) = u16::try_from(path.len()) else { continue };
        let Ok(size) = u32::try_from(records.range.len()) else { continue };
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&records.bytes[records.range.clone()]);
    }
    let checksum = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&checksum);
    bytes
}

/// The directories in bytes that begin with `head`; `None` if anything is wrong with them.
fn directories(bytes: Vec<u8>, head: &[&[u8]]) -> Option<HashMap<Vec<u8>, Records>> {
    let (body, checksum) = bytes.split_last_chunk::<32>()?;
    let head = head.concat();
    if !body.starts_with(&head) || blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let end = body.len();
    let bytes = Arc::new(bytes);
    let mut directories = HashMap::new();
    let mut at = head.len();
    while at < end {
        let mut reader = Reader { bytes: &bytes[at..end] };
        let length = usize::from(u16::from_le_bytes(reader.array()?));
        let path = reader.take(length)?.to_vec();
        let size = u32::from_le_bytes(reader.array()?) as usize;
        let start = end - reader.bytes.len();
        reader.take(size)?;
        at = start + size;
        directories.insert(path, Records { bytes: Arc::clone(&bytes), range: start..at });
    }
    Some(directories)
}

impl Loaded {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let file = Some((*bytes.last_chunk()?, bytes.len()));
        Some(Self { directories: directories(bytes, &[MAGIC])?, more: HashSet::new(), file })
    }
}

impl Records {
    /// The records in order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Record)> {
        let mut reader = self.reader();
        std::iter::from_fn(move || reader.record())
    }

    /// A cursor for names that are asked in order.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.bytes[self.range.clone()] }
    }
}

/// Reads records from the start; ends at anything that is not one.
impl<'a> Reader<'a> {
    /// Goes on to `name` and returns its record. Names have to be asked in order.
    pub(super) fn find(&mut self, name: &[u8]) -> Option<Record> {
        loop {
            let mut ahead = Reader { bytes: self.bytes };
            let next = ahead.name()?;
            if next > name {
                return None;
            }
            let wanted = next == name;
            let record = if wanted { ahead.body() } else { ahead.skip().and(None) };
            self.bytes = ahead.bytes;
            if wanted {
                return record;
            }
        }
    }

    fn record(&mut self) -> Option<(&'a [u8], Record)> {
        let name = self.name()?;
        Some((name, self.body()?))
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let [length] = self.array()?;
        self.take(usize::from(length))
    }

    fn skip(&mut self) -> Option<()> {
        self.take(8 * 3 + 12 * 2 + 32)?;
        let size = u32::from_le_bytes(self.array()?) as usize;
        self.take(size).map(|_| ())
    }

    fn body(&mut self) -> Option<Record> {
        let stamp = Stamp {
            device: u64::from_le_bytes(self.array()?),
            inode: u64::from_le_bytes(self.array()?),
            size: u64::from_le_bytes(self.array()?),
            modified: self.time()?,
            changed: self.time()?,
        };
        let content = ContentDigest::new(self.array()?);
        let size = u32::from_le_bytes(self.array()?) as usize;
        let mut rest = Reader { bytes: self.take(size)? };
        let mut xattrs = Vec::new();
        while !rest.bytes.is_empty() {
            let name = rest.name()?.to_vec();
            let length = u32::from_le_bytes(rest.array()?) as usize;
            xattrs.push(Xattr { name, value: rest.take(length)?.to_vec() });
        }
        Some(Record { stamp, content, xattrs })
    }

    fn time(&mut self) -> Option<Time> {
        Some(Time { seconds: i64::from_le_bytes(self.array()?), nanoseconds: u32::from_le_bytes(self.array()?) })
    }
}

fn encode(name: &[u8], record: &Record, bytes: &mut Vec<u8>) {
    let short = |length: usize| u8::try_from(length).expect("names are at most 255 bytes (NAME_MAX, XATTR_NAME_MAX)");
    let Record { stamp, content, xattrs } = record;
    bytes.push(short(name.len()));
    bytes.extend_from_slice(name);
    for number in [stamp.device, stamp.inode, stamp.size] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for time in [stamp.modified, stamp.changed] {
        bytes.extend_from_slice(&time.seconds.to_le_bytes());
        bytes.extend_from_slice(&time.nanoseconds.to_le_bytes());
    }
    bytes.extend_from_slice(content.as_bytes());
    let mut attributes = Vec::new();
    for xattr in xattrs {
        attributes.push(short(xattr.name.len()));
        attributes.extend_from_slice(&xattr.name);
        let length = u32::try_from(xattr.value.len()).expect("at most 64 KiB (XATTR_SIZE_MAX)");
        attributes.extend_from_slice(&length.to_le_bytes());
        attributes.extend_from_slice(&xattr.value);
    }
    let length = u32::try_from(attributes.len()).expect("at most 64 KiB of names and values");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&attributes);
}

#[cfg(test)]
mod tests {
    use rustix::fs::FileType;

    use super::*;

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

    #[test]
    fn a_damaged_file_is_an_empty_index() {
        let state = tempfile::tempdir().expect("temporary directory");
        let mut index = Index::new(state.path(), Path::new("/context"));
        index.remember(b"d", vec![(b"a".to_vec(), record(1))], None);
        index.save(|_| true).expect("written");
        let good = fs::read(&index.file).expect("read");
        for damage in [0, 9, 20, good.len() - 1] {
            let mut bad = good.clone();
            bad[damage] ^= 1;
            fs::write(&index.file, bad).expect("written");
            assert!(Index::new(state.path(), Path::new("/context")).directory(b"d").is_none(), "byte {damage}");
        }
        fs::write(&index.file, b"").expect("written");
        assert!(Index::new(state.path(), Path::new("/context")).directory(b"d").is_none());
    }

    #[test]
    fn a_few_changes_are_written_beside_the_rest() {
        let state = tempfile::tempdir().expect("temporary directory");
        let open = || Index::new(state.path(), Path::new("/context"));
        let name = |number: u64| format!("d{number}").into_bytes();
        let mut index = open();
        let many = |number| (0..50).map(|file| (vec![b'a' + file], record(number))).collect();
        (0..20).for_each(|number| index.remember(&name(number), many(number), None));
        index.save(|_| true).expect("written");
        let (first, more) = (index.file.clone(), index.more_file());
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
}
