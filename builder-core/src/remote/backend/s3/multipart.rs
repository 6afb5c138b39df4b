//! Blobs that are sent in parts: one request may bring at most 5 GiB, and what failed is not sent from its beginning.
//!
//! Source: "Uploading and copying objects using multipart upload" and "Amazon S3 multipart upload limits".

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use ureq::http::Method;

use super::super::http::{Body, document, refusal};
use super::super::signature::encoded_part;
use super::{BlobToPut, EMPTY, S3Backend, action};
use crate::cancel::CancelToken;
use crate::lock::lock;
use crate::oci::Digest;
use crate::registry::BlobSource;
use crate::remote::RemoteError;

/// Bytes of a part, and of the largest blob that is sent whole. Parts have at least 5 MiB.
pub(super) const PART: u64 = 16 << 20;

/// Most parts of an object.
const MOST_PARTS: u64 = 10_000;

/// Instead of the digest of a body: only all parts together have one that is known.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

impl S3Backend {
    pub(super) fn put_in_parts(&self, blob: &BlobToPut<'_>, cancel: &CancelToken) -> Result<(), RemoteError> {
        let key = self.blob(&blob.descriptor.digest);
        let action = action(&Method::POST, &key);
        let body = Body::Nothing;
        let answer = self.send_with(&Method::POST, (&key, "uploads="), &[], body, EMPTY, cancel)?;
        if answer.status() != 200 {
            return Err(refusal(&action, answer));
        }
        let said = document(&action, answer)?;
        let upload = element(&said, "UploadId").ok_or_else(|| RemoteError::Http {
            action: action.clone(),
            reason: "the answer has no `UploadId`".to_owned(),
        })?;
        let upload = format!("uploadId={}", encoded_part(&upload));
        let done = self.put_parts(blob, &key, &upload, cancel).and_then(|tags| self.join(&key, &upload, &tags, cancel));
        if done.is_err() {
            // Parts of uploads that nobody ends are paid for. With a token of its own: the build may be cancelled.
            let never = CancelToken::new();
            let _ = self.send_with(&Method::DELETE, (&key, &upload), &[], Body::Nothing, EMPTY, &never);
        }
        done
    }

    /// Sends the parts one after the other from one stream; gives their tags.
    fn put_parts(
        &self,
        blob: &BlobToPut<'_>,
        key: &str,
        upload: &str,
        cancel: &CancelToken,
    ) -> Result<Vec<String>, RemoteError> {
        let size = blob.descriptor.size;
        let part = size.div_ceil(MOST_PARTS).max(PART);
        let stream = Shared::default();
        let mut tags = Vec::new();
        for (number, offset) in (1_u64..).zip((0..size).step_by(usize::try_from(part).unwrap_or(usize::MAX))) {
            let length = part.min(size - offset);
            let source = || stream.at(offset, length, blob.source);
            let query = format!("partNumber={number}&{upload}");
            let body = Body::Source(&source, length);
            let answer = self.send_with(&Method::PUT, (key, &query), &[], body, UNSIGNED, cancel)?;
            let action = action(&Method::PUT, &format!("{key}, part {number}"));
            if answer.status() != 200 {
                return Err(refusal(&action, answer));
            }
            let tag = answer.header("etag").map(str::to_owned);
            let reason = || "the answer has no `ETag`".to_owned();
            tags.push(tag.ok_or_else(|| RemoteError::Http { action, reason: reason() })?);
        }
        Ok(tags)
    }

    fn join(&self, key: &str, upload: &str, tags: &[String], cancel: &CancelToken) -> Result<(), RemoteError> {
        let part = |(number, tag): (usize, &String)| {
            let tag = tag.replace('&', "&amp;").replace('<', "&lt;");
            format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", number + 1)
        };
        let parts: String = tags.iter().enumerate().map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let digest = Digest::sha256(body.as_bytes());
        let bytes = Body::Bytes(body.as_bytes());
        let answer = self.send_with(&Method::POST, (key, upload), &[], bytes, digest.hex(), cancel)?;
        let action = action(&Method::POST, key);
        if answer.status() != 200 {
            return Err(refusal(&action, answer));
        }
        // The status is sent before it is known how it ends.
        let said = document(&action, answer)?;
        match element(&said, "Code") {
            Some(reason) => Err(RemoteError::Http { action, reason }),
            None => Ok(()),
        }
    }
}

/// The text of the first element with this name.
fn element(xml: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(xml);
    text.split(&format!("<{name}>")).nth(1)?.split('<').next().map(str::to_owned)
}

/// A stream that one part after the other is read from; it is opened again only for a part that is sent again.
#[derive(Default, Clone)]
struct Shared(Arc<Mutex<Position>>);

#[derive(Default)]
struct Position {
    stream: Option<Box<dyn Read + Send>>,
    at: u64,
}

impl Shared {
    fn at(&self, offset: u64, length: u64, source: &BlobSource<'_>) -> io::Result<Box<dyn Read + Send>> {
        let mut position = lock(&self.0);
        if position.stream.is_none() || position.at != offset {
            let mut stream = source()?;
            io::copy(&mut (&mut stream).take(offset), &mut io::sink())?;
            *position = Position { stream: Some(stream), at: offset };
        }
        Ok(Box::new(Part { shared: self.clone(), left: length }))
    }
}

struct Part {
    shared: Shared,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let mut position = lock(&self.shared.0);
        let Some(stream) = &mut position.stream else { return Ok(0) };
        let length = stream.read(&mut buffer[..most])?;
        position.at += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_come_again() {
        let bytes: Vec<u8> = (0..100).collect();
        let opened = std::sync::atomic::AtomicUsize::new(0);
        let source = || {
            opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read + Send>)
        };
        let shared = Shared::default();
        let read = |offset: u64, length: u64, most: u64| {
            let mut part = Vec::new();
            let stream = shared.at(offset, length, &source).expect("opened");
            stream.take(most).read_to_end(&mut part).expect("read");
            part
        };
        assert_eq!(read(0, 40, 100), bytes[..40]);
        assert_eq!(read(40, 40, 7), bytes[40..47], "it breaks off");
        assert_eq!(read(40, 40, 100), bytes[40..80], "and is sent again");
        assert_eq!(read(80, 40, 100), bytes[80..]);
        assert_eq!(opened.into_inner(), 2);
    }

    #[test]
    fn answers_are_read() {
        let xml = b"<R><Bucket>b</Bucket><UploadId>a/b+c</UploadId></R>";
        assert_eq!(element(xml, "UploadId").as_deref(), Some("a/b+c"));
        assert_eq!(element(xml, "Code"), None);
    }
}
