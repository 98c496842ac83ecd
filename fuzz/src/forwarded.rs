//! Addresses as proxies pass them on, ranges of addresses, and origins.

use std::net::IpAddr;

use evenkeel_hub::proto::origin::Origins;
use evenkeel_hub::proto::proxy::{Cidr, ForwardedBy, client_address};

use crate::pieces::parts;

/// The value of a field, a range, and an origin, in this order, with zero bytes between them.
pub fn run(bytes: &[u8]) {
    let [field, range, origin] = parts(bytes);
    address(field);
    if let Ok(range) = std::str::from_utf8(range) {
        cidr(range);
    }
    if let Ok(origin) = std::str::from_utf8(origin) {
        origins(origin);
    }
}

fn address(value: &[u8]) {
    let trusted: [Cidr; 2] = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().expect("a range"));
    let is_trusted = |ip: IpAddr| trusted.iter().any(|range| range.contains(ip));
    let (proxy, stranger) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 1]));
    for by in [ForwardedBy::XForwardedFor, ForwardedBy::Forwarded] {
        let of = |peer, values: &[&[u8]]| client_address(peer, &trusted, by, values.iter().copied());
        assert_eq!(of(stranger, &[value]), stranger, "a stranger's word counts");
        let found = of(proxy, &[value]);
        assert_eq!(found, found.to_canonical());
        let listed: Vec<&[u8]> = value.split(|byte| *byte == b',').collect();
        assert_eq!(of(proxy, &listed), found, "one field is as many");
        // A client that is not trusted ends the walk: what stands before it changes nothing.
        let forged = [b"203.0.113.66, for=203.0.113.66,".as_slice(), value].concat();
        assert!(is_trusted(found) || of(proxy, &[&forged]) == found);
    }
    let appended = [value, b", 198.51.100.7"].concat();
    let found = client_address(proxy, &trusted, ForwardedBy::XForwardedFor, [&appended[..]].into_iter());
    assert_eq!(found, IpAddr::from([198, 51, 100, 7]), "what the proxy appended counts");
}

fn cidr(text: &str) {
    let Ok(range) = text.parse::<Cidr>() else { return };
    let shown = range.to_string();
    assert_eq!(shown.parse(), Ok(range));
    let (network, bits) = shown.split_once('/').expect("a range is shown with its length");
    let (network, bits): (IpAddr, u32) =
        (network.parse().expect("an address"), bits.parse().expect("a number"));
    assert!(range.contains(network));
    let flipped = |bit: u32| match network {
        IpAddr::V4(ip) => IpAddr::from((ip.to_bits() ^ 1 << (31 - bit)).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((ip.to_bits() ^ 1 << (127 - bit)).to_be_bytes()),
    };
    let width = if network.is_ipv4() { 32 } else { 128 };
    for bit in 0..width {
        let other = flipped(bit);
        // An address with an IPv4 one in it is that one.
        if other.to_canonical().is_ipv4() == network.is_ipv4() {
            assert_eq!(range.contains(other), bit >= bits, "{other} in {shown}");
        }
    }
    let mapped = match network {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    assert!(range.contains(mapped));
}

fn origins(text: &str) {
    let Ok(rules) = Origins::parse([text]) else { return };
    let shown: Vec<String> = rules.rules().map(|rule| rule.to_string()).collect();
    let again = Origins::parse(shown.iter().map(String::as_str)).expect("a rule is shown as it is read");
    assert!(again.rules().map(|rule| rule.to_string()).eq(shown.iter().cloned()));
    for origin in ["https://example.com", "https://www.example.com:444", "null", "http://a", text] {
        assert_eq!(rules.allow(origin), again.allow(origin));
        let fields = rules.cors(origin);
        assert_eq!(fields.is_some(), rules.allow(origin));
        for (_, value) in fields.into_iter().flatten() {
            assert!(!value.contains(char::is_control));
        }
    }
    // What is no pattern allows itself, and nothing above or below it.
    if text != "*" && !text.contains("://*.") {
        assert!(rules.allow(text) && !rules.allow("https://evil.example"));
    }
}
