//! [`export`]: all outputs of a build, all or nothing.

use std::collections::BTreeMap;
use std::io::Write;

use jiff::Timestamp;

use super::atomic_file::AtomicFile;
use super::error::until_right;
use super::layers::{Layers, Want, label_of};
use super::layout::{LayoutDirectory, NamedSet, write_archive, write_directory};
use super::local::{self, Staged};
use super::packed::{PackedSet, packed_image};
use super::push::{PushOptions, push};
use super::root::{Root, Roots};
use super::store::{name, store};
use super::{
    AnnotationLevel, Destination, ExportContext, ExportError, ExportImage, FilesFormat, FinalLayer, FinalLayers,
    ImageFormat, ImageOutput, LayoutOutput, Output,
};
use crate::cancel::Cancelled;
use crate::content::RepoDigest;
use crate::image::{Document, Image, assemble};
use crate::layer::{self, PackOptions};
use crate::lock::lock;
use crate::oci::{Descriptor, DiffId, ImageId, MediaKind, MediaType, Platform, Reference};

/// What exporting led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Id of the image, where an output needed an image: the digest of the config or, where an index was made, of that.
    pub image_id: Option<ImageId>,
    /// Its config; unset if there is an index only.
    pub config: Option<Descriptor>,
    /// Its manifest, or the index of several; unset if no output made one.
    pub manifest: Option<Descriptor>,
    /// All names that were given.
    pub names: Vec<Reference>,
}

impl Exported {
    /// What docker writes for `--metadata-file` about the image.
    pub fn metadata(&self) -> BTreeMap<String, serde_json::Value> {
        let mut metadata = BTreeMap::new();
        let mut add = |key: &str, value: serde_json::Value| metadata.insert(key.to_owned(), value);
        let is_index = self.manifest.as_ref().is_some_and(|manifest| manifest.media_type.kind() == MediaKind::Index);
        let config = self.config.as_ref().filter(|_| !is_index);
        if let Some(config) = config {
            add("containerimage.config.digest", config.digest.to_string().into());
        }
        // Without a manifest docker takes the config for the image.
        if let Some(top) = self.manifest.as_ref().or(config) {
            add("containerimage.digest", top.digest.to_string().into());
            add("containerimage.descriptor", serde_json::to_value(top).expect("a descriptor has string keys only"));
        }
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
            add("image.name", names.join(",").into());
        }
        metadata
    }
}

/// Brings images to every output: one image, or one for each platform.
///
/// # Errors
/// Every case of [`ExportError`]. Nothing was named, renamed or moved to its place then, with two exceptions:
/// what was pushed, and outputs moved before one that could not be.
pub fn export(
    context: &ExportContext<'_>,
    images: &[ExportImage],
    outputs: &[Output],
) -> Result<Exported, ExportError> {
    check(context, images, outputs)?;
    let result =
        until_right(|| export_all(context, images, outputs), |error| matches!(error, ExportError::Outdated { .. }));
    // Whatever a cancel made fail first, it was the cancel.
    result.map_err(|error| if error.is_cancelled() { Cancelled.into() } else { error })
}

fn export_all(
    context: &ExportContext<'_>,
    images: &[ExportImage],
    outputs: &[Output],
) -> Result<Exported, ExportError> {
    let mut exporter = Exporter::new(context, images, outputs);
    let mut exported = Exported::default();
    let mut ready = Vec::new();
    for output in outputs {
        context.cancel.check()?;
        ready.push(exporter.prepare(output, &mut exported)?);
    }
    for prepared in &ready {
        exporter.push(prepared)?;
    }
    for prepared in &ready {
        exporter.store(prepared, &mut exported)?;
    }
    context.cancel.check()?;
    for prepared in ready {
        exporter.commit(prepared)?;
    }
    Ok(exported)
}

/// Refuses what cannot be done before anything is done.
fn check(context: &ExportContext<'_>, images: &[ExportImage], outputs: &[Output]) -> Result<(), ExportError> {
    if images.is_empty() {
        return Err(ExportError::NoImage);
    }
    let incomplete = |image: &ExportImage| image.files.len() != image.image.layers.len();
    if outputs.iter().any(Output::needs_files) && images.iter().any(incomplete) {
        return Err(ExportError::NoFiles);
    }
    for format in outputs.iter().filter_map(image_format) {
        check_annotations(context, images, format)?;
    }
    match outputs.iter().filter(|output| output.is_stdout()).count() {
        0 => Ok(()),
        1 if context.stdout.is_some() => Ok(()),
        1 => Err(ExportError::NoStdout { reason: "there is no standard output for an image to go to" }),
        _ => Err(ExportError::NoStdout { reason: "only one output can go to standard output" }),
    }
}

/// Annotations of what will not be there would be lost in silence.
fn check_annotations(
    context: &ExportContext<'_>,
    images: &[ExportImage],
    format: &ImageFormat,
) -> Result<(), ExportError> {
    let platforms: Vec<Platform> = images.iter().map(|image| image.image.config.platform()).collect();
    for annotation in &format.annotations.0 {
        if let Some(platform) = annotation.platform.as_ref().filter(|platform| !platforms.contains(platform)) {
            let (key, platform) = (annotation.key.clone(), Box::new(platform.clone()));
            return Err(ExportError::AnnotationPlatform { key, platform });
        }
        let of_index = matches!(annotation.level, AnnotationLevel::Index | AnnotationLevel::IndexDescriptor);
        if of_index && images.len() == 1 && !context.multi_platform {
            return Err(ExportError::AnnotationIndex { key: annotation.key.clone() });
        }
    }
    Ok(())
}

/// An output of which everything is done that can be undone.
enum Ready<'o> {
    /// Nothing is left to do.
    Nothing,
    Image {
        output: &'o ImageOutput,
        images: Vec<Image>,
        set: Option<PackedSet>,
        rewrite: Option<i64>,
    },
    File(AtomicFile),
    Layout(LayoutDirectory),
    Local(Staged),
    StdoutLayout {
        set: NamedSet,
        docker: bool,
    },
    StdoutTar {
        epoch: Option<i64>,
        split: bool,
    },
}

struct Exporter<'a> {
    context: &'a ExportContext<'a>,
    images: &'a [ExportImage],
    /// The layers of each image, by the time that bounds those of their files.
    layers: BTreeMap<Option<i64>, Vec<Layers<'a>>>,
}

impl<'a> Exporter<'a> {
    fn new(context: &'a ExportContext<'a>, images: &'a [ExportImage], outputs: &[Output]) -> Self {
        let mut layers = BTreeMap::new();
        for output in outputs {
            if let Some(format) = image_format(output) {
                let rewrite = rewrite(context, format);
                layers.entry(rewrite).or_insert_with(|| {
                    images.iter().map(|image| Layers::new(context, &image.image, rewrite)).collect()
                });
            }
        }
        Self { context, images, layers }
    }

    fn prepare<'o>(&mut self, output: &'o Output, exported: &mut Exported) -> Result<Ready<'o>, ExportError> {
        match output {
            Output::Image(output) => self.prepare_image(output, exported),
            Output::Oci(layout) => self.prepare_layout(layout, false, exported),
            Output::Docker(layout) => self.prepare_layout(layout, true, exported),
            Output::Local { directory, delete, platform_split, format } => {
                let roots = self.roots(*platform_split)?;
                let epoch = files_epoch(self.context, format);
                local::stage(&roots, epoch, directory, *delete, self.context.cancel).map(Ready::Local)
            }
            Output::Tar { destination, platform_split, format } => {
                let (epoch, split) =
                    (files_epoch(self.context, format), platform_split.unwrap_or(self.context.multi_platform));
                match destination {
                    Destination::File(path) | Destination::Directory(path) => {
                        let mut file = AtomicFile::create(path)?;
                        let write = |source| ExportError::Write { path: path.clone(), source };
                        self.write_tar(epoch, split, &mut file, write)?;
                        Ok(Ready::File(file))
                    }
                    Destination::Stdout => Ok(Ready::StdoutTar { epoch, split }),
                }
            }
            Output::CacheOnly => Ok(Ready::Nothing),
        }
    }

    fn prepare_image<'o>(&self, output: &'o ImageOutput, exported: &mut Exported) -> Result<Ready<'o>, ExportError> {
        if output.push && output.names.is_empty() {
            return Err(ExportError::NoName);
        }
        let rewrite = rewrite(self.context, &output.format);
        let images = self.assemble(&output.format, output.push.then_some(Want::Descriptor))?;
        let set = if output.push {
            let set = self.pack(&images, &output.format, Want::Descriptor)?;
            exported.manifest = Some(set.top().descriptor.clone());
            Some(set)
        } else {
            None
        };
        let index = set.as_ref().and_then(|set| set.index.as_ref());
        report(exported, &images, index, &output.names);
        Ok(Ready::Image { output, images, set, rewrite })
    }

    fn prepare_layout<'o>(
        &self,
        layout: &LayoutOutput,
        docker: bool,
        exported: &mut Exported,
    ) -> Result<Ready<'o>, ExportError> {
        let images = self.assemble(&layout.format, Some(Want::Bytes))?;
        let set = self.pack(&images, &layout.format, Want::Bytes)?;
        exported.manifest.get_or_insert_with(|| set.top().descriptor.clone());
        report(exported, &images, set.index.as_ref(), &layout.names);
        let annotations = layout.format.annotations.clone();
        let set = NamedSet { set, names: layout.names.clone(), annotations };
        match &layout.destination {
            Destination::File(path) => {
                let mut file = AtomicFile::create(path)?;
                let write = |source| ExportError::Write { path: path.clone(), source };
                write_archive(self.context, &[set], docker, &mut file).map_err(|error| error.into_export(write))?;
                Ok(Ready::File(file))
            }
            Destination::Directory(path) => write_directory(self.context, &[set], path).map(Ready::Layout),
            Destination::Stdout => Ok(Ready::StdoutLayout { set, docker }),
        }
    }

    /// The configs of all images in a format. If blobs are wanted as well they are made first.
    fn assemble(&self, format: &ImageFormat, blobs: Option<Want>) -> Result<Vec<Image>, ExportError> {
        let epoch = epoch(self.context, format).and_then(|seconds| Timestamp::from_second(seconds).ok());
        let layers = &self.layers[&rewrite(self.context, format)];
        let mut images = Vec::with_capacity(self.images.len());
        if layers.iter().any(|layers| !layers.all_known()) {
            self.context.begun("exporting layers");
        }
        for (image, layers) in self.images.iter().zip(layers) {
            if let Some(want) = blobs {
                // Packing gives diff id and blob in one read; asking for the diff id first would read twice.
                for index in 0..layers.len() {
                    layers.blob(index, format, want)?;
                }
            }
            let diff_ids = layers.diff_ids()?;
            let cache = self.inline_cache(image, (layers, &diff_ids), format, blobs)?;
            images.push(assemble(&image.image, diff_ids, epoch, cache));
        }
        self.context.done("exporting layers");
        for image in &images {
            self.context.done(format!("exporting config {}", image.id));
        }
        Ok(images)
    }

    fn inline_cache(
        &self,
        image: &ExportImage,
        (layers, diff_ids): (&Layers<'_>, &[DiffId]),
        format: &ImageFormat,
        blobs: Option<Want>,
    ) -> Result<Option<String>, ExportError> {
        let Some(make) = &image.cache else { return Ok(None) };
        let mut made = Vec::new();
        for (index, diff_id) in diff_ids.iter().enumerate().skip(image.image.base_layers) {
            let Some((tree, _)) = layers.built(index) else { return Ok(None) };
            let blob = blobs.map(|want| layers.blob(index, format, want)).transpose()?;
            let blob = blob.map(|blob| blob.descriptor.digest);
            made.push(FinalLayer { tree, diff_id, blob });
        }
        let (label, epoch) = (label_of(format.level), epoch(self.context, format));
        Ok(make(&FinalLayers { layers: made, format: label, epoch }))
    }

    fn pack(&self, images: &[Image], format: &ImageFormat, want: Want) -> Result<PackedSet, ExportError> {
        let layers = &self.layers[&rewrite(self.context, format)];
        let packed: Result<Vec<_>, _> = self
            .images
            .iter()
            .zip(images)
            .zip(layers)
            .map(|((source, image), layers)| packed_image(&source.image, image.clone(), layers, format, want))
            .collect();
        let set = PackedSet::new(packed?, format, self.context.multi_platform);
        self.context.done(format!("exporting manifest {}", set.top().descriptor.digest));
        Ok(set)
    }

    fn push(&self, ready: &Ready<'_>) -> Result<(), ExportError> {
        let Ready::Image { output, set: Some(set), rewrite, .. } = ready else { return Ok(()) };
        let layers = &self.layers[rewrite];
        let make = |image: usize, layer: usize| layers[image].blob(layer, &output.format, Want::Bytes);
        push(self.context, set, &output.names, PushOptions::of(output), &make).map(drop)
    }

    fn store(&self, ready: &Ready<'_>, exported: &mut Exported) -> Result<(), ExportError> {
        let Ready::Image { output, images, set, rewrite } = ready else { return Ok(()) };
        if !output.store {
            return Ok(());
        }
        for (image, layers) in images.iter().zip(&self.layers[rewrite]) {
            store(self.context, layers, image)?;
        }
        name(self.context, images, &output.names)?;
        let first = &images[0].id;
        let digest = set.as_ref().map_or(first.digest(), |set| &set.top().descriptor.digest);
        let mut digest_names: Vec<Reference> = Vec::new();
        if output.name_canonical || output.push {
            digest_names.extend(output.names.iter().map(|name| name.with_digest(digest.clone())));
        }
        if let (true, Some(prefix)) = (output.names.is_empty(), &output.dangling_name_prefix)
            && let Ok(name) = format!("{prefix}@{digest}").parse()
        {
            digest_names.push(name);
        }
        for name in digest_names {
            for image in images {
                let (repository, digest) = (name.repository(), digest.clone());
                let known = RepoDigest { repository, digest, image: image.id.clone() };
                self.context.content.database().put_repo_digest(&known)?;
            }
            if output.name_canonical || output.names.is_empty() {
                exported.names.push(name);
            }
        }
        Ok(())
    }

    fn commit(&self, ready: Ready<'_>) -> Result<(), ExportError> {
        let stdout = |source| ExportError::Stdout { source };
        match ready {
            Ready::Nothing | Ready::Image { .. } => Ok(()),
            Ready::File(file) => file.commit(),
            Ready::Layout(layout) => layout.commit(),
            Ready::Local(staged) => staged.commit(),
            Ready::StdoutLayout { set, docker } => self.to_stdout(|out| {
                write_archive(self.context, &[set], docker, out).map_err(|error| error.into_export(stdout))
            }),
            Ready::StdoutTar { epoch, split } => self.to_stdout(|out| self.write_tar(epoch, split, out, stdout)),
        }
    }

    fn to_stdout(&self, write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>) -> Result<(), ExportError> {
        let out = self.context.stdout.expect("it was checked before anything was done");
        let mut out = lock(out);
        write(&mut *out)?;
        out.flush().map_err(|source| ExportError::Stdout { source })
    }

    /// Writes the files of all images as one tar archive.
    fn write_tar(
        &self,
        epoch: Option<i64>,
        split: bool,
        out: &mut dyn Write,
        write: impl Fn(std::io::Error) -> ExportError,
    ) -> Result<(), ExportError> {
        let roots = self.roots(Some(split))?;
        let mut out = std::io::BufWriter::with_capacity(256 << 10, out);
        match layer::pack(&roots.tree(epoch), &roots, &mut out, &PackOptions::default()) {
            Ok(()) => out.flush().map_err(write),
            Err(layer::PackError::Write { source }) => Err(write(source)),
            Err(source) => Err(ExportError::Pack { layer: 0, source }),
        }
    }

    fn roots(&self, split: Option<bool>) -> Result<Roots, ExportError> {
        let split = split.unwrap_or(self.context.multi_platform);
        let root = |image: &ExportImage| {
            let platform = image.image.config.platform();
            Root::new(&image.files, split.then_some(&platform))
        };
        let roots = Roots(self.images.iter().map(root).collect());
        match roots.conflict() {
            Some(path) => Err(ExportError::PlatformConflict { path }),
            None => Ok(roots),
        }
    }
}

fn image_format(output: &Output) -> Option<&ImageFormat> {
    match output {
        Output::Image(output) => Some(&output.format),
        Output::Oci(layout) | Output::Docker(layout) => Some(&layout.format),
        Output::Local { .. } | Output::Tar { .. } | Output::CacheOnly => None,
    }
}

fn epoch(context: &ExportContext<'_>, format: &ImageFormat) -> Option<i64> {
    format.source_date_epoch.or(context.source_date_epoch)
}

/// The time that bounds those of files in new layers.
fn rewrite(context: &ExportContext<'_>, format: &ImageFormat) -> Option<i64> {
    epoch(context, format).filter(|_| format.rewrite_timestamp)
}

fn files_epoch(context: &ExportContext<'_>, format: &FilesFormat) -> Option<i64> {
    format.source_date_epoch.or(context.source_date_epoch).filter(|_| format.rewrite_timestamp)
}

fn report(exported: &mut Exported, images: &[Image], index: Option<&Document>, names: &[Reference]) {
    let first = &images[0];
    if let Some(index) = index {
        // As docker does: several images together are what their index is.
        exported.image_id = Some(ImageId::new(index.descriptor.digest.clone()));
    } else {
        exported.image_id.get_or_insert_with(|| first.id.clone());
        exported.config.get_or_insert_with(|| Descriptor::of(MediaType::OCI_CONFIG, &first.config_bytes));
    }
    for name in names {
        if !exported.names.contains(name) {
            exported.names.push(name.clone());
        }
    }
}
