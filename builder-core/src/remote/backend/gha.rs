//! `type=gha`: the cache service of GitHub Actions, second version.
//!
//! Entries never change, and GitHub removes those that nobody asked for lately. A blob is an entry under its digest. Each
//! manifest is a new entry; asked for their common beginning, the service gives the newest.
//!
//! Source: `results/api/v1/cache.proto` of the Actions toolkit, spoken as JSON over Twirp; "Put Blob" of Azure storage.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Mutex;

use jiff::Timestamp;
use ureq::http::Method;

use super::http::{Body, Http, Request, document, refusal};
use super::signature::encoded;
use super::{Backend, BlobToPut};
use crate::cancel::CancelToken;
use crate::lock::lock;
use crate::oci::{Descriptor, Digest, Manifest};
use crate::registry::Registry;
use crate::remote::{GhaPlace, RemoteError};

const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";

/// How often a request is made: the service limits its rate, and says when to come back.
const ATTEMPTS: u32 = 6;

/// Entries in one page of a list.
const PAGE: usize = 100;

#[derive(Debug)]
pub(super) struct GhaBackend {
    http: Http,
    place: GhaPlace,
    /// Keys of blobs, where the list of entries can be had.
    listed: Mutex<Option<HashSet<String>>>,
}

#[derive(serde::Deserialize)]
struct Created {
    #[serde(default)]
    ok: bool,
    #[serde(default, alias = "signedUploadUrl")]
    signed_upload_url: String,
}

#[derive(serde::Deserialize)]
struct Found {
    #[serde(default)]
    ok: bool,
    #[serde(default, alias = "signedDownloadUrl")]
    signed_download_url: String,
}

#[derive(serde::Deserialize)]
struct List {
    actions_caches: Vec<Listed>,
}

#[derive(serde::Deserialize)]
struct Listed {
    key: String,
}

impl GhaBackend {
    pub(super) fn new(registry: Registry, place: &GhaPlace) -> Self {
        Self { http: Http { registry, attempts: ATTEMPTS }, place: place.clone(), listed: Mutex::default() }
    }

    fn key(digest: &Digest) -> String {
        format!("rbuild-blob-{digest}")
    }

    /// The beginning of the keys of manifests. No scope is the beginning of another one.
    fn manifests(&self) -> String {
        format!("rbuild-index-{}-", &Digest::sha256(self.place.scope.as_bytes()).hex()[..16])
    }

    /// What an entry has to have in common with the request for it.
    fn version() -> String {
        Digest::sha256(b"rbuild cache 1").hex().to_owned()
    }

    /// Calls the service; `None` for an entry that is there already, or not there.
    fn call(
        &self,
        method: &str,
        body: &serde_json::Value,
        cancel: &CancelToken,
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        let json = body.to_string();
        let address = format!("{}/{SERVICE}/{method}", self.place.url.trim_end_matches('/'));
        let make = || Request {
            method: Method::POST,
            address: address.clone(),
            headers: vec![
                ("authorization", format!("Bearer {}", self.place.token)),
                ("content-type", "application/json".to_owned()),
            ],
        };
        let answer = self.http.send(method, &make, Body::Bytes(json.as_bytes()), cancel)?;
        match answer.status() {
            200 => document(method, answer).map(Some),
            404 | 409 => Ok(None),
            _ => Err(refusal(method, answer)),
        }
    }

    /// The address of the newest entry with this key or, if there is none, this beginning.
    fn find(&self, key: &str, beginning: &[String], cancel: &CancelToken) -> Result<Option<String>, RemoteError> {
        let body = serde_json::json!({ "key": key, "restore_keys": beginning, "version": Self::version() });
        let Some(bytes) = self.call("GetCacheEntryDownloadURL", &body, cancel)? else { return Ok(None) };
        let found: Found = parsed(&bytes)?;
        Ok(Some(found.signed_download_url).filter(|address| found.ok && !address.is_empty()))
    }

    fn get(&self, address: &str, cancel: &CancelToken) -> Result<crate::registry::Download, RemoteError> {
        let make = || Request { method: Method::GET, address: address.to_owned(), headers: Vec::new() };
        let answer = self.http.send("fetching an entry", &make, Body::Nothing, cancel)?;
        if answer.status() == 200 { Ok(answer) } else { Err(refusal("fetching an entry", answer)) }
    }

    fn save(&self, key: &str, body: Body<'_>, size: u64, cancel: &CancelToken) -> Result<(), RemoteError> {
        let version = Self::version();
        let create = serde_json::json!({ "key": key, "version": version });
        let Some(bytes) = self.call("CreateCacheEntry", &create, cancel)? else { return Ok(()) };
        let created: Created = parsed(&bytes)?;
        if !created.ok || created.signed_upload_url.is_empty() {
            // Another build is sending it, or has sent it.
            return Ok(());
        }
        let make = || Request {
            method: Method::PUT,
            address: created.signed_upload_url.clone(),
            headers: vec![
                ("x-ms-blob-type", "BlockBlob".to_owned()),
                ("content-type", "application/octet-stream".to_owned()),
            ],
        };
        let answer = self.http.send("sending an entry", &make, body, cancel)?;
        if !(200..300).contains(&answer.status()) {
            return Err(refusal("sending an entry", answer));
        }
        let finalize = serde_json::json!({ "key": key, "version": version, "size_bytes": size.to_string() });
        self.call("FinalizeCacheEntryUpload", &finalize, cancel)?;
        Ok(())
    }

    /// The keys of all blobs, as GitHub's API lists them.
    fn list(&self, repository: &str, token: &str, cancel: &CancelToken) -> Result<HashSet<String>, RemoteError> {
        const ACTION: &str = "listing entries";
        let mut keys = HashSet::new();
        for page in 1.. {
            let query = format!("key=rbuild-blob-&per_page={PAGE}&page={page}");
            let base = self.place.api.trim_end_matches('/');
            let address = format!("{base}/repos/{}/actions/caches?{query}", encoded(repository));
            let make = || Request {
                method: Method::GET,
                address: address.clone(),
                headers: vec![("authorization", format!("Bearer {token}"))],
            };
            let answer = self.http.send(ACTION, &make, Body::Nothing, cancel)?;
            if answer.status() != 200 {
                return Err(refusal(ACTION, answer));
            }
            let list: List = parsed(&document(ACTION, answer)?)?;
            let count = list.actions_caches.len();
            keys.extend(list.actions_caches.into_iter().map(|entry| entry.key));
            if count < PAGE {
                break;
            }
        }
        Ok(keys)
    }
}

fn parsed<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(bytes).map_err(|error| RemoteError::Http {
        action: "the cache service".to_owned(),
        reason: format!("it answers something else: {error}"),
    })
}

impl Backend for GhaBackend {
    fn name(&self) -> String {
        format!("gha:{}", self.place.scope)
    }

    fn manifest(&self, cancel: &CancelToken) -> Result<Option<Vec<u8>>, RemoteError> {
        let beginning = self.manifests();
        match self.find(&format!("{beginning}newest"), std::slice::from_ref(&beginning), cancel)? {
            Some(address) => document("fetching an entry", self.get(&address, cancel)?).map(Some),
            None => Ok(None),
        }
    }

    fn open(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<Box<dyn Read + Send>, RemoteError> {
        match self.find(&Self::key(&blob.digest), &[], cancel)? {
            Some(address) => Ok(Box::new(self.get(&address, cancel)?.into_reader())),
            None => Err(RemoteError::Gone { digest: blob.digest.clone() }),
        }
    }

    fn has(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<bool, RemoteError> {
        let key = Self::key(&blob.digest);
        if let Some((repository, token)) = &self.place.repository {
            let mut listed = lock(&self.listed);
            if listed.is_none() {
                *listed = Some(self.list(repository, token, cancel)?);
            }
            return Ok(listed.as_ref().is_some_and(|keys| keys.contains(&key)));
        }
        Ok(self.find(&key, &[], cancel)?.is_some())
    }

    fn put(&self, blob: &BlobToPut<'_>, cancel: &CancelToken) -> Result<(), RemoteError> {
        let size = blob.descriptor.size;
        self.save(&Self::key(&blob.descriptor.digest), Body::Source(blob.source, size), size, cancel)
    }

    fn put_manifest(&self, _: &Manifest, bytes: &[u8], cancel: &CancelToken) -> Result<(), RemoteError> {
        let now = Timestamp::now().as_millisecond();
        let key = format!("{}{now:014}-{}", self.manifests(), Digest::sha256(bytes).short());
        self.save(&key, Body::Bytes(bytes), bytes.len() as u64, cancel)
    }

    /// GitHub removes entries, whoever names them.
    fn keeps(&self, _: &Descriptor) -> bool {
        false
    }
}
