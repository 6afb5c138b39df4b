//! Compressing and decompressing streams, with bytes that do not depend on the number of threads.
//!
//! gzip is cut into chunks that are compressed on their own, each primed with the end of the one before:
//!
//! ```text
//! header │ chunk 0 ─ sync flush │ chunk 1 (dictionary: last 32 KiB of 0) ─ sync flush │ … │ last ─ finish │ CRC-32, length
//! ```
//!
//! That is one ordinary member (RFC 1952), as pigz makes it. zstd goes through its own workers even when there is only
//! one, because the bytes of the path without workers are others.

mod gzip;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;

use gzip::GzipWriter;

use crate::oci::Compression;
use crate::tar;

/// How hard a compression tries: 0 to 9 for gzip, 0 to 22 for zstd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(u8);

impl Level {
    /// The level, if the compression has it.
    pub fn new(compression: Compression, level: u8) -> Option<Self> {
        let most = match compression {
            Compression::Gzip => 9,
            Compression::Zstd => 22,
            Compression::Uncompressed => 0,
        };
        (level <= most).then_some(Self(level))
    }

    /// What is taken where nobody asks for a level: 4 for gzip, 3 for zstd.
    ///
    /// With zlib-rs, level 6 costs a third more time than 4 and saves one hundredth of the size.
    pub fn default_of(compression: Compression) -> Self {
        Self(match compression {
            Compression::Gzip => 4,
            Compression::Zstd => 3,
            Compression::Uncompressed => 0,
        })
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// Most threads that one stream uses; each holds a few MiB.
const THREADS_MOST: usize = 16;

/// Compresses what is written to it.
pub struct Compressor<W: Write> {
    kind: Writer<W>,
}

enum Writer<W: Write> {
    Plain(W),
    Gzip(GzipWriter<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Starts a stream into `sink`, with as many threads as the machine has.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(compression: Compression, level: Option<Level>, sink: W) -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::with_threads(compression, level, sink, threads)
    }

    /// As [`Compressor::new`], with `threads` threads beside the caller's. The bytes are the same for any number.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn with_threads(compression: Compression, level: Option<Level>, sink: W, threads: usize) -> io::Result<Self> {
        let level = level.unwrap_or(Level::default_of(compression));
        let threads = threads.clamp(1, THREADS_MOST);
        let kind = match compression {
            Compression::Uncompressed => Writer::Plain(sink),
            Compression::Gzip => Writer::Gzip(GzipWriter::new(level, threads, sink)),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, i32::from(level.get()))?;
                encoder.multithread(u32::try_from(threads).expect("few threads"))?;
                encoder.include_checksum(true)?;
                Writer::Zstd(encoder)
            }
        };
        Ok(Self { kind })
    }

    /// Ends the stream; gives the sink back.
    ///
    /// # Errors
    /// If the sink fails.
    pub fn finish(self) -> io::Result<W> {
        match self.kind {
            Writer::Plain(sink) => Ok(sink),
            Writer::Gzip(writer) => writer.finish(),
            Writer::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.kind {
            Writer::Plain(sink) => sink.write(bytes),
            Writer::Gzip(writer) => writer.write(bytes),
            Writer::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing for compressed streams: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Writer::Plain(sink) => sink.flush(),
            Writer::Gzip(_) | Writer::Zstd(_) => Ok(()),
        }
    }
}

impl<W: Write> fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Writer::Plain(_) => "Compressor(none)",
            Writer::Gzip(_) => "Compressor(gzip)",
            Writer::Zstd(_) => "Compressor(zstd)",
        })
    }
}

/// Decompresses gzip (of many members), zstd, xz, bzip2, or nothing, whichever the first bytes say.
pub struct Decompressor<R: Read> {
    kind: Decoder<Sniffed<R>>,
}

/// The first bytes that were looked at, and what follows.
type Sniffed<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

enum Decoder<R: Read> {
    Plain(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<R>>>),
    Xz(Box<liblzma::bufread::XzDecoder<BufReader<R>>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<BufReader<R>>>),
}

/// Bytes read at once from below.
const PIECE: usize = 128 * 1024;

/// Most memory that an xz stream may ask for; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn new(mut reader: R) -> io::Result<Self> {
        let mut first = Vec::new();
        reader.by_ref().take(6).read_to_end(&mut first)?;
        let magic: [u8; 6] = std::array::from_fn(|at| first.get(at).copied().unwrap_or(0));
        let whole = io::Cursor::new(first).chain(reader);
        let buffered = |whole| BufReader::with_capacity(PIECE, whole);
        let kind = match magic {
            [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(buffered(whole)))),
            // The second is a skippable frame, which zstd:chunked begins with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(buffered(whole))?))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                let stream = liblzma::stream::Stream::new_auto_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
                let stream = stream.map_err(io::Error::other)?;
                Decoder::Xz(Box::new(liblzma::bufread::XzDecoder::new_stream(buffered(whole), stream)))
            }
            [b'B', b'Z', b'h', ..] => Decoder::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(whole)))),
            _ => Decoder::Plain(whole),
        };
        Ok(Self { kind })
    }

    /// Whether the bytes are compressed at all.
    pub fn is_compressed(&self) -> bool {
        !matches!(self.kind, Decoder::Plain(_))
    }

    /// Reads what follows the compressed stream, so that a reader below sees every byte.
    ///
    /// # Errors
    /// If the stream below fails.
    pub fn drain(&mut self) -> io::Result<()> {
        fn to_end(mut reader: impl BufRead) -> io::Result<()> {
            io::copy(&mut reader, &mut io::sink()).map(drop)
        }
        match &mut self.kind {
            Decoder::Plain(reader) => io::copy(reader, &mut io::sink()).map(drop),
            Decoder::Gzip(decoder) => to_end(decoder.get_mut()),
            Decoder::Zstd(decoder) => to_end(decoder.get_mut()),
            Decoder::Xz(decoder) => to_end(decoder.get_mut()),
            Decoder::Bzip2(decoder) => to_end(decoder.get_mut()),
        }
    }
}

/// Whether these first bytes are those of a tar archive or of any compressed file, as far as 512 bytes tell.
pub fn begins_as_archive(bytes: &[u8]) -> bool {
    tar::is_header(bytes) || Decompressor::new(bytes).is_ok_and(|opened| opened.is_compressed())
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Decoder::Plain(reader) => reader.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
            Decoder::Xz(decoder) => decoder.read(buffer),
            Decoder::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: Read> fmt::Debug for Decompressor<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Decoder::Plain(_) => "Decompressor(none)",
            Decoder::Gzip(_) => "Decompressor(gzip)",
            Decoder::Zstd(_) => "Decompressor(zstd)",
            Decoder::Xz(_) => "Decompressor(xz)",
            Decoder::Bzip2(_) => "Decompressor(bzip2)",
        })
    }
}

#[cfg(test)]
mod tests;
