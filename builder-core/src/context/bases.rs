//! [`Bases`]: what was made of a whole directory, and the outline that it had then.
//!
//! One file a context, `STATE/contexts/<BLAKE3 of its canonical path>.bases`, version 1, numbers little-endian:
//!
//! ```text
//! "rbbases1"
//! base × n, oldest first:
//!     digest of what is made of the files (32)  id of the tree that was made (32)  number of directories (4)
//!     directory: path length (2)  path  digest (32)
//! BLAKE3 of everything before (32)
//! ```
//!
//! A damaged, foreign or missing file has no bases. It only saves time: it is not synced, and who writes last wins.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Outline;
use crate::rootfs::RootPath;
use crate::small_file;
use crate::tree::TreeId;

const MAGIC: &[u8; 8] = b"rbbases1";

/// Bases that are kept for a context: more than a Dockerfile has copies of large directories.
const MOST: usize = 16;

/// A tree that was made of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The directory as it was.
    pub outline: Outline,
    /// What was made of it.
    pub tree: TreeId,
}

/// The bases of one context.
#[derive(Debug)]
pub(super) struct Bases {
    file: PathBuf,
    loaded: Option<Vec<([u8; 32], Arc<Base>)>>,
    changed: bool,
}

impl Bases {
    /// Names the bases of a context; nothing is read yet.
    pub(super) fn new(state: &Path, canonical_root: &Path) -> Self {
        let name = blake3::hash(canonical_root.as_os_str().as_encoded_bytes()).to_hex();
        Self { file: state.join("contexts").join(format!("{name}.bases")), loaded: None, changed: false }
    }

    pub(super) fn get(&mut self, making: &[u8; 32]) -> Option<Arc<Base>> {
        self.loaded().iter().find(|(known, _)| known == making).map(|(_, base)| Arc::clone(base))
    }

    pub(super) fn put(&mut self, making: [u8; 32], base: Base) {
        let loaded = self.loaded();
        loaded.retain(|(known, _)| *known != making);
        loaded.push((making, Arc::new(base)));
        let surplus = loaded.len().saturating_sub(MOST);
        loaded.drain(..surplus);
        self.changed = true;
    }

    /// Writes the file, if there is something new.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let mut bytes = MAGIC.to_vec();
        for (making, base) in self.loaded() {
            encode(making, base, &mut bytes);
        }
        let checksum = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&checksum);
        small_file::write(&self.file, &bytes)?;
        self.changed = false;
        Ok(())
    }

    fn loaded(&mut self) -> &mut Vec<([u8; 32], Arc<Base>)> {
        self.loaded.get_or_insert_with(|| fs::read(&self.file).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default())
    }
}

fn encode(making: &[u8; 32], base: &Base, bytes: &mut Vec<u8>) {
    let directories = &base.outline.directories;
    let Ok(count) = u32::try_from(directories.len()) else { return };
    bytes.extend_from_slice(making);
    bytes.extend_from_slice(base.tree.as_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    for (path, digest) in directories {
        let length = u16::try_from(path.as_bytes().len()).expect("bounded by PATH_MAX");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(path.as_bytes());
        bytes.extend_from_slice(digest);
    }
}

fn parse(bytes: &[u8]) -> Option<Vec<([u8; 32], Arc<Base>)>> {
    let (body, checksum) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut bases = Vec::new();
    while !rest.is_empty() {
        let making = take(&mut rest)?;
        let tree = TreeId::new(take(&mut rest)?);
        let mut directories = BTreeMap::new();
        for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
            let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
            let (path, after) = rest.split_at_checked(length)?;
            rest = after;
            directories.insert(RootPath::from_clean(path)?, take(&mut rest)?);
        }
        bases.push((making, Arc::new(Base { outline: Outline { directories }, tree })));
    }
    Some(bases)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(number: u8) -> Base {
        let paths = ["", "a", "a/b c"].map(|path| RootPath::clean(path).expect("clean"));
        Base {
            outline: Outline { directories: paths.map(|path| (path, [number; 32])).into() },
            tree: TreeId::new([number; 32]),
        }
    }

    #[test]
    fn the_newest_bases_come_back_and_damaged_ones_do_not() {
        let state = tempfile::tempdir().expect("temporary directory");
        let open = || Bases::new(state.path(), Path::new("/context"));
        let mut bases = open();
        bases.save().expect("nothing to do");
        assert!(!state.path().join("contexts").exists());
        let most = u8::try_from(MOST).expect("small");
        for number in 0..=most {
            bases.put([number; 32], base(number));
        }
        bases.put([7; 32], base(8));
        bases.save().expect("written");
        let mut again = open();
        for (number, expected) in [(0, None), (1, Some(base(1))), (7, Some(base(8))), (most, Some(base(most)))] {
            assert_eq!(again.get(&[number; 32]).as_deref(), expected.as_ref(), "{number}");
        }
        assert_eq!(Bases::new(state.path(), Path::new("/other")).get(&[1; 32]), None);

        let good = fs::read(&bases.file).expect("read");
        for damage in [0, 9, 80, good.len() - 1] {
            let mut bad = good.clone();
            bad[damage] ^= 1;
            fs::write(&bases.file, bad).expect("written");
            assert_eq!(open().get(&[1; 32]), None, "byte {damage}");
        }
        fs::write(&bases.file, &good[..good.len() - 33]).expect("written");
        assert_eq!(open().get(&[1; 32]), None);
    }
}
