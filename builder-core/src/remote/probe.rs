//! One source at a time: what it has of a key, and what is nearest where it has nothing ([`Imports::nearest`]).
//!
//! Index, records and trees are fetched for this, layers never.

use std::cmp::Reverse;

use super::RemoteError;
use super::import::{Imports, Loaded, Source, State};
use crate::cache::explain::{common_paths, likeness, same_command, trees};
use crate::cache::{CacheKey, Preimage, Record};
use crate::cancel::CancelToken;
use crate::lock::lock;
use crate::tree::Tree;

/// Copies that are looked at to find the nearest one.
const MAX_COPIES: usize = 64;

/// Chunks of records, each of about a mebibyte, that are read only to explain something.
const FEW_CHUNKS: usize = 8;

/// What became of asking a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// There is a cache with so many records.
    Found(usize),
    /// There is none.
    Empty,
    /// It cannot be used.
    Failed(String),
}

impl Imports {
    /// What people call the sources, in the order in which they are asked.
    pub(crate) fn names(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.reach().0.name()).collect()
    }

    /// Whether a source can be used, from all that was asked so far.
    pub(crate) fn condition(&self, source: usize, cancel: &CancelToken) -> Condition {
        let source = &self.sources[source];
        self.load(source, cancel);
        match &*lock(&source.state) {
            State::Loaded(loaded) => Condition::Found(loaded.index.records.iter().map(|chunk| chunk.keys.len()).sum()),
            State::Unasked | State::Empty => Condition::Empty,
            State::Failed(reason) => Condition::Failed(reason.clone()),
        }
    }

    /// What a source has under a key, and whether it has the files of that, too.
    pub(crate) fn answer(&self, source: usize, key: &CacheKey, cancel: &CancelToken) -> Option<(Record, bool)> {
        self.ask(source, cancel, |source, loaded| {
            let found = source.record(loaded, key, cancel)?;
            Ok(found.map(|(record, tree)| {
                let files = tree.is_empty() || loaded.layers.contains_key(&record.tree);
                (record, files)
            }))
        })
    }

    /// The record of a source that is most like a preimage: of the same command, or a copy of files to the same paths.
    /// The tree is that which a copy results in.
    pub(crate) fn nearest(
        &self,
        source: usize,
        preimage: &Preimage,
        copied: Option<&Tree>,
        cancel: &CancelToken,
    ) -> Option<(Record, Tree)> {
        self.ask(source, cancel, |source, loaded| {
            let records = all_records(source, loaded, cancel)?;
            if let Some(best) = likest(&records, preimage) {
                return source.with_tree(loaded, best, cancel);
            }
            let Some(copied) = copied.filter(|_| is_copy(&preimage.op)) else { return Ok(None) };
            nearest_copy(source, loaded, records, copied, cancel)
        })
    }

    /// The same of a source that has not many records, for a build that is over: of a command only what its key was made
    /// of, of a copy with the tree.
    pub(crate) fn nearest_of_few(
        &self,
        source: usize,
        preimage: &Preimage,
        copied: Option<&Tree>,
        cancel: &CancelToken,
    ) -> Option<(Record, Option<Tree>)> {
        self.ask(source, cancel, |source, loaded| {
            if loaded.index.records.len() > FEW_CHUNKS {
                return Ok(None);
            }
            let records = all_records(source, loaded, cancel)?;
            if let Some(best) = likest(&records, preimage) {
                return Ok(Some((best.clone(), None)));
            }
            let Some(copied) = copied.filter(|_| is_copy(&preimage.op)) else { return Ok(None) };
            let nearest = nearest_copy(source, loaded, records, copied, cancel)?;
            Ok(nearest.map(|(record, tree)| (record, Some(tree))))
        })
    }

    fn ask<T>(
        &self,
        source: usize,
        cancel: &CancelToken,
        ask: impl FnOnce(&Source, &Loaded) -> Result<Option<T>, RemoteError>,
    ) -> Option<T> {
        let source = &self.sources[source];
        let loaded = self.load(source, cancel)?;
        ask(source, &loaded).unwrap_or_else(|error| {
            self.fail(source, &error);
            None
        })
    }
}

fn all_records(source: &Source, loaded: &Loaded, cancel: &CancelToken) -> Result<Vec<Record>, RemoteError> {
    let mut records = Vec::new();
    for chunk in 0..loaded.index.records.len() {
        records.extend(source.records(loaded, chunk, cancel)?.iter().cloned());
    }
    Ok(records)
}

/// Of the records of the same command the one that has most in common.
fn likest<'a>(records: &'a [Record], preimage: &Preimage) -> Option<&'a Record> {
    let alike = records.iter().filter(|record| same_command(&record.preimage, preimage));
    alike.max_by_key(|record| likeness(&record.preimage, preimage))
}

/// The copy of files to the same paths that has most in common.
fn nearest_copy(
    source: &Source,
    loaded: &Loaded,
    records: Vec<Record>,
    copied: &Tree,
    cancel: &CancelToken,
) -> Result<Option<(Record, Tree)>, RemoteError> {
    let mut best: Option<((usize, Reverse<usize>), Record, Tree)> = None;
    for record in records.into_iter().filter(|record| is_copy(&record.preimage.op)).take(MAX_COPIES) {
        let Some((record, tree)) = source.with_tree(loaded, &record, cancel)? else { continue };
        let common = common_paths(&tree, copied);
        let near = (common, Reverse(trees(&tree, copied, 0).1));
        if common > 0 && best.as_ref().is_none_or(|(found, ..)| near > *found) {
            best = Some((near, record, tree));
        }
    }
    Ok(best.map(|(_, record, tree)| (record, tree)))
}

fn is_copy(op: &str) -> bool {
    matches!(op, "copy" | "add")
}
