//! [`Filesystem`]: the root filesystem that a vertex results in, as the layers that it is made of.
//!
//! Nothing of it needs to be on disk: its trees answer most questions. [`Filesystem::snapshots`] brings the files.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use super::base::BaseLayers;
use super::engine::Engine;
use super::error::StepError;
use super::events::Events;
use super::remote_cache::RemoteCache;
use crate::cancel::CancelToken;
use crate::graph::VertexId;
use crate::layer::{Files, Keep};
use crate::rootfs::RootPath;
use crate::snapshot::Snapshot;
use crate::tree::{Entry, Node, Stack, Tree, TreeId};

/// What everything that reads layers may use.
#[derive(Clone)]
pub(super) struct Access<'a> {
    pub(super) engine: &'a Engine,
    pub(super) events: Events<'a>,
    pub(super) cancel: CancelToken,
    /// Caches elsewhere, if the build has any.
    pub(super) remote: Option<Arc<RemoteCache>>,
    /// Nothing is run, fetched or written (`--dry-run`).
    pub(super) dry: bool,
}

impl Access<'_> {
    /// Whether there are caches elsewhere to be asked.
    pub(super) fn asks_elsewhere(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| !remote.imports().is_empty())
    }

    /// Whether the files of a layer can probably be fetched from a cache.
    pub(super) fn has_remote_files(&self, layer: &BuiltLayer) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.has_files(self, layer))
    }
}

/// Whether a question may be answered with downloads and other work, or only from what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Only what is known.
    Known,
    /// Whatever it takes.
    Allowed,
}

/// The files of a tree that has none.
pub(super) struct NoFiles;

impl Files for NoFiles {
    fn open(&self, _: &Entry) -> io::Result<File> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The layers of a root filesystem: those of a base image, and those built on it. Cloning is cheap.
#[derive(Clone, Default)]
pub(super) struct Filesystem {
    pub(super) base: Option<Arc<BaseLayers>>,
    pub(super) built: Vec<Arc<BuiltLayer>>,
}

/// A layer that a vertex made, now or in an earlier build.
pub(super) struct BuiltLayer {
    pub(super) vertex: VertexId,
    pub(super) tree: Tree,
    pub(super) id: TreeId,
    /// When it was made first, in seconds since 1970.
    pub(super) created: i64,
    /// Where the bytes of its files are as long as there is no snapshot.
    pub(super) source: Source,
}

/// Where the bytes of a layer can come from.
#[derive(Clone)]
pub(super) enum Source {
    /// Only from running its vertex again.
    Rerun,
    /// From files that are at hand, such as those of a context.
    Files(Arc<dyn Files + Send + Sync>),
    /// From other layers of the build, which may have to be fetched.
    Layers(Arc<dyn LayerFiles + Send + Sync>),
}

/// Files in other layers of the build.
pub(super) trait LayerFiles {
    /// Opens the file of an entry.
    fn open(&self, access: &Access<'_>, entry: &Entry) -> Result<File, StepError>;

    /// As [`Files::snapshot`].
    fn snapshot(&self, access: &Access<'_>, entry: &Entry) -> Option<TreeId>;
}

/// [`LayerFiles`] for one use.
struct Opened<'a> {
    files: &'a (dyn LayerFiles + Send + Sync),
    access: &'a Access<'a>,
}

impl Files for Opened<'_> {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        self.files.open(self.access, entry).map_err(|error| match error {
            StepError::Io { source, .. } => source,
            error => io::Error::other(error),
        })
    }

    fn snapshot(&self, entry: &Entry) -> Option<TreeId> {
        self.files.snapshot(self.access, entry)
    }
}

impl BuiltLayer {
    /// Its snapshot, made from its source if it is not there yet.
    pub(super) fn snapshot(&self, access: &Access<'_>) -> Result<Snapshot, StepError> {
        let snapshots = &access.engine.snapshots;
        if let Some(snapshot) = snapshots.get_verified(&self.tree)? {
            return Ok(snapshot);
        }
        if access.dry {
            return Err(StepError::NeedsWork);
        }
        if !matches!(self.source, Source::Files(_))
            && let Some(remote) = &access.remote
            && let Some(snapshot) = remote.snapshot(access, &self.tree)?
        {
            return Ok(snapshot);
        }
        let keep = Keep { content: &access.engine.content, snapshots, trees: &access.engine.trees };
        match &self.source {
            Source::Rerun => Err(StepError::Lost(self.vertex)),
            Source::Files(files) => Ok(keep.snapshot(&self.tree, &**files)?),
            Source::Layers(files) => Ok(keep.snapshot(&self.tree, &Opened { files: &**files, access })?),
        }
    }

    fn open(&self, access: &Access<'_>, entry: &Entry) -> Result<File, StepError> {
        let failed = |source| StepError::Io { what: format!("cannot read `{}`", entry.path), source };
        match &self.source {
            Source::Files(files) if access.engine.snapshots.get(&self.id)?.is_none() => {
                files.open(entry).map_err(failed)
            }
            Source::Layers(files) if access.engine.snapshots.get(&self.id)?.is_none() => files.open(access, entry),
            _ => self.snapshot(access)?.open(entry).map_err(failed),
        }
    }
}

impl Filesystem {
    /// The same with a layer on top.
    pub(super) fn with(&self, layer: BuiltLayer) -> Self {
        let mut built = self.built.clone();
        built.push(Arc::new(layer));
        Self { base: self.base.clone(), built }
    }

    /// Its trees; `None` if they are not known and no work is allowed.
    pub(super) fn stack(&self, access: &Access<'_>, work: Work) -> Result<Option<Stack>, StepError> {
        let mut stack = Stack::default();
        if let Some(base) = &self.base {
            let Some(trees) = base.trees(access, work)? else { return Ok(None) };
            for tree in trees {
                stack.push(tree);
            }
        }
        for layer in &self.built {
            stack.push(layer.tree.clone());
        }
        Ok(Some(stack))
    }

    /// Its snapshots, lowest first; what is missing is made or fetched.
    pub(super) fn snapshots(&self, access: &Access<'_>) -> Result<Vec<Snapshot>, StepError> {
        let mut snapshots = match &self.base {
            Some(base) => base.snapshots(access)?,
            None => Vec::new(),
        };
        for layer in self.built.iter().filter(|layer| !layer.tree.is_empty()) {
            snapshots.push(layer.snapshot(access)?);
        }
        Ok(snapshots)
    }

    /// Opens the regular file that `entry` of layer `layer` describes, wherever its bytes are.
    pub(super) fn open(&self, access: &Access<'_>, layer: usize, entry: &Entry) -> Result<File, StepError> {
        let base_layers = self.base.as_ref().map_or(0, |base| base.len());
        if let Some(base) = self.base.as_ref().filter(|_| layer < base_layers) {
            let opened = base.snapshot(access, layer)?.open(entry);
            return opened.map_err(|source| StepError::Io { what: format!("cannot read `{}`", entry.path), source });
        }
        self.built[layer - base_layers].open(access, entry)
    }

    /// The snapshot that has the files of a layer, if there is one.
    pub(super) fn snapshot_id(&self, access: &Access<'_>, layer: usize) -> Option<TreeId> {
        let base_layers = self.base.as_ref().map_or(0, |base| base.len());
        let id = match (&self.base, layer.checked_sub(base_layers)) {
            (_, Some(built)) => self.built[built].id,
            (Some(base), None) => base.trees(access, Work::Known).ok()??.get(layer)?.id(),
            (None, None) => return None,
        };
        access.engine.snapshots.get(&id).ok().flatten().map(|_| id)
    }

    /// The content of a small file such as `/etc/passwd`, links followed inside the root; `None` if it is no regular
    /// file or does not exist.
    pub(super) fn read(
        &self,
        access: &Access<'_>,
        stack: &Stack,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, StepError> {
        let path = RootPath::clean(path).expect("a constant path");
        let Ok(path) = stack.resolve(&path, true) else { return Ok(None) };
        let Some(found) = stack.lookup(&path) else { return Ok(None) };
        let Node::File { content: digest, .. } = found.entry.node else { return Ok(None) };
        if !self.is_at_hand(access, found.layer)? {
            let kept = access.engine.cache.file(&digest)?;
            let elsewhere = || access.remote.as_ref().and_then(|remote| remote.file(access, &digest));
            if let Some(content) = kept.or_else(elsewhere) {
                return Ok(Some(content));
            }
        }
        let mut content = Vec::new();
        let file = self.open(access, found.layer, &found.entry)?;
        let read = file.take(limit).read_to_end(&mut content);
        read.map_err(|source: io::Error| StepError::Io { what: format!("cannot read `{path}`"), source })?;
        Ok(Some(content))
    }

    /// Whether the files of a layer can be opened without fetching it.
    fn is_at_hand(&self, access: &Access<'_>, layer: usize) -> Result<bool, StepError> {
        let base_layers = self.base.as_ref().map_or(0, |base| base.len());
        let id = match (&self.base, layer.checked_sub(base_layers)) {
            (_, Some(built)) if matches!(self.built[built].source, Source::Files(_)) => return Ok(true),
            (_, Some(built)) => Some(self.built[built].id),
            (Some(base), None) => base.trees(access, Work::Known)?.map(|trees| trees[layer].id()),
            (None, None) => None,
        };
        let snapshots = &access.engine.snapshots;
        Ok(id.map(|id| snapshots.get(&id)).transpose()?.flatten().is_some())
    }
}
