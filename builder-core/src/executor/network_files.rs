//! The text of `/etc/hosts` and `/etc/resolv.conf` for a process. Pure; the caller mounts the result over the image's files.

use std::net::IpAddr;

/// Whether a process can reach the loopback addresses of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostLoopback {
    /// It uses the host's network.
    Reachable,
    /// It has a network of its own.
    Unreachable,
}

/// Name servers for a process that could reach none of the host's; those that every container engine falls back to.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Where systemd-resolved, which listens on 127.0.0.53, has the servers that it asks itself.
pub const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// What stands in `resolv.conf` instead of what the host has there; empty keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// `nameserver`
    pub servers: Vec<IpAddr>,
    /// `options`
    pub options: Vec<String>,
    /// `search`
    pub search: Vec<String>,
}

impl Dns {
    /// Puts its lines in the place of those in `text`.
    pub fn apply(&self, text: &str) -> String {
        let replaced = |line: &&str| match line.split_whitespace().next() {
            Some("nameserver") => !self.servers.is_empty(),
            Some("options") => !self.options.is_empty(),
            Some("search" | "domain") => !self.search.is_empty(),
            _ => false,
        };
        let mut text: String = text.lines().filter(|line| !replaced(line)).flat_map(|line| [line, "\n"]).collect();
        for server in &self.servers {
            text.extend(["nameserver ", &server.to_string(), "\n"]);
        }
        for (word, values) in [("search", &self.search), ("options", &self.options)] {
            if !values.is_empty() {
                text.extend([word, " ", &values.join(" "), "\n"]);
            }
        }
        text
    }
}

/// Makes `/etc/hosts` (see `hosts(5)`): localhost, the host name of the process, then `extra` in the order given.
pub fn hosts_file(hostname: &str, extra: &[(String, IpAddr)]) -> String {
    let names = extra.iter().flat_map(|(name, address)| [address.to_string(), "\t".into(), name.clone(), "\n".into()]);
    let text = format!(
        "127.0.0.1\tlocalhost {hostname}\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    [text].into_iter().chain(names).collect()
}

/// Makes `/etc/resolv.conf` (see `resolv.conf(5)`) from that of the host.
///
/// With the host's network it stays as it is. Without, a server on a loopback address is of no use: if the only one is the stub of
/// systemd-resolved, `systemd` (the content of [`SYSTEMD_RESOLV_CONF`]) takes the place of `host`; others are left
/// out, and if none is left, public servers are named.
pub fn resolv_conf(host: &str, systemd: Option<&str>, loopback: HostLoopback) -> String {
    if loopback == HostLoopback::Reachable {
        return host.to_owned();
    }
    let text = match systemd {
        Some(systemd) if servers(host).eq(["127.0.0.53"]) => systemd,
        _ => host,
    };
    let unusable = |line: &&str| server(line).is_some_and(is_loopback);
    let mut kept: String = text.lines().filter(|line| !unusable(line)).flat_map(|line| [line, "\n"]).collect();
    if servers(&kept).next().is_none() {
        for server in FALLBACK_SERVERS {
            kept.extend(["nameserver ", server, "\n"]);
        }
    }
    kept
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(server)
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

fn is_loopback(server: &str) -> bool {
    // An address may carry a zone: `fe80::1%eth0`.
    let address = server.split('%').next().unwrap_or(server);
    address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_the_process_and_the_extra_ones() {
        let extra = [
            ("db".to_owned(), "10.0.0.7".parse().expect("address")),
            ("six".to_owned(), "fd00::1".parse().expect("address")),
        ];
        let text = hosts_file("buildkitsandbox", &extra);
        let expected = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                        10.0.0.7\tdb\nfd00::1\tsix\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn lines_that_were_given_take_the_place_of_others() {
        let host = "# c\nnameserver 1.1.1.1\nsearch a b\noptions edns0\n";
        let dns = Dns { servers: vec!["9.9.9.9".parse().expect("address")], ..Dns::default() };
        assert_eq!(dns.apply(host), "# c\nsearch a b\noptions edns0\nnameserver 9.9.9.9\n");
        let words = |word: &str| vec![word.to_owned(), "x".to_owned()];
        let dns = Dns { servers: Vec::new(), options: words("ndots:2"), search: words("corp") };
        assert_eq!(dns.apply(host), "# c\nnameserver 1.1.1.1\nsearch corp x\noptions ndots:2 x\n");
        assert_eq!(Dns::default().apply(host), host);
    }

    fn check(host: &str, systemd: Option<&str>, expected: &str) {
        assert_eq!(resolv_conf(host, systemd, HostLoopback::Unreachable), expected);
        assert_eq!(resolv_conf(host, systemd, HostLoopback::Reachable), host);
    }

    #[test]
    fn servers_that_cannot_be_reached_are_replaced() {
        check("# c\nnameserver 1.1.1.1\nsearch a b\n", None, "# c\nnameserver 1.1.1.1\nsearch a b\n");
        check("nameserver 127.0.0.1\nnameserver 9.9.9.9", None, "nameserver 9.9.9.9\n");
        check("nameserver\t::1\noptions edns0\n", None, "options edns0\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        check("", None, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        check("nameserver 127.0.0.53\nsearch x\n", Some("nameserver 10.0.0.1\n"), "nameserver 10.0.0.1\n");
        // Another server beside the stub: the host's file is meant as it is.
        check("nameserver 127.0.0.53\nnameserver 10.0.0.2\n", Some("nameserver 10.0.0.1\n"), "nameserver 10.0.0.2\n");
        check("nameserver fe80::1%eth0\n", None, "nameserver fe80::1%eth0\n");
    }
}
