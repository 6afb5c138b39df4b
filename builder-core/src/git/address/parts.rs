//! The parts of an address, as written.

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    Ssh,
    Git,
    File,
}

/// An address cut where its parts meet; nothing is decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) scheme: Scheme,
    /// `user@host:path` rather than an address with a scheme.
    pub(super) is_scp: bool,
    pub(super) looks_local: bool,
    pub(super) user: Option<&'a str>,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) fragment: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// `None` if this is not the address of a git repository.
    pub(super) fn split(text: &'a str) -> Option<Self> {
        if text.contains(|character: char| character.is_control()) {
            return None;
        }
        let (rest, fragment) = cut(text, '#');
        let (rest, query) = cut(rest, '?');
        let scheme_end = rest.find("://").filter(|end| rest[..*end].bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if let Some(end) = scheme_end {
            let scheme = scheme(&rest[..end])?;
            let (authority, path) = at_slash(&rest[end + 3..]);
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(user), host),
                None => (None, authority),
            };
            if matches!(scheme, Scheme::Http | Scheme::Https) && path.strip_suffix(".git").is_none() {
                return None;
            }
            return Some(Self { scheme, is_scp: false, looks_local: false, user, host, path, query, fragment });
        }
        if let Some(path) = rest.strip_prefix("github.com") {
            let parts = Self {
                scheme: Scheme::Https,
                is_scp: false,
                looks_local: true,
                user: None,
                host: "github.com",
                path,
                query,
                fragment,
            };
            return path.starts_with('/').then_some(parts);
        }
        let (user, rest) = rest.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let made_of = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        (made_of(user, b"-_") && made_of(host, b"-.")).then_some(Self {
            scheme: Scheme::Ssh,
            is_scp: true,
            looks_local: false,
            user: Some(user),
            host,
            path,
            query,
            fragment,
        })
    }

    /// What git is given. A user of http is left out, which goes another way; one of ssh belongs to the place.
    pub(super) fn remote(&self) -> String {
        let user = match (self.scheme, self.user) {
            (Scheme::Ssh, Some(user)) => format!("{}@", user.split(':').next().unwrap_or_default()),
            _ => String::new(),
        };
        if self.is_scp {
            return format!("{user}{}:{}", self.host, self.path);
        }
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ssh => "ssh",
            Scheme::Git => "git",
            Scheme::File => "file",
        };
        format!("{scheme}://{user}{}{}", self.host, self.path)
    }
}

fn scheme(text: &str) -> Option<Scheme> {
    Some(match text.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "ssh" => Scheme::Ssh,
        "git" => Scheme::Git,
        "file" => Scheme::File,
        _ => return None,
    })
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn at_slash(text: &str) -> (&str, &str) {
    text.split_at(text.find('/').unwrap_or(text.len()))
}
