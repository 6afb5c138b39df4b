//! [`Reader`]: the files of an archive, one after the other.

use std::io::{self, Read};

use super::header::{Header, Kind};
use super::pax::Pax;
use super::{BLOCK, numbers, sparse};

/// Reads an archive from a stream. The bytes of the current file are read through [`Read`].
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes taken from the input.
    offset: u64,
    /// Bytes of the current file that were not read yet.
    remaining: u64,
    /// Bytes after it up to the next block.
    padding: u64,
    ended: bool,
}

/// An archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below fails.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no archive, or a damaged or hostile one.
    #[error("{reason}, at byte {offset}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
        /// Where in the archive.
        offset: u64,
    },
}

/// Largest extended header in bytes (invariant E-5).
const EXTENDED_MAX: u64 = 1024 * 1024;

/// What the headers before a file say about it.
#[derive(Debug, Default)]
struct Pending {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Starts at the first byte of an archive.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, remaining: 0, padding: 0, ended: false }
    }

    /// Goes to the next file, skipping what was not read of the current one; `None` at the end of the archive.
    ///
    /// # Errors
    /// [`TarError::Malformed`] for anything that is not well formed; [`TarError::Io`] if the stream fails.
    pub fn next_entry(&mut self) -> Result<Option<Header>, TarError> {
        self.skip(self.remaining + self.padding)?;
        (self.remaining, self.padding) = (0, 0);
        let mut pending = Pending::default();
        loop {
            let Some(block) = self.header_block()? else {
                if pending.pax.is_some() || pending.long_name.is_some() || pending.long_link.is_some() {
                    return Err(self.malformed("the archive ends after an extended header"));
                }
                return Ok(None);
            };
            let size = self.number(&block[124..136])?;
            match block[156] {
                b'x' | b'g' => {
                    let bytes = self.extended(size)?;
                    let pax = Pax::parse(&bytes).map_err(|reason| self.malformed(reason))?;
                    // Global headers are ignored, as containerd does; but one must not come between a header and its
                    // file, where readers disagree.
                    if pending.pax.is_some() || (block[156] == b'g' && pending.is_some()) {
                        return Err(self.malformed("extended headers follow each other"));
                    }
                    if block[156] == b'x' {
                        pending.pax = Some(pax);
                    }
                }
                kind @ (b'L' | b'K') => {
                    let mut bytes = self.extended(size)?;
                    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
                    let slot = if kind == b'L' { &mut pending.long_name } else { &mut pending.long_link };
                    if slot.replace(bytes).is_some() {
                        return Err(self.malformed("extended headers follow each other"));
                    }
                }
                // The label of a GNU volume.
                b'V' => self.skip(size.next_multiple_of(BLOCK as u64))?,
                _ => return self.file(&block, size, pending).map(Some),
            }
        }
    }

    /// Reads what follows the archive, to the end of the stream.
    ///
    /// # Errors
    /// If the stream fails.
    pub fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.input, &mut io::sink())?;
        Ok(())
    }

    /// How many bytes of the archive were read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// An error at the place where the reader is.
    fn malformed(&self, reason: &'static str) -> TarError {
        TarError::Malformed { reason, offset: self.offset }
    }

    fn number(&self, field: &[u8]) -> Result<u64, TarError> {
        let number = numbers::parse(field).and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| self.malformed("a number in a header is malformed"))
    }

    /// The next header block with a right checksum; `None` at the end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let Some(block) = self.block_or_end()? else {
            self.ended = true;
            return Ok(None);
        };
        if block == [0; BLOCK] {
            self.ended = true;
            return match self.block_or_end()? {
                Some(second) if second != [0; BLOCK] => Err(self.malformed("a lone empty block is in the archive")),
                _ => Ok(None),
            };
        }
        // The checksum counts its own field as spaces; some old programs added signed bytes.
        let bytes = || block[..148].iter().chain(b"        ").chain(&block[156..]);
        let unsigned: i64 = bytes().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        let stored = numbers::parse(&block[148..156]);
        if stored != Some(unsigned) && stored != Some(signed) {
            return Err(self.malformed("the checksum of a header is wrong"));
        }
        Ok(Some(block))
    }

    /// The file that a header block is about.
    fn file(&mut self, block: &[u8; BLOCK], size: u64, pending: Pending) -> Result<Header, TarError> {
        let pax = pending.pax.unwrap_or_default();
        let twice =
            pax.path.is_some() && pending.long_name.is_some() || pax.link.is_some() && pending.long_link.is_some();
        if twice {
            return Err(self.malformed("a file has both a pax and a GNU long name"));
        }
        let path = pax.path.or(pending.long_name).unwrap_or_else(|| name_field(block));
        let link = pax.link.or(pending.long_link).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let kind = match block[156] {
            0 | b'0' | b'7' | b'S' if !path.ends_with(b"/") => Kind::File,
            0 | b'0' | b'5' => Kind::Directory,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'6' => Kind::Fifo,
            _ => return Err(self.malformed("a file has an unknown type")),
        };
        let mut header = Header::new(path, kind);
        header.link = link;
        header.mode = u32::try_from(self.number(&block[100..108])? & 0o7777).expect("twelve bits");
        header.uid = self.id(pax.uid, &block[108..116])?;
        header.gid = self.id(pax.gid, &block[116..124])?;
        header.mtime = if let Some(mtime) = pax.mtime {
            mtime
        } else {
            let seconds = numbers::parse(&block[136..148]);
            (seconds.ok_or_else(|| self.malformed("a number in a header is malformed"))?, 0)
        };
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            header.device = (self.small(&block[329..337])?, self.small(&block[337..345])?);
        }
        header.xattrs = pax.xattrs;
        if kind == Kind::File {
            let stored = pax.size.unwrap_or(size);
            self.content(block, stored, &pax.sparse, &mut header)?;
        }
        if header.path.is_empty() {
            return Err(self.malformed("a file has no name"));
        }
        Ok(header)
    }

    /// Sets size and sparse map of a regular file, and how much follows.
    fn content(
        &mut self,
        block: &[u8; BLOCK],
        stored: u64,
        keys: &super::pax::SparseKeys,
        header: &mut Header,
    ) -> Result<(), TarError> {
        (header.size, self.remaining) = (stored, stored);
        let mut map = None;
        if block[156] == b'S' {
            map = Some((self.old_sparse_map(block)?, self.number(&block[483..495])?));
        } else if keys.version == (Some(1), Some(0)) {
            let read = sparse::read_lines(|| self.block());
            let (numbers, taken) = read?.map_err(|reason| self.malformed(reason))?;
            let rest = stored.checked_sub(taken);
            self.remaining = rest.ok_or_else(|| self.malformed("a sparse map is longer than its file"))?;
            map = Some((numbers, keys.real_size.unwrap_or(0)));
        } else if let Some(numbers) = &keys.map {
            map = Some((numbers.clone(), keys.real_size.unwrap_or(stored)));
        } else if keys.version != (None, None) {
            return Err(self.malformed("a sparse file is of an unknown format"));
        }
        if let Some((numbers, real_size)) = map {
            let regions =
                sparse::check(&numbers, real_size, self.remaining).map_err(|reason| self.malformed(reason))?;
            (header.size, header.sparse) = (real_size, Some(regions));
            if let Some(name) = &keys.name {
                header.path.clone_from(name);
            }
        }
        self.padding = padding_of(self.remaining);
        self.remaining.checked_add(self.padding).ok_or_else(|| self.malformed("a size is too large"))?;
        Ok(())
    }

    /// Regions of the old GNU format: four in the header, more in blocks that follow it.
    fn old_sparse_map(&mut self, block: &[u8; BLOCK]) -> Result<Vec<u64>, TarError> {
        let mut map = Vec::new();
        sparse::push_regions(&block[386..482], &mut map).map_err(|reason| self.malformed(reason))?;
        let mut more = block[482] != 0;
        let mut taken = 0;
        while more {
            let next = self.block()?;
            taken += BLOCK;
            if taken > sparse::MAP_MAX {
                return Err(self.malformed("a sparse map is too long"));
            }
            sparse::push_regions(&next[..504], &mut map).map_err(|reason| self.malformed(reason))?;
            more = next[504] != 0;
        }
        Ok(map)
    }

    fn id(&self, pax: Option<u64>, field: &[u8]) -> Result<u32, TarError> {
        let number = match pax {
            Some(number) => number,
            None => self.number(field)?,
        };
        // The largest number means "leave as it is" to chown(2).
        let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
        id.ok_or_else(|| self.malformed("an owner is not a 32-bit number"))
    }

    fn small(&self, field: &[u8]) -> Result<u32, TarError> {
        u32::try_from(self.number(field)?).map_err(|_| self.malformed("a device number is too large"))
    }

    /// Content of an extended header.
    fn extended(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENDED_MAX {
            return Err(self.malformed("an extended header is longer than 1 MiB"));
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            bytes.extend_from_slice(&self.block()?);
        }
        bytes.truncate(usize::try_from(size).expect("at most 1 MiB"));
        Ok(bytes)
    }

    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        self.block_or_end()?.ok_or_else(|| self.malformed("the archive is cut off"))
    }

    /// The next block; `None` if the stream ends right here.
    fn block_or_end(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.malformed("the archive is cut off")),
                Ok(length) => {
                    filled += length;
                    self.offset += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }

    fn skip(&mut self, length: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
        self.offset += skipped;
        if skipped < length { Err(self.malformed("the archive is cut off")) } else { Ok(()) }
    }
}

impl Pending {
    fn is_some(&self) -> bool {
        self.pax.is_some() || self.long_name.is_some() || self.long_link.is_some()
    }
}

impl<R: Read> Read for Reader<R> {
    /// Reads the stored bytes of the current file; an archive that ends before them is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let length = self.input.read(&mut buffer[..most])?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, self.malformed("the archive is cut off")));
        }
        self.remaining -= length as u64;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Bytes from the end of a file to the next block.
fn padding_of(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// The name in a header block; ustar keeps the front of a long one in a second field.
fn name_field(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}
