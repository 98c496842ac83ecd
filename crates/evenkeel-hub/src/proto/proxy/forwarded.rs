//! The client's address from `X-Forwarded-For` or `Forwarded`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Cidr;

/// The most addresses that are looked at in one request. A chain of more proxies does not exist.
const MAX_HOPS: usize = 32;

/// Which header field the operator's proxies write. There is no "either": a proxy that writes one of them passes the
/// other on as the client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For: client, proxy`.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239).
    Forwarded,
}

impl ForwardedBy {
    /// The field's name in lower case.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            ForwardedBy::XForwardedFor => "x-forwarded-for",
            ForwardedBy::Forwarded => "forwarded",
        }
    }
}

/// The address of the client itself, for a connection from `peer`.
///
/// Each proxy appends the address that it was called from. So the list is read from its end, for as long as the
/// address read last is a trusted proxy's: the first one that is not belongs to the client. What stands in front of
/// it was written by the client, who may have written anything. An entry that is no address ends the walk at the
/// proxy that reported it. `values` are all values of the field, in the order in which they came.
///
/// ```
/// use evenkeel_hub::proto::proxy::{Cidr, ForwardedBy, client_address};
///
/// let trusted: [Cidr; 1] = ["10.0.0.0/8".parse().unwrap()];
/// let values = [b"1.2.3.4, 203.0.113.9, 10.0.0.2".as_slice()];
/// let peer = "10.0.0.1".parse().unwrap();
/// let client = client_address(peer, &trusted, ForwardedBy::XForwardedFor, values.into_iter());
/// assert_eq!(client.to_string(), "203.0.113.9");
/// ```
pub fn client_address<'v>(
    peer: IpAddr,
    trusted: &[Cidr],
    by: ForwardedBy,
    values: impl DoubleEndedIterator<Item = &'v [u8]>,
) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|range| range.contains(*address));
    let mut client = peer.to_canonical();
    // Splitting at every comma from the end keeps a quote that the client left open from swallowing what the proxies
    // appended: no address has a comma in it.
    let mut entries = values.rev().flat_map(|value| value.rsplit(|&byte| byte == b',')).take(MAX_HOPS);
    while is_trusted(&client) {
        let Some(entry) = entries.next() else { break };
        let Some(address) = std::str::from_utf8(entry).ok().and_then(|entry| parse_entry(by, entry)) else {
            break;
        };
        client = address.to_canonical();
    }
    client
}

fn parse_entry(by: ForwardedBy, entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches([' ', '\t']);
    match by {
        ForwardedBy::XForwardedFor => parse_node(entry),
        ForwardedBy::Forwarded => {
            let mut nodes = entry.split(';').filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim_matches([' ', '\t']).eq_ignore_ascii_case("for").then_some(value)
            });
            let node = nodes.next().filter(|_| nodes.next().is_none())?.trim_matches([' ', '\t']);
            match node.strip_prefix('"') {
                Some(quoted) => parse_node(quoted.strip_suffix('"')?),
                None => parse_node(node),
            }
        }
    }
}

/// An address, with or without brackets and a port.
fn parse_node(node: &str) -> Option<IpAddr> {
    if let Ok(address) = node.parse() {
        return Some(address);
    }
    if let Ok(socket) = node.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    let bracketed = node.strip_prefix('[')?.strip_suffix(']')?;
    bracketed.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}
