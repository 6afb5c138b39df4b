//! What an address says by itself: the host, and the name of the file.

/// The last part of an address's path, as BuildKit names what it downloads: without escapes and without the slashes at
/// its end. What a server calls the file does not count.
pub(crate) fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let path = crate::registry::unescaped(path);
    let name = path.split(|byte| *byte == b'/').rfind(|name| !name.is_empty()).unwrap_or_default();
    match std::str::from_utf8(name) {
        Ok(name) if !matches!(name, "" | "." | "..") && !name.contains('\0') => name.to_owned(),
        _ => "__unnamed__".to_owned(),
    }
}

/// The host of an address, without user and port.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Seconds since 1970 of an IMF-fixdate (RFC 9110): `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_buildkit() {
        for (url, expected) in [
            ("http://h/a/b.tar?x=/y", "b.tar"),
            ("http://h/a/b.tar#/y", "b.tar"),
            ("http://h/dir/", "dir"),
            ("http://h//", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h", "__unnamed__"),
            ("http://h?x=/y", "__unnamed__"),
            ("http://h/a%20b%2ftxt", "txt"),
            ("http://h/%2e%2e", "__unnamed__"),
            ("http://h/a%00", "__unnamed__"),
            ("http://h/%ff", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), expected, "{url}");
        }
    }

    #[test]
    fn hosts_have_neither_user_nor_port() {
        for (url, expected) in [
            ("http://h/a@b:1", "h"),
            ("https://u:p@h:8443?x", "h"),
            ("http://[::1]:80/x", "::1"),
            ("http://127.0.0.1:80", "127.0.0.1"),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }
}
