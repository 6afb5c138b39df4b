//! [`Records`]: what is known of the files of one directory.

use std::ops::Range;
use std::sync::Arc;

use crate::reader::Reader;
use crate::tree::{ContentDigest, Time, Xattr};

/// What the kernel says of a file, as far as a change of its content or attributes has to change it: `ctime` moves with
/// every write, even one that sets `mtime` back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::context) struct Stamp {
    pub(in crate::context) device: u64,
    pub(in crate::context) inode: u64,
    pub(in crate::context) size: u64,
    pub(in crate::context) modified: Time,
    pub(in crate::context) changed: Time,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::context) struct Record {
    pub(in crate::context) stamp: Stamp,
    pub(in crate::context) content: ContentDigest,
    pub(in crate::context) xattrs: Vec<Xattr>,
}

/// The records of one directory.
#[derive(Debug, Clone)]
pub(in crate::context) struct Records {
    /// Of other directories too, and what else was read with them.
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Records {
    /// Those of files in order of their names.
    pub(super) fn of(all: &[(Vec<u8>, Record)]) -> Self {
        let mut bytes = Vec::new();
        for (name, record) in all {
            encode(name, record, &mut bytes);
        }
        Self::from(bytes)
    }

    /// Those in a part of the bytes, which stay where they are.
    pub(super) fn part(&self, part: Range<usize>) -> Option<Self> {
        let range = self.range.start.checked_add(part.start)?..self.range.start.checked_add(part.end)?;
        (range.start <= range.end && range.end <= self.range.end)
            .then(|| Self { bytes: Arc::clone(&self.bytes), range })
    }

    /// As they are in a file.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    /// The records in order of their names.
    pub(in crate::context) fn iter(&self) -> impl Iterator<Item = (&[u8], Record)> {
        let mut reader = self.reader();
        std::iter::from_fn(move || reader.record())
    }

    /// A cursor for names that are asked in order.
    pub(in crate::context) fn reader(&self) -> Reader<'_> {
        Reader { bytes: self.as_bytes() }
    }
}

/// Bytes that may be of several directories.
impl From<Vec<u8>> for Records {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { bytes: Arc::new(bytes), range }
    }
}

/// Reads records from the start; ends at anything that is not one.
impl<'a> Reader<'a> {
    /// Goes on to `name` and returns its record. Names have to be asked in order.
    pub(in crate::context) fn find(&mut self, name: &[u8]) -> Option<Record> {
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
