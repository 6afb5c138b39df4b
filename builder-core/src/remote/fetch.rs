//! [`Imports::fetch`]: the files of a layer from a cache.

use std::io::Read;

use super::RemoteError;
use super::backend::broken;
use super::import::{Imports, RemoteLayer};
use crate::cancel::CancelToken;
use crate::content::ContentStore;
use crate::layer::{self, UnpackError, UnpackOptions, Unpacked};
use crate::oci::{Descriptor, Hasher};
use crate::snapshot::{Active, SnapshotStore};
use crate::tree::{Tree, TreeId};

impl Imports {
    /// Unpacks the files of a tree from the first source that has them; `None` if none has, or all fail.
    ///
    /// The files are those of the tree, and their times may be rounded down to seconds.
    pub(crate) fn fetch(
        &self,
        tree: &Tree,
        content: &ContentStore,
        snapshots: &SnapshotStore,
        cancel: &CancelToken,
    ) -> Option<Active> {
        for layer in self.layers(&tree.id(), cancel) {
            match fetch(&layer, tree, content, snapshots, cancel) {
                Ok(active) => return Some(active),
                Err(error) => self.give_up(&layer, &error),
            }
            if cancel.is_cancelled() {
                return None;
            }
        }
        None
    }

    /// Whether a source says that it has the files of a tree.
    pub(crate) fn has_layer(&self, tree: &TreeId, cancel: &CancelToken) -> bool {
        !self.layers(tree, cancel).is_empty()
    }
}

fn fetch(
    layer: &RemoteLayer<'_>,
    tree: &Tree,
    content: &ContentStore,
    snapshots: &SnapshotStore,
    cancel: &CancelToken,
) -> Result<Active, RemoteError> {
    let blob = &layer.fact.blob;
    let active = snapshots.begin()?;
    let unpacked = layer.limits.within(cancel, |cancel| {
        // An export of the image may have brought it already.
        let stream: Box<dyn Read + Send> = match content.has(&blob.digest)? {
            Some(size) if size == blob.size => Box::new(content.open_blob(&blob.digest)?),
            _ => layer.backend.open(blob, cancel)?,
        };
        unpack(stream, blob, &active)
    })?;
    // Everything but times: an archive has whole seconds only.
    if unpacked.tree.semantic() != tree.semantic() || unpacked.diff_id != layer.fact.diff_id {
        return Err(RemoteError::OtherFiles { digest: blob.digest.clone() });
    }
    Ok(active)
}

/// Unpacks a blob and verifies its bytes.
fn unpack(stream: Box<dyn Read + Send>, blob: &Descriptor, active: &Active) -> Result<Unpacked, RemoteError> {
    let mut stream =
        Verified { inner: stream.take(blob.size + 1), hasher: Hasher::new(blob.digest.algorithm()), read: 0 };
    let unpacked = layer::unpack(&mut stream, active, &UnpackOptions::default()).map_err(|error| match error {
        UnpackError::Read { source } => broken(source, blob),
        error => error.into(),
    });
    if unpacked.is_ok() {
        std::io::copy(&mut stream, &mut std::io::sink()).map_err(|error| broken(error, blob))?;
        let damaged = |reason| RemoteError::Damaged { digest: blob.digest.clone(), reason };
        if stream.read != blob.size {
            return Err(damaged(format!("it has {} bytes instead of {}", stream.read, blob.size)));
        }
        let actual = stream.hasher.finish();
        if actual != blob.digest {
            return Err(damaged(format!("its content has digest {actual}")));
        }
    }
    unpacked
}

/// Hashes and counts what is read.
struct Verified<R> {
    inner: R,
    hasher: Hasher,
    read: u64,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.read += length as u64;
        Ok(length)
    }
}
