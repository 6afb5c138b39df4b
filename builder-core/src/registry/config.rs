//! [`RegistryConfig`]: all that the client may know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::Credential;
use super::retry::{Backoff, Waits};

/// What a [`super::Registry`] may know; it reads nothing else, least of all the environment.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Registry domain (`docker.io`) → base addresses to ask first when pulling, in order: `http://127.0.0.1:5001`,
    /// `https://mirror.example/proxy/hub`; without a scheme, https, or http on a loopback address.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (`host` or `host:port`) whose certificate is not checked and which may speak plain http.
    pub insecure: BTreeSet<String>,
    /// Docker's configuration directory (`~/.docker`): its `config.json` is read for credentials, and written by login.
    pub docker_config: Option<PathBuf>,
    /// More files of the form of `config.json`, asked in order after it (`$XDG_RUNTIME_DIR/containers/auth.json`).
    pub auth_files: Vec<PathBuf>,
    /// Credentials that win over all files, by registry domain.
    pub credentials: BTreeMap<String, Credential>,
    /// Hosts of token servers that passwords may be sent to although they are not the registry's own host.
    pub token_hosts: BTreeSet<String>,
    /// PEM files with the certificates to trust, in place of the built-in Mozilla roots. Missing files are passed over.
    pub ca_files: Vec<PathBuf>,
    /// Directories such as `/etc/docker/certs.d` with a directory for each `host:port`: `*.crt` are trusted for it,
    /// `*.cert` with `*.key` identify the client.
    pub certificate_directories: Vec<PathBuf>,
    /// Proxies.
    pub proxy: ProxyConfig,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait without a byte coming or going.
    pub stall_timeout: Duration,
    /// How often a request is made before its fault is final, the first time included.
    pub attempts: u32,
    /// Who hears that a request is put off, because a server asks for that or a fault may pass.
    pub waits: Waits,
    /// Bytes in one request after a registry refused a whole blob in one. Proxies commonly allow 100 MiB.
    pub upload_piece: u64,
}

/// Proxies for requests, in the meaning of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    /// Proxy for http, as an address.
    pub http: Option<String>,
    /// Proxy for https, as an address.
    pub https: Option<String>,
    /// Hosts (`example.com` with all below it, or `*`) that are asked directly. Loopback addresses always are.
    pub no_proxy: Vec<String>,
}

impl RegistryConfig {
    /// Counts the faults of one request.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.attempts).telling(&self.waits)
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure: BTreeSet::new(),
            docker_config: None,
            auth_files: Vec::new(),
            credentials: BTreeMap::new(),
            token_hosts: BTreeSet::new(),
            ca_files: Vec::new(),
            certificate_directories: Vec::new(),
            proxy: ProxyConfig::default(),
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            attempts: 5,
            waits: Waits::default(),
            upload_piece: 32 << 20,
        }
    }
}
