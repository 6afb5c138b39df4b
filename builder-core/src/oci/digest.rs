//! [`Digest`] and the ids that are digests in one role each.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState as _;

/// A content digest as image-spec `descriptor.md` writes it: `algorithm:hex`.
///
/// A value exists only if it is well formed, so it can name a file or be put into a URL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: Box<str>,
}

/// The registered digest algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256, which every implementation knows.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the part after the colon.
    fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// The text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// There is no colon between algorithm and hex.
    #[error("`{0}` is not a digest: expected `sha256:` and 64 hexadecimal digits")]
    Form(String),
    /// The algorithm is none of the registered ones.
    #[error("unknown digest algorithm `{0}`: expected `sha256` or `sha512`")]
    Algorithm(String),
    /// The hex part has a wrong length or a character that is not lowercase hexadecimal.
    #[error("`{0}` is not a valid {algorithm} digest", algorithm = .1.name())]
    Hex(String, Algorithm),
}

impl Digest {
    /// Digest of `bytes` with SHA-256.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_sha256(&sha2::Sha256::digest(bytes).into())
    }

    /// The digest with these SHA-256 bytes.
    pub fn from_sha256(bytes: &[u8; 32]) -> Self {
        Self::from_bytes(Algorithm::Sha256, bytes)
    }

    fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(8 + bytes.len() * 2);
        text.push_str(algorithm.name());
        text.push(':');
        for byte in bytes {
            write!(text, "{byte:02x}").expect("writing to a string does not fail");
        }
        Self { text: text.into() }
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        if self.text.starts_with("sha256") { Algorithm::Sha256 } else { Algorithm::Sha512 }
    }

    /// The lowercase hexadecimal digits after the colon.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm().name().len() + 1..]
    }

    /// The first twelve digits, as docker's tables show ids.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| ParseDigestError::Form(text.to_owned()))?;
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other => return Err(ParseDigestError::Algorithm(other.to_owned())),
        };
        let lowercase_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != algorithm.hex_length() || !hex.bytes().all(lowercase_hex) {
            return Err(ParseDigestError::Hex(text.to_owned(), algorithm));
        }
        Ok(Self { text: text.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes a stream with the algorithm that an expected digest asks for.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(sha2::Sha256),
    /// SHA-512.
    Sha512(sha2::Sha512),
}

/// The SHA-256 state, for code that only ever makes new digests.
pub use sha2::Sha256;

impl Hasher {
    /// Starts a hash with `algorithm`.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    /// All that is needed to go on with the hash later, in an encoding of the library that hashes; `None` for SHA-512.
    pub fn state(&self) -> Option<Vec<u8>> {
        match self {
            Self::Sha256(state) => Some(state.serialize().to_vec()),
            Self::Sha512(_) => None,
        }
    }

    /// Goes on with a SHA-256 hash from what [`Hasher::state`] gave; `None` for anything else.
    pub fn resume(state: &[u8]) -> Option<Self> {
        let state = state.try_into().ok()?;
        sha2::Sha256::deserialize(state).ok().map(Self::Sha256)
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(state) => Digest::from_bytes(Algorithm::Sha256, &state.finalize()),
            Self::Sha512(state) => Digest::from_bytes(Algorithm::Sha512, &state.finalize()),
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Algorithm::Sha256)
    }
}

macro_rules! digest_role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// Gives a digest this role.
            pub fn new(digest: Digest) -> Self {
                Self(digest)
            }

            /// The digest itself.
            pub fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

digest_role! {
    /// Digest of a layer's *uncompressed* tar (image-spec `config.md`, Layer DiffID).
    DiffId
}
digest_role! {
    /// Identity of a stack of layers (image-spec `config.md`, Layer ChainID).
    ChainId
}
digest_role! {
    /// Digest of an image's config: what docker prints as IMAGE ID (image-spec `config.md`, ImageID).
    ImageId
}

/// Computes the chain id of a stack of diff ids, lowest first; `None` for the empty stack.
///
/// Source: image-spec `config.md`, Layer ChainID.
pub fn chain_id<'a>(diff_ids: impl IntoIterator<Item = &'a DiffId>) -> Option<ChainId> {
    diff_ids.into_iter().fold(None, |below: Option<ChainId>, diff_id| {
        Some(match below {
            None => ChainId(diff_id.0.clone()),
            Some(below) => ChainId(Digest::sha256(format!("{below} {diff_id}").as_bytes())),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_hash_goes_on_from_its_state() {
        let bytes: Vec<u8> = (0..1000_u32).map(|number| number.to_le_bytes()[0]).collect();
        for cut in [0, 1, 63, 64, 512, 999, 1000] {
            let mut hasher = Hasher::default();
            hasher.update(&bytes[..cut]);
            let state = hasher.state().expect("SHA-256");
            let mut resumed = Hasher::resume(&state).expect("a state");
            resumed.update(&bytes[cut..]);
            assert_eq!(resumed.finish(), Digest::sha256(&bytes), "cut at {cut}");
            assert!(Hasher::resume(&state[1..]).is_none());
        }
        // Stores keep states: another encoding is another version of what packing gives (`export::layers::FORMAT`).
        let mut hasher = Hasher::default();
        hasher.update(&[0; 64]);
        let pinned = Digest::sha256(&hasher.state().expect("SHA-256"));
        assert_eq!(pinned.short(), "5b60c79a7aea");
        assert!(Hasher::new(Algorithm::Sha512).state().is_none());
    }

    #[test]
    fn a_digest_round_trips_and_knows_its_parts() {
        let digest = Digest::sha256(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().expect("valid"), digest);
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(Hasher::new(Algorithm::Sha512).finish().hex().len(), 128);
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        for text in
            ["", "sha256", "sha256:", "sha256:E3B0", "md5:00", &EMPTY[..70], &EMPTY.to_uppercase(), "sha256:../x"]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_chain_id_is_the_specs() {
        let a = DiffId(Digest::sha256(b"a"));
        let b = DiffId(Digest::sha256(b"b"));
        assert_eq!(chain_id([]), None);
        assert_eq!(chain_id([&a]).expect("one").digest(), a.digest());
        let both = Digest::sha256(format!("{a} {b}").as_bytes());
        assert_eq!(chain_id([&a, &b]).expect("two").digest(), &both);
    }
}
