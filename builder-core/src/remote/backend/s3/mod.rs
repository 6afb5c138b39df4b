//! `type=s3`: objects in a bucket, `PREFIX BLOBS-PREFIX DIGEST` and `PREFIX MANIFESTS-PREFIX NAME`.

mod multipart;

use std::io::Read;
use std::time::Duration;

use jiff::Timestamp;
use ureq::http::Method;

use super::http::{Body, Http, Request, document, refusal};
use super::signature::{Signer, encoded};
use super::{Backend, BlobToPut};
use crate::cancel::CancelToken;
use crate::oci::{Descriptor, Digest, Manifest};
use crate::registry::{Download, Registry};
use crate::remote::{RemoteError, S3Place};

#[derive(Debug)]
pub(super) struct S3Backend {
    http: Http,
    place: S3Place,
    signer: Option<Signer>,
    /// Scheme and authority, then what comes before the key in a path.
    origin: String,
    host: String,
    root: String,
}

impl S3Backend {
    pub(super) fn new(registry: Registry, place: &S3Place) -> Self {
        let region = place.region.clone();
        let endpoint = place.endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint = endpoint.trim_end_matches('/');
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, root) = if place.path_style {
            (authority.to_owned(), format!("{base}/{}/", encoded(&place.bucket)))
        } else {
            (format!("{}.{authority}", place.bucket), format!("{base}/"))
        };
        let signer = place.access_key.clone().zip(place.secret_key.clone()).map(|(access_key, secret_key)| Signer {
            access_key,
            secret_key,
            session_token: place.session_token.clone(),
            region,
        });
        let origin = format!("{scheme}://{host}");
        let http = Http { registry, attempts: place.attempts };
        Self { http, place: place.clone(), signer, origin, host, root }
    }

    fn blob(&self, digest: &Digest) -> String {
        format!("{}{}{digest}", self.place.prefix, self.place.blobs_prefix)
    }

    fn send(
        &self,
        method: &Method,
        key: &str,
        headers: &[(&'static str, String)],
        body: Body<'_>,
        payload: &str,
        cancel: &CancelToken,
    ) -> Result<Download, RemoteError> {
        self.send_with(method, (key, ""), headers, body, payload, cancel)
    }

    /// The same with a query, its parts sorted and percent-encoded.
    fn send_with(
        &self,
        method: &Method,
        (key, query): (&str, &str),
        headers: &[(&'static str, String)],
        body: Body<'_>,
        payload: &str,
        cancel: &CancelToken,
    ) -> Result<Download, RemoteError> {
        let path = format!("{}{}", self.root, encoded(key));
        let mark = if query.is_empty() { "" } else { "?" };
        let make = || {
            let now = Timestamp::now();
            let headers = match &self.signer {
                Some(signer) => signer.sign(method.as_str(), &self.host, (&path, query), headers, payload, now),
                None => headers.to_vec(),
            };
            Request { method: method.clone(), address: format!("{}{path}{mark}{query}", self.origin), headers }
        };
        self.http.send(&action(method, key), &make, body, cancel)
    }

    fn get(&self, key: &str, cancel: &CancelToken) -> Result<Option<Download>, RemoteError> {
        let answer = self.send(&Method::GET, key, &[], Body::Nothing, EMPTY, cancel)?;
        match answer.status() {
            200 => Ok(Some(answer)),
            404 => Ok(None),
            _ => Err(refusal(&action(&Method::GET, key), answer)),
        }
    }

    fn put_object(&self, key: &str, body: Body<'_>, sha256: &str, cancel: &CancelToken) -> Result<(), RemoteError> {
        let headers = [("content-type", "application/octet-stream".to_owned())];
        let answer = self.send(&Method::PUT, key, &headers, body, sha256, cancel)?;
        if (200..300).contains(&answer.status()) { Ok(()) } else { Err(refusal(&action(&Method::PUT, key), answer)) }
    }

    /// Makes an object look new, for buckets whose rules remove what is old.
    fn touch(&self, key: &str, cancel: &CancelToken) -> Result<(), RemoteError> {
        let source = format!("/{}/{}", encoded(&self.place.bucket), encoded(key));
        // A copy onto itself has to change something.
        let headers = [
            ("x-amz-copy-source", source),
            ("x-amz-metadata-directive", "REPLACE".to_owned()),
            ("x-amz-meta-touched", Timestamp::now().as_second().to_string()),
        ];
        let answer = self.send(&Method::PUT, key, &headers, Body::Nothing, EMPTY, cancel)?;
        if answer.status() == 200 { Ok(()) } else { Err(refusal(&action(&Method::PUT, key), answer)) }
    }
}

fn action(method: &Method, key: &str) -> String {
    format!("{method} of object `{key}`")
}

/// SHA-256 of no bytes.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl Backend for S3Backend {
    fn name(&self) -> String {
        format!("s3://{}/{}", self.place.bucket, self.place.prefix)
    }

    fn manifest(&self, cancel: &CancelToken) -> Result<Option<Vec<u8>>, RemoteError> {
        let name = self.place.names.first().map_or("rbuild", String::as_str);
        let key = format!("{}{}{name}", self.place.prefix, self.place.manifests_prefix);
        match self.get(&key, cancel)? {
            Some(answer) => document(&action(&Method::GET, &key), answer).map(Some),
            None => Ok(None),
        }
    }

    fn open(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<Box<dyn Read + Send>, RemoteError> {
        match self.get(&self.blob(&blob.digest), cancel)? {
            Some(answer) => Ok(Box::new(answer.into_reader())),
            None => Err(RemoteError::Gone { digest: blob.digest.clone() }),
        }
    }

    fn has(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<bool, RemoteError> {
        let key = self.blob(&blob.digest);
        let answer = self.send(&Method::HEAD, &key, &[], Body::Nothing, EMPTY, cancel)?;
        match answer.status() {
            200 => {}
            404 => return Ok(false),
            _ => return Err(refusal(&action(&Method::HEAD, &key), answer)),
        }
        if answer.content_length().is_some_and(|length| length != blob.size) {
            return Ok(false);
        }
        let modified = answer.header("last-modified").and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        let age = modified.map(|time| Timestamp::now().as_second().saturating_sub(time.timestamp().as_second()));
        let limit = i64::try_from(self.place.touch_refresh.as_secs()).unwrap_or(i64::MAX);
        if age.is_some_and(|age| age > limit) {
            self.touch(&key, cancel)?;
        }
        Ok(true)
    }

    fn put(&self, blob: &BlobToPut<'_>, cancel: &CancelToken) -> Result<(), RemoteError> {
        let descriptor = blob.descriptor;
        if descriptor.size > multipart::PART {
            return self.put_in_parts(blob, cancel);
        }
        let body = Body::Source(blob.source, descriptor.size);
        self.put_object(&self.blob(&descriptor.digest), body, descriptor.digest.hex(), cancel)
    }

    fn put_manifest(&self, _: &Manifest, bytes: &[u8], cancel: &CancelToken) -> Result<(), RemoteError> {
        for name in &self.place.names {
            let key = format!("{}{}{name}", self.place.prefix, self.place.manifests_prefix);
            self.put_object(&key, Body::Bytes(bytes), Digest::sha256(bytes).hex(), cancel)?;
        }
        Ok(())
    }

    /// Rules of buckets remove objects, whoever names them.
    fn keeps(&self, _: &Descriptor) -> bool {
        false
    }

    fn forgets(&self) -> bool {
        true
    }

    fn workers(&self) -> usize {
        self.place.parallelism
    }
}

/// Where nobody says another one.
pub(crate) const TOUCH_REFRESH: Duration = Duration::from_secs(24 * 60 * 60);
