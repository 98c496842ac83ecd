//! Addresses as the hub counts them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What limits for each address count by: the whole of an IPv4 address, the first 64 bits of an IPv6 one.
///
/// One subscriber's line is given at least a /64 of IPv6, so counting single addresses would count nothing. An IPv4
/// address that a dual-stack socket shows as IPv6 counts as the IPv4 address that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddrKey {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first half of an IPv6 address.
    V6([u16; 4]),
}

impl From<IpAddr> for AddrKey {
    fn from(address: IpAddr) -> AddrKey {
        match address.to_canonical() {
            IpAddr::V4(address) => AddrKey::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                AddrKey::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for AddrKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddrKey::V4(address) => address.fmt(f),
            AddrKey::V6([a, b, c, d]) => write!(f, "{}/64", Ipv6Addr::new(*a, *b, *c, *d, 0, 0, 0, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> AddrKey {
        AddrKey::from(text.parse::<IpAddr>().expect("an address"))
    }

    #[test]
    fn ipv4_counts_whole_and_mapped_addresses_count_as_ipv4() {
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_eq!(key("::ffff:192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn ipv6_counts_by_its_first_64_bits() {
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }
}
