//! What an [`Engine`] does for its store beyond building: [`Engine::context`], [`Engine::prune`], [`Engine::disk_usage`].

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use jiff::Timestamp;

use super::engine::Engine;
use super::images::{self, DiskUsage, ImageError, Keep, PruneOptions, Removed};
use crate::cache::Record;
use crate::cancel::CancelToken;
use crate::content::ContentError;
use crate::export::{ExportContext, ExportError};
use crate::progress::{Sink, TaskId};
use crate::tree::TreeId;

/// What is removed from a store besides that which nothing needs at all.
#[derive(Debug, Clone, Default)]
pub struct PruneRequest {
    /// Images, if any.
    pub images: Option<PruneOptions>,
    /// Results of steps.
    pub cache: PruneCache,
}

/// Which results of steps are removed. What an image has stays in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PruneCache {
    /// None.
    #[default]
    Nothing,
    /// Those that were made before this time.
    Before(Timestamp),
    /// The oldest, until the rest takes at most so many bytes.
    Over(u64),
    /// All, and the directories of `RUN --mount=type=cache` that no step uses now.
    Everything,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names and images.
    pub images: Vec<Removed>,
    /// Results of steps.
    pub records: usize,
    /// Cache mounts.
    pub mounts: usize,
    /// Bytes that are free now.
    pub bytes: u64,
}

impl Engine {
    /// What the functions of [`images`] work with. Progress is told as that of `task`, which the caller declares.
    pub fn context<'a>(
        &'a self,
        sink: &'a dyn Sink,
        task: TaskId,
        cancel: &'a CancelToken,
        stdout: Option<&'a Mutex<dyn Write + Send>>,
    ) -> ExportContext<'a> {
        ExportContext {
            content: &self.content,
            snapshots: &self.snapshots,
            trees: &self.trees,
            registry: &self.registry,
            cancel,
            sink,
            task,
            source_date_epoch: None,
            stdout,
        }
    }

    /// Removes what was asked for, and then every file that neither an image nor a result needs. Waits for running builds.
    ///
    /// # Errors
    /// [`ImageError`] if something cannot be read or removed; what is gone stays gone, and the store is usable.
    pub fn prune(&self, request: &PruneRequest, cancel: &CancelToken) -> Result<Pruned, ImageError> {
        let mut pruned = Pruned::default();
        if let Some(options) = &request.images {
            pruned.images = images::prune(&self.content, options)?;
        }
        for path in self.outdated(request.cache)? {
            fs::remove_file(&path).or_else(gone).map_err(|source| cannot("remove", &path, source))?;
            pruned.records += 1;
        }
        if request.cache == PruneCache::Everything {
            pruned.mounts = self.prune_mounts(&mut pruned.bytes)?;
        }
        let context = self.context(&crate::progress::Silent, TaskId(0), cancel, None);
        pruned.bytes += images::collect(&context, || self.kept())?.bytes();
        Ok(pruned)
    }

    /// Measures the store on disk; results of steps count as not needed, since they can be made again.
    ///
    /// # Errors
    /// [`ImageError`] if the store cannot be read.
    pub fn disk_usage(&self, cancel: &CancelToken) -> Result<DiskUsage, ImageError> {
        let context = self.context(&crate::progress::Silent, TaskId(0), cancel, None);
        let mut usage = images::disk_usage(&context, &Keep::default())?;
        // Cache mounts, records, trees, indexes of contexts: everything beside blobs and snapshots.
        let mounts = fs::read_dir(self.cache_mounts.directory()).map_or(0, Iterator::count);
        let beside = ["mounts", "cache", "trees", "contexts", "downloads"];
        let bytes: u64 = beside.iter().map(|area| size(&self.content.state().join(area))).sum();
        usage.build_cache.total += mounts;
        usage.build_cache.size += bytes;
        usage.build_cache.reclaimable += bytes;
        Ok(usage)
    }

    /// What the results of steps need.
    fn kept(&self) -> Result<Keep, ImageError> {
        let trees = self.records()?.into_iter().map(|(_, record)| record.tree).collect();
        Ok(Keep { trees, ..Keep::default() })
    }

    fn records(&self) -> Result<Vec<(std::path::PathBuf, Record)>, ImageError> {
        self.cache.list().map_err(|error| {
            let path = self.cache.directory().to_owned();
            ImageError::Content(ContentError::Read { path, source: std::io::Error::other(error) })
        })
    }

    /// The files of the records that are to go.
    fn outdated(&self, cache: PruneCache) -> Result<Vec<std::path::PathBuf>, ImageError> {
        let mut records = match cache {
            PruneCache::Nothing => return Ok(Vec::new()),
            _ => self.records()?,
        };
        match cache {
            PruneCache::Before(time) => records.retain(|(_, record)| record.created < time.as_second()),
            PruneCache::Over(limit) => {
                records.sort_by_key(|(_, record)| std::cmp::Reverse(record.created));
                let (mut counted, mut bytes) = (HashSet::<TreeId>::new(), 0u64);
                let mut outdated = Vec::new();
                for (path, record) in records {
                    if counted.insert(record.tree) {
                        bytes += self.snapshots.usage(&record.tree).map_err(ExportError::from)?;
                    }
                    if bytes > limit {
                        outdated.push((path, record));
                    }
                }
                records = outdated;
            }
            PruneCache::Nothing | PruneCache::Everything => {}
        }
        Ok(records.into_iter().map(|(path, _)| path).collect())
    }

    /// Removes the directories of cache mounts that nobody has locked; returns how many.
    fn prune_mounts(&self, bytes: &mut u64) -> Result<usize, ImageError> {
        use rustix::fs::{FlockOperation, flock};
        let directory = self.cache_mounts.directory();
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(source) => return Err(cannot("read", directory, source)),
        };
        let mut removed = 0;
        for entry in entries {
            let path = entry.map_err(|source| cannot("read", directory, source))?.path();
            let lock = fs::File::options().append(true).open(path.join("lock"));
            // Without a lock file it is no cache mount, or one that is being made.
            let Ok(lock) = lock else { continue };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            *bytes += size(&path);
            fs::remove_dir_all(&path).map_err(|source| cannot("remove", &path, source))?;
            removed += 1;
        }
        Ok(removed)
    }
}

/// An error about a file of the store.
fn cannot(what: &str, path: &Path, source: std::io::Error) -> ImageError {
    let path = path.to_owned();
    ImageError::Content(match what {
        "read" => ContentError::Read { path, source },
        _ => ContentError::Write { path, source },
    })
}

/// What is gone already need not be removed.
fn gone(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Bytes on disk below a directory; what cannot be read counts as nothing.
fn size(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}
