//! [`Resume`]: the diff id of a tree that begins like one that was packed before, without reading what they have in common.
//!
//! The tar of a tree is decided by its entries in order, and so is the state of its digest after each of them. At some
//! entries, which the entries before them decide, the state is remembered under a digest of those entries; the next
//! tree with the same beginning goes on from there. What was hashed was read and verified then.

use super::pack::{Stops, pack_rest};
use super::{Files, PackError, PackOptions};
use crate::cancel::CancelToken;
use crate::content::{ContentError, Database};
use crate::oci::{DiffId, Hasher};
use crate::tree::Tree;

/// Weight between two states: bytes of files, and [`ENTRY`] for each entry.
const STEP: u64 = 1 << 20;

/// In large trees states are farther apart: one part in so many of what is before them.
const SHARE: u64 = 256;

/// A piece of a tree that weighs more has states within, too.
const LARGE_PIECE: u64 = 2 << 20;

/// What an entry weighs besides the bytes of its file: about what it takes to open one.
const ENTRY: u64 = 2048;

/// Where the states of digests are.
#[derive(Debug, Clone, Copy)]
pub struct Resume<'a> {
    /// For the states.
    pub database: &'a Database,
    /// Version of the bytes of archives.
    pub format: &'a str,
    /// Ends it.
    pub cancel: &'a CancelToken,
}

/// A diff id cannot be found out.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// A file cannot be read, or is another one.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The states cannot be read or written.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl Resume<'_> {
    /// The digest of what [`pack`](super::pack) writes.
    ///
    /// # Errors
    /// As there, and what the database says.
    pub fn diff_id(&self, tree: &Tree, files: &dyn Files, options: &PackOptions) -> Result<DiffId, ResumeError> {
        let stops = self.stops(tree, options);
        let (mut hasher, mut start) = (Hasher::default(), 0);
        let known = if stops.is_empty() || !self.database.has_tar_states()? { &[] } else { stops.as_slice() };
        for (index, key) in known.iter().rev() {
            if let Some(known) = self.database.tar_state(key)?.and_then(|state| Hasher::resume(&state)) {
                (hasher, start) = (known, *index);
                break;
            }
        }
        let mut states = Vec::new();
        let hashed = std::cell::RefCell::new(hasher);
        let mut out = |bytes: &[u8]| {
            self.cancel.check().map_err(std::io::Error::other)?;
            hashed.borrow_mut().update(bytes);
            Ok(())
        };
        let mut reached = |index| {
            let key = stops.binary_search_by_key(&index, |(stop, _)| *stop).map(|at| stops[at].1);
            states.extend(key.ok().zip(hashed.borrow().state()));
        };
        let at = stops.iter().map(|(stop, _)| *stop).collect();
        pack_rest(tree, files, options, &Stops { start, at }, &mut out, &mut reached)?;
        self.database.put_tar_states(&states)?;
        Ok(DiffId::new(hashed.into_inner().finish()))
    }

    /// Numbers of entries at which the state is remembered, and a digest of what is before each.
    fn stops(&self, tree: &Tree, options: &PackOptions) -> Vec<(usize, [u8; 32])> {
        let mut keys = blake3::Hasher::new();
        keys.update(format!("tar {} {:?} pieces\n", self.format, options.source_date_epoch).as_bytes());
        let mut stops = Vec::new();
        let (mut weight, mut next) = (0_u64, STEP);
        let step = |weight: u64| weight.saturating_add(STEP.max(weight / SHARE));
        for piece in tree.piece_views() {
            let entries = piece.entries();
            let end = weight.saturating_add(piece.sizes()).saturating_add(ENTRY * entries.len() as u64);
            // Within a piece only large files are worth a stop.
            if end - weight > LARGE_PIECE {
                let (mut within, mut hashed) = (blake3::Hasher::new(), entries.start);
                for index in entries.clone() {
                    let size = tree.file_size(index).map_or(0, |(size, _)| size);
                    weight = weight.saturating_add(size).saturating_add(ENTRY);
                    if weight >= next && index + 1 < entries.end {
                        within.update(piece.encoded(hashed..index + 1));
                        hashed = index + 1;
                        let mut key = keys.clone();
                        key.update(b"then").update(within.finalize().as_bytes());
                        stops.push((index + 1, *key.finalize().as_bytes()));
                        next = step(weight);
                    }
                }
            }
            keys.update(piece.digest());
            weight = end;
            if weight >= next {
                stops.push((entries.end, *keys.finalize().as_bytes()));
                next = step(weight);
            }
        }
        stops
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::content::ContentStore;
    use crate::layer::diff_id;
    use crate::rootfs::RootPath;
    use crate::tree::{ContentDigest, Entry, Node, Time, TreeBuilder};

    /// Files by path, and those that were opened.
    struct Folder {
        directory: tempfile::TempDir,
        opened: Mutex<Vec<String>>,
    }

    impl Files for Folder {
        fn open(&self, entry: &Entry) -> io::Result<File> {
            self.opened.lock().expect("no panic").push(entry.path.to_string());
            File::open(self.directory.path().join(entry.path.as_relative()))
        }
    }

    impl Folder {
        /// `count` files of the tree, changed as `edits` say: number and content, `None` for no such file.
        fn tree(&self, count: usize, edits: &[(usize, Option<&str>)]) -> Tree {
            let mut builder = TreeBuilder::new();
            for number in 0..count {
                let edit = edits.iter().find(|(edited, _)| *edited == number);
                let content = edit.map_or(Some("as it was"), |(_, content)| *content);
                let Some(content) = content else { continue };
                let name = format!("f{number:05}");
                std::fs::write(self.directory.path().join(&name), content).expect("written");
                // Every tenth is a hard link of the one before.
                let link = if number % 10 < 2 { u32::try_from(number / 10 + 1).expect("small") } else { 0 };
                let node =
                    Node::File { size: content.len() as u64, content: ContentDigest::of(content.as_bytes()), link };
                let path = RootPath::clean(&name).expect("clean");
                builder.push(Entry { node, mode: 0o644, ..Entry::directory(path, 0, 0, 0, Time::default()) });
            }
            builder.finish()
        }
    }

    #[test]
    fn what_begins_alike_is_read_from_where_it_differs_and_has_the_same_digest() {
        let state = tempfile::tempdir().expect("temporary directory");
        let content = ContentStore::open(state.path()).expect("opened");
        let cancel = CancelToken::new();
        let resume = |format| Resume { database: content.database(), format, cancel: &cancel };
        let folder = Folder { directory: tempfile::tempdir().expect("temporary directory"), opened: Mutex::default() };
        let check = |what: &str, format, options: PackOptions, tree: &Tree, most: std::ops::Range<usize>| {
            let expected = diff_id(tree, &folder, &options).expect("packed");
            folder.opened.lock().expect("no panic").clear();
            let found = resume(format).diff_id(tree, &folder, &options).expect("packed");
            assert_eq!(found, expected, "{what}");
            let opened = folder.opened.lock().expect("no panic").len();
            assert!(most.contains(&opened), "{what}: {opened} files were opened");
        };
        let (plain, dated) = (PackOptions::default(), PackOptions { source_date_epoch: Some(7) });
        let all = 2700..2701;
        let base = folder.tree(3000, &[]);
        check("new", "1", plain, &base, all.clone());
        check("again", "1", plain, &base, 0..900);
        check("other bytes", "2", plain, &base, all.clone());
        check("other times", "1", dated, &base, all.clone());
        check("last changed", "1", plain, &folder.tree(3000, &[(2999, Some("other"))]), 1..900);
        check("first changed", "1", plain, &folder.tree(3000, &[(0, Some("other"))]), all.clone());
        check("back", "1", plain, &folder.tree(3000, &[]), 0..900);
        check("middle changed", "1", plain, &folder.tree(3000, &[(1502, Some("other"))]), 1300..2300);
        check("one gone", "1", plain, &folder.tree(3000, &[(2002, None)]), 800..1800);
        check("the other name of a file gone", "1", plain, &folder.tree(3000, &[(1501, None)]), 1300..2300);
        check("the first name of a file gone", "1", plain, &folder.tree(3000, &[(1500, None)]), 1300..2300);
        check("some more", "1", plain, &folder.tree(3100, &[]), 90..1000);
        check("shorter", "1", plain, &folder.tree(1200, &[]), 0..900);
        check("small", "1", plain, &folder.tree(100, &[]), 90..91);
    }
}
