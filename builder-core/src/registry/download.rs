//! [`Registry::download`]: files at any address, through the same connections.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::http::Method;

use super::client::Registry;
use super::connection::{Again, Fault, Request, Response};
use super::endpoint::is_insecure;
use super::error::one_line;
use super::url::Url;
use crate::cancel::{CancelToken, Cancelled};

/// Redirects that are followed for one file.
const MAX_REDIRECTS: usize = 10;

/// An answer to a request for a file, its body to be read.
#[derive(Debug)]
pub(crate) struct Download {
    response: Response,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum DownloadError {
    Cancelled,
    /// Something that a person can read.
    Failed(String),
    /// The same of a connection that may hold the next time.
    Broken(String),
}

impl Download {
    pub(crate) fn status(&self) -> u16 {
        self.response.status()
    }

    /// A header by its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.header(name)
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.response.content_length()
    }

    pub(crate) fn into_reader(self) -> impl Read + Send + Sync + 'static {
        self.response.into_reader()
    }
}

/// A request to a server that is no registry.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) address: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: OutgoingBody<'a>,
}

/// What a request carries.
pub(crate) enum OutgoingBody<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// A stream of so many bytes.
    Stream(&'a mut dyn Read, u64),
}

impl Registry {
    /// Makes one request: with the client's proxies, certificates and patience. No redirect is followed, no
    /// credentials but those in `headers` go anywhere.
    pub(crate) fn exchange(&self, outgoing: Outgoing<'_>, cancel: &CancelToken) -> Result<Download, DownloadError> {
        let url = Url::parse(&outgoing.address).map_err(|reason| DownloadError::Failed(reason.to_owned()))?;
        let config = self.config();
        let verified = !is_insecure(url.authority(), config);
        let (body, stream) = match outgoing.body {
            OutgoingBody::Nothing => (None, None),
            OutgoingBody::Bytes(bytes) => (Some(bytes), None),
            OutgoingBody::Stream(stream, length) => (None, Some((stream, length))),
        };
        let request = Request { method: outgoing.method, url, headers: outgoing.headers, body };
        let answer = self.inner.connections.exchange(config, verified, &request, stream, cancel);
        Ok(Download { response: answer.map_err(|fault| explain(fault, cancel))? })
    }

    /// Asks for the file at `address`: with the client's proxies, certificates and patience, and following redirects.
    /// A user and password in the address, and `authorization` among `headers`, go to its own host only.
    pub(crate) fn download(
        &self,
        address: &str,
        headers: &[(&'static str, String)],
        cancel: &CancelToken,
    ) -> Result<Download, DownloadError> {
        let failed = |reason: &str| DownloadError::Failed(reason.to_owned());
        let (address, authorization) = without_user(address);
        let mut url = Url::parse(&address).map_err(failed)?;
        let origin = url.origin();
        let config = self.config();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = headers.to_vec();
            if url.origin() != origin {
                headers.retain(|(name, _)| *name != "authorization");
            } else if let Some(authorization) = &authorization
                && !headers.iter().any(|(name, _)| *name == "authorization")
            {
                headers.push(("authorization", authorization.clone()));
            }
            let verified = !is_insecure(url.authority(), config);
            let request = Request { method: Method::GET, url: url.clone(), headers, body: None };
            let answer = self.inner.connections.exchange(config, verified, &request, None, cancel);
            let response = answer.map_err(|fault| explain(fault, cancel))?;
            if !matches!(response.status(), 301..=303 | 307 | 308) {
                return Ok(Download { response });
            }
            let location = response.header("location").ok_or_else(|| failed("the redirect leads nowhere"))?;
            let next = url.join(location).map_err(failed)?;
            if url.is_https() && !next.is_https() {
                return Err(failed("the redirect leads from https to http"));
            }
            url = next;
        }
        Err(failed("there are more than 10 redirects"))
    }
}

fn explain(fault: Fault, cancel: &CancelToken) -> DownloadError {
    if let Err(Cancelled) = cancel.check() {
        return DownloadError::Cancelled;
    }
    match fault {
        Fault::Cancelled => DownloadError::Cancelled,
        Fault::Network { reason, again: Again::Yes } => DownloadError::Broken(one_line(&reason)),
        Fault::Network { reason, .. } | Fault::Tls(reason) => DownloadError::Failed(one_line(&reason)),
        Fault::Redirect(reason) => DownloadError::Failed(reason.to_owned()),
    }
}

/// Takes user and password out of an address and makes a header of them (RFC 7617); a fragment goes as well.
fn without_user(address: &str) -> (String, Option<String>) {
    let address = address.split('#').next().unwrap_or_default();
    let Some((scheme, rest)) = address.split_once("://") else { return (address.to_owned(), None) };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else { return (address.to_owned(), None) };
    let header = format!("Basic {}", STANDARD.encode(unescaped(user)));
    (format!("{scheme}://{host}{path}"), Some(header))
}

/// Undoes percent-encoding.
pub(crate) fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| bytes[at] == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_become_a_header() {
        let check = |address: &str, expected: &str, user: Option<&str>| {
            let header = user.map(|user| format!("Basic {}", STANDARD.encode(user)));
            assert_eq!(without_user(address), (expected.to_owned(), header), "{address}");
        };
        check("http://h/a@b?c#d", "http://h/a@b?c", None);
        check("https://u:p@h:1/a", "https://h:1/a", Some("u:p"));
        check("https://u%40x:%zz%@h", "https://h", Some("u@x:%zz%"));
        check("https://u:%+f@h", "https://h", Some("u:%+f"));
        check("nonsense", "nonsense", None);
    }
}
