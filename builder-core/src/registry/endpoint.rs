//! [`Endpoint`]: where the repositories of a registry are asked for.

use super::config::RegistryConfig;
use super::error::RegistryError;
use super::url::{Url, host_of, is_loopback};
use crate::oci::Reference;

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// https with a checked certificate.
    Https,
    /// Plain http.
    Http,
    /// https without checking the certificate, or plain http where there is no https.
    Insecure,
}

/// A registry or a mirror of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Host and port that are connected to.
    pub(super) authority: String,
    /// What stands between `/v2/` and the repository; empty, or it ends in a slash.
    pub(super) prefix: String,
    pub(super) security: Security,
    /// The registry that people know and have credentials for.
    pub(super) domain: String,
    /// Whether it is the registry itself and not a mirror.
    pub(super) upstream: bool,
}

impl Endpoint {
    /// The registry itself.
    pub(super) fn upstream(domain: &str, config: &RegistryConfig) -> Self {
        let authority = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        Self {
            authority: authority.to_owned(),
            prefix: String::new(),
            security: security(domain, config),
            domain: domain.to_owned(),
            upstream: true,
        }
    }

    /// Where to pull from: the mirrors of the registry in their order, then the registry.
    pub(super) fn for_pull(reference: &Reference, config: &RegistryConfig) -> Result<Vec<Self>, RegistryError> {
        let domain = reference.domain();
        let mut endpoints = Vec::new();
        for mirror in config.mirrors.get(domain).into_iter().flatten() {
            endpoints.push(Self::mirror(mirror, config)?);
        }
        endpoints.push(Self::upstream(domain, config));
        Ok(endpoints)
    }

    fn mirror(mirror: &str, config: &RegistryConfig) -> Result<Self, RegistryError> {
        let given = if mirror.contains("://") { mirror.to_owned() } else { format!("https://{mirror}") };
        let url = Url::parse(&given).map_err(|reason| RegistryError::Config {
            what: format!("the registry mirror `{}`", redacted(mirror)),
            reason: reason.to_owned(),
        })?;
        let security = match (mirror.contains("://"), url.is_https()) {
            (true, false) => Security::Http,
            (true, true) if !is_insecure(url.authority(), config) => Security::Https,
            _ => security(url.authority(), config),
        };
        let path = url.path().strip_prefix("v2").unwrap_or(url.path()).trim_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let authority = url.authority().to_owned();
        Ok(Self { domain: authority.clone(), authority, prefix, security, upstream: false })
    }

    /// The token server at `url` of a registry, which owns the credentials that are sent to it.
    pub(super) fn token_server(registry: &Self, url: &Url) -> Self {
        Self {
            authority: url.authority().to_owned(),
            prefix: String::new(),
            security: if url.is_https() { Security::Https } else { Security::Http },
            domain: registry.domain.clone(),
            upstream: false,
        }
    }

    /// `path` as this endpoint calls the repository `path`.
    pub(super) fn repository(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// The address without what may be a password.
fn redacted(address: &str) -> String {
    match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}***{}", &address[..scheme + 3], &address[at..]),
        (_, Some(at)) => format!("***{}", &address[at..]),
        _ => address.to_owned(),
    }
}

/// Says whether the caller trusts the network to this host.
pub(super) fn is_insecure(authority: &str, config: &RegistryConfig) -> bool {
    config.insecure.contains(authority) || config.insecure.contains(host_of(authority))
}

fn security(authority: &str, config: &RegistryConfig) -> Security {
    let has_certificates = || config.certificate_directories.iter().any(|directory| directory.join(authority).is_dir());
    if is_insecure(authority, config) {
        Security::Insecure
    } else if is_loopback(authority) && !has_certificates() {
        Security::Http
    } else {
        Security::Https
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_http_docker_io_has_another_host_and_mirrors_come_first() {
        let mut config = RegistryConfig::default();
        config.mirrors.insert(
            "docker.io".to_owned(),
            vec![
                "127.0.0.1:5001".to_owned(),
                "https://m.example/v2/hub/".to_owned(),
                "http://plain.example".to_owned(),
            ],
        );
        config.insecure.insert("bad.example".to_owned());
        let endpoints = |text: &str| Endpoint::for_pull(&text.parse().expect(text), &config).expect("valid mirrors");
        let hub = endpoints("alpine");
        let short: Vec<_> = hub.iter().map(|e| (&*e.authority, &*e.prefix, e.security, &*e.domain)).collect();
        assert_eq!(
            short,
            [
                ("127.0.0.1:5001", "", Security::Http, "127.0.0.1:5001"),
                ("m.example", "hub/", Security::Https, "m.example"),
                ("plain.example", "", Security::Http, "plain.example"),
                ("registry-1.docker.io", "", Security::Https, "docker.io"),
            ]
        );
        assert_eq!(endpoints("localhost:5000/a")[0].security, Security::Http);
        assert_eq!(endpoints("[::1]:5000/a")[0].security, Security::Http);
        assert_eq!(endpoints("bad.example:99/a")[0].security, Security::Insecure);
        assert_eq!(endpoints("good.example/a")[0].security, Security::Https);
    }

    #[test]
    fn a_mirror_with_a_password_is_refused_without_showing_it() {
        let mut config = RegistryConfig::default();
        config.mirrors.insert("r.example".to_owned(), vec!["https://me:secret@m.example".to_owned()]);
        let error = Endpoint::for_pull(&"r.example/a".parse().expect("valid"), &config).expect_err("refused");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
