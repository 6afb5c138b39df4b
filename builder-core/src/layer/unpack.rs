//! [`unpack`].

use std::io::Read;

use super::UnpackError;
use crate::oci::DiffId;
use crate::rootfs::{Owner, RootPath};
use crate::snapshot::Active;
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
    /// Digest of the uncompressed archive.
    pub diff_id: DiffId,
    /// Length of the uncompressed archive in bytes.
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
/// # Errors
/// [`UnpackError`].
pub fn unpack(reader: impl Read, active: &Active, options: &UnpackOptions<'_>) -> Result<Unpacked, UnpackError> {
    let _ = (reader, active, options);
    todo!("in a minute")
}
