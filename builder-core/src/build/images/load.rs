//! [`load`]: images from an archive.

use std::collections::HashMap;
use std::io::{self, Read};

use super::admit::{Admission, admit, check, verify};
use super::{ImageError, MAX_CONFIG};
use crate::content::ContentError;
use crate::export::ExportContext;
use crate::export::layers::copy;
use crate::layer::Decompressor;
use crate::oci::{
    Compression, Descriptor, Digest, ImageId, Index, Manifest, MediaKind, MediaType, Platform, Reference,
};
use crate::tar::{Kind, Reader, TarError};

/// Documents at the top of an archive; they are read into memory, everything else becomes a blob.
const DOCUMENTS: [&str; 4] = ["manifest.json", "index.json", "oci-layout", "repositories"];

/// Most links that are followed from one name of an archive to another.
const MAX_LINKS: usize = 8;

/// Most indexes inside indexes.
const MAX_NESTING: usize = 4;

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names that it has now; docker prints the id where there is none.
    pub names: Vec<Reference>,
}

/// Reads images from what `docker save` writes or from an OCI layout, compressed or not (`docker load`).
///
/// Every layer is compared with its diff id. Of an image for several platforms the one nearest to `platform` is taken.
///
/// # Errors
/// [`ImageError::NotAnArchive`] for anything else; [`ImageError::Malformed`] and [`ImageError::DiffId`] for images that
/// contradict themselves. Images before the faulty one are loaded.
pub fn load(
    context: &ExportContext<'_>,
    input: &mut (dyn Read + Send),
    platform: &Platform,
) -> Result<Vec<Loaded>, ImageError> {
    let _lease = context.content.lease(context.cancel)?;
    let archive = read_archive(context, input)?;
    if let Some(bytes) = archive.documents.get("manifest.json") {
        let images: Vec<DockerImage> =
            serde_json::from_slice(bytes).map_err(|error| ImageError::NotAnArchive { reason: error.to_string() })?;
        let mut loaded = Vec::with_capacity(images.len());
        for image in &images {
            loaded.push(load_docker(context, &archive, image)?);
        }
        if let Some(index) = archive.documents.get("index.json") {
            name_platforms(context, index, &mut loaded)?;
        }
        return Ok(loaded);
    }
    let Some(bytes) = archive.documents.get("index.json") else {
        let reason = "it has neither `manifest.json` nor `index.json`".to_owned();
        return Err(ImageError::NotAnArchive { reason });
    };
    load_layout(context, bytes, platform)
}

/// What is in an archive.
#[derive(Debug, Default)]
struct ImageArchive {
    documents: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
}

impl ImageArchive {
    /// The blob that a name leads to.
    fn blob(&self, name: &str) -> Option<&(Digest, u64)> {
        let mut name = clean(name);
        for _ in 0..MAX_LINKS {
            if let Some(blob) = self.blobs.get(&name) {
                return Some(blob);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }
}

/// Reads a whole archive, putting everything but its documents into the store.
fn read_archive(context: &ExportContext<'_>, input: &mut (dyn Read + Send)) -> Result<ImageArchive, ImageError> {
    let malformed = |error: TarError| match error {
        TarError::Io(source) => unreadable(source),
        error @ TarError::Malformed { .. } => ImageError::NotAnArchive { reason: error.to_string() },
    };
    let mut reader = Reader::new(Decompressor::new(input).map_err(unreadable)?);
    let mut archive = ImageArchive::default();
    while let Some(header) = reader.next_entry().map_err(malformed)? {
        context.cancel.check().map_err(crate::export::ExportError::from)?;
        let name = clean(&String::from_utf8_lossy(&header.path));
        let link = || String::from_utf8_lossy(&header.link).into_owned();
        match header.kind {
            Kind::File if DOCUMENTS.contains(&name.as_str()) => {
                let mut bytes = Vec::new();
                (&mut reader).take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(unreadable)?;
                if bytes.len() as u64 > MAX_CONFIG {
                    return Err(ImageError::NotAnArchive { reason: format!("`{name}` is too large") });
                }
                archive.documents.insert(name, bytes);
            }
            Kind::File if header.sparse.is_none() => {
                let mut writer = context.content.writer()?;
                copy(&mut reader, |bytes| {
                    context.cancel.check().map_err(io::Error::other)?;
                    io::Write::write_all(&mut writer, bytes)
                })
                .map_err(|error| ContentError::from_io(error).map_or_else(unreadable, ImageError::Content))?;
                archive.blobs.insert(name, writer.commit()?);
            }
            Kind::HardLink => drop(archive.links.insert(name, clean(&link()))),
            Kind::Symlink => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target = clean(&format!("{directory}/{}", link()));
                archive.links.insert(name, target);
            }
            _ => {}
        }
    }
    reader.drain().map_err(unreadable)?;
    Ok(archive)
}

fn unreadable(source: io::Error) -> ImageError {
    ImageError::ReadArchive { source }
}

/// A name of an archive without `.`, `..` and needless slashes. It names nothing on disk.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// One image of `manifest.json` (moby image-spec v1.2).
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn load_docker(context: &ExportContext<'_>, archive: &ImageArchive, image: &DockerImage) -> Result<Loaded, ImageError> {
    let mut names = Vec::new();
    for tag in image.repo_tags.iter().flatten() {
        names.push(tag.parse::<Reference>().map_err(|error| ImageError::NotAnArchive { reason: error.to_string() })?);
    }
    let name = names.first().map_or_else(|| image.config.clone(), Reference::familiar);
    let blob = |file: &str| {
        let missing = || ImageError::Malformed { image: name.clone(), reason: format!("`{file}` is missing") };
        archive.blob(file).cloned().ok_or_else(missing)
    };
    let (config, _) = blob(&image.config)?;
    let mut layers = Vec::with_capacity(image.layers.len());
    for file in &image.layers {
        let (digest, size) = blob(file)?;
        let compression = compression_of(context, &digest)?;
        layers.push(Descriptor::new(MediaType::layer(compression, false), digest, size));
    }
    finish(context, &Admission { name, config, layers, manifest: None }, names)
}

/// `manifest.json` knows one image a name. Where the index beside it says that a name stands for several platforms, all
/// of them get it.
fn name_platforms(context: &ExportContext<'_>, index: &[u8], loaded: &mut [Loaded]) -> Result<(), ImageError> {
    // It was not needed so far: what is wrong with it changes nothing.
    let Ok(index) = Index::parse(index, &MediaType::OCI_INDEX) else { return Ok(()) };
    for top in index.manifests.iter().filter(|top| top.media_type.kind() == MediaKind::Index) {
        let configs = configs_of(context, top).unwrap_or_default();
        let ids: Vec<ImageId> = configs.into_iter().map(ImageId::new).collect();
        let is_there = |id: &&ImageId| loaded.iter().any(|image| image.id == **id);
        let (names, mut ids) = (names_of(top), ids.iter().filter(is_there).cloned().collect::<Vec<_>>());
        for name in names.iter().filter(|name| name.tag().is_some()) {
            // Where no platform is asked for, the name means what `manifest.json` says.
            ids.sort_by_key(|id| !loaded.iter().any(|image| image.id == *id && image.names.contains(name)));
            if ids.len() < 2 {
                continue;
            }
            context.content.database().tag_all(name, &ids)?;
            for image in loaded.iter_mut().filter(|image| ids.contains(&image.id) && !image.names.contains(name)) {
                image.names.push(name.clone());
            }
        }
    }
    Ok(())
}

/// Digests of the configs of the images of an index; `None` if it cannot be read.
fn configs_of(context: &ExportContext<'_>, index: &Descriptor) -> Option<Vec<Digest>> {
    let bytes = context.content.read(&index.digest, MAX_CONFIG).ok()?;
    let index = Index::parse(&bytes, &index.media_type).ok()?;
    let manifests = index.manifests.iter().filter(|one| one.media_type.kind() == MediaKind::Manifest);
    let config = |one: &Descriptor| {
        let bytes = context.content.read(&one.digest, MAX_CONFIG).ok()?;
        Some(Manifest::parse(&bytes, &one.media_type).ok()?.config.digest)
    };
    Some(manifests.filter_map(config).collect())
}

/// What the first bytes of a layer say.
fn compression_of(context: &ExportContext<'_>, digest: &Digest) -> Result<Compression, ImageError> {
    let mut magic = Vec::new();
    context.content.open_blob(digest)?.take(4).read_to_end(&mut magic).map_err(unreadable)?;
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::Uncompressed,
    })
}

fn load_layout(context: &ExportContext<'_>, bytes: &[u8], platform: &Platform) -> Result<Vec<Loaded>, ImageError> {
    let malformed = |reason: String| ImageError::NotAnArchive { reason };
    let index = Index::parse(bytes, &MediaType::OCI_INDEX).map_err(|error| malformed(error.to_string()))?;
    let mut loaded: Vec<Loaded> = Vec::new();
    for top in &index.manifests {
        let names = names_of(top);
        let name = names.first().map_or_else(|| top.digest.to_string(), Reference::familiar);
        let Some(descriptor) = select(context, top, platform)? else { continue };
        let bytes = context.content.read(&descriptor.digest, MAX_CONFIG)?;
        let manifest = Manifest::parse(&bytes, &descriptor.media_type).map_err(|error| malformed(error.to_string()))?;
        let admission = Admission {
            name,
            config: manifest.config.digest.clone(),
            layers: manifest.layers,
            manifest: Some(descriptor),
        };
        let image = finish(context, &admission, names)?;
        match loaded.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.names.extend(image.names),
            None => loaded.push(image),
        }
    }
    Ok(loaded)
}

/// The name in the annotations of a descriptor. A lone tag names nothing.
fn names_of(descriptor: &Descriptor) -> Vec<Reference> {
    let annotation = |key: &str| descriptor.annotations.get(key);
    let full = annotation("io.containerd.image.name");
    let short = annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    full.or(short).and_then(|name| name.parse().ok()).into_iter().collect()
}

/// The manifest that a descriptor leads to; `None` for what is no image, such as attestations.
fn select(
    context: &ExportContext<'_>,
    top: &Descriptor,
    platform: &Platform,
) -> Result<Option<Descriptor>, ImageError> {
    let mut descriptor = top.clone();
    for _ in 0..MAX_NESTING {
        match descriptor.media_type.kind() {
            MediaKind::Manifest => return Ok(Some(descriptor)),
            MediaKind::Index => {
                let bytes = context.content.read(&descriptor.digest, MAX_CONFIG)?;
                let index = Index::parse(&bytes, &descriptor.media_type)
                    .map_err(|error| ImageError::NotAnArchive { reason: error.to_string() })?;
                let far = |one: &Descriptor| one.platform.as_ref().and_then(|have| have.distance(platform));
                let nearest =
                    index.manifests.iter().filter_map(|one| Some((far(one)?, one))).min_by_key(|(far, _)| *far);
                match nearest.map(|(_, one)| one).or_else(|| index.manifests.first()) {
                    Some(found) => descriptor = found.clone(),
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        }
    }
    Ok(None)
}

fn finish(context: &ExportContext<'_>, admission: &Admission, names: Vec<Reference>) -> Result<Loaded, ImageError> {
    let config = check(context, admission)?;
    let mut sizes = Vec::with_capacity(admission.layers.len());
    for (index, (layer, diff_id)) in admission.layers.iter().zip(&config.rootfs.diff_ids).enumerate() {
        sizes.push(verify(context, &admission.name, index, layer, diff_id)?);
    }
    let id = admit(context, admission, &config, &sizes, &names)?;
    Ok(Loaded { id, names })
}
