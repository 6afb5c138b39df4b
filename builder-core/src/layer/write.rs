//! [`write_layer`]: from a tree to a blob in one read.

use std::io::{self, Write};

use super::{Compressor, Files, Level, PackError, PackOptions, pack};
use crate::oci::{Algorithm, Compression, Descriptor, DiffId, Digest, Hasher, MediaType};
use crate::tree::Tree;

/// How a layer's tar is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerFormat {
    /// The compression.
    pub compression: Compression,
    /// How hard it tries; `None` is [`Level::default_of`] the compression.
    pub level: Option<Level>,
    /// Docker's media types instead of OCI's.
    pub docker_media_types: bool,
}

/// A layer as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The blob.
    pub descriptor: Descriptor,
    /// Length of the uncompressed tar in bytes.
    pub uncompressed_size: u64,
}

/// Packs and compresses a tree into `sink`, reading each file once: tar → diff id → compressor → digest → sink.
///
/// # Errors
/// As [`pack`].
pub fn write_layer(
    tree: &Tree,
    files: &dyn Files,
    format: &LayerFormat,
    options: &PackOptions,
    sink: impl Write,
) -> Result<Layer, PackError> {
    let blob = Hashing::new(sink);
    let mut archive = Hashing::new(Compressor::new(format.compression, format.level, blob)?);
    pack(tree, files, &mut archive, options)?;
    let (compressor, diff_id, uncompressed_size) = archive.finish();
    let (mut sink, digest, size) = compressor.finish()?.finish();
    sink.flush()?;
    let media_type = MediaType::layer(format.compression, format.docker_media_types);
    let descriptor = Descriptor::new(media_type, digest, size);
    Ok(Layer { diff_id: DiffId::new(diff_id), descriptor, uncompressed_size })
}

/// The diff id that [`write_layer`] would give; reads every file.
///
/// # Errors
/// As [`pack`].
pub fn diff_id(tree: &Tree, files: &dyn Files, options: &PackOptions) -> Result<DiffId, PackError> {
    let mut archive = Hashing::new(io::sink());
    pack(tree, files, &mut archive, options)?;
    Ok(DiffId::new(archive.finish().1))
}

/// Hashes and counts what passes through.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(Algorithm::Sha256), size: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
