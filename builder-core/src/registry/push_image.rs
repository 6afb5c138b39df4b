//! A whole image goes out: blobs side by side, then the config, then the manifest.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::auth::Access;
use super::client::Registry;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::push::BlobSource;
use crate::cancel::CancelToken;
use crate::lock::{lock, unlocked};
use crate::oci::{Descriptor, Digest, MediaType, Reference};

/// Blobs that are sent at the same time.
const WORKERS: usize = 4;

/// A blob that the image needs in its repository.
pub struct BlobToPush<'a> {
    /// Which one.
    pub descriptor: Descriptor,
    /// Its bytes. Not opened if the registry has the blob.
    pub source: &'a BlobSource<'a>,
    /// Repositories (`domain/path`) that may have it; those of the same registry are asked for a mount.
    pub mount_from: Vec<String>,
}

/// What is pushed.
#[derive(Debug)]
pub struct ImageToPush<'a> {
    /// The manifest, byte for byte.
    pub manifest: &'a [u8],
    /// What it is.
    pub media_type: MediaType,
    /// The layers, in any order. Equal ones are sent once.
    pub layers: Vec<BlobToPush<'a>>,
    /// The config, sent after the layers.
    pub config: Option<BlobToPush<'a>>,
}

/// What happens to a blob or manifest on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferEvent {
    /// The registry had the blob.
    Exists(Descriptor),
    /// The blob was mounted from another repository (path) of the registry.
    Mounted(Descriptor, String),
    /// Some bytes of the blob were sent; the count may go back when something is sent again.
    Progress(Descriptor, u64),
    /// The blob was sent.
    Sent(Descriptor),
    /// The manifest is in place: the image can be pulled.
    Manifest(Descriptor),
}

impl std::fmt::Debug for BlobToPush<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobToPush({})", self.descriptor.digest)
    }
}

impl Registry {
    /// Pushes an image; returns the descriptor of its manifest.
    ///
    /// At most four blobs are sent at a time; `event` is called from their threads. After the first error nothing new
    /// is begun and what is being sent is broken off; blobs that arrived stay, so that the next push skips them.
    ///
    /// # Errors
    /// The first error of [`Registry::push_blob`] or [`Registry::push_manifest`].
    pub fn push_image(
        &self,
        reference: &Reference,
        image: &ImageToPush<'_>,
        event: &(dyn Fn(TransferEvent) + Sync),
        cancel: &CancelToken,
    ) -> Result<Descriptor, RegistryError> {
        let mut seen: HashSet<&Digest> = HashSet::new();
        let layers: Vec<&BlobToPush<'_>> =
            image.layers.iter().filter(|blob| seen.insert(&blob.descriptor.digest)).collect();
        let one = |blob: &BlobToPush<'_>, stop: &AtomicBool| self.push_one(reference, blob, event, stop, cancel);
        let never = AtomicBool::new(false);
        // The first blob goes alone as far as the question whether it is there: that fetches the token for all.
        self.log_in_once(reference, cancel)?;
        in_parallel(&layers, &one)?;
        if let Some(config) = &image.config {
            one(config, &never)?;
        }
        let descriptor = self.push_manifest(reference, &image.media_type, image.manifest, cancel)?;
        event(TransferEvent::Manifest(descriptor.clone()));
        Ok(descriptor)
    }

    /// Learns how the registry wants to be asked and gets the token for pushing, before several threads want it.
    fn log_in_once(&self, reference: &Reference, cancel: &CancelToken) -> Result<(), RegistryError> {
        let endpoint = Endpoint::upstream(reference.domain(), &self.inner.config);
        let access = Access::push(&endpoint, reference.path());
        if self.inner.authorization(&endpoint, &access, cancel)?.is_some() {
            return Ok(());
        }
        let nothing = Descriptor::of(MediaType::OCI_CONFIG, b"");
        self.has_blob(&endpoint, &access, reference.path(), &nothing, cancel).map(drop)
    }

    fn push_one(
        &self,
        reference: &Reference,
        blob: &BlobToPush<'_>,
        event: &(dyn Fn(TransferEvent) + Sync),
        stop: &AtomicBool,
        cancel: &CancelToken,
    ) -> Result<(), RegistryError> {
        let descriptor = &blob.descriptor;
        if self.blob_exists(reference, descriptor, cancel)? {
            event(TransferEvent::Exists(descriptor.clone()));
            return Ok(());
        }
        for repository in &blob.mount_from {
            let path = repository.strip_prefix(reference.domain()).and_then(|rest| rest.strip_prefix('/'));
            if let Some(path) = path.filter(|path| *path != reference.path())
                && self.mount_blob(reference, &descriptor.digest, path, cancel)?
            {
                event(TransferEvent::Mounted(descriptor.clone(), path.to_owned()));
                return Ok(());
            }
        }
        let progress = |sent| {
            if stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("another blob failed"));
            }
            // It may still be mounted.
            if sent > 0 {
                event(TransferEvent::Progress(descriptor.clone(), sent));
            }
            Ok(())
        };
        let mounted = self.send_or_mount(reference, descriptor, blob.source, &progress, cancel)?;
        event(match mounted {
            Some(from) if from != reference.path() => TransferEvent::Mounted(descriptor.clone(), from),
            Some(_) => TransferEvent::Exists(descriptor.clone()),
            None => TransferEvent::Sent(descriptor.clone()),
        });
        Ok(())
    }
}

/// Runs `work` over all blobs with a few threads; the first error stops the others.
fn in_parallel(
    blobs: &[&BlobToPush<'_>],
    work: &(dyn Fn(&BlobToPush<'_>, &AtomicBool) -> Result<(), RegistryError> + Sync),
) -> Result<(), RegistryError> {
    let (stop, next, first) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(None));
    let run = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(error) = work(blob, &stop) {
                // What fails after the stop fails because of it.
                if !stop.swap(true, Ordering::Relaxed) {
                    *lock(&first) = Some(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS.min(blobs.len()) {
            scope.spawn(run);
        }
        run();
    });
    unlocked(first).map_or(Ok(()), Err)
}
