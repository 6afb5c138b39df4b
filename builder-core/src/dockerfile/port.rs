//! Port specifications of `EXPOSE`.

use std::ops::RangeInclusive;

/// A specification is not a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Nothing before the protocol.
    #[error("no port specified: `{0}`")]
    Empty(String),
    /// Neither tcp, udp nor sctp.
    #[error("invalid proto: `{0}`")]
    Protocol(String),
    /// Not a number up to 65535, or a range that runs backwards.
    #[error("invalid containerPort: `{0}`")]
    Port(String),
    /// A host port that is none.
    #[error("invalid hostPort: `{0}`")]
    HostPort(String),
    /// A host address that is none.
    #[error("invalid IP address: `{0}`")]
    Address(String),
    /// Ranges of different length on both sides.
    #[error("invalid ranges specified for container and host ports: `{0}`")]
    Ranges(String),
}

/// Reads one expanded word of `EXPOSE` into the keys of the image config: `80`, `80/udp`, `8000-8002`. The protocol
/// is lower-cased, `tcp` if it is not given. The forms with a host address or host port are checked, and the host
/// part is dropped.
///
/// # Errors
/// [`PortError`] names the part that is wrong.
pub fn parse_ports(word: &str) -> Result<Vec<String>, PortError> {
    let (ports, protocol) = parse_range(word)?;
    Ok(ports.map(|port| format!("{port}/{protocol}")).collect())
}

/// The ports of a word and their protocol, not yet written out: `1-65535` has half a megabyte of keys.
pub(super) fn parse_range(word: &str) -> Result<(RangeInclusive<u16>, String), PortError> {
    let (spec, protocol) = word.split_once('/').unwrap_or((word, ""));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    let (host, port) = spec.rsplit_once(':').unwrap_or(("", spec));
    if port.is_empty() {
        return Err(PortError::Empty(word.to_owned()));
    }
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol(protocol));
    }
    let (first, last) = range(port).ok_or_else(|| PortError::Port(port.to_owned()))?;
    let (address, host_port) = host.rsplit_once(':').unwrap_or(("", host));
    let bare_address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if !bare_address.is_empty() && bare_address.parse::<std::net::IpAddr>().is_err() {
        return Err(PortError::Address(address.to_owned()));
    }
    if !host_port.is_empty() {
        let (from, to) = range(host_port).ok_or_else(|| PortError::HostPort(host_port.to_owned()))?;
        if to - from != last - first && first != last {
            return Err(PortError::Ranges(word.to_owned()));
        }
    }
    Ok((first..=last, protocol))
}

fn range(text: &str) -> Option<(u16, u16)> {
    // Rust reads the `+` that Go's `ParseInt` allows, too.
    let number = |text: &str| text.parse::<u16>().ok();
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rows: A113.
    #[test]
    fn ports() {
        let check = |word, expected: &[&str]| assert_eq!(parse_ports(word).expect(word), expected, "{word}");
        check("80", &["80/tcp"]);
        check("+80", &["80/tcp"]);
        check("80/UDP", &["80/udp"]);
        check("80/", &["80/tcp"]);
        check("80-82/sctp", &["80/sctp", "81/sctp", "82/sctp"]);
        check("8080:80", &["80/tcp"]);
        check("127.0.0.1:8080:80/tcp", &["80/tcp"]);
        check("[::1]::80", &["80/tcp"]);
        check("8080-8081:80", &["80/tcp"]);
        for word in ["", "/tcp", "x", "80/foo", "70000", "82-80", "-1", "+-1", "1:2:3", "80:", "1-3:1-2", "a:80"] {
            assert!(parse_ports(word).is_err(), "{word}");
        }
    }
}
