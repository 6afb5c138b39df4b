//! [`Table`]: the files of an index, which the module above describes.

use std::cell::{Cell, OnceCell};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{Directories, Records};
use crate::reader::Reader;

const MAGIC: &[u8; 8] = b"rbindex2";
const MORE_MAGIC: &[u8; 8] = b"rbmore2\n";

/// Length of what is before the table.
const HEAD: usize = 16;

/// Length of the pieces that have a digest each, in bytes. It belongs to the format.
const PIECE: usize = 16 << 10;

/// Once more than one of so many pieces were read alone, all are read together: that takes less time for each.
const FEW: usize = 16;

/// The first file, open: it stays the one that it was when another process puts one in its place.
#[derive(Debug)]
pub(super) struct Table {
    file: File,
    file_length: u64,
    /// From the beginning of the file.
    bytes: Vec<u8>,
    digest: [u8; 32],
    /// Sorted by path.
    rows: Vec<Row>,
    /// Length of the records together.
    length: usize,
    pieces: Vec<Piece>,
    /// Number of pieces that were read alone.
    alone: Cell<usize>,
    /// The records, once they were read together, as far as they are there.
    together: OnceCell<Option<Records>>,
}

#[derive(Debug)]
struct Row {
    /// Where the path is in the table.
    path: Range<usize>,
    /// Where the records are behind it.
    records: Range<usize>,
}

#[derive(Debug)]
struct Piece {
    digest: [u8; 32],
    /// Whether what was read together has this piece as it was written.
    is_whole: OnceCell<bool>,
}

impl Table {
    /// Reads the table of a file; `None` if anything is wrong with it.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let file_length = file.metadata().ok()?.len();
        let mut bytes = vec![0; HEAD];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let length = u64::from_le_bytes(bytes.strip_prefix(MAGIC)?.try_into().ok()?);
        // Nothing vouches for it yet, but more than there is in the file it can't be.
        let end = length.checked_add(HEAD as u64 + 32).filter(|end| *end <= file_length)?;
        bytes.resize(usize::try_from(end).ok()?, 0);
        file.read_exact_at(&mut bytes[HEAD..], HEAD as u64).ok()?;
        let (body, digest) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(body).as_bytes() != digest {
            return None;
        }
        let digest = *digest;
        let (rows, pieces) = parse(body)?;
        let length = rows.last().map_or(0, |row| row.records.end);
        let (alone, together) = (Cell::new(0), OnceCell::new());
        Some(Self { file, file_length, bytes, digest, rows, length, pieces, alone, together })
    }

    /// Names the file: two with the same have the same content.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Length of the whole file in bytes.
    pub(super) fn file_length(&self) -> u64 {
        self.file_length
    }

    /// Whether there is such a directory. Its records may be damaged.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.row(path).is_some()
    }

    /// The records of a directory; they are read now.
    pub(super) fn records(&self, path: &[u8]) -> Option<Records> {
        self.records_of(self.row(path)?)
    }

    /// All directories in order of their paths, without those that can't be read.
    pub(super) fn directories(&self) -> impl Iterator<Item = (&[u8], Records)> {
        self.rows.iter().filter_map(|row| Some((self.path(row), self.records_of(row)?)))
    }

    fn row(&self, path: &[u8]) -> Option<&Row> {
        let at = self.rows.binary_search_by(|row| self.path(row).cmp(path)).ok()?;
        Some(&self.rows[at])
    }

    fn path(&self, row: &Row) -> &[u8] {
        &self.bytes[row.path.clone()]
    }

    fn records_of(&self, row: &Row) -> Option<Records> {
        let pieces = row.records.start / PIECE..row.records.end.div_ceil(PIECE);
        if self.alone.get() * FEW > self.pieces.len() {
            return self.whole(pieces)?.part(row.records.clone());
        }
        self.alone.set(self.alone.get() + pieces.len());
        let start = pieces.start * PIECE;
        let read = self.read(start..self.length.min(pieces.end * PIECE))?;
        let is_whole = read.as_bytes().chunks(PIECE).zip(&self.pieces[pieces]).all(|(bytes, piece)| piece.is(bytes));
        is_whole.then(|| read.part(row.records.start - start..row.records.end - start))?
    }

    /// All records, if these pieces are what was written.
    fn whole(&self, pieces: Range<usize>) -> Option<&Records> {
        let room = usize::try_from(self.file_length).map_or(usize::MAX, |length| length - self.bytes.len());
        let all = self.together.get_or_init(|| self.read(0..self.length.min(room))).as_ref()?;
        let is_whole = |number: usize| {
            let place = number * PIECE..self.length.min((number + 1) * PIECE);
            let piece = &self.pieces[number];
            *piece.is_whole.get_or_init(|| all.as_bytes().get(place).is_some_and(|bytes| piece.is(bytes)))
        };
        pieces.into_iter().all(is_whole).then_some(all)
    }

    /// Reads a part of the records.
    fn read(&self, place: Range<usize>) -> Option<Records> {
        let start = self.bytes.len() as u64;
        if place.end as u64 > self.file_length - start {
            return None;
        }
        let mut bytes = vec![0; place.len()];
        self.file.read_exact_at(&mut bytes, start + place.start as u64).ok()?;
        Some(Records::from(bytes))
    }
}

impl Piece {
    fn is(&self, bytes: &[u8]) -> bool {
        *blake3::hash(bytes).as_bytes() == self.digest
    }
}

/// What the table says.
fn parse(table: &[u8]) -> Option<(Vec<Row>, Vec<Piece>)> {
    let mut rest = Reader { bytes: table.get(HEAD..)? };
    let mut rows = Vec::new();
    let mut start: usize = 0;
    for _ in 0..u32::from_le_bytes(rest.array()?) {
        let path = rest.take_path()?.len();
        let path_end = table.len() - rest.bytes.len();
        let end = rest.length()?.checked_add(start)?;
        rows.push(Row { path: path_end - path..path_end, records: start..end });
        start = end;
    }
    let (digests, rest) = rest.bytes.as_chunks::<32>();
    let pieces = digests.iter().map(|digest| Piece { digest: *digest, is_whole: OnceCell::new() }).collect();
    (rest.is_empty() && digests.len() == start.div_ceil(PIECE)).then_some((rows, pieces))
}

/// The bytes of a first file.
pub(super) fn encode(directories: &Directories) -> Vec<u8> {
    let mut bytes = [MAGIC, &[0; HEAD - 8 + 4][..]].concat();
    let (mut count, mut length): (u32, usize) = (0, 0);
    for (path, records) in fitting(directories) {
        put_directory(path, records, &mut bytes);
        count += 1;
        length += records.len();
    }
    let digests = bytes.len();
    let end = digests + length.div_ceil(PIECE) * 32;
    bytes.reserve_exact(end + 32 + length - digests);
    bytes.resize(end + 32, 0);
    fitting(directories).for_each(|(_, records)| bytes.extend_from_slice(records));
    let (table, records) = bytes.split_at_mut(end + 32);
    let (table, digest) = table.split_at_mut(end);
    table[8..HEAD].copy_from_slice(&((end - HEAD) as u64).to_le_bytes());
    table[HEAD..HEAD + 4].copy_from_slice(&count.to_le_bytes());
    for (digest, piece) in table[digests..].chunks_mut(32).zip(records.chunks(PIECE)) {
        digest.copy_from_slice(blake3::hash(piece).as_bytes());
    }
    digest.copy_from_slice(blake3::hash(table).as_bytes());
    bytes
}

/// The bytes of a second file, for the first one with this digest.
pub(super) fn encode_more(first: &[u8; 32], directories: &Directories) -> Vec<u8> {
    let mut bytes = [MORE_MAGIC, &first[..]].concat();
    for (path, records) in fitting(directories) {
        put_directory(path, records, &mut bytes);
        bytes.extend_from_slice(records);
    }
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// What a second file has; `None` if anything is wrong with it, or it is beside another first one.
pub(super) fn read_more(path: &Path, first: &[u8; 32]) -> Option<Directories> {
    let bytes = fs::read(path).ok()?;
    let (body, digest) = bytes.split_last_chunk::<32>()?;
    let mut rest = Reader { bytes: body.strip_prefix(MORE_MAGIC)?.strip_prefix(first)? };
    if blake3::hash(body).as_bytes() != digest {
        return None;
    }
    let mut places = Vec::new();
    while !rest.bytes.is_empty() {
        let path = rest.take_path()?.to_vec();
        let length = rest.length()?;
        rest.take(length)?;
        let end = body.len() - rest.bytes.len();
        places.push((path, end - length..end));
    }
    let all = Records::from(bytes);
    places.into_iter().map(|(path, place)| Some((path, all.part(place)?))).collect()
}

/// The directories that a file can have: paths end at `PATH_MAX`, but nobody bounds the files in a directory.
fn fitting(directories: &Directories) -> impl Iterator<Item = (&[u8], &[u8])> {
    let all = directories.iter().map(|(path, records)| (path.as_slice(), records.as_bytes()));
    all.filter(|(path, records)| u16::try_from(path.len()).is_ok() && u32::try_from(records.len()).is_ok())
}

fn put_directory(path: &[u8], records: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&u16::try_from(path.len()).expect("it is fitting").to_le_bytes());
    bytes.extend_from_slice(path);
    bytes.extend_from_slice(&u32::try_from(records.len()).expect("it is fitting").to_le_bytes());
}

impl<'a> Reader<'a> {
    fn take_path(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        self.take(length)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }
}
