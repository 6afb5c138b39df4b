//! [`manifest`] and [`index`]: the documents that registries and archives keep.

use std::collections::BTreeMap;

use crate::oci::{Descriptor, Index, Manifest, MediaKind, MediaType};

/// A document with the descriptor that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The JSON.
    pub bytes: Vec<u8>,
    /// Media type, digest and length of it.
    pub descriptor: Descriptor,
}

/// Writes the manifest of an image: its config and its layers, lowest first.
///
/// Media types are written in Docker's spelling if `docker`, else in OCI's; Docker's manifests have no annotations.
/// Layers that must not be distributed keep their types and addresses.
pub fn manifest(
    config: &[u8],
    layers: Vec<Descriptor>,
    docker: bool,
    annotations: BTreeMap<String, String>,
) -> Document {
    let media_type = if docker { MediaType::DOCKER_MANIFEST } else { MediaType::OCI_MANIFEST };
    let config_type = if docker { MediaType::DOCKER_CONFIG } else { MediaType::OCI_CONFIG };
    let layers = layers.into_iter().map(|layer| Descriptor {
        media_type: layer_media_type(&layer.media_type, docker),
        annotations: if docker { BTreeMap::new() } else { layer.annotations },
        ..layer
    });
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type.clone()),
        artifact_type: None,
        config: Descriptor::of(config_type, config),
        layers: layers.collect(),
        subject: None,
        annotations: if docker { BTreeMap::new() } else { annotations },
    };
    document(media_type, &manifest)
}

/// Writes the index of several manifests, whose descriptors name their platforms.
pub fn index(manifests: Vec<Descriptor>, docker: bool, annotations: BTreeMap<String, String>) -> Document {
    let media_type = if docker { MediaType::DOCKER_INDEX } else { MediaType::OCI_INDEX };
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type.clone()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: if docker { BTreeMap::new() } else { annotations },
    };
    document(media_type, &index)
}

/// The spelling of a layer's media type in OCI or in Docker manifests. What must not be distributed stays as it is.
pub fn layer_media_type(media_type: &MediaType, docker: bool) -> MediaType {
    let foreign = media_type.as_str().contains("nondistributable") || media_type.as_str().contains("foreign");
    match media_type.kind() {
        MediaKind::Layer(compression) if !foreign => MediaType::layer(compression, docker),
        _ => media_type.clone(),
    }
}

fn document(media_type: MediaType, value: &impl serde::Serialize) -> Document {
    let bytes = serde_json::to_vec_pretty(value).expect("a document has string keys only");
    let descriptor = Descriptor::of(media_type, &bytes);
    Document { bytes, descriptor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn layers(types: &[&str]) -> Vec<Descriptor> {
        types.iter().map(|text| Descriptor::new(MediaType::new(text), Digest::sha256(b"x"), 1)).collect()
    }

    #[test]
    fn media_types_are_of_one_family() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let given = layers(&[MediaType::OCI_LAYER_ZSTD.as_str(), MediaType::DOCKER_LAYER_GZIP.as_str(), foreign]);
        for (docker, expected) in [
            (false, [MediaType::OCI_LAYER_ZSTD, MediaType::OCI_LAYER_GZIP, MediaType::new(foreign)]),
            (true, [MediaType::DOCKER_LAYER_ZSTD, MediaType::DOCKER_LAYER_GZIP, MediaType::new(foreign)]),
        ] {
            let made = manifest(b"{}", given.clone(), docker, BTreeMap::new());
            let parsed = Manifest::parse(&made.bytes, &made.descriptor.media_type).expect("own output");
            assert_eq!(parsed.layers.iter().map(|layer| layer.media_type.clone()).collect::<Vec<_>>(), expected);
            assert_eq!(made.descriptor.digest, Digest::sha256(&made.bytes));
        }
    }

    #[test]
    fn only_oci_documents_have_annotations() {
        let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        for docker in [false, true] {
            let made = manifest(b"{}", layers(&[]), docker, annotations.clone());
            let parsed = Manifest::parse(&made.bytes, &made.descriptor.media_type).expect("own output");
            assert_eq!(parsed.annotations.is_empty(), docker);
            let list = index(vec![made.descriptor], docker, annotations.clone());
            let parsed = Index::parse(&list.bytes, &list.descriptor.media_type).expect("own output");
            assert_eq!(parsed.annotations.is_empty(), docker);
        }
    }
}
