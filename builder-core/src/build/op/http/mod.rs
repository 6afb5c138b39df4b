//! `ADD http://…`: fetches a file into the store, asking first whether the one that is there is still the same.
//!
//! What is known of an address decides how much is asked:
//!
//! | known | asked |
//! |---|---|
//! | a body with the digest of `--checksum` | nothing |
//! | a body, and the network is not to be used | nothing |
//! | a body with `ETag` or `Last-Modified` | whether it changed (RFC 9110, section 13); its body only then |
//! | nothing, or a body without either | everything |
//!
//! What may pass (a server that is busy, a connection that breaks) is tried again, as with registries.

mod memo;
mod name;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::time::Duration;

use ureq::http::StatusCode;

use crate::build::request::SecretSource;
use crate::cancel::{CancelToken, Cancelled};
use crate::content::{ContentError, ContentStore};
use crate::diagnostic::Diagnostic;
use crate::oci::{Digest, Hasher};
use crate::pins::{NotLocked, Pin, Pins, SourceName, UrlPin};
use crate::registry::{DownloadError, Registry, is_temporary, retry_after};
use crate::tree::{ContentDigest, ContentHasher};
use memo::Memo;

pub(crate) use memo::downloads;
pub(crate) use name::file_name;

/// A fetched file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fetched {
    /// Digest of the body, which is a blob of the store.
    pub digest: Digest,
    /// Digest of the body in a tree.
    pub content: ContentDigest,
    /// Length in bytes.
    pub size: u64,
    /// `Last-Modified`, in seconds since 1970.
    pub modified: Option<i64>,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// An address cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server cannot be reached, or the connection broke.
    #[error("cannot fetch {url}: {reason}")]
    Network {
        /// The address, without user and password.
        url: String,
        /// What the network said.
        reason: String,
        /// It may pass.
        again: bool,
    },
    /// The server refuses.
    #[error("cannot fetch {url}: the server answers {status}")]
    Status {
        /// The address, without user and password.
        url: String,
        /// The answer.
        status: StatusCode,
        /// How long the server asks to wait.
        wait: Option<Duration>,
        /// The secret that would have been sent, had it been given.
        secret: Option<String>,
    },
    /// `--checksum` names another content.
    #[error("{url} has digest {actual}, but `--checksum` says {expected}")]
    Checksum {
        /// The address, without user and password.
        url: String,
        /// What the instruction says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A lock file names another content.
    #[error("{url} has digest {actual}, but `{file}` says {expected}")]
    Locked {
        /// The address, without user and password.
        url: String,
        /// The lock file, as people name it.
        file: String,
        /// What it says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The build takes only what is locked.
    #[error(transparent)]
    NotLocked(#[from] NotLocked),
    /// The body ends early, or cannot be kept.
    #[error("cannot fetch {url}: {source}")]
    Body {
        /// The address, without user and password.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// A secret for the server cannot be read.
    #[error("cannot read secret `{id}`")]
    Secret {
        /// Which one.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl FetchError {
    /// Whether the same request may succeed a moment later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Network { again, .. } => *again,
            Self::Status { status, .. } => is_temporary(status.as_u16()),
            // Not if it is the disk that is full.
            Self::Body { source, .. } => source.raw_os_error().is_none(),
            _ => false,
        }
    }

    fn wait(&self) -> Option<Duration> {
        if let Self::Status { wait, .. } = self { *wait } else { None }
    }
}

impl Diagnostic for FetchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Network { .. } => Some("check the address and the network".to_owned()),
            Self::Status { secret: Some(secret), .. } => {
                Some(format!("if the server wants to know who asks, pass a token with `--secret id={secret},env=NAME`"))
            }
            Self::Status { status, .. } if *status == StatusCode::NOT_FOUND => Some("check the address".to_owned()),
            Self::Checksum { actual, .. } => Some(format!("if the new content is right, write `--checksum={actual}`")),
            Self::Locked { url, .. } => {
                Some(format!("if the new content is right, take it over: `rbuild lock update --only {url}`"))
            }
            Self::NotLocked(error) => error.hint(),
            Self::Body { source, .. } => crate::build::error::storage_hint(source),
            _ => None,
        }
    }
}

/// What fetching needs.
#[derive(Clone, Copy)]
pub(crate) struct Fetcher<'a> {
    /// Has the connections: proxies, certificates, and waits that end with `cancel`.
    pub(crate) registry: &'a Registry,
    /// Gets the bodies.
    pub(crate) content: &'a ContentStore,
    /// Where `HTTP_AUTH_HEADER_<host>` and `HTTP_AUTH_TOKEN_<host>` may be.
    pub(crate) secrets: &'a BTreeMap<String, SecretSource>,
    /// What is known is taken as it is.
    pub(crate) offline: bool,
    /// Hears how many bytes have come, and of how many.
    pub(crate) progress: &'a dyn Fn(u64, Option<u64>),
    /// Ends it.
    pub(crate) cancel: &'a CancelToken,
}

impl Fetcher<'_> {
    /// Fetches `url`; the body is a blob of the store afterwards. A body that the store has under `checksum` already
    /// is not fetched again.
    ///
    /// # Errors
    /// Every case of [`FetchError`].
    pub(crate) fn fetch(&self, url: &str, checksum: Option<&Digest>) -> Result<Fetched, FetchError> {
        let mut backoff = self.registry.config().backoff();
        loop {
            match self.try_fetch(url, checksum) {
                Err(error) if error.may_pass() && backoff.wait(error.wait(), self.cancel)? => {}
                result => return result,
            }
        }
    }

    /// The same for an address that may have a pin: its content has to be that, and keeps the time that it had then.
    ///
    /// # Errors
    /// Every case of [`FetchError`].
    pub(crate) fn fetch_pinned(
        &self,
        url: &str,
        checksum: Option<&Digest>,
        pins: &Pins,
    ) -> Result<Fetched, FetchError> {
        let name = SourceName::url(redacted(url));
        let pin = pins.url(&name)?;
        // One that the instruction names itself is asked for as that, and compared afterwards.
        let asked = checksum.or(pin.as_ref().map(|pin| &pin.digest));
        let other = |expected: &Digest, actual: Digest| FetchError::Locked {
            url: redacted(url),
            file: pins.shown().to_owned(),
            expected: expected.clone(),
            actual,
        };
        let fetched = match (self.fetch(url, asked), &pin) {
            (Err(FetchError::Checksum { actual, expected, .. }), Some(pin)) if checksum.is_none() => {
                debug_assert_eq!(expected, pin.digest);
                return Err(other(&expected, actual));
            }
            (fetched, _) => fetched?,
        };
        let found = UrlPin { digest: fetched.digest.clone(), modified: fetched.modified };
        let pin = match pin {
            Some(pin) => pin,
            None => match pins.found(name.clone(), Pin::Url(found.clone())) {
                Pin::Url(agreed) => agreed,
                _ => found,
            },
        };
        if pin.digest != fetched.digest {
            return Err(other(&pin.digest, fetched.digest));
        }
        if pins.holds(&name) {
            // It stays known when a build without pins brings another content.
            let memo = Memo::of_content(self.content, url, &pin.digest);
            if memo.read(self.content)?.is_none() {
                memo.write(&fetched);
            }
        }
        Ok(Fetched { modified: pin.modified, ..fetched })
    }

    /// What [`Fetcher::fetch_pinned`] would give without asking anybody; `None` if that is not known. Writes nothing.
    ///
    /// # Errors
    /// [`FetchError::NotLocked`], and if the store cannot be read.
    pub(crate) fn known(
        &self,
        url: &str,
        checksum: Option<&Digest>,
        pins: &Pins,
    ) -> Result<Option<Fetched>, FetchError> {
        let pin = pins.url(&SourceName::url(redacted(url)))?;
        if pin.is_none() && pins.collects() {
            return Ok(None);
        }
        let wanted = checksum.or(pin.as_ref().map(|pin| &pin.digest));
        let by_content = wanted.map(|digest| Memo::of_content(self.content, url, digest));
        for memo in by_content.into_iter().chain([Memo::of(self.content, url)]) {
            let Some(known) = memo.peek(self.content)? else { continue };
            // A checksum and a lock that disagree are an error of the build.
            let agrees = pin.as_ref().is_none_or(|pin| pin.digest == known.digest);
            if wanted.map_or(self.offline, |wanted| *wanted == known.digest) && agrees {
                let modified = pin.map_or(known.modified, |pin| pin.modified);
                return Ok(Some(Fetched { modified, ..known }));
            }
        }
        Ok(None)
    }

    fn try_fetch(&self, url: &str, checksum: Option<&Digest>) -> Result<Fetched, FetchError> {
        let shown = redacted(url);
        let memo = Memo::of(self.content, url);
        let by_content = checksum.map(|checksum| Memo::of_content(self.content, url, checksum));
        if let Some(checksum) = checksum
            && let Some(memo) = &by_content
            && let Some(known) = memo.read(self.content)?.filter(|known| known.digest == *checksum)
        {
            return Ok(known);
        }
        let known = memo.read(self.content)?;
        if let Some(known) = &known
            && (self.offline || checksum == Some(&known.digest))
        {
            return self.verify(known.clone(), checksum, &shown);
        }
        let mut headers = self.authorization(url)?;
        let secret = headers.is_empty().then(|| format!("{TOKEN}{}", name::host(url)));
        if let Some(known) = &known {
            headers.extend(known.etag.iter().map(|etag| ("if-none-match", etag.clone())));
            headers.extend(known.last_modified.iter().map(|date| ("if-modified-since", date.clone())));
        }
        let response = self.registry.download(url, &headers, self.cancel).map_err(|error| match error {
            DownloadError::Cancelled => Cancelled.into(),
            DownloadError::Failed(reason) => FetchError::Network { url: shown.clone(), reason, again: false },
            DownloadError::Broken(reason) => FetchError::Network { url: shown.clone(), reason, again: true },
        })?;
        let status = StatusCode::from_u16(response.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let text = |name| response.header(name).map(str::to_owned);
        let (etag, last_modified) = (text("etag"), text("last-modified"));
        if let Some(known) = known
            // Some servers send everything although nothing changed.
            && (status == StatusCode::NOT_MODIFIED || (status.is_success() && known.has_tag(etag.as_deref())))
        {
            return self.verify(known, checksum, &shown);
        }
        if !status.is_success() {
            let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let wait = response.header("retry-after").and_then(retry_after);
            return Err(FetchError::Status { url: shown, status, wait, secret: secret.filter(|_| refused) });
        }
        let total = response.content_length();
        let mut body = Body { inner: response.into_reader(), read: 0, total, fetcher: self };
        let (digest, content, size) =
            self.keep(&mut body, checksum, &shown).map_err(|error| match self.cancel.check() {
                // Whatever a cancel made fail first, it was the cancel.
                Err(cancelled) => cancelled.into(),
                Ok(()) => error,
            })?;
        let modified = last_modified.as_deref().and_then(name::http_date);
        let fetched = Fetched { digest, content, size, modified, etag, last_modified };
        memo.write(&fetched);
        if let Some(memo) = by_content {
            memo.write(&fetched);
        }
        Ok(fetched)
    }

    /// Compares what was fetched before with `--checksum`. Its digest in another algorithm than the store's is made of the
    /// bytes.
    fn verify(&self, known: Fetched, checksum: Option<&Digest>, url: &str) -> Result<Fetched, FetchError> {
        let Some(expected) = checksum else { return Ok(known) };
        let actual = if expected.algorithm() == known.digest.algorithm() {
            known.digest.clone()
        } else {
            let broken = |source| FetchError::Body { url: url.to_owned(), source };
            let mut blob = self.content.open_blob(&known.digest)?;
            let mut hasher = Hasher::new(expected.algorithm());
            let mut buffer = vec![0; BUFFER];
            loop {
                self.cancel.check()?;
                match blob.read(&mut buffer).map_err(broken)? {
                    0 => break hasher.finish(),
                    length => hasher.update(&buffer[..length]),
                }
            }
        };
        if actual == *expected {
            return Ok(known);
        }
        Err(FetchError::Checksum { url: url.to_owned(), expected: expected.clone(), actual })
    }

    /// The header that a secret for the host of `url` asks for, as in BuildKit: a whole value, or a token, which wins.
    fn authorization(&self, url: &str) -> Result<Vec<(&'static str, String)>, FetchError> {
        let host = name::host(url);
        for (prefix, scheme) in [(TOKEN, "Bearer "), (HEADER, "")] {
            let id = format!("{prefix}{host}");
            let Some(secret) = self.secrets.get(&id) else { continue };
            let unreadable = |source| FetchError::Secret { id: id.clone(), source };
            let value = String::from_utf8(secret.read().map_err(unreadable)?)
                .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            // A file ends with a newline more often than not, and a header cannot have one.
            return Ok(vec![("authorization", format!("{scheme}{}", value.trim_end_matches(['\r', '\n'])))]);
        }
        Ok(Vec::new())
    }

    /// Streams a body into the store; a checksum of another algorithm than the store's is checked on the way.
    fn keep(
        &self,
        body: &mut impl Read,
        checksum: Option<&Digest>,
        url: &str,
    ) -> Result<(Digest, ContentDigest, u64), FetchError> {
        let broken = |source| FetchError::Body { url: url.to_owned(), source };
        let mut writer = self.content.writer()?;
        let mut content = ContentHasher::new();
        let mut hasher = checksum.map(|checksum| Hasher::new(checksum.algorithm()));
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = body.read(&mut buffer).map_err(broken)?;
            if length == 0 {
                break;
            }
            writer.write_all(&buffer[..length]).map_err(broken)?;
            content.update(&buffer[..length]);
            if let Some(hasher) = &mut hasher {
                hasher.update(&buffer[..length]);
            }
        }
        if let (Some(hasher), Some(expected)) = (hasher, checksum) {
            let actual = hasher.finish();
            if actual != *expected {
                return Err(FetchError::Checksum { url: url.to_owned(), expected: expected.clone(), actual });
            }
        }
        let (digest, size) = writer.commit()?;
        Ok((digest, content.finish(), size))
    }
}

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// Beginning of the id of a secret that is a whole `Authorization` header.
const HEADER: &str = "HTTP_AUTH_HEADER_";

/// Beginning of the id of a secret that is a token.
const TOKEN: &str = "HTTP_AUTH_TOKEN_";

impl Fetched {
    /// Whether it came with this `ETag`; that of a weak one is compared as BuildKit does.
    fn has_tag(&self, tag: Option<&str>) -> bool {
        let bare = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
        tag.is_some() && self.etag.as_deref().map(bare) == tag.map(bare)
    }
}

/// A body that tells how far it is, and stops when the build is cancelled.
struct Body<'a, R> {
    inner: R,
    read: u64,
    total: Option<u64>,
    fetcher: &'a Fetcher<'a>,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fetcher.cancel.check().map_err(io::Error::other)?;
        let broken = |error: io::Error| match self.total {
            Some(total) => {
                io::Error::new(error.kind(), format!("the connection broke after {} of {total} bytes", self.read))
            }
            None => error,
        };
        let length = self.inner.read(buffer).map_err(broken)?;
        self.read += length as u64;
        (self.fetcher.progress)(self.read, self.total);
        Ok(length)
    }
}

/// The address without user and password.
pub(crate) fn redacted(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}
