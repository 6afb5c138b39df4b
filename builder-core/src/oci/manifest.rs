//! [`Manifest`] and [`Index`], in OCI's and in Docker's form.

use std::collections::BTreeMap;

use super::{Descriptor, MediaKind, MediaType, strict_json};

/// Largest manifest or index that is read, in bytes. Registries refuse larger ones (distribution-spec asks for at least 4 MiB).
const MAX_BYTES: usize = 8 << 20;

/// Most layers in an image; more than any tool writes, few enough to bound work on hostile input.
const MAX_LAYERS: usize = 4096;

/// An image manifest (image-spec `manifest.md`; Docker image manifest v2 schema 2).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What the document is; older OCI writers leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// Type of an artifact that is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index (image-spec `image-index.md`; Docker manifest list).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What the document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// Type of an artifact that is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests or further indexes.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest, index or config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseManifestError {
    /// Not JSON, or not of the right shape.
    #[error("malformed {what}: {source}")]
    Json {
        /// Which document.
        what: &'static str,
        /// What the JSON reader said.
        source: serde_json::Error,
    },
    /// Larger than any real document.
    #[error("{what} of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its length in bytes.
        size: usize,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// The document says that it is something else than its descriptor does, or is two things at once.
    #[error("{what} is ambiguous: {reason}")]
    Ambiguous {
        /// Which document.
        what: &'static str,
        /// What contradicts what.
        reason: String,
    },
    /// `schemaVersion` is not 2.
    #[error("{what} has schema version {version}; only version 2 is supported")]
    SchemaVersion {
        /// Which document.
        what: &'static str,
        /// The version found.
        version: u32,
    },
    /// More layers than are accepted.
    #[error("manifest has {count} layers, more than the limit of {MAX_LAYERS}")]
    TooManyLayers {
        /// How many.
        count: usize,
    },
}

impl Manifest {
    /// Parses the bytes that a descriptor of `media_type` names.
    ///
    /// # Errors
    /// Every case of [`ParseManifestError`]; a document that is also an index is refused (CVE-2021-41190).
    pub fn parse(bytes: &[u8], media_type: &MediaType) -> Result<Self, ParseManifestError> {
        const WHAT: &str = "manifest";
        let manifest: Self = parse_document(WHAT, bytes, "manifests")?;
        check(WHAT, manifest.schema_version, manifest.media_type.as_ref(), media_type, MediaKind::Manifest)?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(ParseManifestError::TooManyLayers { count: manifest.layers.len() });
        }
        Ok(manifest)
    }
}

impl Index {
    /// Parses the bytes that a descriptor of `media_type` names.
    ///
    /// # Errors
    /// Every case of [`ParseManifestError`]; a document that is also a manifest is refused (CVE-2021-41190).
    pub fn parse(bytes: &[u8], media_type: &MediaType) -> Result<Self, ParseManifestError> {
        const WHAT: &str = "index";
        let index: Self = parse_document(WHAT, bytes, "layers")?;
        check(WHAT, index.schema_version, index.media_type.as_ref(), media_type, MediaKind::Index)?;
        Ok(index)
    }
}

/// Parses a document that must not have the member `foreign`, which would make it another kind of document as well.
fn parse_document<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    foreign: &str,
) -> Result<T, ParseManifestError> {
    if bytes.len() > MAX_BYTES {
        return Err(ParseManifestError::TooLarge { what, size: bytes.len(), limit: MAX_BYTES });
    }
    let json = |source| ParseManifestError::Json { what, source };
    let value: serde_json::Value = strict_json::from_slice(bytes).map_err(json)?;
    if value.get(foreign).is_some() {
        return Err(ParseManifestError::Ambiguous { what, reason: format!("it has the member `{foreign}`") });
    }
    serde_json::from_slice(bytes).map_err(json)
}

fn check(
    what: &'static str,
    version: u32,
    said: Option<&MediaType>,
    expected: &MediaType,
    kind: MediaKind,
) -> Result<(), ParseManifestError> {
    if version != 2 {
        return Err(ParseManifestError::SchemaVersion { what, version });
    }
    let contradiction = match said {
        Some(said) if said != expected => format!("it says `{said}`, its descriptor says `{expected}`"),
        _ if expected.kind() != kind => format!("its descriptor says `{expected}`"),
        _ => return Ok(()),
    };
    Err(ParseManifestError::Ambiguous { what, reason: contradiction })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn manifest() -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OCI_MANIFEST),
            artifact_type: None,
            config: Descriptor::of(MediaType::OCI_CONFIG, b"{}"),
            layers: vec![Descriptor::new(MediaType::OCI_LAYER_GZIP, Digest::sha256(b"x"), 1)],
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn a_manifest_round_trips_and_a_foreign_reader_agrees() {
        let bytes = serde_json::to_vec(&manifest()).expect("serialises");
        assert_eq!(Manifest::parse(&bytes, &MediaType::OCI_MANIFEST).expect("valid"), manifest());
        let foreign = oci_spec::image::ImageManifest::from_reader(&bytes[..]).expect("oci-spec reads it");
        assert_eq!(foreign.layers().len(), 1);
    }

    #[test]
    fn documents_that_are_two_things_are_refused() {
        let mut value = serde_json::to_value(manifest()).expect("serialises");
        value["manifests"] = serde_json::json!([]);
        let bytes = serde_json::to_vec(&value).expect("serialises");
        assert!(matches!(Manifest::parse(&bytes, &MediaType::OCI_MANIFEST), Err(ParseManifestError::Ambiguous { .. })));
        let plain = serde_json::to_vec(&manifest()).expect("serialises");
        for wrong in [MediaType::DOCKER_MANIFEST, MediaType::OCI_INDEX] {
            assert!(matches!(Manifest::parse(&plain, &wrong), Err(ParseManifestError::Ambiguous { .. })));
        }
        assert!(Index::parse(&plain, &MediaType::OCI_INDEX).is_err());
    }
}
