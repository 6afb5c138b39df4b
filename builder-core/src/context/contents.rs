//! [`Contents`]: small files of a context together in one file.
//!
//! The tar of a layer is hashed from the first difference to an earlier one on, and for most of that time the kernel opens
//! small files that did not change. Once they had to be opened for that, what is in them is kept here.
//!
//! One file a context, `STATE/contexts/<BLAKE3 of its canonical path>.contents`, version 1, numbers little-endian:
//!
//! ```text
//! content × n, one behind the other
//! row × n, sorted:  first bytes of the content's digest (8)  where it begins (4)  length (4)
//! n (4)  "rbcontents1\n" (12)
//! ```
//!
//! Nothing here is trusted: whoever takes a content compares it with its digest. A damaged, foreign or missing file has
//! nothing; it only saves time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use tempfile::NamedTempFile;

use crate::lock::lock;
use crate::small_file;
use crate::tree::ContentDigest;

const MAGIC: &[u8; 12] = b"rbcontents1\n";

/// Length of what is behind the rows.
const END: usize = 16;

/// Length of a row.
const ROW: usize = 16;

/// Contents up to this length, in bytes: larger ones take longer to hash than to open.
const LARGEST: usize = 16 << 10;

/// Bytes of contents at most.
const MOST: u64 = 64 << 20;

/// New contents from which on they are kept.
const WORTH: usize = if cfg!(debug_assertions) { 1 } else { 256 };

/// Bytes that are read at once: contents are wanted in about the order in which they were kept.
const BLOCK: u64 = 64 << 10;

/// Blocks that are held: a few threads want contents of different places.
const BLOCKS: usize = 8;

/// A digest's first bytes, and where its content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    digest: [u8; 8],
    start: u32,
    length: u32,
}

/// The small files of a context that are kept.
#[derive(Debug)]
pub(super) struct Contents {
    file: PathBuf,
    known: OnceLock<Option<Known>>,
    new: Mutex<New>,
}

#[derive(Debug)]
struct Known {
    file: File,
    /// Length of the contents together.
    length: u64,
    rows: Vec<u8>,
    /// Those read last, by number; the last one is at the end.
    blocks: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
}

#[derive(Debug, Default)]
struct New {
    /// Begun with the first content.
    file: Option<BufWriter<NamedTempFile>>,
    rows: Vec<Row>,
    length: u64,
    /// Nothing is gathered any more.
    failed: bool,
}

impl Contents {
    /// Names those of a context; nothing is read yet.
    pub(super) fn new(state: &Path, canonical_root: &Path) -> Self {
        let file = super::place(state, canonical_root).with_extension("contents");
        Self { file, known: OnceLock::new(), new: Mutex::default() }
    }

    /// Appends the content that has a digest and this length, in bytes; says whether it is there.
    pub(super) fn read(&self, content: &ContentDigest, length: u64, out: &mut Vec<u8>) -> bool {
        let Some(known) = self.known() else { return false };
        let found = known.find(content).filter(|row| u64::from(row.length) == length);
        let start = out.len();
        let is_read = found.is_some_and(|row| known.read(&row, out).is_ok());
        let is_it = is_read && ContentDigest::of(&out[start..]) == *content;
        if !is_it {
            out.truncate(start);
        }
        is_it
    }

    /// Keeps a content, if it is small.
    pub(super) fn note(&self, content: &ContentDigest, bytes: &[u8]) {
        let mut new = lock(&self.new);
        if bytes.len() > LARGEST || new.failed || new.length + bytes.len() as u64 > MOST {
            return;
        }
        new.failed = new.add(&self.file, content, bytes).is_err();
    }

    /// Writes the file, if there is much that is new. What was known stays as long as there is room.
    pub(super) fn save(&self) -> io::Result<()> {
        let New { file, mut rows, length, failed } = std::mem::take(&mut *lock(&self.new));
        let Some(mut out) = file.filter(|_| rows.len() >= WORTH && !failed) else { return Ok(()) };
        if let Some(known) = self.known().filter(|known| known.length + length <= MOST) {
            let mut old = &known.file;
            old.rewind()?;
            if io::copy(&mut old.take(known.length), &mut out)? < known.length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let shift = u32::try_from(length).expect("bounded by MOST");
            rows.extend(known.rows().map(|row| Row { start: row.start + shift, ..row }));
        }
        // A content that came twice has two places; one row is enough, and that of the new one comes first.
        rows.sort_unstable();
        rows.dedup_by_key(|row| row.digest);
        for row in &rows {
            out.write_all(&row.digest)?;
            out.write_all(&row.start.to_le_bytes())?;
            out.write_all(&row.length.to_le_bytes())?;
        }
        out.write_all(&u32::try_from(rows.len()).expect("bounded by MOST").to_le_bytes())?;
        out.write_all(MAGIC)?;
        let written = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        small_file::finish(written, &self.file)
    }

    fn known(&self) -> Option<&Known> {
        self.known.get_or_init(|| Known::open(&self.file).ok().flatten()).as_ref()
    }
}

impl New {
    fn add(&mut self, path: &Path, content: &ContentDigest, bytes: &[u8]) -> io::Result<()> {
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
            small_file::make_directory(directory)?;
            self.file.insert(BufWriter::with_capacity(128 << 10, small_file::begin(directory)?))
        };
        file.write_all(bytes)?;
        let start = u32::try_from(self.length).expect("bounded by MOST");
        let length = u32::try_from(bytes.len()).expect("bounded by LARGEST");
        self.rows.push(Row { digest: first_bytes(content), start, length });
        self.length += u64::from(length);
        Ok(())
    }
}

impl Known {
    /// `None` if it is not one of ours.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut end = [0; END];
        let Some(rows_end) = size.checked_sub(END as u64) else { return Ok(None) };
        file.read_exact_at(&mut end, rows_end)?;
        let count = u32::from_le_bytes(end[..4].try_into().expect("four bytes"));
        let Some(length) = rows_end.checked_sub(u64::from(count) * ROW as u64) else { return Ok(None) };
        if end[4..] != *MAGIC || length > MOST {
            return Ok(None);
        }
        let mut rows = vec![0; usize::try_from(rows_end - length).map_err(io::Error::other)?];
        file.seek(io::SeekFrom::Start(length))?;
        file.read_exact(&mut rows)?;
        small_file::mark_used(path);
        Ok(Some(Self { file, length, rows, blocks: Mutex::default() }))
    }

    /// Digests are spread evenly: a row is near the place that its digest says.
    fn find(&self, content: &ContentDigest) -> Option<Row> {
        let rows = self.rows.as_chunks::<ROW>().0;
        let digest = |row: &[u8; ROW]| u64::from_be_bytes(row[..8].try_into().expect("eight bytes"));
        let wanted = u64::from_be_bytes(first_bytes(content));
        let guess = usize::try_from((u128::from(wanted) * rows.len() as u128) >> 64).expect("less than there are rows");
        let (mut low, mut high, mut step) = (guess, guess, 16);
        while low > 0 && digest(&rows[low]) >= wanted {
            (low, step) = (low.saturating_sub(step), step * 2);
        }
        while high < rows.len() && digest(&rows[high]) < wanted {
            (high, step) = ((high + step).min(rows.len()), step * 2);
        }
        let end = (high + 1).min(rows.len());
        let near = rows.get(low..end)?;
        let at = near.binary_search_by_key(&wanted, digest).ok()?;
        Some(Row::of(&near[at]))
    }

    fn read(&self, row: &Row, out: &mut Vec<u8>) -> io::Result<()> {
        let (start, length) = (u64::from(row.start), row.length as usize);
        let number = start / BLOCK;
        if start + length as u64 > (number + 1) * BLOCK {
            let end = out.len();
            out.resize(end + length, 0);
            return self.file.read_exact_at(&mut out[end..], start);
        }
        let block = self.block(number)?;
        let at = usize::try_from(start % BLOCK).map_err(io::Error::other)?;
        out.extend_from_slice(block.get(at..at + length).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn block(&self, number: u64) -> io::Result<Arc<Vec<u8>>> {
        let known = lock(&self.blocks).iter().rev().find(|(known, _)| *known == number).map(|(_, block)| block.clone());
        if let Some(block) = known {
            return Ok(block);
        }
        let start = number * BLOCK;
        let length = usize::try_from(BLOCK.min(self.length.saturating_sub(start))).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        let block = Arc::new(bytes);
        let mut blocks = lock(&self.blocks);
        if blocks.len() == BLOCKS {
            blocks.pop_front();
        }
        blocks.push_back((number, Arc::clone(&block)));
        Ok(block)
    }

    /// Those that can be meant.
    fn rows(&self) -> impl Iterator<Item = Row> {
        let all = self.rows.as_chunks::<ROW>().0.iter().map(Row::of);
        all.filter(|row| u64::from(row.start) + u64::from(row.length) <= self.length)
    }
}

impl Row {
    fn of(bytes: &[u8; ROW]) -> Self {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Self { digest: bytes[..8].try_into().expect("eight bytes"), start: number(8), length: number(12) }
    }
}

fn first_bytes(content: &ContentDigest) -> [u8; 8] {
    content.as_bytes()[..8].try_into().expect("a digest has 32")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(number: usize) -> Vec<u8> {
        format!("content {number}").repeat(number % 7 + 1).into_bytes()
    }

    fn open(state: &Path) -> Contents {
        Contents::new(state, Path::new("/context"))
    }

    /// The numbers of those that are there.
    fn found(contents: &Contents, numbers: std::ops::Range<usize>) -> Vec<usize> {
        let is_there = |number: &usize| {
            let expected = content(*number);
            let mut out = b"before ".to_vec();
            let is_there = contents.read(&ContentDigest::of(&expected), expected.len() as u64, &mut out);
            assert_eq!(out, [&b"before "[..], if is_there { &expected } else { &[] }].concat(), "{number}");
            is_there
        };
        numbers.filter(is_there).collect()
    }

    fn keep(state: &Path, numbers: std::ops::Range<usize>) {
        let contents = open(state);
        for number in numbers {
            contents.note(&ContentDigest::of(&content(number)), &content(number));
        }
        contents.save().expect("written");
    }

    #[test]
    fn contents_come_back_with_those_that_were_kept_later() {
        let state = tempfile::tempdir().expect("temporary directory");
        assert_eq!(found(&open(state.path()), 0..3), [0; 0]);
        keep(state.path(), 0..300);
        keep(state.path(), 200..400);
        keep(state.path(), 0..0);
        assert_eq!(found(&open(state.path()), 0..500), (0..400).collect::<Vec<_>>());
        let contents = open(state.path());
        let wanted = ContentDigest::of(&content(7));
        assert!(!contents.read(&wanted, content(7).len() as u64 - 1, &mut Vec::new()), "another length");
        // More than a few blocks, with contents across their ends.
        keep(state.path(), 400..20_000);
        assert_eq!(found(&open(state.path()), 0..20_500), (0..20_000).collect::<Vec<_>>());
        contents.note(&wanted, &vec![0; LARGEST + 1]);
        assert!(lock(&contents.new).file.is_none(), "a large file is not kept");
        let names: Vec<_> = std::fs::read_dir(state.path().join("contexts")).expect("listed").collect();
        assert_eq!(names.len(), 1, "nothing unfinished stays: {names:?}");
    }

    #[test]
    fn damaged_contents_are_not_there() {
        let state = tempfile::tempdir().expect("temporary directory");
        keep(state.path(), 0..50);
        let path = open(state.path()).file;
        let good = std::fs::read(&path).expect("read");
        for damage in (0..good.len()).step_by(25).chain(good.len() - 20..good.len()) {
            let mut bad = good.clone();
            bad[damage] ^= 0x80;
            std::fs::write(&path, &bad).expect("written");
            assert!(found(&open(state.path()), 0..50).len() < 50, "byte {damage}");
            // It does not stand in the way of new ones.
            keep(state.path(), 50..60);
            let after = found(&open(state.path()), 50..60);
            assert_eq!(after, (50..60).collect::<Vec<_>>(), "byte {damage}");
        }
        for length in [0, 3, 15, 16, 17, good.len() - 1] {
            std::fs::write(&path, &good[..length]).expect("written");
            assert_eq!(found(&open(state.path()), 0..50), [0; 0], "{length} bytes");
        }
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert_eq!(found(&open(state.path()), 0..50), [0; 0]);
        keep(state.path(), 0..50);
        assert_eq!(found(&open(state.path()), 0..50).len(), 50, "a directory is replaced");
    }
}
