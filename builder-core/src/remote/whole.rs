//! [`Whole`]: everything that one place has, part by part, for whoever wants all of it.
//!
//! A part is fetched, handed over and forgotten: memory holds the index and one chunk.

use std::sync::Arc;

use super::RemoteError;
use super::backend;
use super::format;
use super::import::{Imports, Loaded, MOST, Source};
use super::mounts::MountIdentity;
use crate::cache::Record;
use crate::cancel::CancelToken;
use crate::oci::DiffId;
use crate::tree::{ContentDigest, Tree, TreeId};

/// A place whose index is there.
pub(crate) struct Whole<'a> {
    source: &'a Source,
    loaded: Arc<Loaded>,
}

impl Imports {
    /// Fetches the index of the first source; `None` if there is no cache.
    ///
    /// # Errors
    /// Every case of [`RemoteError`] about reading.
    pub(crate) fn whole(&self, cancel: &CancelToken) -> Result<Option<Whole<'_>>, RemoteError> {
        let Some(source) = self.first_source() else { return Ok(None) };
        Ok(source.loaded(cancel)?.map(|loaded| Whole { source, loaded }))
    }
}

impl Whole<'_> {
    /// How many chunks of trees there are.
    pub(crate) fn tree_chunks(&self) -> usize {
        self.loaded.index.trees.len()
    }

    /// How many chunks of records there are.
    pub(crate) fn record_chunks(&self) -> usize {
        self.loaded.index.records.len()
    }

    /// The trees of a chunk.
    ///
    /// # Errors
    /// Every case of [`RemoteError`] about reading.
    pub(crate) fn trees(&self, number: usize, cancel: &CancelToken) -> Result<Vec<Tree>, RemoteError> {
        let of_chunk = &self.loaded.index.trees[number];
        let raw = match self.loaded.known_trees(number) {
            Some(known) => known,
            None => Arc::new(format::exact(&self.fetch(&of_chunk.chunk, cancel)?, &of_chunk.chunk)?),
        };
        of_chunk.trees.iter().map(|span| format::tree(&raw, span)).collect()
    }

    /// The records of a chunk.
    ///
    /// # Errors
    /// Every case of [`RemoteError`] about reading.
    pub(crate) fn records(&self, number: usize, cancel: &CancelToken) -> Result<Arc<Vec<Record>>, RemoteError> {
        if let Some(known) = self.loaded.known_records(number) {
            return Ok(known);
        }
        let chunk = &self.loaded.index.records[number].chunk;
        format::records(&self.fetch(chunk, cancel)?, chunk).map(Arc::new)
    }

    /// The trees of layers of base images, by the names of the layers.
    pub(crate) fn bases(&self) -> impl Iterator<Item = (&DiffId, TreeId)> {
        self.loaded.index.bases.iter().map(|base| (&base.layer, base.tree))
    }

    /// The small files; damaged ones are left out.
    pub(crate) fn files(&self) -> impl Iterator<Item = Vec<u8>> {
        let files = self.loaded.index.files.iter();
        files.filter_map(|(digest, text)| format::file(&digest.parse::<ContentDigest>().ok()?, text))
    }

    /// The cache mounts.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = &MountIdentity> {
        self.loaded.index.mounts.iter().map(|fact| &fact.mount)
    }

    fn fetch(&self, chunk: &format::Chunk, cancel: &CancelToken) -> Result<Vec<u8>, RemoteError> {
        let (backend, limits) = self.source.reach();
        limits.within(cancel, |cancel| backend::read(backend, &chunk.blob, MOST, cancel))
    }
}
