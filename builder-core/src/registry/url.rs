//! Addresses of requests: parsed, resolved against each other, and compared by origin.

use std::net::IpAddr;

use ureq::http::Uri;

/// An absolute http or https address without user information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    uri: Uri,
}

/// Scheme, host and port: what credentials are bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Url {
    /// Parses an absolute address; the error says what is wrong and never repeats the address.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "it is not a valid address")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("its scheme is neither http nor https");
        }
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user name or password");
        }
        if authority.host().is_empty() {
            return Err("it has no host");
        }
        Ok(Self { uri })
    }

    /// Resolves a `Location` header against the address that answered with it (RFC 3986, section 5).
    pub(super) fn join(&self, location: &str) -> Result<Self, &'static str> {
        let location = location.split('#').next().unwrap_or_default();
        let base = format!("{}://{}", self.scheme(), self.authority());
        if location.contains("://") && !location.starts_with('/') && !location.starts_with('?') {
            Self::parse(location)
        } else if location.starts_with("//") {
            Self::parse(&format!("{}:{location}", self.scheme()))
        } else if location.starts_with('/') {
            Self::parse(&format!("{base}{location}"))
        } else if location.starts_with('?') {
            Self::parse(&format!("{base}{}{location}", self.uri.path()))
        } else {
            let directory = self.uri.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            Self::parse(&format!("{base}{directory}/{location}"))
        }
    }

    /// The same address over https.
    pub(super) fn upgraded(&self) -> Self {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        Self::parse(&format!("https://{}{path}", self.authority())).expect("only the scheme changed")
    }

    /// The address with `name=value` added to its query. The value must need no escaping, or be escaped.
    pub(super) fn with_query(&self, name: &str, value: &str) -> Self {
        let separator = if self.uri.query().is_some() { '&' } else { '?' };
        Self::parse(&format!("{}{separator}{name}={value}", self.uri)).expect("a query added to a valid address")
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    pub(super) fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or("https")
    }

    /// Host and port as written.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The host alone.
    pub(super) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// Path without the leading slash.
    pub(super) fn path(&self) -> &str {
        self.uri.path().trim_matches('/')
    }

    pub(super) fn origin(&self) -> Origin {
        let https = self.is_https();
        let port = self.uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Origin { https, host: self.host().to_ascii_lowercase(), port }
    }
}

/// The host of `host:port`, `[v6]:port` or `host`.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Says whether an authority names this machine's loopback interface.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Says whether no registry or token server can be there: link-local addresses serve a cloud's metadata.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.is_link_local(),
            None => address.is_unicast_link_local(),
        },
    }
}

/// Escapes a value for a query or a form (RFC 3986, unreserved characters stay).
pub(super) fn escape(value: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_as_in_rfc_3986() {
        let base = Url::parse("https://r.example:5000/v2/a/blobs/uploads/?x=1").expect("valid");
        for (location, expected) in [
            ("https://other/x?y", "https://other/x?y"),
            ("/v2/a/blobs/uploads/1?_state=z", "https://r.example:5000/v2/a/blobs/uploads/1?_state=z"),
            ("?digest=1", "https://r.example:5000/v2/a/blobs/uploads/?digest=1"),
            ("1-2", "https://r.example:5000/v2/a/blobs/uploads/1-2"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/x?u=http://y", "https://r.example:5000/x?u=http://y"),
        ] {
            assert_eq!(base.join(location).expect(location).uri().to_string(), expected);
        }
        for bad in ["ftp://x/", "https://user:secret@x/", "file:///etc/passwd", "https://", "http://a b/"] {
            assert!(base.join(bad).is_err(), "{bad}");
        }
        assert_eq!(base.with_query("digest", "sha256:1").uri().query(), Some("x=1&digest=sha256:1"));
        assert_eq!(Url::parse("http://h/p").expect("valid").upgraded().uri().to_string(), "https://h/p");
    }

    #[test]
    fn origins_know_default_ports() {
        let origin = |text: &str| Url::parse(text).expect(text).origin();
        assert_eq!(origin("https://A.example/x"), origin("https://a.example:443/y"));
        assert_ne!(origin("https://a.example"), origin("http://a.example"));
        assert_ne!(origin("https://a.example"), origin("https://a.example:444"));
    }

    #[test]
    fn special_addresses_are_known() {
        for loopback in ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:80", "[::1]"] {
            assert!(is_loopback(loopback), "{loopback}");
        }
        for other in ["localhost.example", "128.0.0.1", "127.0.0.1.example:5000", "[::2]:80"] {
            assert!(!is_loopback(other), "{other}");
        }
        for local in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"] {
            assert!(is_link_local(local.parse().expect(local)), "{local}");
        }
        assert!(!is_link_local("127.0.0.1".parse().expect("valid")));
        assert_eq!(escape("a b/ü:~"), "a%20b%2F%C3%BC%3A~");
    }
}
