//! [`Http`]: requests to object stores, tried again where that may help.

use std::io::{self, Read};
use std::time::Duration;

use ureq::http::Method;

use crate::cancel::CancelToken;
use crate::registry::{Backoff, BlobSource, Download, DownloadError, Outgoing, OutgoingBody, Registry, retry_after};
use crate::remote::RemoteError;

/// Longest wait that a server may ask for.
const LONGEST: Duration = Duration::from_secs(20);

/// Bytes that are read of an answer that is a document.
const MOST: u64 = 8 << 20;

/// Makes requests.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) registry: Registry,
    /// How often a request is made, the first time included.
    pub(super) attempts: u32,
}

/// A request; it is made anew for each try, because signatures hold the time.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) address: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// What a request carries.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// So many bytes that can be opened again.
    Source(&'a BlobSource<'a>, u64),
}

impl Http {
    /// Makes a request until there is an answer that does not mean "later"; its status is the caller's to judge.
    pub(super) fn send(
        &self,
        action: &str,
        make: &dyn Fn() -> Request,
        body: Body<'_>,
        cancel: &CancelToken,
    ) -> Result<Download, RemoteError> {
        let mut backoff = Backoff::new(self.attempts.max(1)).telling(&self.registry.config().waits);
        loop {
            let failure = match self.once(make(), body, cancel) {
                Ok(answer) if matches!(answer.status(), 408 | 425 | 429 | 500 | 502 | 503 | 504) => {
                    let asked = answer.header("retry-after").and_then(retry_after).map(|wait| wait.min(LONGEST));
                    (refusal(action, answer), asked)
                }
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Network(reason)) => (RemoteError::Http { action: action.to_owned(), reason }, None),
            };
            let (error, asked) = failure;
            if !backoff.wait(asked, cancel)? {
                return Err(error);
            }
        }
    }

    fn once(&self, request: Request, body: Body<'_>, cancel: &CancelToken) -> Result<Download, Failure> {
        let Request { method, address, headers } = request;
        let mut stream: Box<dyn Read + Send>;
        let body = match body {
            Body::Nothing => OutgoingBody::Nothing,
            Body::Bytes(bytes) => OutgoingBody::Bytes(bytes),
            Body::Source(source, length) => {
                let failed = |source: io::Error| match source.downcast::<RemoteError>() {
                    Ok(error) => Failure::Final(error),
                    Err(source) => Failure::Final(RemoteError::NoFiles { reason: source.to_string() }),
                };
                stream = source().map_err(failed)?;
                OutgoingBody::Stream(&mut *stream, length)
            }
        };
        let outgoing = Outgoing { method, address, headers, body };
        self.registry.exchange(outgoing, cancel).map_err(|error| match error {
            DownloadError::Cancelled => Failure::Final(crate::cancel::Cancelled.into()),
            DownloadError::Failed(reason) | DownloadError::Broken(reason) => Failure::Network(reason),
        })
    }
}

enum Failure {
    Final(RemoteError),
    Network(String),
}

/// The error for a status that is not a success, with the beginning of what the server says.
pub(super) fn refusal(action: &str, answer: Download) -> RemoteError {
    let status = answer.status();
    let mut text = Vec::new();
    let _ = answer.into_reader().take(4096).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    // Object stores answer in XML with a code and a message.
    let inner = |tag: &str| text.split(&format!("<{tag}>")).nth(1)?.split('<').next().map(str::to_owned);
    let said = match (inner("Code"), inner("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text.lines().next().unwrap_or_default().trim().chars().take(200).collect(),
    };
    let reason = if said.is_empty() { format!("status {status}") } else { format!("status {status}: {said}") };
    RemoteError::Http { action: action.to_owned(), reason }
}

/// Reads an answer that is a document.
pub(super) fn document(action: &str, answer: Download) -> Result<Vec<u8>, RemoteError> {
    let mut bytes = Vec::new();
    let length = answer.content_length();
    let failed = |reason: String| RemoteError::Http { action: action.to_owned(), reason };
    answer.into_reader().take(MOST + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MOST {
        return Err(failed("it is larger than 8 MiB".to_owned()));
    }
    if length.is_some_and(|length| length != bytes.len() as u64) {
        return Err(failed("it broke off".to_owned()));
    }
    Ok(bytes)
}
