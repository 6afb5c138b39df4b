//! `ADD http://…`: fetches a file into the store, asking first whether the one that is there is still the same.
//!
//! ```text
//! STATE/downloads/<digest of the address>    what the server said last time (JSON), and the digest of the body
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use ureq::http::StatusCode;

use crate::cancel::{CancelToken, Cancelled};
use crate::content::{ContentError, ContentStore};
use crate::diagnostic::Diagnostic;
use crate::oci::{Digest, Hasher};
use crate::registry::{DownloadError, Registry};

/// A fetched file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fetched {
    /// Digest of the body, which is a blob of the store.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// `Last-Modified`, in seconds since 1970.
    pub modified: Option<i64>,
    /// File name that the server or the address gives.
    pub name: String,
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
    },
    /// The server refuses.
    #[error("cannot fetch {url}: the server answers {status}")]
    Status {
        /// The address, without user and password.
        url: String,
        /// The answer.
        status: StatusCode,
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
    /// The body ends early, or cannot be kept.
    #[error("cannot fetch {url}: {source}")]
    Body {
        /// The address, without user and password.
        url: String,
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

impl Diagnostic for FetchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Network { .. } => Some("check the address and the network".to_owned()),
            Self::Status { status, .. } if *status == StatusCode::NOT_FOUND => Some("check the address".to_owned()),
            Self::Checksum { actual, .. } => Some(format!("if the new content is right, write `--checksum={actual}`")),
            Self::Body { source, .. } => crate::build::error::storage_hint(source),
            _ => None,
        }
    }
}

/// Fetches `url`; the body is a blob of `content` afterwards. A body that the store has under `checksum` already is not
/// fetched again. `registry` has the connections: proxies, certificates, and waits that end with `cancel`.
///
/// # Errors
/// Every case of [`FetchError`].
pub fn fetch(
    registry: &Registry,
    content: &ContentStore,
    url: &str,
    checksum: Option<&Digest>,
    progress: &dyn Fn(u64, Option<u64>),
    cancel: &CancelToken,
) -> Result<Fetched, FetchError> {
    let shown = redacted(url);
    let memo = Memo::of(content, url);
    let known = memo.read(content)?;
    if let (Some(known), Some(checksum)) = (&known, checksum)
        && known.digest == *checksum
    {
        return Ok(known.clone());
    }
    let mut headers = Vec::new();
    if let Some(known) = &known {
        headers.extend(known.etag.iter().map(|etag| ("if-none-match", etag.clone())));
        headers.extend(known.last_modified.iter().map(|date| ("if-modified-since", date.clone())));
    }
    let response = registry.download(url, &headers, cancel).map_err(|error| match error {
        DownloadError::Cancelled => Cancelled.into(),
        DownloadError::Failed(reason) => FetchError::Network { url: shown.clone(), reason },
    })?;
    let status = StatusCode::from_u16(response.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    if status == StatusCode::NOT_MODIFIED
        && let Some(known) = known
    {
        return verify(known, checksum, &shown);
    }
    if !status.is_success() {
        return Err(FetchError::Status { url: shown, status });
    }
    let text = |name| response.header(name).map(str::to_owned);
    let (etag, last_modified) = (text("etag"), text("last-modified"));
    let name = text("content-disposition").and_then(|value| file_name(&value)).unwrap_or_else(|| last_part(url));
    let total = response.content_length();
    let mut body = Body { inner: response.into_reader(), read: 0, total, progress, cancel };
    let (digest, size) = keep(content, &mut body, checksum, &shown).map_err(|error| match cancel.check() {
        // Whatever a cancel made fail first, it was the cancel.
        Err(cancelled) => cancelled.into(),
        Ok(()) => error,
    })?;
    let modified = last_modified.as_deref().and_then(http_date);
    let fetched = Fetched { digest, size, modified, name, etag, last_modified };
    memo.write(&fetched);
    verify(fetched, checksum, &shown)
}

fn verify(fetched: Fetched, checksum: Option<&Digest>, url: &str) -> Result<Fetched, FetchError> {
    match checksum {
        Some(expected) if expected.algorithm() == fetched.digest.algorithm() && *expected != fetched.digest => {
            Err(FetchError::Checksum { url: url.to_owned(), expected: expected.clone(), actual: fetched.digest })
        }
        _ => Ok(fetched),
    }
}

/// Streams a body into the store; a checksum of another algorithm than the store's is checked on the way.
fn keep(
    content: &ContentStore,
    body: &mut impl Read,
    checksum: Option<&Digest>,
    url: &str,
) -> Result<(Digest, u64), FetchError> {
    let broken = |source| FetchError::Body { url: url.to_owned(), source };
    let mut writer = content.writer()?;
    let mut hasher = checksum.map(|checksum| Hasher::new(checksum.algorithm()));
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = body.read(&mut buffer).map_err(broken)?;
        if length == 0 {
            break;
        }
        writer.write_all(&buffer[..length]).map_err(broken)?;
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
    Ok(writer.commit()?)
}

/// A body that tells how far it is, and stops when the build is cancelled.
struct Body<'a, R> {
    inner: R,
    read: u64,
    total: Option<u64>,
    progress: &'a dyn Fn(u64, Option<u64>),
    cancel: &'a CancelToken,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let length = self.inner.read(buffer)?;
        self.read += length as u64;
        (self.progress)(self.read, self.total);
        Ok(length)
    }
}

/// What is remembered of an address.
struct Memo {
    path: PathBuf,
}

impl Memo {
    fn of(content: &ContentStore, url: &str) -> Self {
        let name = blake3::hash(url.as_bytes()).to_hex();
        Self { path: content.state().join("downloads").join(name.as_str()) }
    }

    /// What is known, as long as the body is in the store. A damaged memo counts as none.
    fn read(&self, content: &ContentStore) -> Result<Option<Fetched>, ContentError> {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let Ok(known) = serde_json::from_slice::<Fetched>(&bytes) else { return Ok(None) };
        Ok(content.has(&known.digest)?.is_some().then_some(known))
    }

    /// A memo only saves a transfer: one that cannot be written is not an error.
    fn write(&self, fetched: &Fetched) {
        let Some(directory) = self.path.parent() else { return };
        let written = fs::create_dir_all(directory).and_then(|()| tempfile::NamedTempFile::new_in(directory));
        if let Ok(mut file) = written
            && file.write_all(&serde_json::to_vec(fetched).expect("plain data serialises")).is_ok()
        {
            let _ = file.persist(&self.path);
        }
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

/// The last part of an address's path; BuildKit's fallback where there is none.
fn last_part(url: &str) -> String {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match path.split_once('/').and_then(|(_, path)| path.rsplit('/').next()) {
        Some(name) if !matches!(name, "" | "." | "..") => name.to_owned(),
        _ => "__unnamed__".to_owned(),
    }
}

/// `filename=` of a Content-Disposition (RFC 6266), as long as it is a plain name.
fn file_name(value: &str) -> Option<String> {
    let parameter = value.split(';').map(str::trim).find_map(|part| part.strip_prefix("filename="))?;
    let name = parameter.trim_matches('"');
    let plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0']);
    plain.then(|| name.to_owned())
}

/// Seconds since 1970 of an IMF-fixdate (RFC 9110): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{ProxyConfig, RegistryConfig};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    /// Answers one request after the other with these responses; returns what was asked.
    fn serve(responses: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = format!("http://{}/dir/file.txt?x=1", listener.local_addr().expect("bound"));
        let asked = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for response in responses {
                let (mut stream, _) = listener.accept().expect("a request");
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("readable") == 1 {
                    request.push(byte[0]);
                }
                asked.push(String::from_utf8(request).expect("text").to_lowercase());
                stream.write_all(response.as_bytes()).expect("writable");
            }
            asked
        });
        (address, asked)
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
    }

    fn get(content: &ContentStore, url: &str, checksum: Option<&Digest>) -> Result<Fetched, FetchError> {
        let registry = Registry::new(RegistryConfig::default());
        fetch(&registry, content, url, checksum, &|_, _| {}, &CancelToken::new())
    }

    #[test]
    fn a_file_is_fetched_once_and_asked_for_afterwards() {
        let state = tempfile::tempdir().expect("temporary directory");
        let content = ContentStore::open(state.path()).expect("opened");
        let headers = "ETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let (url, asked) = serve(vec![
            answer("200 OK", headers, "hello"),
            answer("304 Not Modified", "", ""),
            answer("200 OK", "", "other"),
        ]);
        let first = get(&content, &url, None).expect("fetched");
        assert_eq!((first.digest.clone(), first.size), (Digest::sha256(b"hello"), 5));
        assert_eq!((first.modified, first.name.as_str()), (Some(784_111_777), "file.txt"));
        assert_eq!(get(&content, &url, None).expect("unchanged"), first);
        assert_eq!(get(&content, &url, None).expect("changed").digest, Digest::sha256(b"other"));
        let asked = asked.join().expect("no panic");
        assert!(!asked[0].contains("if-none-match") && asked[1].contains("if-none-match: \"a\""), "{asked:?}");
        assert!(asked[1].contains("if-modified-since: sun, 06 nov 1994"), "{asked:?}");
    }

    #[test]
    fn checksums_and_refusals_are_errors() {
        let state = tempfile::tempdir().expect("temporary directory");
        let content = ContentStore::open(state.path()).expect("opened");
        let (url, asked) = serve(vec![answer("200 OK", "", "hello"), answer("404 Not Found", "", "no")]);
        let wrong = Digest::sha256(b"x");
        assert!(matches!(get(&content, &url, Some(&wrong)), Err(FetchError::Checksum { .. })));
        assert!(matches!(get(&content, &url, None), Err(FetchError::Status { .. })));
        asked.join().expect("no panic");
        let gone = get(&content, "http://user:secret@127.0.0.1:1/x", None).expect_err("nobody listens");
        assert!(!gone.to_string().contains("secret"), "{gone}");
    }

    #[test]
    fn a_silent_server_does_not_delay_a_cancel() {
        for greeting in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"] {
            let state = tempfile::tempdir().expect("temporary directory");
            let content = ContentStore::open(state.path()).expect("opened");
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
            let url = format!("http://{}/", listener.local_addr().expect("bound"));
            let (cancel, done) = (CancelToken::new(), std::sync::mpsc::channel::<()>());
            let (ended, wait) = done;
            let (canceller, begun) = (cancel.clone(), Instant::now());
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a request");
                stream.write_all(greeting.as_bytes()).expect("writable");
                std::thread::sleep(Duration::from_millis(100));
                canceller.cancel();
                // Silent until the client is gone.
                let _ = wait.recv();
            });
            let registry = Registry::new(RegistryConfig::default());
            let result = fetch(&registry, &content, &url, None, &|_, _| {}, &cancel);
            assert!(matches!(result, Err(FetchError::Cancelled(_))), "{greeting}: {result:?}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{greeting}");
            drop(ended);
            server.join().expect("no panic");
        }
    }

    #[test]
    fn redirects_are_followed_and_proxies_used() {
        let state = tempfile::tempdir().expect("temporary directory");
        let content = ContentStore::open(state.path()).expect("opened");
        let (target, asked) = serve(vec![answer("200 OK", "", "moved")]);
        let (url, first) = serve(vec![answer("302 Found", &format!("Location: {target}\r\n"), "")]);
        let url = url.replace("http://", "http://user:secret@");
        assert_eq!(get(&content, &url, None).expect("followed").digest, Digest::sha256(b"moved"));
        assert!(first.join().expect("no panic")[0].contains("authorization: basic "));
        assert!(!asked.join().expect("no panic")[0].contains("authorization"), "another origin");

        let (address, asked) = serve(vec![answer("407 Proxy Authentication Required", "", "")]);
        let proxy = address.split_once("/dir").map(|(proxy, _)| proxy.to_owned());
        let config = RegistryConfig { proxy: ProxyConfig { http: proxy, ..Default::default() }, ..Default::default() };
        let url = "http://files.invalid/x";
        let refused = fetch(&Registry::new(config), &content, url, None, &|_, _| {}, &CancelToken::new());
        assert!(refused.is_err());
        assert!(asked.join().expect("no panic")[0].contains("files.invalid"), "the proxy was asked");
    }

    #[test]
    fn names_come_from_addresses_and_headers() {
        assert_eq!(last_part("http://h/a/b.tar?x=/y"), "b.tar");
        assert_eq!(last_part("http://h/"), "__unnamed__");
        assert_eq!(last_part("http://h"), "__unnamed__");
        assert_eq!(file_name("attachment; filename=\"x.tgz\"").as_deref(), Some("x.tgz"));
        assert_eq!(file_name("attachment; filename=\"../x\""), None);
    }
}
