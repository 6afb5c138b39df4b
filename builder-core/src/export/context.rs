//! [`ExportContext`]: what exporting works with, and [`Progress`].

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::LayerFiles;
use crate::cancel::CancelToken;
use crate::content::{ContentStore, Database};
use crate::image::UnassembledImage;
use crate::oci::{Descriptor, DiffId, Digest};
use crate::progress::{Event, Sink, TaskId};
use crate::registry::Registry;
use crate::snapshot::SnapshotStore;
use crate::tree::{Tree, TreeStore};

/// The stores, the registries, and whom to tell about progress.
#[derive(Clone, Copy)]
pub struct ExportContext<'a> {
    /// Blobs, images and tags.
    pub content: &'a ContentStore,
    /// Files of layers.
    pub snapshots: &'a SnapshotStore,
    /// Trees of layers.
    pub trees: &'a TreeStore,
    /// Registries.
    pub registry: &'a Registry,
    /// Ends everything early.
    pub cancel: &'a CancelToken,
    /// Receives events of `task`.
    pub sink: &'a dyn Sink,
    /// The task that exporting is.
    pub task: TaskId,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// The result is an index even if it has one image, and files of each platform get their own directory.
    pub multi_platform: bool,
    /// Standard output, for outputs that go there.
    pub stdout: Option<&'a Mutex<dyn Write + Send + 'static>>,
}

/// An image to be exported.
#[derive(Clone)]
pub struct ExportImage {
    /// The image.
    pub image: UnassembledImage,
    /// The files of all its layers, lowest first; needed only for outputs that [need files](super::Output::needs_files).
    pub files: Vec<LayerFiles>,
    /// What makes its inline cache, if it is to have one.
    pub cache: Option<Arc<MakeCache>>,
}

/// Makes the inline cache of an image; `None` if it cannot have one. Equal layers give equal text.
pub type MakeCache = dyn Fn(&FinalLayers<'_>) -> Option<String> + Send + Sync;

/// A layer of an image as it is going to be.
#[derive(Debug)]
pub struct FinalLayer<'a> {
    /// What it holds.
    pub tree: &'a Tree,
    /// Digest of its archive.
    pub diff_id: &'a DiffId,
    /// Digest of its blob; unset where the output makes none.
    pub blob: Option<Digest>,
}

/// The layers of an image as they are going to be.
#[derive(Debug)]
pub struct FinalLayers<'a> {
    /// Those that were made here, lowest first.
    pub layers: Vec<FinalLayer<'a>>,
    /// What else than the compression decides the bytes of their blobs, as the store remembers it.
    pub format: String,
    /// The time of all that is new in the image, seconds since 1970.
    pub epoch: Option<i64>,
}

impl fmt::Debug for ExportContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportContext")
            .field("content", &self.content)
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ExportImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportImage").field("image", &self.image).finish_non_exhaustive()
    }
}

impl ExportContext<'_> {
    /// The database of the store.
    pub(super) fn database(&self) -> &Database {
        self.content.database()
    }

    /// Tells that something moved on.
    pub(crate) fn status(&self, id: impl Into<String>, current: u64, total: Option<u64>, finished: bool) {
        let (task, at) = (self.task, SystemTime::now());
        self.sink.event(Event::Status { task, id: id.into(), current, total, at, finished });
    }

    /// Tells that something has begun whose bytes nobody counts.
    pub(crate) fn begun(&self, id: impl Into<String>) {
        self.status(id, 0, None, false);
    }

    /// Tells that something was done, now if it had not begun.
    pub(crate) fn done(&self, id: impl Into<String>) {
        self.status(id, 0, None, true);
    }

    /// Tells about the bytes of one blob; as often as a person can see.
    pub(super) fn progress<'b>(&'b self, verb: &str, descriptor: &Descriptor) -> Progress<'b> {
        let id = if verb.is_empty() { descriptor.digest.to_string() } else { format!("{verb} {}", descriptor.digest) };
        Progress { context: self, id, total: Some(descriptor.size), last: Mutex::new(None) }
    }

    /// Tells about bytes whose number is not known before.
    pub(super) fn moving(&self, id: String) -> Progress<'_> {
        Progress { context: self, id, total: None, last: Mutex::new(None) }
    }
}

/// Bytes of one thing that is on its way.
pub(super) struct Progress<'a> {
    context: &'a ExportContext<'a>,
    id: String,
    total: Option<u64>,
    last: Mutex<Option<SystemTime>>,
}

/// Time between two events about the same thing, in milliseconds.
const INTERVAL: u128 = 50;

impl Progress<'_> {
    /// Says how far it is, in bytes.
    pub(super) fn at(&self, current: u64) {
        let now = SystemTime::now();
        let mut last = self.last.lock().expect("no holder of the lock panics");
        let due = last.is_none_or(|last| now.duration_since(last).is_ok_and(|past| past.as_millis() >= INTERVAL));
        if due {
            *last = Some(now);
            self.context.status(self.id.as_str(), current, self.total, false);
        }
    }

    /// Says that it arrived.
    pub(super) fn finish(&self) {
        self.context.status(self.id.as_str(), self.total.unwrap_or(0), self.total, true);
    }
}
