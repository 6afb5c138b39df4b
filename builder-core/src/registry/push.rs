//! Blobs and manifests that go out.
//!
//! A blob is sent in one request. After a fault the registry is asked how much it has, and the rest is sent; a
//! registry (or a proxy before it) that refuses large requests gets the blob in pieces.

use std::io::{self, Read};

use ureq::http::Method;

use super::auth::Access;
use super::client::{Call, Failure, Registry, Target, after_failure, is_temporary};
use super::connection::Response;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::retry::{Backoff, retry_after};
use super::url::Url;
use crate::cancel::CancelToken;
use crate::oci::{Descriptor, Digest, Hasher, MediaType, Reference};

/// Opens the bytes of a blob from their beginning; it is called again when they have to be sent again.
pub type BlobSource<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// What a request to begin an upload led to.
enum Begun {
    /// The blob was mounted from another repository.
    Mounted,
    /// Where to send it.
    Session(Url),
}

/// One upload: what does not change from try to try.
struct Upload<'a> {
    registry: &'a Registry,
    endpoint: Endpoint,
    access: Access,
    path: &'a str,
    descriptor: &'a Descriptor,
    source: &'a BlobSource<'a>,
    progress: &'a dyn Fn(u64) -> io::Result<()>,
    cancel: &'a CancelToken,
}

/// How far a try came.
enum Sent {
    All,
    /// The registry wants smaller requests.
    TooLarge,
    /// The session is gone.
    Lost,
}

impl Registry {
    /// Says whether the repository of a reference has a blob.
    ///
    /// # Errors
    /// Those of reaching and being let into a registry.
    pub fn blob_exists(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        cancel: &CancelToken,
    ) -> Result<bool, RegistryError> {
        let endpoint = Endpoint::upstream(reference.domain(), &self.inner.config);
        let access = Access::push(&endpoint, reference.path());
        self.has_blob(&endpoint, &access, reference.path(), descriptor, cancel)
    }

    /// Lets the repository of a reference have a blob of another repository (path) in the same registry.
    ///
    /// `false` if the registry does not do it, for whatever reason: then the blob has to be sent.
    ///
    /// # Errors
    /// Those of reaching and being let into a registry.
    pub fn mount_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        from: &str,
        cancel: &CancelToken,
    ) -> Result<bool, RegistryError> {
        let endpoint = Endpoint::upstream(reference.domain(), &self.inner.config);
        match self.mount(&endpoint, reference.path(), digest, from, cancel)? {
            Some(Begun::Mounted) => Ok(true),
            Some(Begun::Session(url)) => {
                // The registry began an upload instead; nobody will finish it.
                let access = Access::push(&endpoint, reference.path());
                let mut call = Call::get(&endpoint, &access, "the end of an upload", String::new(), cancel)
                    .with_method(Method::DELETE);
                call.target = Target::Url(&url);
                let _ = self.inner.call(&call);
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// Sends a blob, unless this client has sent it to the same registry: then it is mounted. `progress` is told the
    /// bytes so far; it may go back when something is sent again, and an error from it ends the upload.
    ///
    /// # Errors
    /// [`RegistryError::Source`] if the source fails or is shorter than the descriptor says, and those of reaching and
    /// being let into a registry.
    pub fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        source: &BlobSource<'_>,
        progress: &dyn Fn(u64) -> io::Result<()>,
        cancel: &CancelToken,
    ) -> Result<(), RegistryError> {
        self.send_or_mount(reference, descriptor, source, progress, cancel).map(drop)
    }

    /// As [`Registry::push_blob`]; says from which repository (path) the blob was mounted.
    pub(super) fn send_or_mount(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        source: &BlobSource<'_>,
        progress: &dyn Fn(u64) -> io::Result<()>,
        cancel: &CancelToken,
    ) -> Result<Option<String>, RegistryError> {
        let (digest, path) = (&descriptor.digest, reference.path());
        let endpoint = Endpoint::upstream(reference.domain(), &self.inner.config);
        let access = Access::push(&endpoint, path);
        let mut waited = false;
        let mut claim = self.inner.sending.claim(reference.domain(), digest, || {
            waited = true;
            progress(0).map_err(|source| RegistryError::Source { digest: digest.clone(), source })?;
            Ok::<_, RegistryError>(cancel.check()?)
        })?;
        if let Some(from) = claim.there.clone() {
            let there = if from == path {
                waited && self.has_blob(&endpoint, &access, path, descriptor, cancel)?
            } else {
                self.mount_blob(reference, digest, &from, cancel)?
            };
            if there {
                return Ok(Some(from));
            }
            claim.is_gone();
        }
        Upload { registry: self, endpoint, access, path, descriptor, source, progress, cancel }.run()?;
        claim.arrived(path);
        Ok(None)
    }

    /// Puts a manifest or index under the tag or digest of a reference; returns its descriptor.
    ///
    /// # Errors
    /// [`RegistryError::Status`] if the registry does not want it, [`RegistryError::DigestMismatch`] if it stored
    /// something else, and those of reaching and being let into a registry.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &MediaType,
        bytes: &[u8],
        cancel: &CancelToken,
    ) -> Result<Descriptor, RegistryError> {
        let endpoint = Endpoint::upstream(reference.domain(), &self.inner.config);
        let access = Access::push(&endpoint, reference.path());
        let descriptor = Descriptor::of(media_type.clone(), bytes);
        let selector = match (reference.tag(), reference.digest()) {
            (Some(tag), _) => tag.to_owned(),
            (None, Some(digest)) => digest.to_string(),
            (None, None) => "latest".to_owned(),
        };
        let path = format!("{}/manifests/{selector}", reference.path());
        let call = Call::get(&endpoint, &access, "a pushed manifest", path, cancel)
            .with_method(Method::PUT)
            .with_header("content-type", media_type.as_str())
            .with_body(bytes);
        let response = self.inner.call(&call)?;
        if !(200..300).contains(&response.status()) {
            return Err(call.refusal(response));
        }
        let stored = response.header("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
        if let Some(stored) = stored
            && hash(bytes, &stored) != stored
        {
            let (registry, expected) = (endpoint.domain.clone(), descriptor.digest);
            return Err(RegistryError::DigestMismatch { registry, expected, actual: stored });
        }
        Ok(descriptor)
    }

    pub(super) fn has_blob(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        path: &str,
        descriptor: &Descriptor,
        cancel: &CancelToken,
    ) -> Result<bool, RegistryError> {
        let path = format!("{path}/blobs/{}", descriptor.digest);
        let call = Call::get(endpoint, access, "a question for a blob", path, cancel).with_method(Method::HEAD);
        let response = self.inner.call(&call)?;
        match response.status() {
            200 => Ok(response.content_length().is_none_or(|length| length == descriptor.size)),
            404 => Ok(false),
            _ => Err(call.refusal(response)),
        }
    }

    /// Asks for a mount; `None` if the registry wants nothing of it.
    fn mount(
        &self,
        endpoint: &Endpoint,
        path: &str,
        digest: &Digest,
        from: &str,
        cancel: &CancelToken,
    ) -> Result<Option<Begun>, RegistryError> {
        let access = Access::mount(endpoint, path, from);
        let target = format!("{path}/blobs/uploads/?mount={digest}&from={from}");
        let call =
            Call::get(endpoint, &access, "a mount of a blob", target, cancel).with_method(Method::POST).with_body(&[]);
        let response = match self.inner.call(&call) {
            Ok(response) => response,
            // Being refused the other repository says nothing about this one.
            Err(RegistryError::Unauthorized { .. } | RegistryError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match response.status() {
            201 => Ok(Some(Begun::Mounted)),
            202 => Ok(Some(Begun::Session(self.inner.location(&call, &response)?))),
            _ => Ok(None),
        }
    }
}

impl Upload<'_> {
    fn run(&self) -> Result<(), RegistryError> {
        let mut backoff = self.registry.inner.config.backoff();
        let mut piece = None;
        let mut unauthorized = false;
        let (mut location, mut offset) = (self.begin()?, 0);
        loop {
            let failure = match self.send(&mut location, &mut offset, piece) {
                Ok(Sent::All) => return Ok(()),
                Ok(Sent::TooLarge) => {
                    if piece.is_some() {
                        let call = self.call(Method::PUT, &location);
                        return Err(call.nonsense("it refuses even small pieces of a blob"));
                    }
                    piece = Some(self.registry.inner.config.upload_piece.max(1));
                    (location, offset) = (self.begin()?, 0);
                    continue;
                }
                Ok(Sent::Lost) => {
                    Failure::Error(self.call(Method::PUT, &location).nonsense("the upload was forgotten"))
                }
                Err(failure) => failure,
            };
            match failure {
                // The token ended on the way; a fresh one is there by now.
                Failure::Error(RegistryError::Unauthorized { .. }) if !unauthorized => unauthorized = true,
                Failure::Error(
                    error @ (RegistryError::Protocol { .. } | RegistryError::Status { status: 500..=599, .. }),
                ) => {
                    if !backoff.wait(None, self.cancel)? {
                        return Err(error);
                    }
                }
                failure => after_failure(failure, &self.endpoint, &mut backoff, self.cancel)?,
            }
            // The answer may be all that was lost.
            if self.registry.has_blob(&self.endpoint, &self.access, self.path, self.descriptor, self.cancel)? {
                return Ok(());
            }
            let before = offset;
            (location, offset) = match self.status(&location)? {
                Some(there) => there,
                None => (self.begin()?, 0),
            };
            if offset > before {
                backoff.progress();
            }
        }
    }

    fn call<'b>(&'b self, method: Method, location: &'b Url) -> Call<'b> {
        let mut call =
            Call::get(&self.endpoint, &self.access, "an upload", String::new(), self.cancel).with_method(method);
        call.target = Target::Url(location);
        call
    }

    fn begin(&self) -> Result<Url, RegistryError> {
        let path = format!("{}/blobs/uploads/", self.path);
        let call = Call::get(&self.endpoint, &self.access, "the beginning of an upload", path, self.cancel)
            .with_method(Method::POST)
            .with_body(&[]);
        let response = self.registry.inner.call(&call)?;
        match response.status() {
            202 => self.registry.inner.location(&call, &response),
            _ => Err(call.refusal(response)),
        }
    }

    /// Sends everything from `offset` on: in one request, or in pieces.
    fn send(&self, location: &mut Url, offset: &mut u64, piece: Option<u64>) -> Result<Sent, Failure> {
        let size = self.descriptor.size;
        let mut source = self.open(*offset)?;
        if let Some(piece) = piece {
            while *offset < size {
                let length = piece.min(size - *offset);
                let call = self
                    .call(Method::PATCH, location)
                    .with_header("content-type", "application/octet-stream")
                    .with_header("content-range", format!("{}-{}", *offset, *offset + length - 1));
                let response = self.transmit(&call, &mut *source, *offset, length)?;
                match self.judge(&call, response, false)? {
                    (Sent::All, next) => *location = next.ok_or_else(|| call.nonsense("it has no location"))?,
                    (other, _) => return Ok(other),
                }
                *offset += length;
            }
        }
        let last = location.with_query("digest", self.descriptor.digest.as_str());
        let mut call = self.call(Method::PUT, &last).with_header("content-type", "application/octet-stream");
        if *offset > 0 && *offset < size {
            call = call.with_header("content-range", format!("{}-{}", *offset, size - 1));
        }
        let response = self.transmit(&call, &mut *source, *offset, size - *offset)?;
        Ok(self.judge(&call, response, true)?.0)
    }

    fn open(&self, offset: u64) -> Result<Box<dyn Read + Send>, RegistryError> {
        let failed = |source| RegistryError::Source { digest: self.descriptor.digest.clone(), source };
        let mut source = (self.source)().map_err(failed)?;
        let skipped = io::copy(&mut (&mut source).take(offset), &mut io::sink()).map_err(failed)?;
        if skipped < offset {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(source)
    }

    /// Sends `length` bytes of the source as the body of one request.
    fn transmit(
        &self,
        call: &Call<'_>,
        source: &mut (dyn Read + Send),
        offset: u64,
        length: u64,
    ) -> Result<Response, Failure> {
        let mut body = Counted { inner: source.take(length), sent: 0, offset, progress: self.progress, failed: None };
        let result = self.registry.inner.try_call(call, Some((&mut body, length)));
        let failed = |source| RegistryError::Source { digest: self.descriptor.digest.clone(), source };
        if let Some(source) = body.failed.take() {
            self.cancel.check().map_err(RegistryError::from)?;
            return Err(failed(source).into());
        }
        result
    }

    /// Reads the answer to a body: whether it was taken, and where the next one goes.
    fn judge(&self, call: &Call<'_>, response: Response, last: bool) -> Result<(Sent, Option<Url>), Failure> {
        match response.status() {
            200..=299 if last => Ok((Sent::All, None)),
            200..=299 => Ok((Sent::All, Some(self.registry.inner.location(call, &response)?))),
            413 => Ok((Sent::TooLarge, None)),
            404 => Ok((Sent::Lost, None)),
            // The registry lost count of the pieces: ask it where it is.
            416 => Err(call.nonsense("it has another part of the blob").into()),
            status if is_temporary(status) => {
                if let Some(wait) = response.header("retry-after").and_then(retry_after) {
                    Backoff::new(2)
                        .telling(&self.registry.inner.config.waits)
                        .wait(Some(wait), self.cancel)
                        .map_err(RegistryError::from)?;
                }
                Err(match call.refusal(response) {
                    RegistryError::Status { registry, action, message, .. } => {
                        RegistryError::Status { registry, action, status: 503, message }.into()
                    }
                    other => other.into(),
                })
            }
            _ => Err(call.refusal(response).into()),
        }
    }

    /// Asks how much of an upload the registry has; `None` if it does not say, so that it begins anew.
    fn status(&self, location: &Url) -> Result<Option<(Url, u64)>, RegistryError> {
        let call = self.call(Method::GET, location);
        let response = match self.registry.inner.call(&call) {
            Ok(response) => response,
            Err(error @ (RegistryError::Cancelled(_) | RegistryError::Unreachable { .. })) => return Err(error),
            Err(_) => return Ok(None),
        };
        if response.status() != 204 {
            return Ok(None);
        }
        let end = response
            .header("range")
            .and_then(|range| range.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse::<u64>().ok());
        // `0-0` stands for one byte, and in older registries for none as well.
        Ok(match end {
            Some(end) if end > 0 && end < self.descriptor.size => {
                Some((self.registry.inner.location(&call, &response)?, end + 1))
            }
            _ => None,
        })
    }
}

/// A body that tells how far it is, and remembers why its source failed.
struct Counted<'a, R> {
    inner: io::Take<R>,
    sent: u64,
    offset: u64,
    progress: &'a dyn Fn(u64) -> io::Result<()>,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer).and_then(|count| {
            // The HTTP library would wait for more for ever.
            if count == 0 && self.inner.limit() > 0 && !buffer.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.sent += count as u64;
            (self.progress)(self.offset + self.sent).map(|()| count)
        });
        result.map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            io::Error::from(kind)
        })
    }
}

fn hash(bytes: &[u8], like: &Digest) -> Digest {
    let mut hasher = Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}
