//! Archives of ADD: unpacked once each, and remembered by their content.

use std::fs::File;
use std::io::{self, Read};

use crate::build::engine::seconds_now;
use crate::build::error::StepError;
use crate::build::filesystem::Work;
use crate::build::op::copy::UnpackedArchive;
use crate::build::solve::Session;
use crate::cache::{Preimage, Record};
use crate::layer::{self, Archive, Decompressor, LowerLink, UnpackError, UnpackOptions};
use crate::snapshot::Snapshot;
use crate::tar;
use crate::tree::{Entry, Node, Time, Tree};

/// Marks, in what is remembered of an archive, the directories that it has no entry for: the last moment before 1970.
const IMPLIED: Time = Time { seconds: -1, nanoseconds: 999_999_999 };

/// What became of an archive.
pub(crate) enum Unpacked {
    /// What it changes, and the snapshot that has its files.
    Archive(UnpackedArchive, Snapshot),
    /// It takes work to find out, and none is allowed.
    Unknown,
}

/// Whether the file of `entry`, which `open` opens, is a tar archive, compressed or not.
pub(crate) fn holds_archive(entry: &Entry, open: &dyn Fn() -> io::Result<File>) -> Result<bool, StepError> {
    if !entry.node.is_file() {
        return Ok(false);
    }
    let file = open().map_err(|source| StepError::Io { what: format!("cannot read `{}`", entry.path), source })?;
    Ok(is_archive(file))
}

/// Unpacks an archive.
///
/// What it comes to is remembered by everything that it depends on: content, place, owner, and the image below, whose
/// links are followed.
pub(crate) fn unpack(
    session: &Session<'_>,
    entry: &Entry,
    open: &dyn Fn() -> io::Result<File>,
    archive: Archive<'_>,
    work: Work,
) -> Result<Unpacked, StepError> {
    let failed = |source| StepError::Io { what: format!("cannot read `{}`", entry.path), source };
    let Node::File { content, .. } = entry.node else { unreachable!("only files hold archives") };
    let engine = session.engine;
    let mut preimage = Preimage::new("archive with implied directories");
    preimage.add("content", content);
    preimage.add("into", &archive.into);
    preimage.add("owner", format_args!("{:?}", archive.owner));
    preimage.add("root", archive.lower.state());
    if let Some(record) = engine.cache.get(&preimage.key())?
        && let Some(tree) = engine.trees.get(&record.tree)?
        && let Some(snapshot) = engine.snapshots.get_verified(&tree)?
    {
        return Ok(Unpacked::Archive(described(tree), snapshot));
    }
    if work == Work::Known {
        return Ok(Unpacked::Unknown);
    }
    let active = engine.snapshots.begin()?;
    let lower = archive.lower;
    let options = UnpackOptions { archive: Some(archive), ..UnpackOptions::default() };
    let unpacked = layer::unpack(open().map_err(failed)?, &active, &options)?;
    if let Some(LowerLink { path, target }) = unpacked.lower_links.into_iter().next() {
        return Err(UnpackError::LinkTarget { path, target }.into());
    }
    // A directory that the archive does not describe stays as the image has it, but for its time.
    let tree = layer::fix_implied(&active, &unpacked.tree, &unpacked.implied, lower)?;
    let tree = layer::stamp(&active, &tree, &unpacked.implied, IMPLIED)?;
    let id = engine.trees.put(&tree)?;
    let snapshot = engine.snapshots.commit(active, &tree)?;
    let record = Record {
        preimage,
        tree: id,
        semantic: tree.semantic(),
        created: seconds_now(),
        milliseconds: Some(0),
        ran: None,
    };
    engine.cache.put(&record)?;
    Ok(Unpacked::Archive(described(tree), snapshot))
}

fn described(tree: Tree) -> UnpackedArchive {
    let implied = tree.iter().filter(|entry| entry.mtime == IMPLIED && entry.node.is_directory());
    UnpackedArchive { implied: implied.map(|entry| entry.path).collect(), tree }
}

/// Whether a file begins, uncompressed, with a header of tar: the checksum of the first block is right.
pub(crate) fn is_archive(file: impl Read) -> bool {
    let mut block = Vec::with_capacity(512);
    // What cannot be uncompressed is no archive, whatever it begins with.
    let read = Decompressor::new(file).and_then(|reader| reader.take(512).read_to_end(&mut block));
    read.is_ok() && tar::is_header(&block)
}

#[cfg(test)]
mod tests {
    use super::is_archive;
    use std::io::{Seek, Write};

    fn archive(bytes: &[u8]) -> bool {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(bytes).expect("written");
        file.rewind().expect("rewound");
        is_archive(file)
    }

    #[test]
    fn tar_is_known_by_its_checksum_through_any_compression() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_cksum();
        tar.append_data(&mut header, "f", &b"x"[..]).expect("appended");
        let tar = tar.into_inner().expect("finished");
        assert!(archive(&tar));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).expect("compressed");
        assert!(archive(&gzip.finish().expect("finished")));
        assert!(archive(&zstd::encode_all(&tar[..], 1).expect("compressed")));
        let mut damaged = tar.clone();
        damaged[3] ^= 1;
        for other in [&b""[..], b"text", b"\x1f\x8b broken gzip", &[0; 1024], &damaged] {
            assert!(!archive(other));
        }
    }
}
