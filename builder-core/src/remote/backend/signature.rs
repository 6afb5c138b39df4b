//! AWS Signature Version 4, in the form of headers.
//!
//! Source: "Signature Version 4 for API requests" of the IAM user guide; RFC 2104 for HMAC.

use std::fmt::Write as _;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// Who signs, and for what.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Signer {
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) session_token: Option<String>,
    pub(super) region: String,
}

impl std::fmt::Debug for Signer {
    /// Never shows the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

impl Signer {
    /// The headers that a request for a path and a query, percent-encoded and the latter sorted, needs besides `host`.
    ///
    /// `headers` are further ones that are signed too, by their names in small letters; `payload` is the SHA-256 of the body.
    pub(super) fn sign(
        &self,
        method: &str,
        host: &str,
        (path, query): (&str, &str),
        headers: &[(&'static str, String)],
        payload: &str,
        now: Timestamp,
    ) -> Vec<(&'static str, String)> {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &time[..8];
        let mut all: Vec<(&'static str, String)> = headers.to_vec();
        all.push(("x-amz-content-sha256", payload.to_owned()));
        all.push(("x-amz-date", time.clone()));
        if let Some(token) = &self.session_token {
            all.push(("x-amz-security-token", token.clone()));
        }
        let mut signed: Vec<(&str, &str)> = all.iter().map(|(name, value)| (*name, value.trim())).collect();
        signed.push(("host", host));
        signed.sort_unstable();
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut request = format!("{method}\n{path}\n{query}\n");
        for (name, value) in &signed {
            writeln!(request, "{name}:{value}").expect("writing to a string does not fail");
        }
        write!(request, "\n{names}\n{payload}").expect("writing to a string does not fail");
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(&request)));
        let secret = format!("AWS4{}", self.secret_key);
        let key = [day, &self.region, "s3", "aws4_request"]
            .iter()
            .fold(secret.into_bytes(), |key, part| hmac(&key, part.as_bytes()).to_vec());
        let signature = hex(&hmac(&key, text.as_bytes()));
        let credential = format!("{}/{scope}", self.access_key);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}");
        all.push(("authorization", authorization));
        all
    }
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// Percent-encodes a path, all but `/` and what never needs it (RFC 3986, unreserved).
pub(super) fn encoded(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02X}").expect("writing to a string does not fail"),
        }
    }
    text
}

/// Percent-encodes a value of a query.
pub(super) fn encoded_part(text: &str) -> String {
    encoded(text).replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let check = |key: &[u8], message: &[u8], expected: &str| assert_eq!(hex(&hmac(key, message)), expected);
        check(
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        );
        check(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        );
    }

    /// The example "GET Object" of the S3 API reference.
    #[test]
    fn a_request_is_signed_as_in_the_manual() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            region: "us-east-1".to_owned(),
        };
        let now = "2013-05-24T00:00:00Z".parse().expect("a time");
        let empty = hex(&Sha256::digest(b""));
        let headers = [("range", "bytes=0-9".to_owned())];
        let signed = signer.sign("GET", "examplebucket.s3.amazonaws.com", ("/test.txt", ""), &headers, &empty, now);
        let (_, authorization) = signed.last().expect("signed");
        assert!(
            authorization.ends_with("Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            "{authorization}"
        );
        // "GET Bucket Lifecycle" of the same page has a query.
        let signed = signer.sign("GET", "examplebucket.s3.amazonaws.com", ("/", "lifecycle="), &[], &empty, now);
        let (_, authorization) = signed.last().expect("signed");
        assert!(
            authorization.ends_with("Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            "{authorization}"
        );
        assert_eq!(encoded_part("a/b=c"), "a%2Fb%3Dc");
        assert!(!format!("{signer:?}").contains("wJalr"));
        assert_eq!(encoded("a b/ü~"), "a%20b/%C3%BC~");
    }
}
