//! [`Backend`]: a place that keeps blobs by digest, and a manifest under a name.

mod gha;
mod http;
mod local;
mod registry;
mod s3;
mod signature;
mod watched;

use std::fmt::Debug;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use gha::GhaBackend;
use local::LocalBackend;
use registry::RegistryBackend;
use s3::S3Backend;
pub(crate) use s3::TOUCH_REFRESH;
use watched::Watched;

use super::deadline::Activity;
use super::{CachePlace, RemoteError};
use crate::cancel::CancelToken;
use crate::oci::{Descriptor, Hasher, Index, Manifest, MediaType, Platform};
use crate::registry::{BlobSource, Registry, Waits};

/// What a place does with a cache. Nothing that it gives is trusted; see [`read`].
pub(super) trait Backend: Send + Sync + Debug {
    /// What people call it.
    fn name(&self) -> String;

    /// Called once before a cache is written.
    fn begin(&self, _: &CancelToken) -> Result<(), RemoteError> {
        Ok(())
    }

    /// The manifest that is there now.
    fn manifest(&self, cancel: &CancelToken) -> Result<Option<Vec<u8>>, RemoteError>;

    /// What is there for reading: a cache, or the images for these platforms.
    fn manifests(&self, _platforms: &[Platform], cancel: &CancelToken) -> Result<Vec<Manifest>, RemoteError> {
        let bytes = self.manifest(cancel)?;
        bytes.iter().map(|bytes| Ok(Manifest::parse(bytes, &MediaType::OCI_MANIFEST)?)).collect()
    }

    /// Opens a blob.
    fn open(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<Box<dyn Read + Send>, RemoteError>;

    /// Whether it has a blob.
    fn has(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<bool, RemoteError>;

    /// Takes a blob; it may get it from another of its repositories instead of from `source`.
    fn put(&self, blob: &BlobToPut<'_>, cancel: &CancelToken) -> Result<(), RemoteError>;

    /// Takes the manifest, after everything that it names.
    fn put_manifest(&self, manifest: &Manifest, bytes: &[u8], cancel: &CancelToken) -> Result<(), RemoteError>;

    /// Whether a blob that the manifest names is surely there.
    fn keeps(&self, _named: &Descriptor) -> bool {
        true
    }

    /// Whether a manifest that is not written again gets lost.
    fn forgets(&self) -> bool {
        false
    }

    /// Blobs that are sent at the same time.
    fn workers(&self) -> usize {
        4
    }

    /// The repository (`domain/path`) from which its blobs can be mounted.
    fn repository(&self) -> Option<String> {
        None
    }
}

/// A blob on its way into a place.
pub(super) struct BlobToPut<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) source: &'a BlobSource<'a>,
    /// Repositories that may have it.
    pub(super) mount_from: Vec<String>,
}

/// What backends are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backends<'a> {
    /// Registries, and everything else that is spoken to over HTTP.
    pub(crate) registry: &'a Registry,
}

impl Backends<'_> {
    /// A place to read from, asked with little patience: a build that waits could be running its steps.
    pub(super) fn source(self, place: &CachePlace, timeout: Duration, activity: &Arc<Activity>) -> Box<dyn Backend> {
        let mut config = self.registry.config().clone();
        config.attempts = 3;
        config.connect_timeout = config.connect_timeout.min(timeout);
        config.stall_timeout = config.stall_timeout.min(timeout);
        self.watched(place, config, activity)
    }

    /// A place to write to, where a request may be silent for `stall`.
    pub(super) fn destination(
        self,
        place: &CachePlace,
        stall: Option<Duration>,
        activity: &Arc<Activity>,
    ) -> Box<dyn Backend> {
        let mut config = self.registry.config().clone();
        config.stall_timeout = config.stall_timeout.max(stall.unwrap_or_default());
        self.watched(place, config, activity)
    }

    fn watched(
        self,
        place: &CachePlace,
        mut config: crate::registry::RegistryConfig,
        activity: &Arc<Activity>,
    ) -> Box<dyn Backend> {
        let excused = Arc::clone(activity);
        config.waits = Waits::told(move |wait| excused.put_off(wait));
        let inner = self.open(place, config);
        // A slow disk is no silent server.
        match place {
            CachePlace::Local { .. } => inner,
            _ => Box::new(Watched { inner, activity: Arc::clone(activity) }),
        }
    }

    fn open(self, place: &CachePlace, mut config: crate::registry::RegistryConfig) -> Box<dyn Backend> {
        match place {
            CachePlace::Registry { reference, insecure } => {
                if *insecure {
                    config.insecure.insert(reference.domain().to_owned());
                }
                Box::new(RegistryBackend { registry: self.registry.with_config(config), reference: reference.clone() })
            }
            CachePlace::Gha(place) => Box::new(GhaBackend::new(self.registry.with_config(config), place)),
            CachePlace::S3(place) => Box::new(S3Backend::new(self.registry.with_config(config), place)),
            CachePlace::Local { directory, tag, digest, reset } => {
                Box::new(LocalBackend::new(directory, tag, digest.as_ref(), *reset))
            }
        }
    }
}

/// Type of the document with the keys in a cache of BuildKit.
const BUILDKIT: &str = "application/vnd.buildkit.cacheconfig.v0";

/// Refuses an index that is no list of images but a cache of BuildKit, as that writes with `image-manifest=false`.
fn refuse_buildkit(index: &Index) -> Result<(), RemoteError> {
    let is_buildkit = index.manifests.iter().any(|one| one.media_type.as_str() == BUILDKIT);
    if is_buildkit { Err(RemoteError::BuildKit) } else { Ok(()) }
}

/// The same for a manifest.
pub(super) fn refuse_buildkit_manifest(manifest: &Manifest) -> Result<(), RemoteError> {
    if manifest.config.media_type.as_str() == BUILDKIT { Err(RemoteError::BuildKit) } else { Ok(()) }
}

/// Reads a whole blob of at most `limit` bytes, verified.
pub(super) fn read(
    backend: &dyn Backend,
    blob: &Descriptor,
    limit: u64,
    cancel: &CancelToken,
) -> Result<Vec<u8>, RemoteError> {
    let damaged = |reason: String| RemoteError::Damaged { digest: blob.digest.clone(), reason };
    if blob.size > limit {
        return Err(damaged(format!("it is said to have {} bytes", blob.size)));
    }
    let mut bytes = Vec::new();
    let stream = backend.open(blob, cancel)?;
    stream.take(blob.size + 1).read_to_end(&mut bytes).map_err(|error| broken(error, blob))?;
    if bytes.len() as u64 != blob.size {
        return Err(damaged(format!("it has {} bytes instead of {}", bytes.len(), blob.size)));
    }
    let mut hasher = Hasher::new(blob.digest.algorithm());
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual == blob.digest { Ok(bytes) } else { Err(damaged(format!("its content has digest {actual}"))) }
}

/// The error of a stream.
pub(super) fn broken(error: io::Error, blob: &Descriptor) -> RemoteError {
    match crate::registry::RegistryError::from_io(error) {
        Ok(error) => error.into(),
        Err(error) => RemoteError::Damaged { digest: blob.digest.clone(), reason: error.to_string() },
    }
}
