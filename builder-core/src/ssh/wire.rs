//! Numbers and strings as they are sent. Format: RFC 4251, section 5.

/// Takes values off the front of bytes.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Bytes with their length before them.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// A number of any size that is not negative, without leading zeros.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        self.string().map(without_zeros)
    }
}

/// A number in big-endian bytes without what does not count.
pub(super) fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// Puts values together.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn string(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let length = u32::try_from(bytes.len()).expect("messages are small");
        let mut written = self.number(length);
        written.0.extend_from_slice(bytes);
        written
    }

    /// A number that is not negative, in big-endian bytes.
    pub(super) fn integer(self, bytes: &[u8]) -> Self {
        let bytes = without_zeros(bytes);
        let sign = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        self.string([if sign { &[0][..] } else { &[] }, bytes].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let written = Writer::default().number(7).string("abc").integer(&[0, 0, 0x80]).integer(&[0, 1]).integer(&[]).0;
        // RFC 4251: a number whose first bit is set gets a zero byte before it; zero is the empty string.
        assert_eq!(written[11..], [0, 0, 0, 2, 0, 0x80, 0, 0, 0, 1, 1, 0, 0, 0, 0]);
        let mut reader = Reader(&written);
        assert_eq!(reader.number(), Some(7));
        assert_eq!(reader.string(), Some(&b"abc"[..]));
        assert_eq!(reader.integer(), Some(&[0x80][..]));
        assert_eq!(reader.integer(), Some(&[1][..]));
        assert_eq!(reader.integer(), Some(&[][..]));
        assert_eq!(reader.number(), None);
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 1]).string(), None);
    }
}
