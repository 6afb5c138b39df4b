//! BLAKE3 digests in their roles. They never leave the engine; what leaves is named by `oci::Digest`.

use std::fmt;
use std::str::FromStr;

/// The text is not 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a BLAKE3 digest")]
pub struct ParseTreeDigestError(String);

macro_rules! blake3_role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Gives 32 bytes this role.
            pub fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseTreeDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let error = || ParseTreeDigestError(text.to_owned());
                if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(error());
                }
                blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| error())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

blake3_role! {
    /// Digest of the bytes of one regular file.
    ContentDigest
}
blake3_role! {
    /// Identity of a tree: the digest of its encoding, times included. Equal ids mean interchangeable snapshots.
    TreeId
}
blake3_role! {
    /// Digest of a tree without its times. Equal digests mean that a step gave the same result.
    SemanticDigest
}
blake3_role! {
    /// State of a root filesystem: the digest of the semantic digests of its stack, lowest first.
    StateDigest
}

impl ContentDigest {
    /// Digest of bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Hashes the content of a file that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct ContentHasher {
    state: blake3::Hasher,
}

impl ContentHasher {
    /// Starts with no content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(&self) -> ContentDigest {
        ContentDigest(*self.state.finalize().as_bytes())
    }
}
