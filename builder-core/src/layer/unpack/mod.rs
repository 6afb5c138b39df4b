//! [`unpack`]: a tar blob as a directory and a tree, in one pass.
//!
//! ```text
//! reader ─ decompress ─ SHA-256 (diff id) ─┬─ tar::Reader ─▶ Placer ─▶ files on disk, hashed with BLAKE3 while written
//!            this thread                   │  another one      └─────▶ Tree
//! ```
//!
//! The archive is hostile until proven otherwise. Paths are resolved in the map of what was unpacked so far, never by
//! the kernel through links; the directory that comes out is opened with every link refused, and everything in it is
//! made by name, exclusively, and gets its metadata by descriptor. So nothing outside of the snapshot is ever touched.

mod content;
mod placer;
mod source;

use std::io::{self, Read};
use std::sync::mpsc::sync_channel;

use placer::{Placed, Placer};
use source::{AHEAD, PIECE, Pieces, Source, received};

use super::UnpackError;
use crate::oci::DiffId;
use crate::rootfs::{Owner, RootPath};
use crate::snapshot::Active;
use crate::tar::{Reader, TarError};
use crate::tree::{Stack, Tree};

/// What an archive may cost. Reaching a limit is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of the uncompressed archive, and of the files in it, holes of sparse ones included.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of paths, link targets and extended attributes, which are held in memory.
    pub metadata: u64,
}

impl Default for UnpackLimits {
    /// 128 GiB, 4 million entries, 512 MiB of metadata.
    fn default() -> Self {
        Self { bytes: 128 << 30, entries: 4_000_000, metadata: 512 << 20 }
    }
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Default)]
pub struct UnpackOptions<'a> {
    /// What it may cost.
    pub limits: UnpackLimits,
    /// `None` for a layer: names with `.wh.` are whiteouts, and nothing is known of what is below.
    pub archive: Option<Archive<'a>>,
}

/// An archive that is not a layer, unpacked by `ADD`: names with `.wh.` are refused.
#[derive(Debug, Clone)]
pub struct Archive<'a> {
    /// Directory in the image that it is unpacked into; its links are resolved already.
    pub into: RootPath,
    /// Owner of everything, instead of the archive's.
    pub owner: Option<Owner>,
    /// The image below: symbolic links to directories in it are followed.
    pub lower: &'a Stack,
}

/// What was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// Everything that the archive changes.
    pub tree: Tree,
    /// Digest of the uncompressed archive, with everything that follows its end.
    pub diff_id: DiffId,
    /// Length of the same in bytes.
    pub size: u64,
    /// Directories that the archive has no entry for; they are there with mode `0o755`, root's and from 1970, until
    /// [`fix_implied`](super::fix_implied).
    pub implied: Vec<RootPath>,
    /// Hard links to files of lower layers; they are not in the tree until
    /// [`resolve_lower_links`](super::resolve_lower_links).
    pub lower_links: Vec<LowerLink>,
    /// How many entries the disk could not take as they are (devices, foreign owners or attributes in a user
    /// namespace). The tree has them as they are.
    pub approximated: u64,
}

/// A hard link to a file that the archive has not got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowerLink {
    /// The link.
    pub path: RootPath,
    /// Where it leads.
    pub target: RootPath,
}

/// Unpacks a tar archive, compressed or not, into an empty snapshot.
///
/// Whiteouts become whiteouts of overlayfs. Of extended attributes those that belong to images are kept. Sparse files
/// stay sparse, long runs of zeros become holes. Of entries with one path the last wins, and a directory keeps what is
/// in it. A whiteout of a path that the layer has an entry for only hides what is below.
///
/// Reads `reader` to its end, so that a digest of the compressed bytes can be taken below. Format: OCI image-spec 1.1,
/// `layer.md`.
///
/// # Errors
/// [`UnpackError`]; what was unpacked so far stays in `active`, which is to be dropped.
pub fn unpack(reader: impl Read, active: &Active, options: &UnpackOptions<'_>) -> Result<Unpacked, UnpackError> {
    let mut source = Source::new(reader, options.limits.bytes)?;
    let first = source.piece()?;
    let placed = if first.len() < PIECE {
        place_all(&mut Pieces::new(first, || Ok(Vec::new())), active, options)?
    } else {
        place_beside(&mut source, first, active, options)?
    };
    let (diff_id, size) = source.finish()?;
    Ok(Unpacked {
        tree: placed.tree,
        diff_id: DiffId::new(diff_id),
        size,
        implied: placed.implied,
        lower_links: placed.lower_links,
        approximated: placed.approximated,
    })
}

/// Decompresses and hashes on this thread, while another one writes to disk.
fn place_beside<R: Read>(
    source: &mut Source<R>,
    first: Vec<u8>,
    active: &Active,
    options: &UnpackOptions<'_>,
) -> Result<Placed, UnpackError> {
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::scope(|scope| {
        let work = || place_all(&mut Pieces::new(first, received(receiver)), active, options);
        let placing = std::thread::Builder::new().name("unpack".to_owned()).spawn_scoped(scope, work)?;
        let fed = source.feed(&sender);
        drop(sender);
        let placed = placing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // An archive that ends because its source failed is not to blame.
        fed.and(placed)
    })
}

fn place_all(input: &mut impl Read, active: &Active, options: &UnpackOptions<'_>) -> Result<Placed, UnpackError> {
    let (mut archive, mut placer) = (Reader::new(input), Placer::new(active, options));
    while let Some(header) = archive.next_entry().map_err(from_tar)? {
        placer.place(header, &mut archive)?;
    }
    archive.drain()?;
    placer.finish()
}

fn from_tar(error: TarError) -> UnpackError {
    match error {
        TarError::Io(source) => UnpackError::Read { source },
        TarError::Malformed { reason, offset } => UnpackError::Tar { reason: reason.to_owned(), offset },
    }
}

/// An error while the content of a file is read; it may be one of the archive's form.
fn from_content(error: io::Error) -> UnpackError {
    match error.downcast::<TarError>() {
        Ok(error) => from_tar(error),
        Err(source) => UnpackError::Read { source },
    }
}

#[cfg(test)]
mod tests;
