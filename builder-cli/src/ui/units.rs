//! Sizes and times as docker writes them (github.com/docker/go-units).

use std::time::{Duration, SystemTime};

use crate::command_error::CommandError;

/// Bytes in powers of 1000 with three significant digits: `4.53MB`.
pub(crate) fn size(bytes: u64) -> String {
    size_with(bytes, 3)
}

/// As [`size`], with a number of significant digits.
pub(crate) fn size_with(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), UNITS[unit])
}

/// C's `%.*g` for values from 0 to 1000: no trailing zeros.
fn significant(value: f64, digits: usize) -> String {
    let before = if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.*}", digits.saturating_sub(before));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `1 item`, `2 items`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// How long ago something was, roughly: `About an hour`, `3 weeks`.
pub(crate) fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// RFC 3339 with nanoseconds, in UTC.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string())
}

/// `2 hours ago`; `N/A` where the time is not known.
pub(crate) fn ago(at: Option<SystemTime>, now: SystemTime) -> String {
    at.map_or_else(|| "N/A".to_owned(), |at| format!("{} ago", duration(now.duration_since(at).unwrap_or_default())))
}

/// A time as docker's tables have it: `2024-02-03 04:05:06 +0000 UTC`.
pub(crate) fn created_at(at: Option<jiff::Timestamp>) -> String {
    at.map_or_else(|| "N/A".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
}

/// `until=`: a time, seconds since 1970, or a duration before now (`24h`, `1h30m`).
pub(crate) fn until(text: &str) -> Result<jiff::Timestamp, CommandError> {
    let wrong = || {
        CommandError::usage(format!("`{text}` is neither a time nor a duration"))
            .with_hint("write `24h`, `1h30m`, or `2024-02-03T04:05:06Z`")
    };
    if let Ok(seconds) = text.parse::<i64>() {
        return jiff::Timestamp::from_second(seconds).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    let back = go_duration(text).ok_or_else(wrong)?;
    jiff::Timestamp::now().checked_sub(jiff::SignedDuration::try_from(back).map_err(|_| wrong())?).map_err(|_| wrong())
}

/// A duration as Go writes it, and whole days (`7d`).
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            "ms" => {
                total = total.checked_add(Duration::from_millis(number))?;
                rest = &rest[unit..];
                continue;
            }
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(number.checked_mul(seconds)?))?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (4_530_000, "4.53MB"),
            (77_800_000, "77.8MB"),
            (123_456_789, "123MB"),
            (1_000_000_000, "1GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_are_rough() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3540, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_survive_both_ways() {
        let at = SystemTime::from("2024-02-03T04:05:06.789Z".parse::<jiff::Timestamp>().expect("valid"));
        assert_eq!(rfc3339(at), "2024-02-03T04:05:06.789Z");
        assert_eq!(ago(None, at), "N/A");
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in
            [("24h", Some(86400)), ("1h30m", Some(5400)), ("7d", Some(604_800)), ("", None), ("h", None), ("1x", None)]
        {
            assert_eq!(go_duration(text).map(|duration| duration.as_secs()), seconds, "{text}");
        }
        assert!(until("x").is_err());
        assert_eq!(until("0").ok(), Some(jiff::Timestamp::UNIX_EPOCH));
    }
}
