//! Numbers in headers: octal, base 256, and the decimal ones of pax.

/// Reads a field of a header block: octal digits between spaces and NULs, or base 256 with the top bit set (GNU).
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            // Two's complement in as many bytes as there are, the top bit being the mark.
            let negative = first & 0x40 != 0;
            let mut value: i128 = if negative { -1 } else { 0 };
            for (at, byte) in field.iter().enumerate() {
                let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
                value = value.checked_mul(256)? + i128::from(byte);
            }
            i64::try_from(value).ok()
        }
        _ => {
            let start = field.iter().position(|byte| !matches!(byte, b' ' | 0)).unwrap_or(field.len());
            let digits = &field[start..];
            let end = digits.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(digits.len());
            digits[..end].iter().try_fold(0_i64, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                _ => None,
            })
        }
    }
}

/// Writes an octal number and a NUL; `None` if there is no room.
pub(super) fn write_octal(field: &mut [u8], value: u64) -> Option<()> {
    let (end, digits) = field.split_last_mut()?;
    let bits = 3 * digits.len();
    if bits < 64 && value >> bits != 0 {
        return None;
    }
    let mut left = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 8).to_le_bytes()[0];
        left /= 8;
    }
    *end = 0;
    Some(())
}

/// Reads a decimal number of a pax record.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

/// Reads a time of a pax record: decimal seconds, perhaps negative, perhaps with a fraction of which nine digits count.
/// Rounds down.
pub(super) fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
    let nanoseconds = (0..9).fold(0, |value, at| value * 10 + digit(at));
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"", Some(0)),
            (b"8", None),
            (b"12x", None),
            (b"-1", None),
            (b"77777777777", Some(0o77_777_777_777)),
            (b"777777777777777777777777", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(parse(field), expected, "{field:?}");
        }
    }

    #[test]
    fn pax_times_round_down() {
        for (value, expected) in [
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.0000000019", Some((12, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-315619200", Some((-315_619_200, 0))),
            ("", None),
            ("1.x", None),
            ("+1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(time(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn octal_that_has_no_room() {
        let mut field = [b'x'; 8];
        assert_eq!(write_octal(&mut field, 0o644), Some(()));
        assert_eq!(&field, b"0000644\0");
        assert_eq!(write_octal(&mut field, 0o10_000_000), None);
        assert_eq!(&field, b"0000644\0", "nothing is written then");
        assert_eq!(write_octal(&mut field, 0o7_654_321), Some(()));
        assert_eq!(&field, b"7654321\0");
        let mut wide = [b'x'; 24];
        assert_eq!(write_octal(&mut wide, u64::MAX), Some(()));
        assert_eq!(&wide, b"01777777777777777777777\0");
    }
}
