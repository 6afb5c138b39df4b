//! [`LayoutReference`]: an image in a directory.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Digest, ParseDigestError};

/// An image in an image layout (image-spec 1.1, `image-layout.md`), written `DIRECTORY[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayoutReference {
    /// The directory, on the host.
    pub directory: PathBuf,
    /// The name of the image in `index.json`.
    pub tag: Option<String>,
    /// The digest of its manifest or index; it wins.
    pub digest: Option<Digest>,
}

impl FromStr for LayoutReference {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) if !digest.contains('/') => (rest, Some(digest.parse()?)),
            _ => (text, None),
        };
        let (directory, tag) = match rest.rsplit_once(':') {
            Some((directory, tag)) if !tag.contains('/') => (directory, Some(tag.to_owned())),
            _ => (rest, None),
        };
        Ok(Self { directory: directory.into(), tag: tag.filter(|tag| !tag.is_empty()), digest })
    }
}

impl fmt::Display for LayoutReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci-layout://{}", self.directory.display())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_named_with_tag_and_digest() {
        let digest = Digest::sha256(b"x");
        let check = |text: &str, directory: &str, tag: Option<&str>, with_digest: bool| {
            let digest = with_digest.then(|| digest.clone());
            let expected = LayoutReference { directory: directory.into(), tag: tag.map(str::to_owned), digest };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        };
        check("/a/b", "/a/b", None, false);
        check("a:v1", "a", Some("v1"), false);
        check("a:", "a", None, false);
        check("/a:b/c", "/a:b/c", None, false);
        check("/u@h/c", "/u@h/c", None, false);
        check(&format!("/a@{digest}"), "/a", None, true);
        check(&format!("/a:v@{digest}"), "/a", Some("v"), true);
        assert!("/a@sha256:x".parse::<LayoutReference>().is_err());
    }
}
