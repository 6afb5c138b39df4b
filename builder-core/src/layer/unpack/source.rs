//! Where the uncompressed archive comes from: hashed, counted, and made ahead of its reader.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender};

use crate::layer::{Decompressor, UnpackError};
use crate::oci::{Algorithm, Digest, Hasher};

/// Bytes that are decompressed at a time. An archive that is smaller is unpacked without a second thread.
pub(super) const PIECE: usize = 256 * 1024;

/// Pieces that may wait for their reader.
pub(super) const AHEAD: usize = 4;

/// Decompresses and hashes.
pub(super) struct Source<R: Read> {
    inner: Decompressor<R>,
    hasher: Hasher,
    size: u64,
    limit: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(reader: R, limit: u64) -> io::Result<Self> {
        Ok(Self { inner: Decompressor::new(reader)?, hasher: Hasher::new(Algorithm::Sha256), size: 0, limit })
    }

    /// The next piece; only the last one is shorter than [`PIECE`], and perhaps empty.
    pub(super) fn piece(&mut self) -> Result<Vec<u8>, UnpackError> {
        let mut piece = vec![0; PIECE];
        let mut filled = 0;
        while filled < PIECE {
            match self.inner.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(UnpackError::Read { source }),
            }
        }
        piece.truncate(filled);
        self.hasher.update(&piece);
        self.size += filled as u64;
        if self.size > self.limit {
            return Err(UnpackError::Limit { what: "bytes", limit: self.limit });
        }
        Ok(piece)
    }

    /// Sends every piece that is left, until the reader has gone away.
    pub(super) fn feed(&mut self, pieces: &SyncSender<Vec<u8>>) -> Result<(), UnpackError> {
        loop {
            let piece = self.piece()?;
            let last = piece.len() < PIECE;
            if pieces.send(piece).is_err() || last {
                return Ok(());
            }
        }
    }

    /// Reads the compressed stream to its end; gives digest and length of the archive.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), UnpackError> {
        self.inner.drain()?;
        Ok((self.hasher.finish(), self.size))
    }
}

/// Reads pieces one after the other.
pub(super) struct Pieces<N> {
    next: N,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

impl<N: FnMut() -> io::Result<Vec<u8>>> Pieces<N> {
    /// Starts with `first`; `next` gives the others, and an empty one at the end.
    pub(super) fn new(first: Vec<u8>, next: N) -> Self {
        Self { next, current: first, position: 0, ended: false }
    }
}

/// The pieces that another thread makes.
pub(super) fn received(pieces: Receiver<Vec<u8>>) -> impl FnMut() -> io::Result<Vec<u8>> {
    // The sender ends early only with an error of its own, which is the one that is reported.
    move || Ok(pieces.recv().unwrap_or_default())
}

impl<N: FnMut() -> io::Result<Vec<u8>>> Read for Pieces<N> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() && !self.ended {
            (self.current, self.position) = ((self.next)()?, 0);
            self.ended = self.current.is_empty();
        }
        let length = buffer.len().min(self.current.len() - self.position);
        buffer[..length].copy_from_slice(&self.current[self.position..self.position + length]);
        self.position += length;
        Ok(length)
    }
}
