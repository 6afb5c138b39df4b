//! [`Output`]: where the result of a build goes, and in which form.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::oci::{Compression, Platform, Reference};

/// One destination of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The local store, a registry, or both (`type=image`, `type=registry`, and `type=docker` without `dest`).
    Image(ImageOutput),
    /// An OCI layout, as a tar archive or a directory (`type=oci`).
    Oci(LayoutOutput),
    /// An archive that `docker load` reads, which is an OCI layout too (`type=docker`).
    Docker(LayoutOutput),
    /// The files of the image in a directory (`type=local`).
    Local {
        /// The directory; what is in it already stays, unless `delete`.
        directory: PathBuf,
        /// Removes what the image does not have (`mode=delete`).
        delete: bool,
        /// Each platform gets its own directory below; unset means "if there are several".
        platform_split: Option<bool>,
        /// How files are written.
        format: FilesFormat,
    },
    /// The files of the image as one tar archive (`type=tar`).
    Tar {
        /// A file or standard output.
        destination: Destination,
        /// As for `Local`.
        platform_split: Option<bool>,
        /// How files are written.
        format: FilesFormat,
    },
    /// Nowhere: the steps run, and the build cache keeps their results (`type=cacheonly`).
    CacheOnly,
}

/// An image for the local store or for registries.
#[expect(clippy::struct_excessive_bools, reason = "each is an option that users set")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOutput {
    /// Its names.
    pub names: Vec<Reference>,
    /// Send it to the registries of its names.
    pub push: bool,
    /// Push the manifest by its digest only, without tags.
    pub push_by_digest: bool,
    /// Keep it in the local store.
    pub store: bool,
    /// Also give it the name `name@digest`.
    pub name_canonical: bool,
    /// With no other name, give it the name `PREFIX@digest`.
    pub dangling_name_prefix: Option<String>,
    /// Speak plain HTTP, or accept any certificate, for these names (`registry.insecure`).
    pub insecure: bool,
    /// How layers and documents are written.
    pub format: ImageFormat,
}

/// An OCI layout or a docker archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutOutput {
    /// Where it goes; a directory for `tar=false`.
    pub destination: Destination,
    /// Its names.
    pub names: Vec<Reference>,
    /// How layers and documents are written.
    pub format: ImageFormat,
}

/// Where an output is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file. It appears complete or not at all.
    File(PathBuf),
    /// The writer that the caller supplies.
    Stdout,
    /// A directory.
    Directory(PathBuf),
}

/// How layers, manifests and indexes are written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFormat {
    /// Compression of new layers.
    pub compression: Compression,
    /// Level of the compression (gzip 0 to 9, zstd 0 to 22); unset is the compressor's own choice.
    pub level: Option<i32>,
    /// Compresses layers of the base image in the same way, too.
    pub force_compression: bool,
    /// Docker's media types instead of OCI's.
    pub docker_media_types: bool,
    /// Free key-value pairs of the documents.
    pub annotations: Annotations,
    /// No file of a new layer is younger than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// `SOURCE_DATE_EPOCH` for this output, seconds since 1970, instead of the build's.
    pub source_date_epoch: Option<i64>,
}

/// How files are written outside of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilesFormat {
    /// No file is younger than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// `SOURCE_DATE_EPOCH` for this output, seconds since 1970, instead of the build's.
    pub source_date_epoch: Option<i64>,
}

/// Annotations of all documents of an output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations(pub Vec<Annotation>);

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where it is written.
    pub level: AnnotationLevel,
    /// Only for this platform.
    pub platform: Option<Platform>,
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// Which document an annotation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationLevel {
    /// The manifest.
    Manifest,
    /// The descriptor of the manifest, in an index.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The descriptor of the index, in `index.json` of a layout.
    IndexDescriptor,
}

impl Annotations {
    /// Those of one level that apply to a platform (`None`: to no platform in particular).
    pub fn at(&self, level: AnnotationLevel, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let applies = |one: &&Annotation| {
            one.level == level
                && one.platform.as_ref().is_none_or(|wanted| platform.is_some_and(|platform| platform == wanted))
        };
        self.0.iter().filter(applies).map(|one| (one.key.clone(), one.value.clone())).collect()
    }
}

impl Output {
    /// Keeps an image in the local store under these names (`--load`, and a build without `--output` but with tags).
    pub fn store(names: Vec<Reference>) -> Self {
        Self::Image(ImageOutput { names, store: true, ..ImageOutput::default() })
    }

    /// Sends an image to the registries of these names (`--push`). The local store does not get it.
    pub fn push(names: Vec<Reference>) -> Self {
        Self::Image(ImageOutput { names, push: true, store: false, ..ImageOutput::default() })
    }

    /// Gives the tags of the build to an output that names none itself.
    #[must_use]
    pub fn with_default_names(mut self, tags: &[Reference]) -> Self {
        match &mut self {
            Self::Image(ImageOutput { names, .. })
            | Self::Oci(LayoutOutput { names, .. })
            | Self::Docker(LayoutOutput { names, .. })
                if names.is_empty() =>
            {
                names.extend_from_slice(tags);
            }
            _ => {}
        }
        self
    }

    /// Whether it needs the files of every layer, base layers included, and not only blobs.
    pub fn needs_files(&self) -> bool {
        matches!(self, Self::Local { .. } | Self::Tar { .. })
    }

    /// Whether an image has to be assembled for it.
    pub fn needs_image(&self) -> bool {
        matches!(self, Self::Image(_) | Self::Oci(_) | Self::Docker(_))
    }

    /// Whether it is written to standard output.
    pub fn is_stdout(&self) -> bool {
        match self {
            Self::Oci(LayoutOutput { destination, .. })
            | Self::Docker(LayoutOutput { destination, .. })
            | Self::Tar { destination, .. } => *destination == Destination::Stdout,
            _ => false,
        }
    }

    /// The word after `type=`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Image(ImageOutput { push: true, store: false, .. }) => "registry",
            Self::Image(_) => "image",
            Self::Oci(_) => "oci",
            Self::Docker(_) => "docker",
            Self::Local { .. } => "local",
            Self::Tar { .. } => "tar",
            Self::CacheOnly => "cacheonly",
        }
    }
}

impl Default for ImageOutput {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            push: false,
            push_by_digest: false,
            store: true,
            name_canonical: false,
            dangling_name_prefix: None,
            insecure: false,
            format: ImageFormat::default(),
        }
    }
}
