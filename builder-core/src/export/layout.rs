//! `type=oci` and `type=docker`: an OCI image layout, as an archive or a directory.
//!
//! A docker archive is an OCI layout with a `manifest.json` beside it, as docker itself writes since version 25.
//!
//! Format: OCI image-spec 1.1, `image-layout.md`; moby image-spec v1.2, "Combined Image JSON + Filesystem Changeset Format".

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::archive::ArchiveWriter;
use super::atomic_file::AtomicFile;
use super::layers::LayerBlob;
use super::packed::PackedSet;
use super::{AnnotationLevel, Annotations, ExportContext, ExportError};
use crate::content::ContentError;
use crate::oci::{Descriptor, Digest, Index, MediaType, Reference};

/// Annotation with the whole name of an image, as containerd reads it.
const NAME: &str = "io.containerd.image.name";

/// Annotation with the tag (image-spec `annotations.md`).
const TAG: &str = "org.opencontainers.image.ref.name";

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image with its names, for an archive.
#[derive(Debug, Clone)]
pub(crate) struct NamedSet {
    /// The image, for one platform or several.
    pub(crate) set: PackedSet,
    /// Its names.
    pub(crate) names: Vec<Reference>,
    /// What the descriptor in `index.json` says.
    pub(crate) annotations: Annotations,
}

/// Writes images as an archive; `docker` adds what `docker load` wants.
pub(crate) fn write_archive(
    context: &ExportContext<'_>,
    sets: &[NamedSet],
    docker: bool,
    out: &mut dyn Write,
) -> Result<(), ArchiveError> {
    let mut archive = ArchiveWriter::new(out);
    archive.directory("blobs/").map_err(ArchiveError::Write)?;
    archive.directory("blobs/sha256/").map_err(ArchiveError::Write)?;
    for blob in blobs(sets) {
        context.cancel.check().map_err(ExportError::from)?;
        let descriptor = blob.descriptor();
        let mut content = blob.open(context)?;
        archive.file(&blob_name(&descriptor.digest), descriptor.size, &mut content).map_err(archive_error)?;
    }
    let mut documents = vec![("index.json", index(named_manifests(sets))), ("oci-layout", LAYOUT.to_vec())];
    if docker {
        documents.insert(1, ("manifest.json", docker_manifest(sets)));
    }
    for (name, bytes) in documents {
        archive.file(name, bytes.len() as u64, &mut &*bytes).map_err(ArchiveError::Write)?;
    }
    archive.finish().map(drop).map_err(ArchiveError::Write)
}

/// Why an archive was not written: because of where it goes, or of what goes into it.
#[derive(Debug)]
pub(crate) enum ArchiveError {
    Write(io::Error),
    Export(ExportError),
}

impl From<ExportError> for ArchiveError {
    fn from(error: ExportError) -> Self {
        Self::Export(error)
    }
}

/// An error of the store came through the archive.
fn archive_error(error: io::Error) -> ArchiveError {
    match ContentError::from_io(error) {
        Ok(error) => ArchiveError::Export(error.into()),
        Err(error) => ArchiveError::Write(error),
    }
}

impl ArchiveError {
    /// Says what could not be written.
    pub(crate) fn into_export(self, write: impl FnOnce(io::Error) -> ExportError) -> ExportError {
        match self {
            Self::Write(source) => write(source),
            Self::Export(error) => error,
        }
    }
}

/// A layout directory whose blobs are in place and whose index is not.
#[derive(Debug)]
pub(super) struct LayoutDirectory {
    directory: PathBuf,
    manifests: Vec<Descriptor>,
}

/// Writes images into a layout directory, all but its `index.json`. Other images in it stay.
pub(super) fn write_directory(
    context: &ExportContext<'_>,
    sets: &[NamedSet],
    directory: &Path,
) -> Result<LayoutDirectory, ExportError> {
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::Write { path, source }
    };
    if fs::metadata(directory).is_ok_and(|metadata| !metadata.is_dir()) {
        return Err(ExportError::NotADirectory { path: directory.to_owned() });
    }
    known_index(&directory.join("index.json"))?;
    let blob_directory = directory.join("blobs/sha256");
    fs::create_dir_all(&blob_directory).map_err(write(&blob_directory))?;
    for blob in blobs(sets) {
        context.cancel.check()?;
        let descriptor = blob.descriptor();
        let path = directory.join(blob_name(&descriptor.digest));
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == descriptor.size) {
            continue;
        }
        let mut file = AtomicFile::create(&path)?;
        io::copy(&mut blob.open(context)?, &mut file).map_err(|error| match ContentError::from_io(error) {
            Ok(error) => error.into(),
            Err(source) => ExportError::Write { path: path.clone(), source },
        })?;
        file.commit()?;
    }
    let path = directory.join("oci-layout");
    fs::write(&path, LAYOUT).map_err(write(&path))?;
    Ok(LayoutDirectory { directory: directory.to_owned(), manifests: named_manifests(sets) })
}

impl LayoutDirectory {
    /// Puts the index in place: now the images are there. Of the images in an index that is there already, those stay
    /// whose names are not given anew.
    pub(super) fn commit(mut self) -> Result<(), ExportError> {
        let path = self.directory.join("index.json");
        if let Some(known) = known_index(&path)? {
            let kept: Vec<Descriptor> = known
                .manifests
                .into_iter()
                .filter(|old| !self.manifests.iter().any(|new| replaces(new, old)))
                .collect();
            self.manifests.splice(0..0, kept);
        }
        super::write_file(&path, |out, write| out.write_all(&index(self.manifests)).map_err(write))
    }
}

/// Whether two descriptors are of the same name or, without a name, of the same image.
fn replaces(new: &Descriptor, old: &Descriptor) -> bool {
    let names = |one: &Descriptor| [NAME, TAG].map(|key| one.annotations.get(key).cloned());
    match names(old) {
        [None, None] => new.digest == old.digest,
        name => names(new) == name,
    }
}

fn known_index(path: &PathBuf) -> Result<Option<Index>, ExportError> {
    match fs::read(path) {
        Ok(bytes) => Index::parse(&bytes, &MediaType::OCI_INDEX)
            .map(Some)
            .map_err(|source| ExportError::Layout { path: path.clone(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ExportError::Write { path: path.clone(), source }),
    }
}

/// Something that a layout holds under its digest.
enum LayoutBlob<'a> {
    Layer(&'a LayerBlob),
    Document(Box<Descriptor>, &'a [u8]),
}

impl LayoutBlob<'_> {
    fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Layer(blob) => &blob.descriptor,
            Self::Document(descriptor, _) => descriptor,
        }
    }

    fn open<'b>(&'b self, context: &ExportContext<'_>) -> Result<Box<dyn Read + 'b>, ExportError> {
        match self {
            Self::Layer(blob) => Ok(blob.open(context)?),
            Self::Document(_, bytes) => Ok(Box::new(*bytes)),
        }
    }
}

/// Everything that the images need, each once: layers, configs, manifests, indexes.
fn blobs(sets: &[NamedSet]) -> Vec<LayoutBlob<'_>> {
    let mut all = Vec::new();
    for NamedSet { set, .. } in sets {
        for image in &set.images {
            all.extend(image.layers.iter().filter(|blob| blob.is_distributable()).map(LayoutBlob::Layer));
            let bytes = &image.image.config_bytes;
            all.push(LayoutBlob::Document(Box::new(Descriptor::of(MediaType::OCI_CONFIG, bytes)), bytes));
            all.push(LayoutBlob::Document(Box::new(image.manifest.descriptor.clone()), &image.manifest.bytes));
        }
        all.extend(
            set.index.iter().map(|index| LayoutBlob::Document(Box::new(index.descriptor.clone()), &index.bytes)),
        );
    }
    let mut seen = HashSet::new();
    all.retain(|blob| seen.insert(blob.descriptor().digest.clone()));
    all
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// What `index.json` says: one descriptor for each name of each image.
fn named_manifests(sets: &[NamedSet]) -> Vec<Descriptor> {
    let mut manifests = Vec::new();
    for NamedSet { set, names, annotations } in sets {
        let mut described = set.top().descriptor.clone();
        described.annotations.extend(annotations.at(AnnotationLevel::IndexDescriptor, None));
        if let Some(created) = &set.images[0].image.config.created {
            described.annotations.insert("org.opencontainers.image.created".to_owned(), created.clone());
        }
        for name in names {
            let mut named = described.clone();
            named.annotations.insert(NAME.to_owned(), name.to_string());
            named.annotations.insert(TAG.to_owned(), name.tag().unwrap_or("latest").to_owned());
            manifests.push(named);
        }
        if names.is_empty() {
            manifests.push(described);
        }
    }
    manifests
}

/// Writes `index.json`.
fn index(manifests: Vec<Descriptor>) -> Vec<u8> {
    let index = Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
    };
    serde_json::to_vec(&index).expect("a document has string keys only")
}

/// One image of `manifest.json`.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes `manifest.json`. The first platform of an image has its names.
fn docker_manifest(sets: &[NamedSet]) -> Vec<u8> {
    let mut images = Vec::new();
    for NamedSet { set, names, .. } in sets {
        for (number, image) in set.images.iter().enumerate() {
            let tags: Vec<String> =
                names.iter().filter(|name| number == 0 && name.tag().is_some()).map(Reference::familiar).collect();
            images.push(DockerImage {
                config: blob_name(image.image.id.digest()),
                repo_tags: (!tags.is_empty()).then_some(tags),
                layers: image.layers.iter().map(|blob| blob_name(&blob.descriptor.digest)).collect(),
            });
        }
    }
    serde_json::to_vec(&images).expect("strings only")
}
