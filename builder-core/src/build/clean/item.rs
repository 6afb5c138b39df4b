//! [`CacheItem`]: one thing in the build cache, and what it costs to keep and to make again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::engine::Engine;
use super::super::images::{self, ImageError, Keep};
use super::super::op::http::downloads;
use super::super::remote::CONTEXT;
use super::cannot;
use crate::cache::Record;
use crate::cancel::CancelToken;
use crate::content::ContentError;
use crate::export::ExportError;
use crate::history::{HistoryError, Verdict};
use crate::oci::Digest;
use crate::progress::{Silent, TaskId};
use crate::tree::TreeId;

/// What kind of thing it is; the names are those of `docker buildx du`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheKind {
    /// The result of a step, or a layer of a base image: `regular`.
    Step,
    /// A directory of `RUN --mount=type=cache`: `exec.cachemount`.
    Mount,
    /// A fetched build context, or what is known of the files of one that is a directory: `source.local`.
    Source,
    /// A git repository with the commits that were fetched: `source.git.checkout`.
    Git,
    /// What an address of ADD gave: `source.http`.
    Download,
}

impl CacheKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Step, Self::Mount, Self::Source, Self::Git, Self::Download];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "regular",
            Self::Mount => "exec.cachemount",
            Self::Source => "source.local",
            Self::Git => "source.git.checkout",
            Self::Download => "source.http",
        }
    }

    /// Whether later builds change such a thing in place.
    pub fn is_mutable(self) -> bool {
        matches!(self, Self::Mount | Self::Git)
    }
}

/// One thing in the build cache.
#[derive(Debug, Clone)]
pub struct CacheItem {
    /// Its name: that of a tree, a blob or a directory.
    pub id: String,
    /// What it is.
    pub kind: CacheKind,
    /// For people: the command, the id of the cache mount.
    pub description: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// When it was used last, in seconds since 1970; exact to the hour.
    pub last_used: i64,
    /// Bytes on disk of its files.
    pub files: u64,
    /// Bytes on disk of what is known about it: records and trees.
    pub facts: u64,
    /// How long it took to make, in milliseconds.
    pub milliseconds: u64,
    /// Builds in the history that took it from the cache; see [`Engine::count_uses`].
    pub uses: u64,
    /// Ids of what lies right below it; see [`Engine::find_parents`].
    pub parents: Vec<String>,
    /// An image has the same files: they cannot be removed here, and are counted there.
    pub shared: bool,
    /// A step uses it at this moment.
    pub in_use: bool,
    pub(super) place: Place,
    /// The tree whose snapshot its own one is derived from, and which has to stay as long as that.
    pub(super) base: Option<TreeId>,
}

/// Where an item is.
#[derive(Debug, Clone, Default)]
pub(super) enum Place {
    /// A tree, with its snapshot, and the records that name it.
    Tree(TreeId, Vec<PathBuf>),
    Blob(Digest),
    /// Files or directories of its own.
    Paths(Vec<PathBuf>),
    #[default]
    Nowhere,
}

impl CacheItem {
    pub(super) fn of(id: String, kind: CacheKind) -> Self {
        let description = String::new();
        let (created, last_used, files, facts, milliseconds, uses) = (0, 0, 0, 0, 0, 0);
        let (parents, shared, in_use, place, base) = (Vec::new(), false, false, Place::Nowhere, None);
        Self {
            id,
            kind,
            description,
            created,
            last_used,
            files,
            facts,
            milliseconds,
            uses,
            parents,
            shared,
            in_use,
            place,
            base,
        }
    }

    /// The tree that it is.
    pub(super) fn tree(&self) -> Option<TreeId> {
        match self.place {
            Place::Tree(id, _) => Some(id),
            _ => None,
        }
    }

    /// Bytes that are free when it goes.
    pub fn own_size(&self) -> u64 {
        self.facts + if self.shared { 0 } else { self.files }
    }

    /// How much it is worth to keep its files: milliseconds a byte, halved with each day that nobody used it.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn worth(&self, now: i64) -> f64 {
        let days = now.saturating_sub(self.last_used).max(0) as f64 / 86400.0;
        // Even what took no time costs something to have again: mounts, system calls.
        (self.milliseconds as f64 + 20.0) / (self.files as f64 + 4096.0) * 0.5f64.powf(days)
    }
}

impl Engine {
    /// Everything in the build cache, in no order. Reads every record; sizes of files are remembered beside them.
    ///
    /// # Errors
    /// [`ImageError`] if the store cannot be read.
    pub fn cache_items(&self, cancel: &CancelToken) -> Result<Vec<CacheItem>, ImageError> {
        let context = self.context(&Silent, TaskId(0), cancel, None);
        let of_images = images::needed(&context, &self.content.database().images()?, &Keep::default())?;
        let mut items = self.steps(&of_images.trees)?;
        let downloads = downloads(self.content.state());
        for (digest, _) in self.content.blobs()? {
            if !of_images.blobs.contains(&digest) {
                let path = self.content.blob_path(&digest);
                let used = downloads.get(&digest).copied();
                let kind = if used.is_some() { CacheKind::Download } else { CacheKind::Step };
                let item = CacheItem::of(digest.to_string(), kind);
                let mut item = found(item, &path, Place::Blob(digest));
                item.last_used = item.last_used.max(used.unwrap_or_default());
                // It has to be fetched again; take 10 MB/s.
                item.milliseconds = item.files / 10_000;
                items.push(item);
            }
        }
        self.mounts(&mut items)?;
        self.context_indexes(&mut items)?;
        for (kind, area) in [(CacheKind::Git, "git"), (CacheKind::Download, "downloads")] {
            let directory = self.content.state().join(area);
            for path in entries(&directory)? {
                let mut item = CacheItem::of(file_name(&path), kind);
                // A repository says where it comes from.
                item.description = fs::read_to_string(path.join("address")).unwrap_or_default();
                items.push(found(item, &path, Place::Paths(vec![path.clone()])));
            }
        }
        Ok(items)
    }

    /// Counts the builds in the history that took each step from the cache, and calls steps as the newest build did: a
    /// record of a copy does not say how it was written.
    ///
    /// # Errors
    /// [`HistoryError`] if the history cannot be read.
    pub fn count_uses(&self, items: &mut [CacheItem]) -> Result<(), HistoryError> {
        let mut uses: BTreeMap<String, u64> = BTreeMap::new();
        let mut names: BTreeMap<TreeId, String> = BTreeMap::new();
        for build in self.history.builds_newest_first()? {
            for (step, tree) in build.steps.iter().filter_map(|step| Some((step, step.tree?))) {
                names.entry(tree).or_insert_with(|| step.instruction().to_owned());
            }
            let hits = build.steps.iter().filter(|step| matches!(step.verdict, Verdict::Hit | Verdict::Adopted));
            let trees: HashSet<String> = hits.filter_map(|step| step.tree).map(|tree| tree.to_string()).collect();
            for tree in trees {
                *uses.entry(tree).or_default() += 1;
            }
        }
        for item in items {
            item.uses = uses.get(&item.id).copied().unwrap_or_default();
            let bare = matches!(item.description.as_str(), "COPY" | "ADD");
            if let Some(name) = item.tree().filter(|_| bare).and_then(|tree| names.get(&tree)) {
                item.description.clone_from(name);
            }
        }
        Ok(())
    }

    /// Results of steps and layers of bases: every tree or snapshot there is.
    fn steps(&self, of_images: &HashSet<TreeId>) -> Result<Vec<CacheItem>, ImageError> {
        let mut steps: BTreeMap<[u8; 32], CacheItem> = BTreeMap::new();
        let snapshots: HashSet<TreeId> = self.snapshots.list().map_err(ExportError::from)?.into_iter().collect();
        for id in self.trees.list().map_err(ExportError::from)?.into_iter().chain(snapshots.iter().copied()) {
            if steps.contains_key(id.as_bytes()) {
                continue;
            }
            let path = self.trees.path(&id);
            let mut item = CacheItem {
                place: Place::Tree(id, Vec::new()),
                // Trees share files, and each has its part of them.
                facts: share(&path) + share(&self.trees.rest(&id)),
                ..CacheItem::of(id.to_string(), CacheKind::Step)
            };
            (item.created, item.last_used) = times(&path);
            item.shared = of_images.contains(&id);
            if snapshots.contains(&id) {
                item.files = self.snapshots.usage(&id).map_err(ExportError::from)?;
                item.base = self.snapshots.base_of(&id);
                // Without a record it was copied or unpacked; that goes at about 100 MB/s.
                item.milliseconds = item.files / 100_000;
                if item.created == 0 {
                    (item.created, item.last_used) = times(&self.snapshots.path(&id));
                }
            }
            steps.insert(*id.as_bytes(), item);
        }
        for (path, record) in self.records()? {
            let id = record.tree;
            let item = steps.entry(*id.as_bytes()).or_insert_with(|| CacheItem {
                place: Place::Tree(id, Vec::new()),
                ..CacheItem::of(id.to_string(), CacheKind::Step)
            });
            let (_, used) = times(&path);
            item.last_used = item.last_used.max(used);
            item.facts += size(&path);
            item.created = record.created;
            if record.preimage.op == CONTEXT {
                item.kind = CacheKind::Source;
            }
            item.milliseconds = item.milliseconds.max(took(&record));
            if item.description.is_empty() {
                item.description = record.preimage.summary();
            }
            if let Place::Tree(_, records) = &mut item.place {
                records.push(path);
            }
        }
        Ok(steps.into_values().collect())
    }

    /// What is known of the files of contexts: the files of one begin with the same name.
    fn context_indexes(&self, items: &mut Vec<CacheItem>) -> Result<(), ImageError> {
        let mut contexts: BTreeMap<String, CacheItem> = BTreeMap::new();
        for path in entries(&self.content.state().join("contexts"))? {
            let name = file_name(&path).split('.').next().unwrap_or_default().to_owned();
            if path.is_dir() || name.is_empty() {
                continue;
            }
            let mut file =
                found(CacheItem::of(name.clone(), CacheKind::Source), &path, Place::Paths(vec![path.clone()]));
            "index of a build context".clone_into(&mut file.description);
            let item = match contexts.entry(name) {
                Entry::Vacant(place) => place.insert(file),
                Entry::Occupied(place) => {
                    let item = place.into_mut();
                    item.files += file.files;
                    (item.created, item.last_used) =
                        (item.created.min(file.created), item.last_used.max(file.last_used));
                    if let Place::Paths(paths) = &mut item.place {
                        paths.push(path);
                    }
                    item
                }
            };
            // The files have to be read again: a hundred bytes for each, which takes about ten microseconds.
            item.milliseconds = item.files / 10_000;
        }
        items.extend(contexts.into_values());
        Ok(())
    }

    fn mounts(&self, items: &mut Vec<CacheItem>) -> Result<(), ImageError> {
        use rustix::fs::{FlockOperation, flock};
        for path in entries(self.cache_mounts.directory())? {
            let identity = fs::read_to_string(path.join("identity")).ok();
            let lock = open_lock(&path.join("lock"));
            // It is no cache mount, or one that is being made.
            if identity.is_none() && lock.is_none() {
                continue;
            }
            let mut item =
                found(CacheItem::of(file_name(&path), CacheKind::Mount), &path, Place::Paths(vec![path.clone()]));
            item.in_use = lock.is_some_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err());
            let identity = identity.unwrap_or_default();
            identity.lines().next().unwrap_or_default().clone_into(&mut item.description);
            item.last_used = item.last_used.max(times(&path.join("content")).1).max(times(&path.join("lock")).1);
            items.push(item);
        }
        Ok(())
    }
}

/// Opens the lock of a cache mount; of a store that can only be read, for reading.
fn open_lock(path: &Path) -> Option<fs::File> {
    fs::File::options().append(true).open(path).or_else(|_| fs::File::open(path)).ok()
}

/// How long a step took, in milliseconds. A command that came with an image that says nothing of it counts as ten
/// seconds: less than most that are worth keeping, more than a copy.
fn took(record: &Record) -> u64 {
    record.milliseconds.unwrap_or(if record.preimage.op == "run" { 10_000 } else { 0 })
}

/// The item with size and times of what is at `path`; one that is not there has neither.
fn found(mut item: CacheItem, path: &Path, place: Place) -> CacheItem {
    item.files = size(path);
    (item.created, item.last_used) = times(path);
    item.place = place;
    item
}

/// When a file or directory was made (as far as that can be told) and changed last, in seconds since 1970.
fn times(path: &Path) -> (i64, i64) {
    let Ok(found) = fs::symlink_metadata(path) else { return (0, 0) };
    let born = found.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let born = born.and_then(|since| i64::try_from(since.as_secs()).ok());
    (born.unwrap_or(found.mtime()), found.mtime())
}

/// Bytes on disk of a file or of a directory with everything in it, hard links once; what cannot be read counts as
/// nothing.
pub(in crate::build) fn size(path: &Path) -> u64 {
    fn add(path: &Path, linked: &mut HashSet<(u64, u64)>) -> u64 {
        let Ok(found) = fs::symlink_metadata(path) else { return 0 };
        if !found.is_dir() && found.nlink() > 1 && !linked.insert((found.dev(), found.ino())) {
            return 0;
        }
        let entries = if found.is_dir() { fs::read_dir(path).ok() } else { None };
        let below: u64 = entries.into_iter().flatten().flatten().map(|entry| add(&entry.path(), linked)).sum();
        found.blocks() * 512 + below
    }
    add(path, &mut HashSet::new())
}

/// Bytes on disk of a file that has several names, for one of them.
fn share(path: &Path) -> u64 {
    fs::symlink_metadata(path)
        .map_or(0, |found| if found.is_file() { found.blocks() * 512 / found.nlink() } else { size(path) })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(cannot("read", directory, source)),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Engine {
    pub(super) fn records(&self) -> Result<Vec<(PathBuf, Record)>, ImageError> {
        let failed = |error| {
            let path = self.cache.directory().to_owned();
            ImageError::Content(ContentError::Read { path, source: std::io::Error::other(error) })
        };
        let mut records = self.cache.list().map_err(failed)?;
        records.extend(self.cache.list_read_sets().map_err(failed)?);
        Ok(records)
    }
}
