//! What a step wrote: [`LogWriter`], [`LogReader`].
//!
//! ```text
//! zstd( stream: u8, milliseconds since the step began: u32, length: u32, bytes; … )     numbers little-endian
//! ```
//!
//! Version 1, in the first byte of the stream. A log that ends early ends with the last whole piece.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mask::Mask;
use super::record::{LogSize, stream_number};
use crate::progress::Stream;

const VERSION: u8 = 1;

/// What is collected before it is compressed: a short log is compressed at once and costs one small file.
const COLLECT: usize = 64 << 10;

/// How long something may wait before it is in the file, where others can read it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Largest piece that a reader believes in, in bytes.
const MAX_PIECE: u32 = 64 << 20;

/// Writes the log of one step.
pub struct LogWriter {
    path: PathBuf,
    /// Pieces that are not compressed yet.
    collected: Vec<u8>,
    encoder: Option<zstd::stream::write::Encoder<'static, File>>,
    last_flush: Instant,
    /// For each stream, bytes that may be the beginning of a secret.
    held: [Vec<u8>; 2],
    size: LogSize,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter").field("path", &self.path).field("size", &self.size).finish_non_exhaustive()
    }
}

impl LogWriter {
    /// A log at `path`; the file is made with the first bytes that have to be in it.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            collected: vec![VERSION],
            encoder: None,
            last_flush: Instant::now(),
            held: [Vec::new(), Vec::new()],
            size: LogSize::default(),
        }
    }

    /// Adds what a step wrote `milliseconds` after it began.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, stream: Stream, milliseconds: u64, bytes: &[u8], mask: &Mask) -> io::Result<()> {
        self.size.bytes += bytes.len() as u64;
        self.size.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let held = &mut self.held[usize::from(stream_number(stream) - 1)];
        held.extend_from_slice(bytes);
        let piece = mask.take(held, false);
        self.piece(stream_number(stream), milliseconds, &piece);
        if self.collected.len() >= COLLECT || self.last_flush.elapsed() >= PATIENCE {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self, milliseconds: u64, mask: &Mask) -> io::Result<LogSize> {
        for number in [1, 2] {
            let piece = mask.take(&mut self.held[usize::from(number - 1)], true);
            self.piece(number, milliseconds, &piece);
        }
        if self.encoder.is_none() {
            let compressed = zstd::bulk::compress(&self.collected, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            create(&self.path)?.write_all(&compressed)?;
            return Ok(self.size);
        }
        self.flush()?;
        if let Some(encoder) = self.encoder {
            encoder.finish()?;
        }
        Ok(self.size)
    }

    fn piece(&mut self, stream: u8, milliseconds: u64, bytes: &[u8]) {
        for bytes in bytes.chunks(MAX_PIECE as usize) {
            self.collected.push(stream);
            self.collected.extend(u32::try_from(milliseconds).unwrap_or(u32::MAX).to_le_bytes());
            self.collected.extend(u32::try_from(bytes.len()).expect("at most MAX_PIECE").to_le_bytes());
            self.collected.extend_from_slice(bytes);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.encoder.is_none() {
            let file = create(&self.path)?;
            self.encoder = Some(zstd::stream::write::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?);
        }
        let encoder = self.encoder.as_mut().expect("made just above");
        encoder.write_all(&self.collected)?;
        encoder.flush()?;
        self.collected.clear();
        self.last_flush = Instant::now();
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    File::create(path)
}

/// One piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Which output.
    pub stream: Stream,
    /// When, in milliseconds since the step began.
    pub milliseconds: u64,
    /// The bytes as written.
    pub bytes: Vec<u8>,
}

/// Reads a log piece by piece.
pub struct LogReader {
    reader: Box<dyn Read>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogReader(..)")
    }
}

impl LogReader {
    /// Opens a log; `None` if there is none at this path.
    ///
    /// # Errors
    /// If it cannot be read, or is of another version.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(zstd::stream::read::Decoder::new(file)?);
        let mut version = [0];
        match reader.read_exact(&mut version) {
            Ok(()) if version[0] == VERSION => Ok(Some(Self { reader: Box::new(reader) })),
            Ok(()) => Err(io::Error::other(format!("log of the unknown version {}", version[0]))),
            // Nothing was flushed yet.
            Err(_) => Ok(Some(Self { reader: Box::new(io::empty()) })),
        }
    }
}

impl Iterator for LogReader {
    type Item = LogEntry;

    fn next(&mut self) -> Option<LogEntry> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head).ok()?;
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let stream = match head[0] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        let length = number(5);
        if length > MAX_PIECE {
            return None;
        }
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(u64::from(length)).read_to_end(&mut bytes).ok()?;
        (read == length as usize).then_some(LogEntry { stream, milliseconds: u64::from(number(1)), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stream: Stream, milliseconds: u64, bytes: &[u8]) -> LogEntry {
        LogEntry { stream, milliseconds, bytes: bytes.to_vec() }
    }

    #[test]
    fn a_log_comes_back_whatever_its_size() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for pieces in [1usize, 3, 200] {
            let path = directory.path().join("a").join(pieces.to_string());
            let mut writer = LogWriter::new(path.clone());
            let expected: Vec<_> = (0..pieces)
                .map(|n| entry([Stream::Stdout, Stream::Stderr][n % 2], n as u64, &vec![b'x'; n * 100 + 1]))
                .collect();
            for piece in &expected {
                writer.write(piece.stream, piece.milliseconds, &piece.bytes, &Mask::default()).expect("written");
            }
            let size = writer.finish(0, &Mask::default()).expect("written");
            assert_eq!(size.bytes, expected.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>());
            let read: Vec<_> = LogReader::open(&path).expect("readable").expect("there").collect();
            assert_eq!(read, expected);
        }
        assert!(LogReader::open(&directory.path().join("none")).expect("readable").is_none());
    }

    #[test]
    fn a_log_that_is_cut_off_ends_with_a_whole_piece() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("log");
        let mut writer = LogWriter::new(path.clone());
        for n in 0..100u32 {
            let bytes: Vec<u8> = (0..2000u32)
                .flat_map(|m| blake3::hash(&(n + m * 977).to_le_bytes()).as_bytes()[..2].to_vec())
                .collect();
            writer.write(Stream::Stdout, 0, &bytes, &Mask::default()).expect("written");
        }
        writer.finish(0, &Mask::default()).expect("written");
        let whole = fs::read(&path).expect("there");
        for length in [0, 3, whole.len() / 3, whole.len() - 1] {
            fs::write(&path, &whole[..length]).expect("written");
            let read: Vec<_> = LogReader::open(&path).expect("readable").expect("there").collect();
            assert!(read.len() <= 100 && read.iter().all(|piece| piece.bytes.len() == 4000), "{length}");
        }
    }

    #[test]
    fn secrets_are_hidden_in_the_file() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("log");
        let mut mask = Mask::default();
        mask.hide(b"hunter22");
        let mut writer = LogWriter::new(path.clone());
        for piece in ["it is hun", "ter22", " and hunt"] {
            writer.write(Stream::Stdout, 0, piece.as_bytes(), &mask).expect("written");
        }
        writer.finish(0, &mask).expect("written");
        let read: Vec<u8> =
            LogReader::open(&path).expect("readable").expect("there").flat_map(|piece| piece.bytes).collect();
        assert_eq!(String::from_utf8(read).expect("text"), "it is *** and hunt");
    }
}
