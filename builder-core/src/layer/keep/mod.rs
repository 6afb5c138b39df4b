//! [`Keep`]: the files of a tree in the store, written out whole or as the difference from an earlier snapshot.
//!
//! A COPY of which few files changed differs little from the snapshot that the same COPY left before. Then only what
//! differs is written, into a snapshot that is derived from the earlier one. The tree of the layer is the same either way.

use std::collections::BTreeSet;

use super::{Files, PackError, materialise};
use crate::content::{ContentError, ContentStore, FORMAT_DERIVED};
use crate::rootfs::RootPath;
use crate::snapshot::{Snapshot, SnapshotError, SnapshotStore};
use crate::tree::{Difference, Entry, Tree, TreeBuilder, TreeStore, TreeStoreError, differences};

/// Trees that weigh less, in bytes, are always written whole: that takes no time.
const MIN_WEIGHT: u64 = 1 << 20;

/// A difference weighs at most one part in so many of the whole. What changes again and again is written each time, so
/// that the base stays the same; beyond this a new base is cheaper.
const MAX_SHARE: u64 = 16;

/// The stores that keep files.
#[derive(Debug, Clone, Copy)]
pub struct Keep<'a> {
    /// For its format.
    pub content: &'a ContentStore,
    /// Where the files go.
    pub snapshots: &'a SnapshotStore,
    /// Trees of earlier snapshots.
    pub trees: &'a TreeStore,
}

/// The files of a tree cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Files(#[from] PackError),
    /// The store of snapshots fails.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store of trees fails.
    #[error(transparent)]
    Tree(#[from] TreeStoreError),
    /// The format of the store cannot be raised.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl Keep<'_> {
    /// Writes the files of a tree, which the store of trees has, into a new snapshot.
    ///
    /// # Errors
    /// As [`materialise`], and what the stores say.
    pub fn snapshot(&self, tree: &Tree, files: &dyn Files) -> Result<Snapshot, KeepError> {
        let can_derive = tree.weight() >= MIN_WEIGHT && tree.only_adds();
        if can_derive && let Some((base, entries, delta)) = self.base_for(tree)? {
            self.content.need_format(FORMAT_DERIVED)?;
            let active = self.snapshots.begin()?;
            materialise(&delta.tree, files, &active)?;
            let kept = self.snapshots.commit_derived(active, tree, &base, delta.hidden)?;
            self.snapshots.note_base(&base.id(), entries);
            return Ok(kept);
        }
        let active = self.snapshots.begin()?;
        materialise(tree, files, &active)?;
        let kept = self.snapshots.commit(active, tree)?;
        if can_derive {
            self.snapshots.note_base(&kept.id(), tree.len());
        }
        Ok(kept)
    }

    /// An earlier snapshot that differs little, how many entries it has, and what differs.
    fn base_for(&self, tree: &Tree) -> Result<Option<(Snapshot, usize, Delta)>, KeepError> {
        let limit = tree.len() / usize::try_from(MAX_SHARE).expect("a small number") + 1;
        for (id, entries) in self.snapshots.bases() {
            if entries.abs_diff(tree.len()) > limit || id == tree.id() {
                continue;
            }
            let Some(known) = self.trees.get(&id)? else { continue };
            let Some(delta) = Delta::new(&known, tree, limit) else { continue };
            if let Some(base) = self.snapshots.get_verified(&known)?.filter(|base| base.base().is_none()) {
                return Ok(Some((base, entries, delta)));
            }
        }
        Ok(None)
    }
}

/// What makes one snapshot of another.
#[derive(Debug)]
struct Delta {
    /// An upper directory for the base, as a tree.
    tree: Tree,
    /// Paths at which the base and this together hide lower layers, which the whole tree does not.
    hidden: Vec<RootPath>,
}

impl Delta {
    /// `None` if there are more than `limit` differences, if they are too large, or if they cannot be told in an upper
    /// directory.
    fn new(base: &Tree, tree: &Tree, limit: usize) -> Option<Self> {
        if !base.only_adds() {
            return None;
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut parents: BTreeSet<RootPath> = BTreeSet::new();
        let mut hidden = Vec::new();
        // The directory itself always shows what the tree says of it.
        entries.extend(tree.get(&RootPath::root()));
        for Difference { before, after } in differences(base, tree, limit)? {
            let path = match (before, after) {
                (before, Some(after)) => {
                    if after.node.is_directory() && before.is_some_and(|before| !before.node.is_directory()) {
                        hidden.push(after.path.clone());
                    }
                    entries.push(after.clone());
                    after.path
                }
                (Some(before), None) => {
                    let parent = before.path.parent()?;
                    match tree.get(&parent) {
                        // Gone with its directory, which is a difference itself.
                        None if !parent.is_root() && base.get(&parent).is_some() => continue,
                        Some(entry) if !entry.node.is_directory() => continue,
                        None if !parent.is_root() => return None,
                        _ => {}
                    }
                    hidden.push(before.path.clone());
                    entries.push(Entry::whiteout(before.path.clone()));
                    before.path
                }
                (None, None) => continue,
            };
            parents.extend(path.ancestors().filter(|ancestor| !ancestor.is_root()));
        }
        for parent in parents {
            // In an upper directory a directory shows its own metadata, not those of the one below.
            entries.push(tree.get(&parent)?);
        }
        let mut builder = TreeBuilder::new();
        for entry in entries {
            builder.push(entry);
        }
        let delta = builder.finish();
        (delta.weight().saturating_mul(MAX_SHARE) <= tree.weight()).then_some(Self { tree: delta, hidden })
    }
}

#[cfg(test)]
mod tests;
