//! `type=registry`, and `push=true`: images in registries.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Mutex;

use super::context::Progress;
use super::layers::{LayerBlob, Place};
use super::packed::{PackedImage, PackedSet};
use super::{ExportContext, ExportError};
use crate::content::RepoDigest;
use crate::lock::{lock, unlocked};
use crate::oci::{Descriptor, Digest, MediaType, Reference};
use crate::registry::{BlobSource, BlobToPush, ImageToPush, Registry, RegistryError, TransferEvent};

/// Makes the bytes of a layer that are nowhere yet: its image and its number.
pub(crate) type MakeBlob<'a> = dyn Fn(usize, usize) -> Result<LayerBlob, ExportError> + Sync + 'a;

/// What became of a layer in a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushedLayer {
    /// It was sent.
    Sent,
    /// The registry had it.
    Exists,
    /// It was mounted from another repository (path) of the registry.
    Mounted(String),
}

/// How images are pushed.
#[derive(Clone, Copy)]
pub(crate) struct PushOptions {
    /// Under their digests only.
    pub(crate) by_digest: bool,
    /// Plain HTTP, or any certificate.
    pub(crate) insecure: bool,
}

/// Pushes images to every name: blobs that are there are skipped or mounted, manifests come last. Says what became of
/// each blob, in the repository where that was asked last.
pub(crate) fn push(
    context: &ExportContext<'_>,
    set: &PackedSet,
    names: &[Reference],
    options: PushOptions,
    make: &MakeBlob<'_>,
) -> Result<BTreeMap<Digest, PushedLayer>, ExportError> {
    if names.is_empty() {
        return Err(ExportError::NoName);
    }
    let insecure = options.insecure.then(|| {
        let mut config = context.registry.config().clone();
        config.insecure.extend(names.iter().map(|name| name.domain().to_owned()));
        context.registry.with_config(config)
    });
    let registry = insecure.as_ref().unwrap_or(context.registry);
    let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for name in names {
        repositories.entry(name.repository()).or_default().push(name);
    }
    let mut blobs = BTreeMap::new();
    for names in repositories.values() {
        let pusher = Pusher { context, registry, make, moving: Mutex::default(), arrived: Mutex::default() };
        pusher.repository(set, names, options.by_digest)?;
        blobs.extend(unlocked(pusher.arrived));
    }
    Ok(blobs)
}

struct Pusher<'a> {
    context: &'a ExportContext<'a>,
    registry: &'a Registry,
    make: &'a MakeBlob<'a>,
    moving: Mutex<BTreeMap<Digest, Progress<'a>>>,
    arrived: Mutex<BTreeMap<Digest, PushedLayer>>,
}

impl Pusher<'_> {
    fn repository(&self, set: &PackedSet, names: &[&Reference], by_digest: bool) -> Result<(), ExportError> {
        let context = self.context;
        let top = set.top();
        let pinned = names[0].with_digest(top.descriptor.digest.clone());
        let targets: Vec<&Reference> = if by_digest { vec![&pinned] } else { names.to_vec() };
        for (number, image) in set.images.iter().enumerate() {
            // A manifest below an index has no tag of its own.
            let own = names[0].with_digest(image.manifest.descriptor.digest.clone());
            let name = if set.index.is_some() { &own } else { targets[0] };
            self.image(number, image, name)?;
        }
        let media_type = &top.descriptor.media_type;
        let done = usize::from(set.index.is_none());
        for name in &targets[done..] {
            self.registry
                .push_manifest(name, media_type, &top.bytes, context.cancel)
                .map_err(|error| self.error(error))?;
        }
        for name in &targets {
            context.done(format!("pushing manifest for {name}@{}", top.descriptor.digest));
        }
        self.remember(set, names[0])
    }

    fn image(&self, number: usize, image: &PackedImage, name: &Reference) -> Result<(), ExportError> {
        let sources: Vec<Box<BlobSource<'_>>> = image
            .layers
            .iter()
            .enumerate()
            .map(|(layer, blob)| Box::new(move || self.open(number, layer, blob)) as Box<BlobSource<'_>>)
            .collect();
        let mut layers = Vec::with_capacity(sources.len());
        for (blob, source) in image.layers.iter().zip(&sources).filter(|(blob, _)| blob.is_distributable()) {
            let mut mount_from = self.context.database().blob_sources(&blob.descriptor.digest)?;
            mount_from.extend(blob.origin.iter().map(Reference::repository));
            layers.push(BlobToPush { descriptor: blob.descriptor.clone(), source: &**source, mount_from });
        }
        let config_bytes = &image.image.config_bytes;
        let config_source =
            || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(config_bytes.clone()))) };
        let config = BlobToPush {
            descriptor: Descriptor::of(MediaType::OCI_CONFIG, config_bytes),
            source: &config_source,
            mount_from: Vec::new(),
        };
        let push = ImageToPush {
            manifest: &image.manifest.bytes,
            media_type: image.manifest.descriptor.media_type.clone(),
            layers,
            config: Some(config),
        };
        let event = |event| self.event(event);
        self.registry.push_image(name, &push, &event, self.context.cancel).map(drop).map_err(|error| self.error(error))
    }

    /// Opens the bytes of a layer, making them if they are nowhere yet.
    fn open(&self, image: usize, layer: usize, blob: &LayerBlob) -> io::Result<Box<dyn Read + Send>> {
        let opened = match blob.place {
            Place::Remembered => (self.make)(image, layer).and_then(|made| made.open(self.context)),
            _ => blob.open(self.context),
        };
        opened.map_err(io::Error::other)
    }

    fn event(&self, event: TransferEvent) {
        let context = self.context;
        let moving = || lock(&self.moving);
        let arrived = |blob: &Descriptor, how| {
            lock(&self.arrived).insert(blob.digest.clone(), how);
        };
        match event {
            TransferEvent::Exists(blob) => {
                context.done(format!("{} already exists", blob.digest));
                arrived(&blob, PushedLayer::Exists);
            }
            TransferEvent::Mounted(blob, from) => {
                context.done(format!("{} mounted from {from}", blob.digest));
                arrived(&blob, PushedLayer::Mounted(from));
            }
            TransferEvent::Progress(blob, at) => {
                moving().entry(blob.digest.clone()).or_insert_with(|| context.progress("pushing", &blob)).at(at);
            }
            TransferEvent::Sent(blob) => {
                match moving().remove(&blob.digest) {
                    Some(progress) => progress.finish(),
                    None => context.progress("pushing", &blob).finish(),
                }
                arrived(&blob, PushedLayer::Sent);
            }
            TransferEvent::Manifest(_) => {}
        }
    }

    /// Remembers what is where now.
    fn remember(&self, set: &PackedSet, name: &Reference) -> Result<(), ExportError> {
        let (database, repository) = (self.context.database(), name.repository());
        for image in &set.images {
            for blob in &image.layers {
                database.put_blob_source(&blob.descriptor.digest, &repository)?;
            }
            if database.image(&image.image.id)?.is_some() {
                let digest = set.top().descriptor.digest.clone();
                let image = image.image.id.clone();
                database.put_repo_digest(&RepoDigest { repository: repository.clone(), digest, image })?;
            }
        }
        Ok(())
    }

    /// An error of a source is what it was before it went through the client.
    fn error(&self, error: RegistryError) -> ExportError {
        if let Err(cancelled) = self.context.cancel.check() {
            return cancelled.into();
        }
        match error {
            RegistryError::Source { digest, source } => match source.downcast::<ExportError>() {
                Ok(error) => error,
                Err(source) => RegistryError::Source { digest, source }.into(),
            },
            other => other.into(),
        }
    }
}

/// The options that an output gives.
impl PushOptions {
    pub(super) fn of(output: &super::ImageOutput) -> Self {
        Self { by_digest: output.push_by_digest, insecure: output.insecure }
    }
}
