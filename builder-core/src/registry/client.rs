//! [`Registry`], and how one request becomes an answer: retries around authorization around redirects.

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Arc, Mutex};

use ureq::http::Method;

use super::auth::{Access, AuthState};
use super::config::RegistryConfig;
use super::connection::{Again, Connections, Fault, Request, Response};
use super::endpoint::{Endpoint, Security, is_insecure};
use super::error::{RegistryError, one_line};
use super::retry::{Backoff, retry_after};
use super::sending::Sending;
use super::url::Url;
use crate::cancel::CancelToken;
use crate::lock::lock;

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;

/// Bytes that are read of an answer that says what went wrong.
const MAX_ERROR: u64 = 64 << 10;

/// A client for registries. Clones share connections, tokens and what was learned; calls can be made from any thread.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: RegistryConfig,
    pub(super) connections: Connections,
    pub(super) auth: Mutex<AuthState>,
    /// Shared with clients that were made of this one.
    pub(super) sending: Arc<Sending>,
    /// Insecure registries that turned out to speak http.
    plain: Mutex<HashSet<String>>,
}

/// One request to an endpoint.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) access: &'a Access,
    /// What is asked for, for messages: `a manifest`.
    pub(super) action: &'a str,
    pub(super) method: Method,
    pub(super) target: Target<'a>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<&'a [u8]>,
    pub(super) cancel: &'a CancelToken,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(super) enum Target<'a> {
    /// Below `/v2/` of the endpoint.
    Path(String),
    /// Where an answer of the endpoint pointed to.
    Url(&'a Url),
}

/// Why a try gave no answer that can be used.
#[derive(Debug)]
pub(super) enum Failure {
    Fault(Fault),
    Error(RegistryError),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Error(error)
    }
}

impl Registry {
    /// A client that may use what `config` says. Nothing is read and no connection made before the first request.
    pub fn new(config: RegistryConfig) -> Self {
        Self::with(config, Arc::default())
    }

    /// Another client, which may use what `config` says, that sends nothing which this one sends or has sent.
    pub(crate) fn with_config(&self, config: RegistryConfig) -> Self {
        Self::with(config, Arc::clone(&self.inner.sending))
    }

    fn with(config: RegistryConfig, sending: Arc<Sending>) -> Self {
        let inner = Inner {
            config,
            connections: Connections::default(),
            auth: Mutex::default(),
            sending,
            plain: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What the client was made with.
    pub fn config(&self) -> &RegistryConfig {
        &self.inner.config
    }
}

impl<'a> Call<'a> {
    pub(super) fn get(
        endpoint: &'a Endpoint,
        access: &'a Access,
        action: &'a str,
        path: String,
        cancel: &'a CancelToken,
    ) -> Self {
        let target = Target::Path(path);
        Self { endpoint, access, action, method: Method::GET, target, headers: Vec::new(), body: None, cancel }
    }

    pub(super) fn with_method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn with_body(mut self, body: &'a [u8]) -> Self {
        self.body = Some(body);
        self
    }

    /// The error for an answer of the right protocol that makes no sense.
    pub(super) fn nonsense(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Protocol {
            registry: self.endpoint.domain.clone(),
            action: self.action.to_owned(),
            reason: reason.into(),
        }
    }

    /// The error for a status that is not a success, with what the body says.
    pub(super) fn refusal(&self, response: Response) -> RegistryError {
        let status = response.status();
        let registry = self.endpoint.domain.clone();
        let subject = self.access.subject.clone();
        let message = message(response);
        match status {
            401 => RegistryError::Unauthorized { registry, subject, untrusted_realm: None },
            429 => RegistryError::RateLimited { registry, message },
            _ => RegistryError::Status { registry, action: self.action.to_owned(), status, message },
        }
    }
}

impl Inner {
    /// Makes a request until there is an answer, within the bounds of retrying. Answers that mean "later" are retried
    /// and become errors; any other status is the caller's to judge, except 401.
    pub(super) fn call(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let mut backoff = self.config.backoff();
        loop {
            match self.try_call(call, None) {
                Ok(response) if is_temporary(response.status()) => {
                    let asked = response.header("retry-after").and_then(retry_after);
                    if !backoff.wait(asked, call.cancel)? {
                        return Err(call.refusal(response));
                    }
                }
                Ok(response) => return Ok(response),
                Err(failure) => after_failure(failure, call.endpoint, &mut backoff, call.cancel)?,
            }
        }
    }

    /// Makes a request once; once more if the credentials that were sent are not, or no longer, the right ones.
    ///
    /// A `stream` can't be sent again: then the second try is the caller's, who gets the 401.
    pub(super) fn try_call(&self, call: &Call<'_>, stream: Option<(&mut dyn Read, u64)>) -> Result<Response, Failure> {
        let sent = self.authorization(call.endpoint, call.access, call.cancel)?;
        let streamed = stream.is_some();
        let response = self.send(call, sent.as_deref(), stream)?;
        if response.status() != 401 || !self.owns(call.endpoint, &response.url) {
            return Ok(response);
        }
        let fresh = self.answer_challenge(call, &response, sent.as_deref())?;
        if streamed {
            return Ok(response);
        }
        let response = self.send(call, Some(&fresh), None)?;
        if response.status() == 401 {
            return Err(self.denied(call.endpoint, call.access, call.cancel)?.into());
        }
        Ok(response)
    }

    /// Sends a request and follows redirects, with the authorization going to the endpoint only.
    fn send(
        &self,
        call: &Call<'_>,
        authorization: Option<&str>,
        mut stream: Option<(&mut dyn Read, u64)>,
    ) -> Result<Response, Failure> {
        let url = match &call.target {
            Target::Url(url) => (*url).clone(),
            Target::Path(path) => url_of(call.endpoint, path, self.speaks_https(call.endpoint))?,
        };
        let request =
            |url| Request { method: call.method.clone(), url, headers: call.headers.clone(), body: call.body };
        let plain_is_allowed = call.endpoint.security == Security::Insecure && url.is_https();
        let body = stream.as_mut().map(|(reader, length)| (&mut **reader as &mut dyn Read, *length));
        let first = self.follow(call.endpoint, request(url), authorization, body, call.cancel);
        match (first, &call.target) {
            (Err(Fault::Tls(_) | Fault::Network { .. }), Target::Path(path))
                if plain_is_allowed && stream.is_none() =>
            {
                let url = url_of(call.endpoint, path, false)?;
                // No credentials before the registry has shown that it speaks http at all.
                let response = self.follow(call.endpoint, request(url), None, None, call.cancel)?;
                lock(&self.plain).insert(call.endpoint.authority.clone());
                Ok(response)
            }
            (result, _) => Ok(result?),
        }
    }

    /// Sends one request, going where redirects lead: at most ten times, never from https to http.
    pub(super) fn follow(
        &self,
        endpoint: &Endpoint,
        mut request: Request<'_>,
        authorization: Option<&str>,
        mut stream: Option<(&mut dyn Read, u64)>,
        cancel: &CancelToken,
    ) -> Result<Response, Fault> {
        let plain_headers = request.headers.clone();
        let repeatable = stream.is_none() && request.body.is_none_or(<[u8]>::is_empty);
        for _ in 0..=MAX_REDIRECTS {
            request.headers.clone_from(&plain_headers);
            if let Some(authorization) = authorization
                && self.owns(endpoint, &request.url)
            {
                request.headers.push(("authorization", authorization.to_owned()));
            }
            let verified = !is_insecure(request.url.authority(), &self.config);
            let response = self.connections.exchange(&self.config, verified, &request, stream.take(), cancel)?;
            let follows = match response.status() {
                301..=303 => matches!(request.method, Method::GET | Method::HEAD),
                307 | 308 => repeatable,
                _ => false,
            };
            if !follows {
                return Ok(response);
            }
            let location = response.header("location").ok_or(Fault::Redirect("the redirect leads nowhere"))?;
            let next = request.url.join(location).map_err(Fault::Redirect)?;
            if request.url.is_https() && !next.is_https() {
                return Err(Fault::Redirect("the redirect leads from https to http"));
            }
            request.url = next;
        }
        Err(Fault::Redirect("there are more than 10 redirects"))
    }

    /// Says whether an address is the endpoint's own: same scheme, host and port.
    pub(super) fn owns(&self, endpoint: &Endpoint, url: &Url) -> bool {
        url_of(endpoint, "", self.speaks_https(endpoint)).is_ok_and(|own| own.origin() == url.origin())
    }

    pub(super) fn speaks_https(&self, endpoint: &Endpoint) -> bool {
        match endpoint.security {
            Security::Https => true,
            Security::Http => false,
            Security::Insecure => !lock(&self.plain).contains(&endpoint.authority),
        }
    }

    /// Resolves the `Location` of an answer that belongs to an upload.
    pub(super) fn location(&self, call: &Call<'_>, response: &Response) -> Result<Url, RegistryError> {
        let location = response.header("location").ok_or_else(|| call.nonsense("it has no location"))?;
        let url = response.url.join(location).map_err(|reason| call.nonsense(format!("its location: {reason}")))?;
        if url.is_https() || !self.speaks_https(call.endpoint) {
            return Ok(url);
        }
        // A registry behind a proxy that ends TLS often believes that it is spoken to over http.
        if url.host() == response.url.host() {
            return Ok(url.upgraded());
        }
        Err(call.nonsense("its location leads from https to http"))
    }
}

/// Waits after a failure that may pass, or makes it final.
pub(super) fn after_failure(
    failure: Failure,
    endpoint: &Endpoint,
    backoff: &mut Backoff,
    cancel: &CancelToken,
) -> Result<(), RegistryError> {
    let fault = match failure {
        Failure::Error(error) => return Err(error),
        Failure::Fault(fault) => fault,
    };
    let error = fault_error(fault, endpoint, cancel);
    match error {
        (error, Again::No) => Err(error),
        (error, Again::Once) => {
            if backoff.once() && backoff.wait(None, cancel)? {
                Ok(())
            } else {
                Err(error)
            }
        }
        (error, Again::Yes) => {
            if backoff.wait(None, cancel)? {
                Ok(())
            } else {
                Err(error)
            }
        }
    }
}

/// Names the registry in a fault, and says whether it may pass.
fn fault_error(fault: Fault, endpoint: &Endpoint, cancel: &CancelToken) -> (RegistryError, Again) {
    if let Err(cancelled) = cancel.check() {
        return (cancelled.into(), Again::No);
    }
    let registry = endpoint.domain.clone();
    match fault {
        Fault::Cancelled => (crate::cancel::Cancelled.into(), Again::No),
        Fault::Network { reason, again } => (RegistryError::Unreachable { registry, reason: one_line(&reason) }, again),
        Fault::Tls(reason) => (RegistryError::Tls { registry, reason: one_line(&reason) }, Again::No),
        Fault::Redirect(reason) => {
            let action = "a redirected request".to_owned();
            (RegistryError::Protocol { registry, action, reason: reason.to_owned() }, Again::No)
        }
    }
}

/// The address of `path` at an endpoint.
fn url_of(endpoint: &Endpoint, path: &str, https: bool) -> Result<Url, RegistryError> {
    let scheme = if https { "https" } else { "http" };
    Url::parse(&format!("{scheme}://{}/v2/{path}", endpoint.authority)).map_err(|reason| RegistryError::Config {
        what: format!("registry `{}`", endpoint.domain),
        reason: reason.to_owned(),
    })
}

/// Says whether a status means that the same request may work later.
pub(crate) fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// What an answer says about its failure, on one line (distribution-spec, Error Codes).
fn message(response: Response) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let bytes = response.read(MAX_ERROR).ok().flatten().unwrap_or_default();
    if let Ok(errors) = serde_json::from_slice::<Errors>(&bytes)
        && let Some(first) = errors.errors.first()
    {
        return one_line(format!("{} {}", first.code, first.message).trim());
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<'));
    match line {
        Some(line) => one_line(line),
        None => ureq::http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("no reason given")
            .to_lowercase(),
    }
}
