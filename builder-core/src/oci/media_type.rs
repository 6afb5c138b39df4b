//! [`MediaType`]: what bytes are, in OCI's and in Docker's spelling.

use std::borrow::Cow;
use std::fmt;

/// A media type; unknown ones are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

/// How a layer's tar is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The plain tar.
    Uncompressed,
    /// gzip (RFC 1952), which everything reads.
    #[default]
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

/// What a media type means to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// A list of manifests.
    Index,
    /// An image manifest.
    Manifest,
    /// An image config.
    Config,
    /// A root filesystem layer.
    Layer(Compression),
    /// Anything else.
    Other,
}

impl MediaType {
    /// OCI image index.
    pub const OCI_INDEX: Self = Self(Cow::Borrowed("application/vnd.oci.image.index.v1+json"));
    /// OCI image manifest.
    pub const OCI_MANIFEST: Self = Self(Cow::Borrowed("application/vnd.oci.image.manifest.v1+json"));
    /// OCI image config.
    pub const OCI_CONFIG: Self = Self(Cow::Borrowed("application/vnd.oci.image.config.v1+json"));
    /// OCI layer, plain tar.
    pub const OCI_LAYER: Self = Self(Cow::Borrowed("application/vnd.oci.image.layer.v1.tar"));
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: Self = Self(Cow::Borrowed("application/vnd.oci.image.layer.v1.tar+gzip"));
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: Self = Self(Cow::Borrowed("application/vnd.oci.image.layer.v1.tar+zstd"));
    /// Docker manifest list.
    pub const DOCKER_INDEX: Self = Self(Cow::Borrowed("application/vnd.docker.distribution.manifest.list.v2+json"));
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: Self = Self(Cow::Borrowed("application/vnd.docker.distribution.manifest.v2+json"));
    /// Docker config.
    pub const DOCKER_CONFIG: Self = Self(Cow::Borrowed("application/vnd.docker.container.image.v1+json"));
    /// Docker layer, plain tar.
    pub const DOCKER_LAYER: Self = Self(Cow::Borrowed("application/vnd.docker.image.rootfs.diff.tar"));
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: Self = Self(Cow::Borrowed("application/vnd.docker.image.rootfs.diff.tar.gzip"));
    /// Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: Self = Self(Cow::Borrowed("application/vnd.docker.image.rootfs.diff.tar.zstd"));

    /// Every manifest or index type, in the order in which a registry is asked for them.
    pub const MANIFESTS: [Self; 4] = [Self::OCI_INDEX, Self::OCI_MANIFEST, Self::DOCKER_INDEX, Self::DOCKER_MANIFEST];

    /// A media type with this text; parameters after `;` are dropped.
    pub fn new(text: &str) -> Self {
        Self(Cow::Owned(text.split(';').next().unwrap_or_default().trim().to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the type means; foreign (non-distributable) layers count as layers.
    pub fn kind(&self) -> MediaKind {
        match &*self.0 {
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                MediaKind::Index
            }
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                MediaKind::Manifest
            }
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => {
                MediaKind::Config
            }
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => MediaKind::Layer(Compression::Uncompressed),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => MediaKind::Layer(Compression::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => MediaKind::Layer(Compression::Zstd),
            _ => MediaKind::Other,
        }
    }

    /// The layer type for a compression, in OCI's spelling or in Docker's.
    pub fn layer(compression: Compression, docker: bool) -> Self {
        match (compression, docker) {
            (Compression::Uncompressed, false) => Self::OCI_LAYER,
            (Compression::Gzip, false) => Self::OCI_LAYER_GZIP,
            (Compression::Zstd, false) => Self::OCI_LAYER_ZSTD,
            (Compression::Uncompressed, true) => Self::DOCKER_LAYER,
            (Compression::Gzip, true) => Self::DOCKER_LAYER_GZIP,
            (Compression::Zstd, true) => Self::DOCKER_LAYER_ZSTD,
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_types_and_their_meaning_agree() {
        for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
            for docker in [false, true] {
                assert_eq!(MediaType::layer(compression, docker).kind(), MediaKind::Layer(compression));
            }
        }
        assert_eq!(MediaType::new("application/vnd.oci.image.index.v1+json; charset=utf-8"), MediaType::OCI_INDEX);
        assert_eq!(MediaType::new("text/html").kind(), MediaKind::Other);
    }
}
