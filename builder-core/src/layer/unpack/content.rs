//! Bytes of a regular file: from the archive to the disk, hashed on the way.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::ftruncate;

use super::from_content;
use crate::layer::UnpackError;
use crate::rootfs::RootPath;
use crate::tar::Header;
use crate::tree::{ContentDigest, ContentHasher};

/// Zeros for the holes of sparse files.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file that is being written.
pub(super) struct Writer<'a> {
    pub(super) path: &'a RootPath,
    pub(super) file: &'a File,
    pub(super) buffer: &'a mut [u8],
}

impl Writer<'_> {
    /// Writes what the archive stores of a file, and leaves holes where it has none. Gives the digest of the whole.
    pub(super) fn write(&mut self, header: &Header, archive: &mut dyn Read) -> Result<ContentDigest, UnpackError> {
        let mut hasher = ContentHasher::new();
        let whole = [(0, header.size)];
        let regions = header.sparse.as_deref().unwrap_or(&whole);
        let (mut position, mut written) = (0, 0);
        for (offset, length) in regions {
            hash_zeros(&mut hasher, offset - position);
            written = self.region(*offset, *length, &mut hasher, archive)?.max(written);
            position = offset + length;
        }
        hash_zeros(&mut hasher, header.size - position);
        if written < header.size {
            ftruncate(self.file, header.size).map_err(|error| self.error(error.into()))?;
        }
        Ok(hasher.finish())
    }

    /// Copies one region; returns where the last byte was written. Zeros are left out.
    fn region(
        &mut self,
        offset: u64,
        length: u64,
        hasher: &mut ContentHasher,
        archive: &mut dyn Read,
    ) -> Result<u64, UnpackError> {
        let (mut position, end, mut written) = (offset, offset + length, 0);
        while position < end {
            let most = usize::try_from(end - position).unwrap_or(usize::MAX).min(self.buffer.len());
            let piece = fill(archive, &mut self.buffer[..most]).map_err(from_content)?;
            let bytes = &self.buffer[..piece];
            hasher.update(bytes);
            if bytes.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(bytes, position).map_err(|source| self.error(source))?;
                written = position + piece as u64;
            }
            position += piece as u64;
        }
        Ok(written)
    }

    fn error(&self, source: io::Error) -> UnpackError {
        UnpackError::Write { path: self.path.clone(), source }
    }
}

/// Reads until the buffer is full. The archive's reader never ends before the file does.
fn fill(archive: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    archive.read_exact(buffer)?;
    Ok(buffer.len())
}

fn hash_zeros(hasher: &mut ContentHasher, mut length: u64) {
    while length > 0 {
        let piece = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
        hasher.update(&ZEROS[..piece]);
        length -= piece as u64;
    }
}
