//! Durations as Go writes them: `1h30m`, `1.5s`, `300ms`.

use std::time::Duration;

/// Reads a duration that is not negative. `None` if it is malformed or longer than 292 years (Go's limit).
///
/// Source: the documentation of Go's `time.ParseDuration`. A sign is allowed; a lone `0` needs no unit.
pub(super) fn parse(text: &str) -> Option<Result<Duration, Negative>> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    if rest != "0" {
        while !rest.is_empty() {
            let (nanoseconds, after) = part(rest)?;
            total = total.checked_add(nanoseconds).filter(|total| *total <= i64::MAX as u128)?;
            rest = after;
        }
    }
    let total = u64::try_from(total).ok()?;
    Some(if negative && total > 0 { Err(Negative) } else { Ok(Duration::from_nanos(total)) })
}

/// The same with whole days first: `7d`, `1d12h`. A negative one is malformed.
pub(super) fn parse_with_days(text: &str) -> Option<Duration> {
    let Some((days, rest)) = text.split_once('d') else { return parse(text)?.ok() };
    let days = days.parse::<u32>().ok().filter(|_| days.starts_with(|ch: char| ch.is_ascii_digit()))?;
    let rest = if rest.is_empty() { Duration::ZERO } else { parse(rest)?.ok()? };
    (Duration::from_secs(86400) * days).checked_add(rest)
}

/// The duration is below zero.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Negative;

/// One number with its unit, in nanoseconds, and what follows.
fn part(text: &str) -> Option<(u128, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let length = rest.find(|ch: char| ch == '.' || ch.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(length);
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
    // More digits than these are below a nanosecond for every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let fraction_value: u128 = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()?.into() };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some((whole * unit + fraction_value * unit / scale, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, nanoseconds| assert_eq!(parse(text), Some(Ok(Duration::from_nanos(nanoseconds))), "{text}");
        check("0", 0);
        check("1s", 1_000_000_000);
        check("1h30m", 5_400_000_000_000);
        check("1.5s", 1_500_000_000);
        check(".5ms", 500_000);
        check("1.s", 1_000_000_000);
        check("100µs", 100_000);
        check("+1ns", 1);
        check("-0s", 0);
        for text in ["", "1", "s", "1x", "1s ", " 1s", ".s", "-", "9999999999h", "99999999999999999999s", "1s2"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("-1s"), Some(Err(Negative)));
    }

    #[test]
    fn days_come_first() {
        let check =
            |text, seconds: u64| assert_eq!(parse_with_days(text), Some(Duration::from_secs(seconds)), "{text}");
        check("0", 0);
        check("12h", 43200);
        check("7d", 604_800);
        check("1d12h30m", 131_400);
        for text in ["", "d", "1.5d", "-1d", "1h1d", "-1h", "1d-1h", "12", "soon", "4294967296d", "1d "] {
            assert_eq!(parse_with_days(text), None, "{text}");
        }
    }
}
