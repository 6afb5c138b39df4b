//! Files that hold private keys: OpenSSH's own format (its `PROTOCOL.key`), PKCS#1 and PKCS#8 (RFC 8017, 5958), SEC 1 (RFC 5915).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};

use super::key::{Curve, Key, NoKey, Private};
use super::wire::{Reader, without_zeros};

const REFUSED: &str = "its numbers do not belong together, or it is too short";
const TRUNCATED: &str = "it ends too early";

/// Finds the key in a file.
pub(super) fn parse(text: &[u8]) -> Result<Key, NoKey> {
    let text = std::str::from_utf8(text).map_err(|_| NoKey::Malformed("it is not text"))?;
    let (label, body) = armoured(text).ok_or(NoKey::Malformed("it has no `-----BEGIN … PRIVATE KEY-----`"))?;
    if body.contains("Proc-Type: 4,ENCRYPTED") || label == "ENCRYPTED PRIVATE KEY" {
        return Err(NoKey::Encrypted);
    }
    let digits: String = body.lines().map(str::trim).filter(|line| !line.contains(':')).collect();
    let bytes = BASE64_STANDARD.decode(digits).map_err(|_| NoKey::Malformed("its base64 is damaged"))?;
    match label {
        "OPENSSH PRIVATE KEY" => openssh(&bytes),
        "RSA PRIVATE KEY" => {
            let pair = RsaKeyPair::from_der(&bytes).map_err(|_| NoKey::Malformed(REFUSED))?;
            Ok(Key::new(Private::Rsa(pair), String::new()))
        }
        "EC PRIVATE KEY" => sec1(&bytes),
        "PRIVATE KEY" => pkcs8(&bytes),
        other => Err(NoKey::Kind(other.trim_end_matches("PRIVATE KEY").trim().to_owned())),
    }
}

/// Label and body of the first private key in a text (RFC 7468).
fn armoured(text: &str) -> Option<(&str, &str)> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----")?;
        if label.ends_with("PRIVATE KEY") {
            return Some((label, after.split_once("-----END ")?.0));
        }
        rest = after;
    }
    None
}

fn openssh(bytes: &[u8]) -> Result<Key, NoKey> {
    let mut file = Reader(bytes);
    if file.take(15) != Some(b"openssh-key-v1\0") {
        return Err(NoKey::Malformed("it does not begin as OpenSSH's keys do"));
    }
    let cipher = file.string().ok_or(NoKey::Malformed(TRUNCATED))?;
    let _derivation = (file.string(), file.string());
    if cipher != b"none" {
        return Err(NoKey::Encrypted);
    }
    if file.number() != Some(1) {
        return Err(NoKey::Malformed("it does not hold one key"));
    }
    let _public = file.string();
    let mut private = Reader(file.string().ok_or(NoKey::Malformed(TRUNCATED))?);
    if private.number().is_none() || private.number().is_none() {
        return Err(NoKey::Malformed(TRUNCATED));
    }
    let kind = private.string().ok_or(NoKey::Malformed(TRUNCATED))?;
    let pair = match kind {
        b"ssh-ed25519" => openssh_ed25519(&mut private),
        b"ssh-rsa" => openssh_rsa(&mut private),
        kind => {
            let curve = Curve::ALL.into_iter().find(|curve| kind == format!("ecdsa-sha2-{}", curve.name()).as_bytes());
            let Some(curve) = curve else { return Err(NoKey::Kind(String::from_utf8_lossy(kind).into_owned())) };
            openssh_ecdsa(&mut private, curve)
        }
    };
    let pair = pair.ok_or(NoKey::Malformed(REFUSED))?;
    let comment = private.string().ok_or(NoKey::Malformed(TRUNCATED))?;
    Ok(Key::new(pair, String::from_utf8_lossy(comment).into_owned()))
}

fn openssh_ed25519(fields: &mut Reader<'_>) -> Option<Private> {
    let public = fields.string()?;
    // Seed and public key.
    let seed = fields.string()?.get(..32)?;
    Ed25519KeyPair::from_seed_and_public_key(seed, public).ok().map(Private::Ed25519)
}

fn openssh_ecdsa(fields: &mut Reader<'_>, curve: Curve) -> Option<Private> {
    let _name = fields.string()?;
    let public = fields.string()?;
    ecdsa(curve, fields.integer()?, public)
}

#[expect(clippy::many_single_char_names, reason = "the names of RFC 8017")]
fn openssh_rsa(fields: &mut Reader<'_>) -> Option<Private> {
    let (n, e, d) = (fields.integer()?, fields.integer()?, fields.integer()?);
    let (inverse, p, q) = (fields.integer()?, fields.integer()?, fields.integer()?);
    // d mod p−1 and d mod q−1, which OpenSSH leaves out.
    let (exponent_p, exponent_q) = (remainder(d, &one_less(p)), remainder(d, &one_less(q)));
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: without_zeros(&exponent_p),
        dQ: without_zeros(&exponent_q),
        qInv: inverse,
    };
    RsaKeyPair::from_components(&components).ok().map(Private::Rsa)
}

fn ecdsa(curve: Curve, scalar: &[u8], public: &[u8]) -> Option<Private> {
    let mut padded = vec![0; curve.size().checked_sub(scalar.len())?];
    padded.extend_from_slice(scalar);
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm(), &padded, public, &random).ok()?;
    Some(Private::Ecdsa(curve, pair))
}

fn pkcs8(bytes: &[u8]) -> Result<Key, NoKey> {
    let random = SystemRandom::new();
    let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).ok().map(Private::Ed25519);
    let rsa = || RsaKeyPair::from_pkcs8(bytes).ok().map(Private::Rsa);
    let ecdsa = || {
        Curve::ALL.into_iter().find_map(|curve| {
            let pair = EcdsaKeyPair::from_pkcs8(curve.algorithm(), bytes, &random).ok()?;
            Some(Private::Ecdsa(curve, pair))
        })
    };
    let pair = ed25519().or_else(rsa).or_else(ecdsa);
    Ok(Key::new(pair.ok_or(NoKey::Malformed("it is not RSA, Ed25519, or ECDSA on P-256 or P-384"))?, String::new()))
}

/// `SEQUENCE { 1, OCTET STRING private, [0] OBJECT IDENTIFIER curve, [1] BIT STRING public }`
fn sec1(bytes: &[u8]) -> Result<Key, NoKey> {
    let find = || {
        let mut fields = Der(Der(bytes).value(0x30)?);
        fields.value(0x02)?;
        let scalar = fields.value(0x04)?;
        let curve = Der(fields.value(0xa0)?).value(0x06)?;
        let public = Der(fields.value(0xa1)?).value(0x03)?;
        // The first byte counts unused bits, of which there are none.
        Some((without_zeros(scalar), curve, public.get(1..)?))
    };
    let (scalar, curve, public) = find().ok_or(NoKey::Malformed(TRUNCATED))?;
    let curve = match curve {
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] => Curve::P256,
        [0x2b, 0x81, 0x04, 0x00, 0x22] => Curve::P384,
        _ => return Err(NoKey::Kind("EC".to_owned())),
    };
    let pair = ecdsa(curve, scalar, public).ok_or(NoKey::Malformed(REFUSED))?;
    Ok(Key::new(pair, String::new()))
}

/// Takes values off the front of bytes in DER (X.690).
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value, if it has this tag.
    fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        let rest = self.0.strip_prefix(&[tag])?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // Lengths above 127: how many bytes, then those.
            let (digits, rest) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() < 4)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }
}

/// A big-endian number minus one; zero stays.
fn one_less(number: &[u8]) -> Vec<u8> {
    let mut result = number.to_vec();
    if result.iter().any(|byte| *byte != 0) {
        for byte in result.iter_mut().rev() {
            let (less, borrowed) = byte.overflowing_sub(1);
            *byte = less;
            if !borrowed {
                break;
            }
        }
    }
    result
}

/// The remainder of a division of big-endian numbers, one bit at a time: it is needed twice a key. Empty for a divisor of zero.
fn remainder(number: &[u8], divisor: &[u8]) -> Vec<u8> {
    let divisor = without_zeros(divisor);
    if divisor.is_empty() {
        return Vec::new();
    }
    // One byte more than the divisor, for the bit that a shift moves out.
    let mut rest = vec![0u8; divisor.len() + 1];
    let divisor = [&[0], divisor].concat();
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let shifted_out = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = shifted_out;
        }
        if rest >= divisor {
            let mut borrow = 0;
            for (byte, less) in rest.iter_mut().zip(&divisor).rev() {
                let difference = i16::from(*byte) - i16::from(*less) - borrow;
                borrow = i16::from(difference < 0);
                *byte = u8::try_from(difference + borrow * 256).unwrap_or(0);
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_numbers() {
        for (number, divisor) in
            [(0u64, 7u64), (6, 7), (7, 7), (1_000_003, 997), (u64::MAX, 255), (u64::MAX - 5, 1 << 40)]
        {
            let rest = remainder(&number.to_be_bytes(), &divisor.to_be_bytes());
            let expected = (number % divisor).to_be_bytes();
            assert_eq!(without_zeros(&rest), without_zeros(&expected), "{number} {divisor}");
        }
        assert_eq!(one_less(&[1, 0, 0]), [0, 0xff, 0xff]);
        assert_eq!(one_less(&[0]), [0]);
        assert!(remainder(&[5], &[0]).is_empty());
    }

    #[test]
    fn what_is_no_key_says_why() {
        let check = |text: &str, expected: NoKey| assert_eq!(parse(text.as_bytes()).expect_err(text), expected);
        check("", NoKey::Malformed("it has no `-----BEGIN … PRIVATE KEY-----`"));
        check("ssh-ed25519 AAAA me", NoKey::Malformed("it has no `-----BEGIN … PRIVATE KEY-----`"));
        let armour = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        check(&armour("ENCRYPTED PRIVATE KEY", "AAAA"), NoKey::Encrypted);
        let header = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA";
        check(&armour("RSA PRIVATE KEY", header), NoKey::Encrypted);
        check(&armour("DSA PRIVATE KEY", "AAAA"), NoKey::Kind("DSA".to_owned()));
        check(&armour("OPENSSH PRIVATE KEY", "?"), NoKey::Malformed("its base64 is damaged"));
        check(&armour("OPENSSH PRIVATE KEY", "AAAA"), NoKey::Malformed("it does not begin as OpenSSH's keys do"));
        for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"] {
            assert!(matches!(parse(armour(label, "AAAA").as_bytes()), Err(NoKey::Malformed(_))), "{label}");
        }
    }
}
