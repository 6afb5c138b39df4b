//! [`save`]: images of the store in one archive.

use std::io::{self, Write};
use std::path::Path;

use super::ImageError;
use super::stored::StoredImage;
use crate::export::layers::Want;
use crate::export::layout::{NamedSet, write_archive};
use crate::export::{Annotations, ExportContext, ExportError, write_file};
use crate::oci::{Compression, ImageId, Reference};

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SaveFormat {
    /// What `docker load` reads; an OCI layout with a `manifest.json`.
    #[default]
    Docker,
    /// An OCI layout.
    Oci,
}

/// Writes images, given by name or id, into a file that appears complete or not at all (`docker save -o`).
///
/// Layers that were pulled are written as they came, layers that were built here uncompressed. An image that is
/// given by its id has no name in the archive.
///
/// # Errors
/// [`ImageError::NoSuchImage`]; [`ImageError::Export`] if the file cannot be written.
pub fn save(context: &ExportContext<'_>, images: &[String], format: SaveFormat, path: &Path) -> Result<(), ImageError> {
    let _lease = context.content.reading_lease(context.cancel)?;
    let sets = collect(context, images)?;
    let docker = format == SaveFormat::Docker;
    Ok(write_file(path, |out, write| {
        write_archive(context, &sets, docker, out).map_err(|error| error.into_export(write))
    })?)
}

/// Writes images, given by name or id, to a stream (`docker save`).
///
/// # Errors
/// [`ImageError::NoSuchImage`]; [`ImageError::Export`] if the stream cannot be written.
pub fn save_to(
    context: &ExportContext<'_>,
    images: &[String],
    format: SaveFormat,
    out: &mut dyn Write,
) -> Result<(), ImageError> {
    let _lease = context.content.reading_lease(context.cancel)?;
    let sets = collect(context, images)?;
    let docker = format == SaveFormat::Docker;
    let stdout = |source: io::Error| ExportError::Stdout { source };
    write_archive(context, &sets, docker, out).map_err(|error| error.into_export(stdout))?;
    out.flush().map_err(stdout)?;
    Ok(())
}

/// Brings every image into a form in which it can leave, each once with all its names.
fn collect(context: &ExportContext<'_>, images: &[String]) -> Result<Vec<NamedSet>, ImageError> {
    let mut sets: Vec<(ImageId, NamedSet)> = Vec::new();
    for text in images {
        let images = StoredImage::open_all(context, text)?;
        let id = images[0].record.id.clone();
        let name = match text.parse::<Reference>() {
            Ok(name) if name.tag().is_some() && context.content.database().resolve(&name)?.as_ref() == Some(&id) => {
                Some(name)
            }
            _ => None,
        };
        let same = |(known, set): &&mut (ImageId, NamedSet)| *known == id && set.set.images.len() == images.len();
        if let Some((_, known)) = sets.iter_mut().find(same) {
            known.names.extend(name.filter(|name| !known.names.contains(name)));
            continue;
        }
        let set = StoredImage::pack_all(context, &images, Compression::Uncompressed, Want::Bytes)?;
        sets.push((id, NamedSet { set, names: name.into_iter().collect(), annotations: Annotations::default() }));
    }
    Ok(sets.into_iter().map(|(_, set)| set).collect())
}
