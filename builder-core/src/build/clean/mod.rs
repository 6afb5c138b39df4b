//! What keeps the store in order: [`Engine::prune`], [`Engine::collect_garbage`], [`Engine::disk_usage`],
//! [`Engine::verify`].
//!
//! ```text
//! cache_items ── Policy::choose (pure) ──▶ what goes ── records, mounts, sources ──▶ images::collect: every file that nothing needs
//! ```

mod bases;
mod item;
mod parents;
mod policy;
mod verify;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::engine::{Engine, seconds_now};
use super::images::{self, ImageError, ImageUsage, Keep, PruneOptions, Reclaimed, Removed, Usage};
use super::op::http::downloads;
use crate::cache::CacheError;
use crate::cancel::CancelToken;
use crate::content::{ContentError, ExclusiveLease};
use crate::export::ExportError;
use crate::history::HistoryError;
use crate::progress::{Silent, TaskId};
use crate::small_file;
use crate::tree::TreeId;

use item::Place;
pub(in crate::build) use item::size;
pub use item::{CacheItem, CacheKind};
use policy::Disk;
pub use policy::{ItemFilter, Policy, Space};
pub use verify::{Damage, Verified};

/// Garbage is collected after a build at most this often.
const COLLECT_AGAIN: Duration = Duration::from_secs(600);

/// What is removed from a store besides that which nothing needs at all.
#[derive(Debug, Clone, Default)]
pub struct PruneRequest {
    /// Images, if any.
    pub images: Option<PruneOptions>,
    /// Items of the build cache, if any. What an image has stays in any case.
    pub cache: Option<Policy>,
}

/// What was removed.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// Names and images.
    pub images: Vec<Removed>,
    /// Items of the build cache.
    pub items: Vec<CacheItem>,
    /// Bytes that are free now.
    pub bytes: u64,
}

/// What the store occupies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images.
    pub images: ImageUsage,
    /// Results of steps and everything else that no image has.
    pub build_cache: Usage,
}

impl Engine {
    /// Removes what was asked for, and then every file that neither an image nor a result needs; the base images of results
    /// are needed by them, unless the policy chooses them. Waits for running builds.
    ///
    /// # Errors
    /// [`ImageError`] if something cannot be read or removed; what is gone stays gone, and the store is usable.
    pub fn prune(&self, request: &PruneRequest, cancel: &CancelToken) -> Result<Pruned, ImageError> {
        let alone = self.content.exclusive(cancel)?;
        let mut pruned = Pruned::default();
        if let Some(options) = &request.images {
            pruned.images = images::prune(&self.content, options)?;
        }
        let (mut without_files, mut gone) = (HashSet::new(), Keep::default());
        if let Some(policy) = &request.cache {
            let mut items = self.items_for(std::slice::from_ref(policy), cancel)?;
            self.apply(policy, &mut items, &mut without_files, &mut pruned)?;
            gone = chosen(&pruned.items);
            if !pruned.items.is_empty() {
                self.cache.remove_files().map_err(|error| match error {
                    CacheError::Access { path, source } => cannot("remove", &path, source),
                    CacheError::Cancelled(cancelled) => ContentError::Cancelled(cancelled).into(),
                })?;
            }
        }
        let records = self.records()?;
        let bases = self.bases(&records);
        let mut trees: HashSet<_> = records.into_iter().map(|(_, record)| record.tree).collect();
        let mut snapshots: HashSet<_> = trees.difference(&without_files).copied().collect();
        snapshots.extend(bases.snapshots.difference(&gone.snapshots));
        trees.extend(bases.trees.difference(&gone.trees));
        trees.extend(self.explaining_trees());
        // What ADD fetched is known by what the servers said about it.
        let mut blobs: HashSet<_> = downloads(self.content.state()).into_keys().collect();
        blobs.extend(bases.blobs.difference(&gone.blobs).cloned());
        pruned.bytes += self.sweep(&alone, &Keep { blobs, trees, snapshots }, cancel)?.bytes();
        Ok(pruned)
    }

    /// Removes what the policies, one after the other, choose; everything else stays, and nothing is done while a build
    /// runs, or shortly after the last time. Says what was done, if anything.
    ///
    /// # Errors
    /// As [`Engine::prune`].
    pub fn collect_garbage(&self, policies: &[Policy], cancel: &CancelToken) -> Result<Option<Pruned>, ImageError> {
        let stamp = self.content.state().join("collected");
        let recently = fs::metadata(&stamp)
            .and_then(|found| found.modified())
            .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < COLLECT_AGAIN));
        if policies.is_empty() || recently {
            return Ok(None);
        }
        let Some(alone) = self.content.try_exclusive()? else { return Ok(None) };
        fs::write(&stamp, "").map_err(|source| cannot("write", &stamp, source))?;
        let mut pruned = Pruned::default();
        let mut items = self.items_for(policies, cancel)?;
        let mut without_files = HashSet::new();
        for policy in policies {
            self.apply(policy, &mut items, &mut without_files, &mut pruned)?;
        }
        if pruned.items.is_empty() {
            self.sweep_leftovers()?;
            return Ok(None);
        }
        let mut keep = Keep { trees: self.explaining_trees(), ..Keep::default() };
        for item in &items {
            match &item.place {
                Place::Tree(id, _) => {
                    keep.trees.insert(*id);
                    if item.files > 0 && !without_files.contains(id) {
                        keep.snapshots.insert(*id);
                    }
                }
                Place::Blob(digest) => {
                    keep.blobs.insert(digest.clone());
                }
                Place::Paths(_) | Place::Nowhere => {}
            }
        }
        pruned.bytes += self.sweep(&alone, &keep, cancel)?.bytes();
        Ok(Some(pruned))
    }

    /// Measures the store on disk; results of steps count as not needed, since they can be made again.
    ///
    /// # Errors
    /// [`ImageError`] if the store cannot be read.
    pub fn disk_usage(&self, cancel: &CancelToken) -> Result<DiskUsage, ImageError> {
        let images = images::usage(&self.context(&Silent, TaskId(0), cancel, None))?;
        // Whatever is there and no image needs: records, trees, indexes, cache mounts, history, the directories themselves.
        let size = size(self.content.state()).saturating_sub(images.all.size);
        let total = self.cache_items(cancel)?.iter().filter(|item| !item.shared).count();
        Ok(DiskUsage { images, build_cache: Usage { total, active: 0, size, reclaimable: size } })
    }

    /// The items of the build cache, with everything that the policies look at.
    fn items_for(&self, policies: &[Policy], cancel: &CancelToken) -> Result<Vec<CacheItem>, ImageError> {
        let mut items = self.cache_items(cancel)?;
        let failed =
            |error: HistoryError| cannot("read", &self.content.state().join("history"), io::Error::other(error));
        if policies.iter().any(Policy::needs_descriptions) {
            self.count_uses(&mut items).map_err(failed)?;
        }
        if policies.iter().any(Policy::needs_parents) {
            self.find_parents(&mut items).map_err(failed)?;
        }
        Ok(items)
    }

    /// Removes what a policy chooses from the store and from `items`, except for files of steps: the trees in `without_files`
    /// are to lose them in the sweep.
    fn apply(
        &self,
        policy: &Policy,
        items: &mut Vec<CacheItem>,
        without_files: &mut HashSet<TreeId>,
        pruned: &mut Pruned,
    ) -> Result<(), ImageError> {
        let chosen = policy.choose(items, self.disk(), seconds_now());
        for at in chosen.files {
            let item = &mut items[at];
            pruned.items.push(CacheItem { facts: 0, ..item.clone() });
            match &item.place {
                Place::Tree(id, _) => {
                    without_files.insert(*id);
                    item.files = 0;
                }
                _ => remove(item, pruned)?,
            }
        }
        for at in &chosen.whole {
            remove(&items[*at], pruned)?;
            pruned.items.push(items[*at].clone());
        }
        let whole: HashSet<usize> = chosen.whole.into_iter().collect();
        let mut at = 0;
        items.retain(|item| {
            at += 1;
            !whole.contains(&(at - 1)) && (item.files > 0 || item.facts > 0)
        });
        Ok(())
    }

    /// Trees without which changes could not be explained; none where the history cannot be read.
    fn explaining_trees(&self) -> HashSet<TreeId> {
        self.history.trees().unwrap_or_default()
    }

    /// Removes what killed processes left behind outside of `content/`, which has its own way to tell.
    fn sweep_leftovers(&self) -> Result<(), ImageError> {
        let state = self.content.state();
        let failed = |error| cannot("remove", state, error);
        self.snapshots.sweep().map_err(ExportError::from)?;
        self.trees.sweep().map_err(ExportError::from)?;
        self.cache.sweep().map_err(|error| failed(io::Error::other(error)))?;
        self.cache_mounts.sweep().map_err(|error| failed(io::Error::other(error)))?;
        for area in ["contexts", "downloads", "git", "history"] {
            small_file::sweep(&state.join(area)).map_err(failed)?;
        }
        Ok(())
    }

    fn sweep(&self, alone: &ExclusiveLease, keep: &Keep, cancel: &CancelToken) -> Result<Reclaimed, ImageError> {
        self.sweep_leftovers()?;
        images::collect(&self.context(&Silent, TaskId(0), cancel, None), alone, keep)
    }

    /// The file system of the store; one that cannot be asked has endless room.
    fn disk(&self) -> Disk {
        let Ok(found) = rustix::fs::statvfs(self.content.state()) else {
            return Disk { total: u64::MAX, free: u64::MAX };
        };
        Disk { total: found.f_blocks * found.f_frsize, free: found.f_bavail * found.f_frsize }
    }
}

/// What the policy removed of blobs, trees and snapshots.
fn chosen(items: &[CacheItem]) -> Keep {
    let mut chosen = Keep::default();
    for item in items {
        match &item.place {
            Place::Tree(id, _) => {
                chosen.snapshots.insert(*id);
                // Of a result that lost its files only, what is known stays.
                chosen.trees.extend((item.facts > 0).then_some(*id));
            }
            Place::Blob(digest) => drop(chosen.blobs.insert(digest.clone())),
            Place::Paths(_) | Place::Nowhere => {}
        }
    }
    chosen
}

/// Removes an item, but for what the sweep removes since nothing names it any more: blobs, trees and snapshots.
fn remove(item: &CacheItem, pruned: &mut Pruned) -> Result<(), ImageError> {
    match &item.place {
        Place::Tree(_, records) => {
            for path in records {
                small_file::remove(path).map_err(|source| cannot("remove", path, source))?;
            }
            // Its tree goes in the sweep, unless an image has it.
            if !item.shared {
                pruned.bytes += item.facts;
            }
        }
        Place::Paths(paths) => {
            for path in paths {
                small_file::remove(path).map_err(|source| cannot("remove", path, source))?;
            }
            pruned.bytes += item.files;
        }
        Place::Blob(_) | Place::Nowhere => {}
    }
    Ok(())
}

/// An error about a file of the store.
fn cannot(what: &str, path: &Path, source: std::io::Error) -> ImageError {
    let path = path.to_owned();
    ImageError::Content(match what {
        "read" => ContentError::Read { path, source },
        _ => ContentError::Write { path, source },
    })
}
