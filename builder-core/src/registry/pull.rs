//! Blobs that come in: streams that resume after faults, and are hashed on the way.

use std::fmt;
use std::io::{self, Read, Write};

use super::auth::Access;
use super::client::{Call, Failure, Registry, after_failure};
use super::connection::{Again, Fault, io_fault};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::manifest::MAX_DOCUMENT;
use super::retry::Backoff;
use crate::cancel::CancelToken;
use crate::content::{BlobWriter, ContentError, ContentStore};
use crate::oci::{Descriptor, Hasher, Reference};

/// Bytes moved at a time.
const BUFFER: usize = 128 << 10;

/// The bytes of one blob from its registry or a mirror.
///
/// A connection that breaks is made again, and goes on where it broke. The end of the stream is reported only if
/// number and digest of the bytes were right; a reader that stops before the end calls [`BlobStream::finish`].
/// Errors are [`RegistryError`]s inside the [`io::Error`].
pub struct BlobStream {
    registry: Registry,
    reference: Reference,
    descriptor: Descriptor,
    cancel: CancelToken,
    endpoints: Vec<Endpoint>,
    at: usize,
    body: Option<Box<dyn Read + Send>>,
    position: u64,
    hasher: Option<Hasher>,
    backoff: Backoff,
    ended: bool,
}

/// A [`BlobStream`] whose bytes also go into a store.
///
/// What was read must not be trusted before [`StoringStream::finish`] has verified it.
pub struct StoringStream {
    stream: BlobStream,
    writer: BlobWriter,
    content: ContentStore,
}

impl Registry {
    /// Opens a blob for reading. The first request is made at the first read.
    ///
    /// # Errors
    /// [`RegistryError::Config`] if a mirror's address is wrong.
    pub fn open_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        cancel: &CancelToken,
    ) -> Result<BlobStream, RegistryError> {
        Ok(BlobStream {
            registry: self.clone(),
            reference: reference.clone(),
            descriptor: descriptor.clone(),
            cancel: cancel.clone(),
            endpoints: Endpoint::for_pull(reference, &self.inner.config)?,
            at: 0,
            body: None,
            position: 0,
            hasher: Some(Hasher::new(descriptor.digest.algorithm())),
            backoff: self.inner.config.backoff(),
            ended: false,
        })
    }

    /// Opens a blob for reading, storing its bytes in `content` as they are read.
    ///
    /// # Errors
    /// As [`Registry::open_blob`], and [`RegistryError::Content`] if the store cannot be written.
    pub fn open_and_store_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        content: &ContentStore,
        cancel: &CancelToken,
    ) -> Result<StoringStream, RegistryError> {
        let mut stream = self.open_blob(reference, descriptor, cancel)?;
        // The writer hashes the same bytes.
        stream.hasher = None;
        let writer = content.writer_with(descriptor.digest.algorithm())?;
        Ok(StoringStream { stream, writer, content: content.clone() })
    }

    /// Fetches a blob into the store, unless it is there. `progress` is told the bytes so far, from 0 again if another
    /// endpoint has to be asked.
    ///
    /// # Errors
    /// [`RegistryError::BlobNotFound`], [`RegistryError::DigestMismatch`], [`RegistryError::SizeMismatch`],
    /// [`RegistryError::Content`], and those of reaching and being let into a registry.
    pub fn fetch_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        content: &ContentStore,
        progress: &dyn Fn(u64),
        cancel: &CancelToken,
    ) -> Result<(), RegistryError> {
        if content.has(&descriptor.digest)? == Some(descriptor.size) {
            return Ok(());
        }
        let mut first = 0;
        loop {
            let mut stream = self.open_and_store_blob(reference, descriptor, content, cancel)?;
            stream.stream.at = first;
            let (at, result) = stream.run(progress);
            match result {
                // An endpoint that serves wrong bytes is no reason not to ask the next one.
                Err(RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. })
                    if at + 1 < Endpoint::for_pull(reference, &self.inner.config)?.len() =>
                {
                    first = at + 1;
                }
                other => return other,
            }
        }
    }

    /// Fetches a small blob (a config) into memory, verified.
    ///
    /// # Errors
    /// [`RegistryError::TooLarge`] above 8 MiB, else as [`Registry::fetch_blob`].
    pub fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        cancel: &CancelToken,
    ) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size > MAX_DOCUMENT {
            let reference = reference.familiar();
            return Err(RegistryError::TooLarge { what: "the config", reference, limit: MAX_DOCUMENT });
        }
        let mut bytes = Vec::new();
        let mut stream = self.open_blob(reference, descriptor, cancel)?;
        stream.read_to_end(&mut bytes).map_err(|error| stream.error(error))?;
        Ok(bytes)
    }
}

impl BlobStream {
    /// Length of the blob in bytes, as its descriptor says.
    pub fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// Reads what is left and verifies the whole.
    ///
    /// # Errors
    /// As those of [`Registry::fetch_blob`].
    pub fn finish(mut self) -> Result<(), RegistryError> {
        self.drain()
    }

    fn drain(&mut self) -> Result<(), RegistryError> {
        io::copy(self, &mut io::sink()).map(drop).map_err(|error| self.error(error))
    }

    fn error(&self, error: io::Error) -> RegistryError {
        RegistryError::from_io(error).unwrap_or_else(|error| RegistryError::Unreachable {
            registry: self.registry_name(),
            reason: error.to_string(),
        })
    }

    fn registry_name(&self) -> String {
        self.endpoints.get(self.at).map_or_else(|| self.reference.domain().to_owned(), |at| at.domain.clone())
    }

    /// Makes the connection that delivers the bytes from `position` on.
    fn connect(&mut self) -> Result<(), RegistryError> {
        loop {
            let endpoint = &self.endpoints[self.at];
            match self.request(endpoint) {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) if error.is_final() || self.at + 1 == self.endpoints.len() => return Err(error),
                Err(_) => self.at += 1,
            }
        }
    }

    fn request(&self, endpoint: &Endpoint) -> Result<Box<dyn Read + Send>, RegistryError> {
        let access = Access::pull(endpoint, self.reference.path());
        let path = format!("{}/blobs/{}", endpoint.repository(self.reference.path()), self.descriptor.digest);
        let mut call = Call::get(endpoint, &access, "a request for a blob", path, &self.cancel);
        if self.position > 0 {
            call = call.with_header("range", format!("bytes={}-", self.position));
        }
        let response = self.registry.inner.call(&call)?;
        let (size, position) = (self.descriptor.size, self.position);
        let wrong_size = |actual| RegistryError::SizeMismatch {
            registry: endpoint.domain.clone(),
            digest: self.descriptor.digest.clone(),
            expected: size,
            actual,
        };
        match response.status() {
            200 => {
                if let Some(length) = response.content_length().filter(|length| *length != size) {
                    return Err(wrong_size(length));
                }
                let mut body = response.into_reader();
                // A server that knows no ranges sends everything again; the hash tells whether it was the same.
                let skipped = io::copy(&mut (&mut body).take(position), &mut io::sink());
                match skipped {
                    Ok(skipped) if skipped == position => Ok(Box::new(body)),
                    _ => Err(call.nonsense("it broke off again")),
                }
            }
            206 if position > 0 => match response.header("content-range").and_then(content_range) {
                Some((start, Some(total))) if start == position && total != size => Err(wrong_size(total)),
                Some((start, _)) if start == position => Ok(Box::new(response.into_reader())),
                _ => Err(call.nonsense("it sent another range than asked for")),
            },
            404 => Err(RegistryError::BlobNotFound {
                reference: self.reference.familiar(),
                digest: self.descriptor.digest.clone(),
            }),
            _ => Err(call.refusal(response)),
        }
    }

    /// Waits after a fault in the middle of the body.
    fn interrupted(&mut self, fault: Fault) -> Result<(), RegistryError> {
        self.body = None;
        let endpoint = self.endpoints[self.at].clone();
        after_failure(Failure::Fault(fault), &endpoint, &mut self.backoff, &self.cancel)
    }

    /// Reads the next bytes, through as many connections as it takes.
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let left = self.descriptor.size - self.position;
        if left == 0 {
            self.end()?;
            return Ok(0);
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        loop {
            self.cancel.check()?;
            let Some(body) = &mut self.body else {
                self.connect()?;
                continue;
            };
            match body.read(&mut buffer[..wanted]) {
                Ok(0) => {
                    let reason = "the connection ended too early".to_owned();
                    self.interrupted(Fault::Network { reason, again: Again::Yes })?;
                }
                Ok(count) => {
                    self.position += count as u64;
                    self.backoff.progress();
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&buffer[..count]);
                    }
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.interrupted(io_fault(&error))?,
            }
        }
    }

    /// Checks that nothing follows, and that the bytes were the right ones.
    fn end(&mut self) -> Result<(), RegistryError> {
        self.ended = true;
        if let Some(mut body) = self.body.take()
            && body.read(&mut [0u8; 1]).is_ok_and(|more| more > 0)
        {
            return Err(RegistryError::SizeMismatch {
                registry: self.registry_name(),
                digest: self.descriptor.digest.clone(),
                expected: self.descriptor.size,
                actual: self.descriptor.size + 1,
            });
        }
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let actual = hasher.finish();
        if actual == self.descriptor.digest {
            return Ok(());
        }
        let expected = self.descriptor.digest.clone();
        Err(RegistryError::DigestMismatch { registry: self.registry_name(), expected, actual })
    }
}

impl Read for BlobStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(RegistryError::into_io)
    }
}

impl StoringStream {
    /// Length of the blob in bytes, as its descriptor says.
    pub fn size(&self) -> u64 {
        self.stream.size()
    }

    /// Reads what is left, verifies the whole, and puts the blob into the store.
    ///
    /// # Errors
    /// As those of [`Registry::fetch_blob`].
    pub fn finish(mut self) -> Result<(), RegistryError> {
        self.copy(&|_| {})?;
        self.commit()
    }

    fn run(mut self, progress: &dyn Fn(u64)) -> (usize, Result<(), RegistryError>) {
        let copied = self.copy(progress);
        let at = self.stream.at;
        (at, copied.and_then(|()| self.commit()))
    }

    fn copy(&mut self, progress: &dyn Fn(u64)) -> Result<(), RegistryError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => progress(self.stream.position),
                Err(error) => return Err(self.stream.error(error)),
            }
        }
    }

    fn commit(self) -> Result<(), RegistryError> {
        let registry = self.stream.registry_name();
        let descriptor = &self.stream.descriptor;
        self.writer.commit_as(&descriptor.digest, descriptor.size).map_err(|error| match error {
            ContentError::DigestMismatch { expected, actual } => {
                RegistryError::DigestMismatch { registry, expected, actual }
            }
            other => other.into(),
        })?;
        // A memo for pushes; without it a blob is sent that could have been mounted.
        let _ = self.content.database().put_blob_source(&descriptor.digest, &self.stream.reference.repository());
        Ok(())
    }
}

impl Read for StoringStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.writer.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Reads `bytes START-END/TOTAL` (RFC 9110, section 14.4); the total may be `*`.
fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    let total = if total.trim() == "*" { None } else { Some(total.trim().parse().ok()?) };
    (start <= end && total.is_none_or(|total: u64| end < total)).then_some((start, total))
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobStream({}, {} of {} bytes)", self.descriptor.digest, self.position, self.descriptor.size)
    }
}

impl fmt::Debug for StoringStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, None)));
        for bad in
            ["", "bytes", "bytes */10", "bytes 5-4/10", "bytes 5-10/10", "items 1-2/3", "bytes a-b/c", "bytes 1-2/-3"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
