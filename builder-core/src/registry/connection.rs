//! Connections: TCP that can be cancelled, TLS with the right roots, and one exchange of request and response.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use ureq::config::Config;
use ureq::http::{self, Method, Uri};
use ureq::tls::{ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, RustlsConnector,
    Transport,
};
use ureq::{Agent, Body, Proxy, SendBody};

use super::config::RegistryConfig;
use super::url::{Url, host_of, is_link_local, is_loopback};
use crate::cancel::{CancelToken, Cancelled};
use crate::lock::lock;

/// Agents kept: one a host and build, so a few hosts of the latest builds.
const MAX_AGENTS: usize = 16;

/// Bytes in each direction that a connection gathers.
const BUFFER: usize = 128 << 10;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Bytes that can be sent again.
    pub(super) body: Option<&'a [u8]>,
}

/// The head of an answer, and its body to be read.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) url: Url,
    inner: http::Response<Body>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    Cancelled,
    /// The network failed.
    Network {
        reason: String,
        again: Again,
    },
    /// TLS failed: another try gives the same.
    Tls(String),
    /// A redirect that is not followed.
    Redirect(&'static str),
}

/// Whether a fault of the network may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It may.
    Yes,
    /// Nobody listens; worth one more try, because the server may be starting.
    Once,
    /// The name does not exist.
    No,
}

/// Makes connections and keeps them for further requests.
#[derive(Debug, Default)]
pub(super) struct Connections {
    agents: Mutex<Vec<Kept>>,
    roots: OnceLock<RootCerts>,
}

#[derive(Debug)]
struct Kept {
    authority: String,
    verified: bool,
    cancel: CancelToken,
    agent: Agent,
}

impl Response {
    pub(super) fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    pub(super) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.inner.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        // Where both are given, the length is not the body's (RFC 9112, section 6.3).
        if self.header("transfer-encoding").is_some() {
            return None;
        }
        self.header("content-length")?.trim().parse().ok()
    }

    /// The body, without a limit of its own.
    pub(super) fn into_reader(self) -> impl Read + Send + Sync + 'static {
        self.inner.into_body().into_with_config().limit(u64::MAX).reader()
    }

    /// Reads at most `limit` bytes of the body; `None` if there are more.
    pub(super) fn read(self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.into_reader().take(limit + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }
}

impl Connections {
    /// Sends one request and reads the head of its answer. Nothing is retried, no redirect is followed.
    ///
    /// `stream` is a body of known length that can be sent only once, in place of the request's own.
    pub(super) fn exchange(
        &self,
        config: &RegistryConfig,
        verified: bool,
        request: &Request<'_>,
        stream: Option<(&mut dyn Read, u64)>,
        cancel: &CancelToken,
    ) -> Result<Response, Fault> {
        cancel.check().map_err(|Cancelled| Fault::Cancelled)?;
        let agent = self.agent(config, request.url.authority(), request.url.is_https(), verified, cancel)?;
        let mut head = http::Request::builder().method(request.method.clone()).uri(request.url.uri().clone());
        for (name, value) in &request.headers {
            head = head.header(*name, value);
        }
        let broken = |_| Fault::Network { reason: "a header value is not valid".to_owned(), again: Again::No };
        let result = match (stream, request.body) {
            (Some((reader, length)), _) => {
                let head = head.header("content-length", length);
                agent.run(head.body(SendBody::from_reader(reader)).map_err(broken)?)
            }
            (None, Some(bytes)) => agent.run(head.body(bytes).map_err(broken)?),
            (None, None) => agent.run(head.body(()).map_err(broken)?),
        };
        match result {
            Ok(inner) => Ok(Response { url: request.url.clone(), inner }),
            Err(_) if cancel.is_cancelled() => Err(Fault::Cancelled),
            Err(error) => Err(fault(error)),
        }
    }

    fn agent(
        &self,
        config: &RegistryConfig,
        authority: &str,
        https: bool,
        verified: bool,
        cancel: &CancelToken,
    ) -> Result<Agent, Fault> {
        let mut agents = lock(&self.agents);
        let fits =
            |kept: &Kept| kept.authority == authority && kept.verified == verified && kept.cancel.is_same(cancel);
        if let Some(at) = agents.iter().position(fits) {
            // The most recently used one is last.
            let kept = agents.remove(at);
            let agent = kept.agent.clone();
            agents.push(kept);
            return Ok(agent);
        }
        let agent = self.connect(config, authority, https, verified, cancel)?;
        agents.retain(|kept| !kept.cancel.is_cancelled());
        if agents.len() == MAX_AGENTS {
            agents.remove(0);
        }
        let kept = Kept { authority: authority.to_owned(), verified, cancel: cancel.clone(), agent: agent.clone() };
        agents.push(kept);
        Ok(agent)
    }

    fn connect(
        &self,
        config: &RegistryConfig,
        authority: &str,
        https: bool,
        verified: bool,
        cancel: &CancelToken,
    ) -> Result<Agent, Fault> {
        let settings = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy(config, authority, https)?)
            .user_agent(&config.user_agent)
            .accept_encoding("identity")
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout));
        let settings = if https { settings.tls_config(self.tls(config, authority, verified)?) } else { settings };
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector { cancel: cancel.clone(), stall: config.stall_timeout })
                .chain(RustlsConnector::default());
        Ok(Agent::with_parts(settings.build(), connector, GuardedResolver(DefaultResolver::default())))
    }

    fn tls(&self, config: &RegistryConfig, authority: &str, verified: bool) -> Result<TlsConfig, Fault> {
        let roots = if let Some(roots) = self.roots.get() {
            roots
        } else {
            let roots = load_roots(config)?;
            self.roots.get_or_init(|| roots)
        };
        let own = host_certificates(config, authority)?;
        let roots = match (own.roots.is_empty(), roots) {
            (true, roots) => roots.clone(),
            (false, RootCerts::Specific(shared)) => RootCerts::from(shared.iter().cloned().chain(own.roots)),
            (false, _) => RootCerts::from(own.roots.into_iter()),
        };
        Ok(TlsConfig::builder().root_certs(roots).client_cert(own.client).disable_verification(!verified).build())
    }
}

/// What `certs.d/HOST` holds.
#[derive(Debug, Default)]
struct HostCertificates {
    roots: Vec<ureq::tls::Certificate<'static>>,
    client: Option<ClientCert>,
}

fn load_roots(config: &RegistryConfig) -> Result<RootCerts, Fault> {
    let mut roots = Vec::new();
    for file in &config.ca_files {
        match std::fs::read(file) {
            Ok(bytes) => roots.extend(certificates(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Fault::Tls(format!("cannot read {}: {error}", file.display()))),
        }
    }
    Ok(if roots.is_empty() { RootCerts::WebPki } else { RootCerts::from(roots.into_iter()) })
}

fn host_certificates(config: &RegistryConfig, authority: &str) -> Result<HostCertificates, Fault> {
    let mut own = HostCertificates::default();
    for directory in &config.certificate_directories {
        let Ok(entries) = std::fs::read_dir(directory.join(authority)) else { continue };
        let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let read = |path: &std::path::Path| {
                std::fs::read(path).map_err(|error| Fault::Tls(format!("cannot read {}: {error}", path.display())))
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => own.roots.extend(certificates(&read(&path)?)),
                Some("cert") => {
                    let chain: Vec<_> = certificates(&read(&path)?).collect();
                    let keys = read(&path.with_extension("key"))?;
                    let key = parse_pem(&keys).find_map(|item| match item {
                        Ok(PemItem::PrivateKey(key)) => Some(key),
                        _ => None,
                    });
                    let key = key.ok_or_else(|| {
                        Fault::Tls(format!("{} holds no private key", path.with_extension("key").display()))
                    })?;
                    own.client = Some(ClientCert::new_with_certs(&chain, key));
                }
                _ => {}
            }
        }
    }
    Ok(own)
}

fn certificates(pem: &[u8]) -> impl Iterator<Item = ureq::tls::Certificate<'static>> + '_ {
    parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    })
}

fn proxy(config: &RegistryConfig, authority: &str, https: bool) -> Result<Option<Proxy>, Fault> {
    let given = if https { &config.proxy.https } else { &config.proxy.http };
    let Some(given) = given.as_deref().filter(|given| !given.is_empty()) else { return Ok(None) };
    let host = host_of(authority).to_ascii_lowercase();
    let direct = |pattern: &String| {
        let pattern = pattern.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let below = || host.strip_suffix(&*pattern).is_some_and(|rest| rest.ends_with('.'));
        pattern == "*" || (!pattern.is_empty() && (pattern == host || pattern == authority || below()))
    };
    if is_loopback(authority) || config.proxy.no_proxy.iter().any(direct) {
        return Ok(None);
    }
    let error = |reason: &str| Fault::Network { reason: format!("the proxy {reason}"), again: Again::No };
    let proxy = Proxy::new(given).map_err(|_| error("address is not valid"))?;
    match proxy.protocol() {
        ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https => Ok(Some(proxy)),
        _ => Err(error("protocol is not supported: only http and https are")),
    }
}

/// Sorts an error of the HTTP library by what can be done about it.
fn fault(error: ureq::Error) -> Fault {
    match error {
        ureq::Error::Io(error) => io_fault(&error),
        ureq::Error::HostNotFound => {
            Fault::Network { reason: "the host name does not exist".to_owned(), again: Again::No }
        }
        ureq::Error::Rustls(error) => Fault::Tls(error.to_string()),
        ureq::Error::Tls(reason) => Fault::Tls(reason.to_owned()),
        ureq::Error::Pem(error) => Fault::Tls(error.to_string()),
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            Fault::Network { reason: "no connection in time".to_owned(), again: Again::Once }
        }
        other => Fault::Network { reason: other.to_string(), again: Again::Yes },
    }
}

pub(super) fn io_fault(error: &io::Error) -> Fault {
    let inner = error.get_ref();
    if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<ureq::Error>())
        && let ureq::Error::Rustls(error) = tls
    {
        return Fault::Tls(error.to_string());
    }
    // rustls hands its errors up as `InvalidData`.
    if error.kind() == io::ErrorKind::InvalidData && inner.is_some() {
        return Fault::Tls(error.to_string());
    }
    let (again, reason) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (Again::Once, "connection refused".to_owned()),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => (Again::Once, error.to_string()),
        io::ErrorKind::PermissionDenied => (Again::No, error.to_string()),
        io::ErrorKind::TimedOut => (Again::Yes, "nothing came in time".to_owned()),
        _ if error.to_string().contains("failed to lookup address") => {
            (Again::No, "the host name does not exist".to_owned())
        }
        _ => (Again::Yes, error.to_string()),
    };
    Fault::Network { reason, again }
}

/// Refuses link-local addresses after the name was looked up, so that a name cannot stand for them.
#[derive(Debug)]
struct GuardedResolver(DefaultResolver);

impl Resolver for GuardedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.0.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in &found {
            if !is_link_local(address.ip()) {
                allowed.push(*address);
            }
        }
        if allowed.is_empty() {
            let refused = "link-local addresses are not connected to";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused).into());
        }
        Ok(allowed)
    }
}

/// Opens TCP connections whose every wait ends when the build is cancelled.
#[derive(Debug)]
struct TcpConnector {
    cancel: CancelToken,
    stall: Duration,
}

impl<In: Transport> Connector<In> for TcpConnector {
    type Out = Either<In, TcpTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        if let Some(proxied) = chained {
            return Ok(Some(Either::A(proxied)));
        }
        let wait = if details.timeout.after.is_not_happening() { self.stall } else { *details.timeout.after };
        let deadline = Instant::now() + wait;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (at, address) in details.addrs.iter().enumerate() {
            // Each further address gets half of what is left, so that one that swallows packets leaves time for the rest.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = if at + 1 == details.addrs.len() { left } else { left / 2 };
            match self.open(*address, share) {
                Ok(stream) => {
                    let buffers =
                        LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
                    let transport = TcpTransport { stream, buffers, cancel: self.cancel.clone(), stall: self.stall };
                    return Ok(Some(Either::B(transport)));
                }
                Err(error) => last = error,
            }
            if self.cancel.is_cancelled() {
                break;
            }
        }
        Err(last.into())
    }
}

impl TcpConnector {
    fn open(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => {
                wait(&socket, PollFlags::OUT, timeout, &self.cancel)?;
                rustix::net::sockopt::socket_error(&socket)??;
            }
            Err(errno) => return Err(errno.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A connection that waits with `poll(2)` for the socket and the cancel token together.
struct TcpTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    cancel: CancelToken,
    stall: Duration,
}

impl TcpTransport {
    fn patience(&self, timeout: NextTimeout) -> Duration {
        if timeout.after.is_not_happening() { self.stall } else { (*timeout.after).min(self.stall) }
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let patience = self.patience(timeout);
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            match (&self.stream).write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&self.stream, PollFlags::OUT, patience, &self.cancel)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if self.cancel.is_cancelled() {
                return Err(io::Error::other(Cancelled).into());
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let patience = self.patience(timeout);
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other(Cancelled).into());
            }
            match (&self.stream).read(self.buffers.input_append_buf()) {
                Ok(count) => {
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&self.stream, PollFlags::IN, patience, &self.cancel)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // A server that has closed, or says something unasked, is not to be used again.
        let mut byte = [0u8; 1];
        let peeked = rustix::net::recv(&self.stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(Errno::WOULDBLOCK))
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpTransport({:?})", self.stream)
    }
}

/// Waits until the descriptor is ready.
fn wait(fd: impl AsFd, flags: PollFlags, timeout: Duration, cancel: &CancelToken) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let cancelled = cancel.fd()?;
        let mut set = [PollFd::new(&fd, flags), PollFd::new(&cancelled, PollFlags::IN)];
        match poll(&mut set, Some(&left)) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) if cancel.is_cancelled() => return Err(io::Error::other(Cancelled)),
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
        }
    }
}
