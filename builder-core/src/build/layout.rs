//! Images in directories: `oci-layout://`. What the target needs of one is copied into the store and verified there;
//! from then on it is like an image that was pulled.

use std::io::{self, Read, Write as _};

use super::engine::Engine;
use super::error::StepError;
use crate::cancel::CancelToken;
use crate::content::ContentError;
use crate::diagnostic::{Diagnostic, nearest};
use crate::oci::{Descriptor, Digest, Index, LayoutReference, Manifest, MediaKind, MediaType, Platform};
use crate::registry::{choose, platforms};
use crate::rootfs::{RootDir, RootPath};

/// Largest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 8 << 20;

/// Most indexes inside indexes.
const MAX_NESTING: usize = 4;

/// The tag that is meant when none is written.
const DEFAULT_TAG: &str = "latest";

/// An image layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file of it cannot be read.
    #[error("cannot read `{path}` of {layout}")]
    Read {
        /// The layout.
        layout: Box<LayoutReference>,
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no layout, or contradicts itself.
    #[error("{layout} is not a valid image layout: {reason}")]
    Malformed {
        /// The layout.
        layout: Box<LayoutReference>,
        /// What is wrong.
        reason: String,
    },
    /// The bytes of a blob are not those that its digest names.
    #[error("{layout} is damaged: {source}")]
    Blob {
        /// The layout.
        layout: Box<LayoutReference>,
        /// What is wrong.
        source: ContentError,
    },
    /// It has no such image.
    #[error("{layout} has no image `{tag}`")]
    Missing {
        /// The layout.
        layout: Box<LayoutReference>,
        /// The tag or the digest.
        tag: String,
        /// The tag that is most like it.
        nearest: Option<String>,
    },
    /// It has no image for this platform.
    #[error("{layout} has no image for {wanted}; it has {}", list(available))]
    Platform {
        /// The layout.
        layout: Box<LayoutReference>,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<Platform>,
    },
}

impl Diagnostic for LayoutError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Missing { .. } => {
                Some("write `oci-layout://DIRECTORY:TAG` or `oci-layout://DIRECTORY@DIGEST`".to_owned())
            }
            Self::Malformed { .. } => {
                Some("give the directory that has the files `oci-layout` and `index.json`".to_owned())
            }
            _ => None,
        }
    }
}

/// A layout that is open.
struct Layout<'a> {
    engine: &'a Engine,
    name: &'a LayoutReference,
    root: RootDir,
    cancel: &'a CancelToken,
}

/// Copies the image that `layout` names for `platform` into the store: manifest, config and layers.
pub(super) fn bring(
    engine: &Engine,
    layout: &LayoutReference,
    platform: &Platform,
    cancel: &CancelToken,
) -> Result<Descriptor, StepError> {
    let layout = Layout::at(engine, layout, cancel)?;
    let descriptor = layout.manifest(layout.top()?, platform)?;
    let bytes = engine.content.read(&descriptor.digest, MAX_DOCUMENT)?;
    let manifest =
        Manifest::parse(&bytes, &descriptor.media_type).map_err(|error| layout.malformed(error.to_string()))?;
    if manifest.config.media_type.kind() != MediaKind::Config {
        let reason = format!("its config is no image config: `{}`", manifest.config.media_type);
        return Err(layout.malformed(reason).into());
    }
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        layout.copy(blob)?;
    }
    Ok(descriptor)
}

/// The index that a layout has under its name; `None` for an image by itself.
pub(super) fn index(
    engine: &Engine,
    layout: &LayoutReference,
    cancel: &CancelToken,
) -> Result<Option<Index>, StepError> {
    let layout = Layout::at(engine, layout, cancel)?;
    let top = layout.top()?;
    if top.media_type.kind() != MediaKind::Index || top.size > MAX_DOCUMENT {
        return Ok(None);
    }
    layout.copy(&top)?;
    let bytes = engine.content.read(&top.digest, MAX_DOCUMENT)?;
    Ok(Some(Index::parse(&bytes, &top.media_type).map_err(|error| layout.malformed(error.to_string()))?))
}

impl<'a> Layout<'a> {
    fn at(engine: &'a Engine, name: &'a LayoutReference, cancel: &'a CancelToken) -> Result<Self, LayoutError> {
        let opened = RootDir::open(&name.directory);
        let failed =
            |source| LayoutError::Read { layout: Box::new(name.clone()), path: "oci-layout".to_owned(), source };
        Ok(Self { engine, name, root: opened.map_err(failed)?, cancel })
    }

    fn malformed(&self, reason: impl Into<String>) -> LayoutError {
        LayoutError::Malformed { layout: Box::new(self.name.clone()), reason: reason.into() }
    }

    /// What `index.json` has under the tag or digest.
    fn top(&self) -> Result<Descriptor, StepError> {
        if let Err(error) = self.document("oci-layout") {
            return Err(match error {
                LayoutError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    self.malformed("it has no file `oci-layout`").into()
                }
                error => error.into(),
            });
        }
        let bytes = self.document("index.json")?;
        let index = Index::parse(&bytes, &MediaType::OCI_INDEX).map_err(|error| self.malformed(error.to_string()))?;
        let missing = |tag: &str, nearest| LayoutError::Missing {
            layout: Box::new(self.name.clone()),
            tag: tag.to_owned(),
            nearest,
        };
        if let Some(digest) = &self.name.digest {
            let listed = index.manifests.iter().find(|one| one.digest == *digest);
            return match listed {
                Some(listed) => Ok(listed.clone()),
                None => self.unlisted(digest)?.ok_or_else(|| missing(digest.as_str(), None).into()),
            };
        }
        let tag = self.name.tag.as_deref();
        let names = |one: &Descriptor| one.annotations.get("org.opencontainers.image.ref.name").cloned();
        let wanted = tag.unwrap_or(DEFAULT_TAG);
        let is_wanted = |name: &str| {
            name == wanted || name.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted && !tag.contains('/'))
        };
        let found = index.manifests.iter().find(|one| names(one).is_some_and(|name| is_wanted(&name)));
        match (found, &index.manifests[..]) {
            (Some(found), _) => Ok(found.clone()),
            // The only image needs no name, but one that was written has to be right.
            (None, [only]) if tag.is_none() => Ok(only.clone()),
            _ => {
                let all: Vec<String> = index.manifests.iter().filter_map(names).collect();
                Err(missing(wanted, nearest(wanted, all.iter().map(String::as_str)).map(str::to_owned)).into())
            }
        }
    }

    /// A manifest that is there and not listed.
    fn unlisted(&self, digest: &Digest) -> Result<Option<Descriptor>, StepError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: Option<MediaType>,
            manifests: Option<serde_json::Value>,
        }
        let bytes = match self.document(&blob_path(digest)) {
            Ok(bytes) => bytes,
            Err(LayoutError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let typed: Typed = serde_json::from_slice(&bytes).map_err(|error| self.malformed(error.to_string()))?;
        let guessed = if typed.manifests.is_some() { MediaType::OCI_INDEX } else { MediaType::OCI_MANIFEST };
        Ok(Some(Descriptor::new(typed.media_type.unwrap_or(guessed), digest.clone(), bytes.len() as u64)))
    }

    /// The manifest that a descriptor leads to; it is in the store afterwards.
    fn manifest(&self, mut descriptor: Descriptor, platform: &Platform) -> Result<Descriptor, StepError> {
        for _ in 0..MAX_NESTING {
            if descriptor.size > MAX_DOCUMENT {
                return Err(self.malformed(format!("{} is too large", descriptor.digest)).into());
            }
            self.copy(&descriptor)?;
            match descriptor.media_type.kind() {
                MediaKind::Manifest => return Ok(descriptor),
                MediaKind::Index => {}
                _ => {
                    let reason =
                        format!("{} has the unknown media type `{}`", descriptor.digest, descriptor.media_type);
                    return Err(self.malformed(reason).into());
                }
            }
            let bytes = self.engine.content.read(&descriptor.digest, MAX_DOCUMENT)?;
            let index =
                Index::parse(&bytes, &descriptor.media_type).map_err(|error| self.malformed(error.to_string()))?;
            let chosen = choose(&index, platform).ok_or_else(|| LayoutError::Platform {
                layout: Box::new(self.name.clone()),
                wanted: Box::new(platform.clone()),
                available: platforms(&index),
            })?;
            descriptor = chosen.clone();
        }
        Err(self.malformed("its indexes are nested too deep").into())
    }

    fn open(&self, path: &str) -> Result<std::fs::File, LayoutError> {
        let failed = |source| LayoutError::Read { layout: Box::new(self.name.clone()), path: path.to_owned(), source };
        let clean = RootPath::clean(path).map_err(|error| self.malformed(error.to_string()))?;
        self.root.open_file(&clean).map_err(failed)
    }

    fn document(&self, path: &str) -> Result<Vec<u8>, LayoutError> {
        let failed = |source| LayoutError::Read { layout: Box::new(self.name.clone()), path: path.to_owned(), source };
        let mut bytes = Vec::new();
        self.open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(self.malformed(format!("`{path}` is too large")));
        }
        Ok(bytes)
    }

    /// Copies a blob into the store, unless it is there.
    fn copy(&self, blob: &Descriptor) -> Result<(), StepError> {
        let content = &self.engine.content;
        if content.has(&blob.digest)?.is_some() {
            return Ok(());
        }
        let path = blob_path(&blob.digest);
        let failed = |source| LayoutError::Read { layout: Box::new(self.name.clone()), path: path.clone(), source };
        let mut file = self.open(&path)?.take(blob.size.saturating_add(1));
        let mut writer = content.writer()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            self.cancel.check()?;
            let length = file.read(&mut buffer).map_err(failed)?;
            if length == 0 {
                break;
            }
            let write = |source| StepError::Io { what: "cannot write to the store".to_owned(), source };
            writer.write_all(&buffer[..length]).map_err(write)?;
        }
        writer.commit_as(&blob.digest, blob.size).map_err(|source| match source {
            ContentError::DigestMismatch { .. } | ContentError::SizeMismatch { .. } => {
                LayoutError::Blob { layout: Box::new(self.name.clone()), source }.into()
            }
            source => StepError::from(source),
        })
    }
}

fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replace(':', "/"))
}
