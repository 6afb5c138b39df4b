//! Manifests and indexes: asked for by name, verified, and narrowed down to a platform.

use std::io::Read as _;

use ureq::http::Method;

use super::auth::Access;
use super::client::{Call, Registry, after_failure};
use super::connection::{Response, io_fault};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use crate::cancel::CancelToken;
use crate::oci::{Descriptor, Digest, Hasher, Index, Manifest, MediaKind, MediaType, Platform, Reference};

/// Largest manifest, index or config that is read, in bytes.
pub(super) const MAX_DOCUMENT: u64 = 8 << 20;

/// Indexes inside indexes that are followed.
const MAX_NESTING: usize = 4;

/// What a reference stands for in its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Describes the manifest or index; the digest is of the bytes that came.
    pub descriptor: Descriptor,
    /// The document, byte for byte.
    pub bytes: Vec<u8>,
}

/// The manifest of an image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Describes the manifest; from the index it came from, if there is one.
    pub descriptor: Descriptor,
    /// The manifest, byte for byte.
    pub bytes: Vec<u8>,
    /// The same, parsed.
    pub manifest: Manifest,
}

/// An answer to a request for a manifest.
struct Document {
    bytes: Vec<u8>,
    digest: Digest,
    /// Media type that the registry says.
    said: Option<MediaType>,
}

impl Registry {
    /// Asks what a reference stands for: mirrors first, then the registry.
    ///
    /// A digest in the reference is compared with the bytes that came.
    ///
    /// # Errors
    /// [`RegistryError::ImageNotFound`], [`RegistryError::SchemaOne`], [`RegistryError::NotAnImage`],
    /// [`RegistryError::DigestMismatch`], and those of reaching and being let into a registry.
    pub fn resolve(&self, reference: &Reference, cancel: &CancelToken) -> Result<Resolved, RegistryError> {
        self.at_endpoints(reference, |endpoint| {
            let document = self.document(endpoint, reference, cancel)?;
            let media_type = media_type(reference, document.said, &document.bytes)?;
            let descriptor = Descriptor::new(media_type, document.digest, document.bytes.len() as u64);
            Ok(Resolved { descriptor, bytes: document.bytes })
        })
    }

    /// Asks for the descriptor of what a tag stands for, without the document; `None` if the registry does not say.
    ///
    /// What it says is not verified: use it only to learn whether a known, verified digest is still the right one.
    ///
    /// # Errors
    /// [`RegistryError::ImageNotFound`], and those of reaching and being let into a registry.
    pub fn head(&self, reference: &Reference, cancel: &CancelToken) -> Result<Option<Descriptor>, RegistryError> {
        self.at_endpoints(reference, |endpoint| {
            let access = Access::pull(endpoint, reference.path());
            let call =
                manifest_call(endpoint, &access, reference, &reference.selector(), cancel).with_method(Method::HEAD);
            let response = self.inner.call(&call)?;
            match response.status() {
                200 => Ok(described(&response)),
                404 => Err(RegistryError::ImageNotFound { reference: reference.familiar() }),
                _ => Err(call.refusal(response)),
            }
        })
    }

    /// Fetches the document that a descriptor names, verified.
    ///
    /// # Errors
    /// As [`Registry::resolve`], and [`RegistryError::SizeMismatch`].
    pub fn manifest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        cancel: &CancelToken,
    ) -> Result<Vec<u8>, RegistryError> {
        let pinned = reference.with_digest(descriptor.digest.clone());
        let document = self.at_endpoints(&pinned, |endpoint| self.document(endpoint, &pinned, cancel))?;
        if document.bytes.len() as u64 != descriptor.size {
            return Err(RegistryError::SizeMismatch {
                registry: reference.domain().to_owned(),
                digest: descriptor.digest.clone(),
                expected: descriptor.size,
                actual: document.bytes.len() as u64,
            });
        }
        Ok(document.bytes)
    }

    /// Chooses the manifest for a platform, fetching what an index names. A lone manifest is taken as it is.
    ///
    /// Among several the nearest variant wins, among equals the first.
    ///
    /// # Errors
    /// [`RegistryError::NoPlatform`], [`RegistryError::Manifest`], [`RegistryError::Nested`], and those of [`Registry::resolve`].
    pub fn select_platform(
        &self,
        reference: &Reference,
        resolved: &Resolved,
        platform: &Platform,
        cancel: &CancelToken,
    ) -> Result<Selected, RegistryError> {
        let malformed = |source| RegistryError::Manifest { reference: reference.familiar(), source };
        let (mut descriptor, mut bytes) = (resolved.descriptor.clone(), resolved.bytes.clone());
        for _ in 0..=MAX_NESTING {
            if descriptor.media_type.kind() == MediaKind::Manifest {
                let manifest = Manifest::parse(&bytes, &descriptor.media_type).map_err(malformed)?;
                return Ok(Selected { descriptor, bytes, manifest });
            }
            let index = Index::parse(&bytes, &descriptor.media_type).map_err(malformed)?;
            let best = choose(&index, platform).ok_or_else(|| RegistryError::NoPlatform {
                reference: reference.familiar(),
                wanted: Box::new(platform.clone()),
                available: platforms(&index),
            })?;
            descriptor = best.clone();
            bytes = self.manifest(reference, &descriptor, cancel)?;
        }
        Err(RegistryError::Nested { reference: reference.familiar(), limit: MAX_NESTING })
    }

    /// Asks the endpoints of a reference one after the other until one has an answer.
    pub(super) fn at_endpoints<T>(
        &self,
        reference: &Reference,
        ask: impl Fn(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let endpoints = Endpoint::for_pull(reference, &self.inner.config)?;
        let mut last = None;
        for endpoint in &endpoints {
            match ask(endpoint) {
                Err(error) if !error.is_final() => last = Some(error),
                other => return other,
            }
        }
        Err(last.expect("the registry itself is always among the endpoints"))
    }

    /// Fetches a document from one endpoint, verified as far as its name allows.
    fn document(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        cancel: &CancelToken,
    ) -> Result<Document, RegistryError> {
        let access = Access::pull(endpoint, reference.path());
        let call = manifest_call(endpoint, &access, reference, &reference.selector(), cancel);
        let mut backoff = self.inner.config.backoff();
        loop {
            let response = self.inner.call(&call)?;
            match response.status() {
                200 => {}
                404 => return Err(RegistryError::ImageNotFound { reference: reference.familiar() }),
                _ => return Err(call.refusal(response)),
            }
            let said = response.header("content-type").map(MediaType::new);
            let announced = response.header("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
            let length = response.content_length();
            let mut bytes = Vec::new();
            let read = response.into_reader().take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
            if let Err(error) = read {
                after_failure(io_fault(&error).into(), endpoint, &mut backoff, cancel)?;
                continue;
            }
            if bytes.len() as u64 > MAX_DOCUMENT {
                return Err(RegistryError::TooLarge {
                    what: "the manifest",
                    reference: reference.familiar(),
                    limit: MAX_DOCUMENT,
                });
            }
            if length.is_some_and(|length| length != bytes.len() as u64) {
                return Err(call.nonsense("its length is not the one announced"));
            }
            // A digest that was asked for decides; one that is only announced still shows that bytes were changed on the way.
            let expected = reference.digest().or(announced.as_ref());
            let digest = match expected {
                Some(expected) => verified(endpoint, &bytes, expected)?,
                None => Digest::sha256(&bytes),
            };
            return Ok(Document { bytes, digest, said });
        }
    }
}

fn manifest_call<'a>(
    endpoint: &'a Endpoint,
    access: &'a Access,
    reference: &Reference,
    selector: &str,
    cancel: &'a CancelToken,
) -> Call<'a> {
    let path = format!("{}/manifests/{selector}", endpoint.repository(reference.path()));
    let accept: Vec<String> = MediaType::MANIFESTS.iter().map(ToString::to_string).collect();
    Call::get(endpoint, access, "a request for a manifest", path, cancel).with_header("accept", accept.join(", "))
}

fn verified(endpoint: &Endpoint, bytes: &[u8], expected: &Digest) -> Result<Digest, RegistryError> {
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *expected {
        return Ok(actual);
    }
    Err(RegistryError::DigestMismatch { registry: endpoint.domain.clone(), expected: expected.clone(), actual })
}

fn described(response: &Response) -> Option<Descriptor> {
    let digest = response.header("docker-content-digest")?.parse().ok()?;
    Some(Descriptor::new(MediaType::new(response.header("content-type")?), digest, response.content_length()?))
}

/// The media type that the registry says, or that the document says where the registry says nothing useful.
fn media_type(reference: &Reference, said: Option<MediaType>, bytes: &[u8]) -> Result<MediaType, RegistryError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        schema_version: Option<u32>,
        media_type: Option<MediaType>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let is_document = |media_type: &MediaType| matches!(media_type.kind(), MediaKind::Index | MediaKind::Manifest);
    if let Some(said) = said.as_ref().filter(|said| is_document(said)) {
        return Ok(said.clone());
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|source| RegistryError::Manifest {
        reference: reference.familiar(),
        source: crate::oci::ParseManifestError::Json { what: "manifest", source },
    })?;
    let schema_one = said.as_ref().is_some_and(|said| said.as_str().contains("distribution.manifest.v1"));
    if schema_one || head.schema_version == Some(1) {
        return Err(RegistryError::SchemaOne { reference: reference.familiar() });
    }
    match head.media_type {
        Some(inner) if is_document(&inner) => Ok(inner),
        // OCI 1.0 let documents leave their type out, and static file servers don't know it.
        None if head.schema_version == Some(2) && head.manifests.is_some() => Ok(MediaType::OCI_INDEX),
        None if head.schema_version == Some(2) && head.layers.is_some() => Ok(MediaType::OCI_MANIFEST),
        inner => Err(RegistryError::NotAnImage {
            reference: reference.familiar(),
            media_type: super::error::one_line(inner.or(said).as_ref().map_or("none", MediaType::as_str)),
        }),
    }
}

/// The manifest of an index that suits a platform best; an inner index where none says what it is for.
pub(crate) fn choose<'a>(index: &'a Index, wanted: &Platform) -> Option<&'a Descriptor> {
    let suits =
        |descriptor: &&Descriptor| matches!(descriptor.media_type.kind(), MediaKind::Manifest | MediaKind::Index);
    let distance = |descriptor: &Descriptor| descriptor.platform.as_ref()?.distance(wanted);
    let candidates = || index.manifests.iter().filter(suits);
    let nearest = candidates()
        .filter_map(|descriptor| Some((distance(descriptor)?, descriptor)))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, nearest)) = nearest {
        return Some(nearest);
    }
    let mut nameless = candidates().filter(|descriptor| descriptor.platform.is_none());
    match (nameless.next(), nameless.next()) {
        (Some(only), None) => Some(only),
        (Some(first), Some(_)) if first.media_type.kind() == MediaKind::Index => Some(first),
        _ => None,
    }
}

pub(crate) fn platforms(index: &Index) -> Vec<Platform> {
    let known = |platform: &&Platform| platform.os != "unknown";
    index.manifests.iter().filter_map(|descriptor| descriptor.platform.as_ref()).filter(known).cloned().collect()
}
