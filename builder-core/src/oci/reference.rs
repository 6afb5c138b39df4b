//! [`Reference`]: the name of an image in a registry.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// Docker Hub's domain in names.
const DEFAULT_DOMAIN: &str = "docker.io";

/// Longest name, domain included (github.com/distribution/reference).
const MAX_NAME: usize = 255;

/// A normalised image reference: domain, path, and a tag or a digest or both.
///
/// `app` means `docker.io/library/app:latest`, as in docker. Grammar: github.com/distribution/reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference `{text}`: {reason}")]
pub struct ParseReferenceError {
    /// What was given.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

impl Reference {
    /// The registry (`docker.io`, `127.0.0.1:5000`).
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The path of the repository in its registry (`library/app`).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Domain and path (`docker.io/library/app`).
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag; `latest` if neither a tag nor a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given. It wins over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository with this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository with this tag and no digest.
    ///
    /// # Errors
    /// If the tag is not well formed.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseReferenceError> {
        if !is_tag(tag) {
            return Err(ParseReferenceError { text: tag.to_owned(), reason: "the tag is not valid" });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The repository as people write it: `app` for `docker.io/library/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        self.path.strip_prefix("library/").unwrap_or(&self.path).to_owned()
    }

    /// The whole reference as people write it: `app:1.0`.
    pub fn familiar(&self) -> String {
        self.write(self.familiar_name())
    }

    fn write(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| ParseReferenceError { text: text.to_owned(), reason };
        if text.is_empty() {
            return Err(error("it is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| error("the digest is not valid"))?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(error("the tag is not valid"));
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, rest)) if looks_like_domain(first) => (first, rest.to_owned()),
            Some(_) => (DEFAULT_DOMAIN, name.to_owned()),
            None => (DEFAULT_DOMAIN, format!("library/{name}")),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path };
        if !is_domain(domain) {
            return Err(error("the registry is not valid"));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(error("the repository name must be lowercase"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(error("the repository name is not valid"));
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(error("the name is longer than 255 characters"));
        }
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Err(error("64 hexadecimal digits name an image id, not a repository"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }
}

impl fmt::Display for Reference {
    /// Writes the full form, which parses to the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write(self.repository()))
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn looks_like_domain(word: &str) -> bool {
    word == "localhost" || word.contains(['.', ':']) || word.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A host name or address with an optional port.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", port.strip_prefix(':').or((!port.is_empty()).then_some("?")))
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lowercase alphanumerics, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(|byte| alphanumeric(*byte));
    if !ends_well(bytes.first()) || !ends_well(bytes.last()) {
        return false;
    }
    bytes
        .split(|byte| alphanumeric(*byte))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (input, full, familiar) in [
            ("app", "docker.io/library/app:latest", "app:latest"),
            ("app:1.0", "docker.io/library/app:1.0", "app:1.0"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("docker.io/app", "docker.io/library/app:latest", "app:latest"),
            ("index.docker.io/library/app", "docker.io/library/app:latest", "app:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("Host/app", "Host/app:latest", "Host/app:latest"),
            ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e:latest"),
        ] {
            let parsed: Reference = input.parse().expect(input);
            assert_eq!(parsed.to_string(), full);
            assert_eq!(parsed.familiar(), familiar);
        }
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = Digest::sha256(b"x");
        let parsed: Reference = format!("app:1@{digest}").parse().expect("valid");
        assert_eq!(parsed.selector(), digest.to_string());
        assert_eq!(format!("app@{digest}").parse::<Reference>().expect("valid").tag(), None);
    }

    #[test]
    fn what_is_not_a_reference_is_refused() {
        let id = "a".repeat(64);
        let long = "a/".repeat(128) + "a";
        for bad in [
            "",
            ":",
            "@",
            "App",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a@sha256:1",
            "a..b",
            "a___b",
            "-a",
            "a b",
            "a\n",
            "reg.example:port/a",
            "reg.example:/a",
            "[::1/a",
            "../x",
            &id,
            &long,
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_to_the_same_value(
            domain in "(|localhost/|r\\.io(:[0-9]{1,4})?/)", path in "[a-z0-9]{1,5}([._-][a-z0-9]{1,3})?(/[a-z]{1,4}){0,2}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?",
        ) {
            let parsed: Reference = format!("{domain}{path}{tag}").parse().expect("valid by construction");
            prop_assert_eq!(parsed.to_string().parse::<Reference>().expect("own output"), parsed);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Reference>();
        }
    }
}
