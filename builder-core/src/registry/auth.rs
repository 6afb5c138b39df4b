//! Authorization: which header lets a request in, and tokens.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::http::Method;

use super::challenge::Challenge;
use super::client::{Call, Inner, after_failure, is_temporary};
use super::connection::{Request, Response};
use super::credentials::{self, Credential};
use super::endpoint::Endpoint;
use super::error::{RegistryError, one_line};
use super::retry::retry_after;
use super::url::{Url, escape, host_of};
use crate::cancel::CancelToken;
use crate::lock::lock;

/// Token servers on another host than their registry to which passwords may go: (registry, token server).
const KNOWN_TOKEN_HOSTS: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// How long a token lives if its server does not say (the token protocol's default).
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// How much sooner a token is given up, for the clocks and the way.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// Largest answer of a token server that is read, in bytes.
const MAX_TOKEN: u64 = 1 << 20;

/// Name of this program at token servers.
const CLIENT_ID: &str = "rbuild";

/// What a request needs to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    /// `repository:NAME:ACTIONS`, sorted.
    scopes: Vec<String>,
    /// Path of the repository, for finding credentials.
    path: String,
    /// What is accessed, for messages.
    pub(super) subject: String,
}

impl Access {
    pub(super) fn pull(endpoint: &Endpoint, path: &str) -> Self {
        Self::of(endpoint, path, &[(path, "pull")])
    }

    pub(super) fn push(endpoint: &Endpoint, path: &str) -> Self {
        Self::of(endpoint, path, &[(path, "pull,push")])
    }

    /// Pushing to `path` what `from` has.
    pub(super) fn mount(endpoint: &Endpoint, path: &str, from: &str) -> Self {
        Self::of(endpoint, path, &[(path, "pull,push"), (from, "pull")])
    }

    /// The registry as a whole.
    pub(super) fn base(endpoint: &Endpoint) -> Self {
        Self { scopes: Vec::new(), path: String::new(), subject: endpoint.domain.clone() }
    }

    fn of(endpoint: &Endpoint, path: &str, scopes: &[(&str, &str)]) -> Self {
        let mut scopes: Vec<String> = scopes
            .iter()
            .map(|(path, actions)| format!("repository:{}:{actions}", endpoint.repository(path)))
            .collect();
        scopes.sort();
        Self { scopes, path: path.to_owned(), subject: endpoint.repository(path) }
    }
}

/// What was learned about registries, and tokens that still live.
#[derive(Default)]
pub(super) struct AuthState {
    /// By authority: how the registry wants to be asked.
    challenges: HashMap<String, Challenge>,
    /// By authority and scopes.
    tokens: HashMap<(String, String), Token>,
    /// By domain and path: so that a helper program runs once.
    credentials: HashMap<(String, String), Option<Credential>>,
}

struct Token {
    value: String,
    expires: Instant,
}

impl std::fmt::Debug for AuthState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthState({} challenges, {} tokens)", self.challenges.len(), self.tokens.len())
    }
}

impl Inner {
    fn auth(&self) -> MutexGuard<'_, AuthState> {
        lock(&self.auth)
    }

    /// Forgets credentials and tokens, because they may have changed.
    pub(super) fn forget_credentials(&self) {
        let mut auth = self.auth();
        auth.credentials.clear();
        auth.tokens.clear();
    }

    /// The value of the `Authorization` header, as far as the registry is known to want one.
    pub(super) fn authorization(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        cancel: &CancelToken,
    ) -> Result<Option<String>, RegistryError> {
        let challenge = self.auth().challenges.get(&endpoint.authority).cloned();
        match challenge {
            None => Ok(None),
            Some(challenge) => self.header(endpoint, access, &challenge, cancel),
        }
    }

    /// The header that answers a 401, after forgetting what was `sent` in vain.
    pub(super) fn answer_challenge(
        &self,
        call: &Call<'_>,
        response: &Response,
        sent: Option<&str>,
    ) -> Result<String, RegistryError> {
        let challenge = Challenge::best(response.headers("www-authenticate"))
            .ok_or_else(|| call.nonsense("it asks for credentials of an unknown kind"))?;
        {
            let mut auth = self.auth();
            auth.tokens.remove(&token_key(call.endpoint, call.access));
            auth.challenges.insert(call.endpoint.authority.clone(), challenge.clone());
        }
        match self.header(call.endpoint, call.access, &challenge, call.cancel)? {
            Some(fresh) if Some(&*fresh) != sent => Ok(fresh),
            _ => Err(self.denied(call.endpoint, call.access, call.cancel)?),
        }
    }

    /// The error for a request that is not allowed with what there is.
    pub(super) fn denied(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        cancel: &CancelToken,
    ) -> Result<RegistryError, RegistryError> {
        let (registry, subject) = (endpoint.domain.clone(), access.subject.clone());
        if self.credential(endpoint, access, cancel)?.is_none() {
            return Ok(RegistryError::Unauthorized { registry, subject, untrusted_realm: None });
        }
        let realm = match self.auth().challenges.get(&endpoint.authority) {
            Some(Challenge::Bearer { realm, .. }) => Url::parse(realm).ok(),
            _ => None,
        };
        Ok(match realm.filter(|realm| !self.trusts(endpoint, realm)) {
            Some(realm) => {
                let untrusted_realm = Some(realm.authority().to_owned());
                RegistryError::Unauthorized { registry, subject, untrusted_realm }
            }
            None => RegistryError::Refused { registry, subject },
        })
    }

    fn header(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        challenge: &Challenge,
        cancel: &CancelToken,
    ) -> Result<Option<String>, RegistryError> {
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return Ok(match self.credential(endpoint, access, cancel)? {
                Some(Credential::Password { username, password }) => Some(basic(&username, &password)),
                Some(Credential::RegistryToken(token)) => Some(format!("Bearer {token}")),
                Some(Credential::IdentityToken(_)) | None => None,
            });
        };
        let key = token_key(endpoint, access);
        if let Some(token) = self.auth().tokens.get(&key)
            && token.expires > Instant::now()
        {
            return Ok(Some(format!("Bearer {}", token.value)));
        }
        let credential = self.credential(endpoint, access, cancel)?;
        if let Some(Credential::RegistryToken(token)) = credential {
            return Ok(Some(format!("Bearer {token}")));
        }
        let mut scopes = access.scopes.clone();
        // A registry that calls its repositories by other names says so in its own scope.
        if scopes.is_empty()
            && let Some(scope) = scope
        {
            scopes.push(scope.clone());
        }
        let token = self.fetch_token(endpoint, access, realm, service.as_deref(), &scopes, credential, cancel)?;
        let header = format!("Bearer {}", token.value);
        self.auth().tokens.insert(key, token);
        Ok(Some(header))
    }

    fn credential(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        cancel: &CancelToken,
    ) -> Result<Option<Credential>, RegistryError> {
        let key = (endpoint.domain.clone(), access.path.clone());
        if let Some(known) = self.auth().credentials.get(&key) {
            return Ok(known.clone());
        }
        let found = credentials::find(&self.config, &endpoint.domain, &access.path, cancel)?;
        self.auth().credentials.insert(key, found.clone());
        Ok(found)
    }

    /// Says whether the password of a registry may go to a token server.
    fn trusts(&self, endpoint: &Endpoint, realm: &Url) -> bool {
        let host = realm.host();
        let allowed = &self.config.token_hosts;
        host.eq_ignore_ascii_case(host_of(&endpoint.authority))
            || KNOWN_TOKEN_HOSTS.contains(&(&endpoint.authority, host))
            || allowed.contains(host)
            || allowed.contains(realm.authority())
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one challenge and what answers it")]
    fn fetch_token(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        credential: Option<Credential>,
        cancel: &CancelToken,
    ) -> Result<Token, RegistryError> {
        let protocol = |reason: String| RegistryError::Protocol {
            registry: endpoint.domain.clone(),
            action: "a request for a token".to_owned(),
            reason,
        };
        let url = Url::parse(realm).map_err(|reason| protocol(format!("its token server: {reason}")))?;
        if self.speaks_https(endpoint) && !url.is_https() {
            return Err(protocol("its token server is not on https".to_owned()));
        }
        let credential = credential.filter(|_| self.trusts(endpoint, &url));
        let sent_credential = credential.is_some();
        let response = match credential {
            Some(Credential::IdentityToken(token)) => {
                let form = exchange_form(service, scopes, &token);
                let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
                let request = Request { method: Method::POST, url, headers, body: Some(form.as_bytes()) };
                self.ask_token_server(endpoint, &request, None, cancel)?
            }
            other => {
                let basic = match &other {
                    Some(Credential::Password { username, password }) => Some((username, basic(username, password))),
                    _ => None,
                };
                let mut url = url;
                for (name, value) in service
                    .iter()
                    .map(|service| ("service", *service))
                    .chain(scopes.iter().map(|scope| ("scope", &**scope)))
                {
                    url = url.with_query(name, &escape(value));
                }
                if let Some((username, _)) = &basic {
                    url = url.with_query("account", &escape(username));
                }
                let request = Request { method: Method::GET, url, headers: Vec::new(), body: None };
                self.ask_token_server(endpoint, &request, basic.as_ref().map(|(_, header)| &**header), cancel)?
            }
        };
        match response.status() {
            200..=299 => read_token(response).map_err(protocol),
            401 | 403 if sent_credential => {
                Err(RegistryError::Refused { registry: endpoint.domain.clone(), subject: access.subject.clone() })
            }
            401 | 403 => Err(self.denied(endpoint, access, cancel)?),
            status => Err(protocol(format!("its token server answered {status}"))),
        }
    }

    /// Asks a token server, with retries. Its own origin gets the header, redirects elsewhere go without.
    fn ask_token_server(
        &self,
        endpoint: &Endpoint,
        request: &Request<'_>,
        authorization: Option<&str>,
        cancel: &CancelToken,
    ) -> Result<Response, RegistryError> {
        let server = Endpoint::token_server(endpoint, &request.url);
        let mut backoff = self.config.backoff();
        loop {
            match self.follow(&server, request.clone(), authorization, None, cancel) {
                Ok(response) if is_temporary(response.status()) => {
                    let asked = response.header("retry-after").and_then(retry_after);
                    if !backoff.wait(asked, cancel)? {
                        return Ok(response);
                    }
                }
                Ok(response) => return Ok(response),
                Err(fault) => after_failure(fault.into(), &server, &mut backoff, cancel)?,
            }
        }
    }
}

fn token_key(endpoint: &Endpoint, access: &Access) -> (String, String) {
    (endpoint.authority.clone(), access.scopes.join(" "))
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// The form of the OAuth 2 exchange (distribution, `spec/auth/oauth`).
fn exchange_form(service: Option<&str>, scopes: &[String], token: &str) -> String {
    format!(
        "grant_type=refresh_token&service={}&client_id={CLIENT_ID}&scope={}&refresh_token={}",
        escape(service.unwrap_or_default()),
        escape(&scopes.join(" ")),
        escape(token)
    )
}

fn read_token(response: Response) -> Result<Token, String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let asked = Instant::now();
    let bytes =
        response.read(MAX_TOKEN).map_err(|error| one_line(&error.to_string()))?.ok_or("the token is too large")?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| format!("malformed token: {error}"))?;
    let value = answer.token.filter(|token| !token.is_empty()).or(answer.access_token).unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_graphic();
    if value.is_empty() || !value.bytes().all(plain) {
        return Err("the token server gave no token".to_owned());
    }
    let life = answer.expires_in.map_or(TOKEN_LIFE, |seconds| Duration::from_secs(seconds.min(86400))).max(TOKEN_LIFE);
    Ok(Token { value, expires: asked + life.saturating_sub(TOKEN_MARGIN) })
}
