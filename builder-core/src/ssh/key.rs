//! [`Key`]: a private key from a file, and what it signs.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};

use super::container;
use super::wire::Writer;
use crate::diagnostic::Diagnostic;

/// Largest file that may hold a key, in bytes (as in BuildKit).
const MAX_FILE: u64 = 100 << 10;

/// A key that an agent of our own signs with.
pub struct Key {
    /// As the protocol names it: type, then the numbers of the public key.
    public: Vec<u8>,
    comment: String,
    private: Private,
}

/// The kinds of keys that can be read from files.
pub(super) enum Private {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A curve of NIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    pub(super) const ALL: [Self; 2] = [Self::P256, Self::P384];

    /// Its name in keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
        }
    }

    /// Bytes of a private key.
    pub(super) fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    pub(super) fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }
}

/// A file is no key that can be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read key `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has a passphrase.
    #[error("key `{}` is encrypted", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// It is of a kind that is not read from files.
    #[error("key `{}` is of type `{kind}`, which cannot be read from a file", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The type.
        kind: String,
    },
    /// It is something else.
    #[error("`{}` is not a private key: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Diagnostic for KeyError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Encrypted { .. } | Self::Kind { .. } => {
                Some("add it to an agent with `ssh-add`, and pass that: `--ssh default`".to_owned())
            }
            Self::Malformed { .. } => {
                Some("give a private key in the format of OpenSSH, PKCS#1, PKCS#8 or SEC 1".to_owned())
            }
            Self::Read { .. } => None,
        }
    }
}

/// Why text is no key; the file is not known here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    Encrypted,
    Kind(String),
    Malformed(&'static str),
}

impl Key {
    /// Reads a private key without a passphrase: RSA of 2048 bits and more, Ed25519, ECDSA on P-256 and P-384.
    ///
    /// # Errors
    /// Every case of [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let error = |source| KeyError::Read { path: path.to_owned(), source };
        let mut text = Vec::new();
        let file = File::open(path).map_err(error)?;
        file.take(MAX_FILE).read_to_end(&mut text).map_err(error)?;
        container::parse(&text).map_err(|reason| {
            let path = path.to_owned();
            match reason {
                NoKey::Encrypted => KeyError::Encrypted { path },
                NoKey::Kind(kind) => KeyError::Kind { path, kind },
                NoKey::Malformed(reason) => KeyError::Malformed { path, reason },
            }
        })
    }

    pub(super) fn new(private: Private, comment: String) -> Self {
        let public = match &private {
            Private::Ed25519(pair) => Writer::default().string("ssh-ed25519").string(pair.public_key()),
            Private::Ecdsa(curve, pair) => {
                let kind = format!("ecdsa-sha2-{}", curve.name());
                Writer::default().string(kind).string(curve.name()).string(pair.public_key())
            }
            Private::Rsa(pair) => {
                let numbers = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                Writer::default().string("ssh-rsa").integer(&numbers.e).integer(&numbers.n)
            }
        };
        Self { public: public.0, comment, private }
    }

    /// The public key as the protocol sends it.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    pub(super) fn comment(&self) -> &str {
        &self.comment
    }

    /// The signature as the protocol sends it: name of the algorithm, then its bytes. `None` if there is no such signature,
    /// which is so for RSA with SHA-1: nobody should trust it any more.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        /// `SSH_AGENT_RSA_SHA2_256`
        const SHA2_256: u32 = 2;
        /// `SSH_AGENT_RSA_SHA2_512`
        const SHA2_512: u32 = 4;

        let random = SystemRandom::new();
        let (algorithm, signature) = match &self.private {
            Private::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_vec()),
            Private::Ecdsa(curve, pair) => {
                let signature = pair.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at(curve.size());
                (format!("ecdsa-sha2-{}", curve.name()), Writer::default().integer(r).integer(s).0)
            }
            Private::Rsa(pair) => {
                let (name, encoding): (_, &dyn RsaEncoding) = match flags {
                    flags if flags & SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, data, &mut signature).ok()?;
                (name.to_owned(), signature)
            }
        };
        Some(Writer::default().string(algorithm).string(signature).0)
    }
}

impl fmt::Debug for Key {
    /// Never shows the private part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("comment", &self.comment).finish_non_exhaustive()
    }
}
