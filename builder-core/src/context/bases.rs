//! [`Base`]: what was made of a whole directory, and the outline that it had then.
//!
//! A [memo](super::memo) `.bases`, "rbbases1", has the last ones of a context. Version 1, numbers little-endian:
//!
//! ```text
//! id of the tree that was made (32)  number of directories (4)
//! directory: path length (2)  path  digest (32)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Outline;
use super::memo::Remembered;
use crate::reader::Reader;
use crate::rootfs::RootPath;
use crate::tree::TreeId;

/// A tree that was made of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The directory as it was.
    pub outline: Outline,
    /// What was made of it.
    pub tree: TreeId,
}

impl Remembered for Arc<Base> {
    const MAGIC: &[u8; 8] = b"rbbases1";
    const ENDING: &str = "bases";
    /// More than a Dockerfile has copies of large directories.
    const MOST: usize = 16;

    fn encode(&self, bytes: &mut Vec<u8>) {
        let directories = &self.outline.directories;
        bytes.extend_from_slice(self.tree.as_bytes());
        bytes.extend_from_slice(&u32::try_from(directories.len()).expect("fewer than 2^32 paths").to_le_bytes());
        for (path, digest) in directories {
            let length = u16::try_from(path.as_bytes().len()).expect("bounded by PATH_MAX");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(path.as_bytes());
            bytes.extend_from_slice(digest);
        }
    }

    fn parse(bytes: &mut Reader<'_>) -> Option<Self> {
        let tree = TreeId::new(bytes.array()?);
        let mut directories = BTreeMap::new();
        for _ in 0..u32::from_le_bytes(bytes.array()?) {
            let length = usize::from(u16::from_le_bytes(bytes.array()?));
            let path = RootPath::from_clean(bytes.take(length)?)?;
            directories.insert(path, bytes.array()?);
        }
        Some(Self::new(Base { outline: Outline { directories }, tree }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_come_back_and_cut_ones_do_not() {
        let paths = ["", "a", "a/b c"].map(|path| RootPath::clean(path).expect("clean"));
        let directories = paths.map(|path| (path, [7; 32])).into();
        let base = Arc::new(Base { outline: Outline { directories }, tree: TreeId::new([8; 32]) });
        let mut bytes = Vec::new();
        base.encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(Arc::<Base>::parse(&mut Reader { bytes: &bytes[..cut] }), None, "cut at {cut}");
        }
        bytes.push(9);
        let mut rest = Reader { bytes: &bytes };
        assert_eq!(Arc::<Base>::parse(&mut rest), Some(base));
        assert_eq!(rest.bytes, [9]);
    }
}
