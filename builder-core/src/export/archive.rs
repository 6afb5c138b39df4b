//! [`ArchiveWriter`]: the tar archives around images, the same bytes on every machine.

use std::io::{self, Read, Write};

/// Bytes of one tar block.
const BLOCK: usize = 512;

/// Largest size that 11 octal digits hold.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// Writes a tar archive of files with short names (POSIX `ustar`). Times and owners are 0.
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
        self.out.write_all(&header(name, 0o755, 0, b'5'))
    }

    /// Adds a file of `size` bytes.
    pub(super) fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.begin(name, size)?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        if copied < size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("`{name}` ended after {copied} bytes")));
        }
        // The end of a stream is where its digest is checked.
        if content.read(&mut [0u8; 1])? != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{name}` is longer than {size} bytes")));
        }
        self.pad(size)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.out.write_all(&header(name, 0o644, size, b'0'))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
        if over == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][over..]) }
    }
}

/// A header block (POSIX.1-2017 `pax`, ustar Interchange Format); sizes from 8 GiB on are in GNU's base 256.
fn header(name: &str, mode: u32, size: u64, kind: u8) -> [u8; BLOCK] {
    assert!(name.len() <= 100, "names of documents and blobs are short");
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    let mut octal = |at: usize, length: usize, value: u64| {
        let text = format!("{value:0width$o}\0", width = length - 1);
        block[at..at + length].copy_from_slice(text.as_bytes());
    };
    octal(100, 8, mode.into());
    octal(108, 8, 0);
    octal(116, 8, 0);
    octal(124, 12, size.min(MAX_OCTAL));
    octal(136, 12, 0);
    if size > MAX_OCTAL {
        block[124..136].fill(0);
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
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
        assert_eq!(bytes.len() % BLOCK, 0);
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

    #[test]
    fn large_sizes_are_understood() {
        let size = 100 << 30;
        let block = header("x", 0o644, size, b'0');
        assert_eq!(tar::Header::from_byte_slice(&block).entry_size().expect("readable"), size);
    }
}
