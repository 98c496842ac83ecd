//! Who answers: the system, or whatever a builder was given.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, ToSocketAddrs};

/// Resolves names. It may block: it is called on threads of the pool's lane of names, on several at once.
///
/// A test or a simulation answers by itself, without any network:
///
/// ```
/// use evenkeel::{EventLoop, dns};
/// let here = |_host: &str, port: u16| Ok(vec![([127, 0, 0, 1], port).into()]);
/// let mut events = EventLoop::builder().resolver(here).build()?;
/// let found = events.block_on(dns::resolve("example.com", 443))??;
/// assert_eq!(found, ["127.0.0.1:443".parse().unwrap()]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of a host, the preferred first, with this port.
    ///
    /// # Errors
    /// Why there is none. An empty list says the same.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

impl<F> Resolver for F
where
    F: Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
{
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self(host, port)
    }
}

/// The system's resolver, `getaddrinfo`, with all that it is configured to look at: `/etc/hosts`, name servers and the
/// rest of `nsswitch.conf`. It orders addresses by the rules of RFC 6724.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Resolver for System {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// The address that a host is, if it is one and no name: IPv4, or IPv6 with or without brackets and a scope in numbers.
pub(super) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return (ip.is_ipv6() || bare == host).then_some(SocketAddr::new(ip, port));
    }
    format!("[{bare}]:{port}").parse::<SocketAddrV6>().ok().map(SocketAddr::V6)
}

/// Splits `HOST:PORT`. An IPv6 address has brackets.
pub(super) fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_are_told_from_names() {
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1:9"),
            ("::1", "[::1]:9"),
            ("[2001:db8::1]", "[2001:db8::1]:9"),
            ("fe80::1%3", "[fe80::1%3]:9"),
            ("[fe80::1%3]", "[fe80::1%3]:9"),
        ] {
            assert_eq!(literal(host, 9), Some(address.parse().unwrap()), "{host}");
        }
        for name in ["localhost", "1.2.3", "[127.0.0.1]", "fe80::1%eth0", "", "[]", "1.2.3.4.5", "::1]:80"] {
            assert_eq!(literal(name, 9), None, "{name}");
        }
    }

    #[test]
    fn hosts_are_split_from_ports() {
        assert_eq!(split("example.com:443"), Some(("example.com", 443)));
        assert_eq!(split("[::1]:80"), Some(("[::1]", 80)));
        assert_eq!(split("127.0.0.1:0"), Some(("127.0.0.1", 0)));
        for text in
            ["", ":", ":80", "example.com", "example.com:", "::1:80", "a:65536", "a:-1", "a:+1", "a:b:1"]
        {
            assert_eq!(split(text), None, "{text}");
        }
    }

    #[test]
    fn the_system_knows_addresses() {
        assert_eq!(System.resolve("127.0.0.1", 7).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        System.resolve("a name with spaces", 7).unwrap_err();
    }
}
