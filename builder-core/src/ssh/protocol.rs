//! The agent protocol, as far as a step may use it. Format: draft-ietf-sshm-ssh-agent.

use std::io::{self, Read, Write};

use super::key::Key;
use super::wire::{Reader, Writer};

/// Largest message in bytes; OpenSSH's agent takes no larger ones.
const MAX_MESSAGE: usize = 256 << 10;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Reads one message; `None` at the end of the stream.
pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

/// Writes one message.
pub(super) fn write(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    stream.write_all(&Writer::default().string(message).0)
}

/// Whether a step may ask that.
pub(super) fn is_allowed(request: &[u8]) -> bool {
    matches!(request.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)))
}

/// What a step gets of the answer of another agent: a list, a signature, or that it failed.
pub(super) fn filtered(answer: Vec<u8>) -> Vec<u8> {
    if matches!(answer.first(), Some(&(IDENTITIES_ANSWER | SIGN_RESPONSE))) { answer } else { failure() }
}

pub(super) fn failure() -> Vec<u8> {
    vec![FAILURE]
}

/// Answers a request with keys of our own.
pub(super) fn answer(keys: &[Key], request: &[u8]) -> Vec<u8> {
    match request.split_first() {
        Some((&REQUEST_IDENTITIES, _)) => {
            let count = u32::try_from(keys.len()).unwrap_or(0);
            let list = Writer(vec![IDENTITIES_ANSWER]).number(count);
            keys.iter().fold(list, |list, key| list.string(key.public()).string(key.comment())).0
        }
        Some((&SIGN_REQUEST, rest)) => match sign(keys, rest) {
            Some(signature) => Writer(vec![SIGN_RESPONSE]).string(signature).0,
            None => failure(),
        },
        _ => failure(),
    }
}

fn sign(keys: &[Key], request: &[u8]) -> Option<Vec<u8>> {
    let mut request = Reader(request);
    let public = request.string()?;
    let data = request.string()?;
    let flags = request.number()?;
    keys.iter().find(|key| key.public() == public)?.sign(data, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listing_and_signing_is_let_through() {
        // Adding, removing, locking, unlocking, smart cards, extensions; and the first version of the protocol.
        for request in [1, 7, 8, 9, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 255] {
            assert!(!is_allowed(&[request]), "{request}");
            assert_eq!(answer(&[], &[request]), failure());
        }
        assert!(!is_allowed(&[]));
        assert!(is_allowed(&[11]) && is_allowed(&[13, 0]));
        assert_eq!(filtered(vec![12, 0, 0, 0, 0]), [12, 0, 0, 0, 0]);
        assert_eq!(filtered(vec![6]), failure());
        assert_eq!(answer(&[], &[11]), [12, 0, 0, 0, 0]);
        assert_eq!(answer(&[], &[13, 0, 0, 0, 9]), failure());
    }

    #[test]
    fn messages_have_a_length_that_is_checked() {
        let mut stream = Vec::new();
        write(&mut stream, &[11]).expect("memory");
        assert_eq!(stream, [0, 0, 0, 1, 11]);
        let mut reader = &stream[..];
        assert_eq!(read(&mut reader).expect("whole"), Some(vec![11]));
        assert_eq!(read(&mut reader).expect("the end"), None);
        for broken in [&[0, 0, 0, 0][..], &[0xff, 0xff, 0xff, 0xff], &[0, 0, 0, 2, 11]] {
            assert!(read(&mut &*broken).is_err(), "{broken:?}");
        }
    }
}
