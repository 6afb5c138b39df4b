//! [`ArchiveWriter`]: the tar archives around images, the same bytes on every machine.

use std::io::{self, Read, Write};

use crate::tar::{Header, Kind, encode, padding, trailer};

/// Writes a tar archive of plain files. Times and owners are 0.
#[derive(Debug)]
pub(super) struct ArchiveWriter<W> {
    out: W,
}

impl<W: Write> ArchiveWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds a directory; `name` ends with a slash.
    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.header(name, Kind::Directory, 0o755, 0)
    }

    /// Adds a file of `size` bytes.
    pub(super) fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.header(name, Kind::File, 0o644, size)?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        if copied < size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("`{name}` ended after {copied} bytes")));
        }
        // The end of a stream is where its digest is checked.
        if content.read(&mut [0u8; 1])? != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{name}` is longer than {size} bytes")));
        }
        self.out.write_all(padding(size))
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(trailer())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(&mut self, name: &str, kind: Kind, mode: u32, size: u64) -> io::Result<()> {
        let header = Header { mode, size, ..Header::new(name.as_bytes().to_vec(), kind) };
        let mut block = Vec::new();
        encode(&header, &mut block).expect("it has no extended attributes");
        self.out.write_all(&block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_reader_finds_every_file() {
        let mut archive = ArchiveWriter::new(Vec::new());
        archive.directory("blobs/").expect("written");
        archive.file("blobs/a", 3, &mut &b"abc"[..]).expect("written");
        archive.file("b", 512, &mut &[7; 512][..]).expect("written");
        archive.file("empty", 0, &mut &b""[..]).expect("written");
        let bytes = archive.finish().expect("finished");
        assert_eq!(bytes.len() % 512, 0);
        let mut reader = tar::Archive::new(&bytes[..]);
        let found: Vec<(String, u64)> = reader
            .entries()
            .expect("readable")
            .map(|entry| entry.expect("valid"))
            .map(|entry| (entry.path().expect("a path").display().to_string(), entry.size()))
            .collect();
        let expected = [("blobs/", 0), ("blobs/a", 3), ("b", 512), ("empty", 0)];
        assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn sizes_that_are_not_true_are_refused() {
        let mut archive = ArchiveWriter::new(Vec::new());
        assert!(archive.file("a", 4, &mut &b"abc"[..]).is_err());
        assert!(archive.file("a", 2, &mut &b"abc"[..]).is_err());
    }
}
