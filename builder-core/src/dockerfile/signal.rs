//! Names of signals in `STOPSIGNAL`.

/// Linux signal numbers (signal(7)), without `SIG`.
const NAMES: [(&str, u32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
];

/// First and last real-time signal as docker numbers them.
const REAL_TIME: std::ops::RangeInclusive<u32> = 34..=64;

/// The number of a signal that is written as a number or as a name, in any case, with or without `SIG`:
/// `9`, `SIGTERM`, `term`, `SIGRTMIN+3`. `None` if there is no such name; any number but 0 is a signal, as in docker,
/// even one below 0.
pub fn parse_signal(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number).filter(|number| *number != 0);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str, sign: char| match text.strip_prefix(sign) {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        None if text.is_empty() => Some(0_u32),
        _ => None,
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return REAL_TIME.start().checked_add(offset(rest, '+')?).filter(|number| *number <= 49).map(i64::from);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return REAL_TIME.end().checked_sub(offset(rest, '-')?).filter(|number| *number >= 50).map(i64::from);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| i64::from(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rows: A117.
    #[test]
    fn signals() {
        let check = |text, expected| assert_eq!(parse_signal(text), expected, "{text}");
        check("9", Some(9));
        check("99", Some(99));
        check("+9", Some(9));
        check("-9", Some(-9));
        check("99999999999", Some(99_999_999_999));
        check("SIGTERM", Some(15));
        check("term", Some(15));
        check("SigRtMin+3", Some(37));
        check("RTMAX-14", Some(50));
        check("RTMAX", Some(64));
        for text in ["", "0", "-0", "99999999999999999999", "9x", "SIGFOO", "RTMIN+16", "RTMAX-15", "RTMIN-1", "SIG"] {
            check(text, None);
        }
    }
}
