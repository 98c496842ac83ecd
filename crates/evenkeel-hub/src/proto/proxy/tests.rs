#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use super::header::{Endpoints, Header, MAX_V1, MAX_V2, ProxyError, parse};
use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header with this command, family and block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend((block.len() as u16).to_be_bytes());
    bytes.extend(block);
    bytes
}

fn inet(source: &str, destination: &str) -> Endpoints {
    Endpoints::Inet { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

const BLOCK4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0xd9, 0x03, 0x01, 0xbb];

fn block6() -> Vec<u8> {
    let source: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let destination: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
    [&source.octets()[..], &destination.octets(), &[0xd9, 0x03, 0x01, 0xbb]].concat()
}

fn valid_headers() -> Vec<(Vec<u8>, Endpoints)> {
    let v4 = inet("192.0.2.1:55555", "10.0.0.1:443");
    let v6 = inet("[2001:db8::1]:55555", "[2001:db8::2]:443");
    let extensions =
        [&BLOCK4[..], &[0x01, 0, 2, b'h', b'2'], &[0xea, 0, 0], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 55555 443\r\n".to_vec(), v4),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 55555 443\r\n".to_vec(), v6),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 0 65535\r\n".to_vec(), inet("192.0.2.1:0", "10.0.0.1:65535")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Endpoints::Unknown),
        (b"PROXY UNKNOWN ffff::1 ffff::2 anything\r\n".to_vec(), Endpoints::Unknown),
        (v2(0x21, 0x11, &BLOCK4), v4),
        (v2(0x21, 0x12, &BLOCK4), v4),
        (v2(0x21, 0x11, &extensions), v4),
        (v2(0x21, 0x21, &block6()), v6),
        (v2(0x21, 0x22, &block6()), v6),
        (v2(0x21, 0x31, &[0; 216]), Endpoints::Unix),
        (v2(0x21, 0x32, &[0; 216]), Endpoints::Unix),
        (v2(0x21, 0x00, b""), Endpoints::Unknown),
        (v2(0x21, 0x00, b"whatever"), Endpoints::Unknown),
        (v2(0x20, 0x00, b""), Endpoints::Local),
        (v2(0x20, 0x11, &BLOCK4), Endpoints::Local),
        (v2(0x20, 0xff, b"ignored"), Endpoints::Local),
    ]
}

#[test]
fn every_prefix_asks_for_more_and_the_whole_is_read() {
    for (bytes, endpoints) in valid_headers() {
        for at in 0..bytes.len() {
            assert_eq!(parse(&bytes[..at]), Ok(None), "{at} bytes of {bytes:x?}");
        }
        let header = Header { len: bytes.len(), endpoints };
        assert_eq!(parse(&bytes), Ok(Some(header)));
        let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&followed), Ok(Some(header)), "bytes behind the header are left alone");
    }
}

#[test]
fn i50_bad_headers_are_refused() {
    use ProxyError::*;
    let cases: Vec<(Vec<u8>, ProxyError)> = vec![
        (b"GET / HTTP/1.1\r\n".to_vec(), Missing),
        (b"\r\n\r\nGET".to_vec(), Missing),
        (b"PROXX".to_vec(), Missing),
        (b"proxy tcp4".to_vec(), Missing),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n".to_vec(), Line),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r 2\r\n".to_vec(), Line),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n".to_vec(), Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n".to_vec(), Malformed),
        (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n".to_vec(), Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n".to_vec(), Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n".to_vec(), Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n".to_vec(), Malformed),
        (b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Malformed),
        (b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(), Malformed),
        (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Malformed),
        (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Malformed),
        (b"PROXY \xff\r\n".to_vec(), Malformed),
        (v2(0x22, 0x11, &BLOCK4), Reserved),
        (v2(0x11, 0x11, &BLOCK4), Reserved),
        (v2(0x21, 0x13, &BLOCK4), Reserved),
        (v2(0x21, 0x41, &BLOCK4), Reserved),
        (v2(0x21, 0x01, &BLOCK4), Reserved),
        (v2(0x21, 0x11, &BLOCK4[..11]), TooShort),
        (v2(0x21, 0x21, &block6()[..35]), TooShort),
        (v2(0x21, 0x31, &[0; 215]), TooShort),
        (v2(0x21, 0x11, &[&BLOCK4[..], &[1]].concat()), Extension),
        (v2(0x21, 0x11, &[&BLOCK4[..], &[1, 0]].concat()), Extension),
        (v2(0x21, 0x11, &[&BLOCK4[..], &[1, 0, 2, 0]].concat()), Extension),
    ];
    for (bytes, error) in cases {
        assert_eq!(parse(&bytes), Err(error), "{:?}", String::from_utf8_lossy(&bytes));
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn header_length_boundaries() {
    let line = |len: usize| {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(len - 2, b'x');
        line.extend(b"\r\n");
        line
    };
    assert_eq!(parse(&line(MAX_V1)), Ok(Some(Header { len: MAX_V1, endpoints: Endpoints::Unknown })));
    assert_eq!(parse(&line(MAX_V1 + 1)), Err(ProxyError::Line));
    assert_eq!(parse(&line(MAX_V1 + 1)[..MAX_V1]), Err(ProxyError::Line));

    let padded = |len: usize| {
        let value = len - 16 - BLOCK4.len() - 3;
        let padding = [&[0x04][..], &(value as u16).to_be_bytes(), &vec![0; value]].concat();
        v2(0x21, 0x11, &[&BLOCK4[..], &padding].concat())
    };
    assert!(matches!(parse(&padded(MAX_V2)), Ok(Some(header)) if header.len == MAX_V2));
    // Refused as soon as the length is known.
    assert_eq!(parse(&padded(MAX_V2 + 1)[..16]), Err(ProxyError::TooLong));
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn ranges_contain_their_first_and_last_address_and_no_more() {
    for (range, inside, outside) in [
        (
            "10.0.0.0/8",
            &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
            &["9.255.255.255", "11.0.0.0", "::a00:0"][..],
        ),
        ("192.0.2.128/25", &["192.0.2.128", "192.0.2.255"], &["192.0.2.127", "192.0.3.0"]),
        ("192.0.2.1", &["192.0.2.1"], &["192.0.2.0", "192.0.2.2"]),
        ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "2001:db8::1"]),
        ("::/0", &["::", "2001:db8::1"], &["0.0.0.0", "::ffff:1.2.3.4"]),
        ("2001:db8::/32", &["2001:db8::", "2001:db8:ffff::1"], &["2001:db7:ffff::", "2001:db9::"]),
        ("::1", &["::1"], &["::", "::2", "0.0.0.1"]),
        ("::ffff:10.0.0.0/104", &["10.9.9.9", "::ffff:10.0.0.1"], &["11.0.0.0"]),
        ("::ffff:0.0.0.0/96", &["0.0.0.0", "9.9.9.9"], &["::"]),
    ] {
        let range = cidr(range);
        inside.iter().for_each(|address| assert!(range.contains(ip(address)), "{range} holds {address}"));
        outside.iter().for_each(|address| assert!(!range.contains(ip(address)), "{range} lacks {address}"));
        assert_eq!(range.to_string().parse(), Ok(range));
    }
}

#[test]
fn i50_bad_ranges_are_refused() {
    for bad in ["", "10.0.0", "10.0.0.0.0/8", "host/8", "/8", "010.0.0.0/8", "10.0.0.0 /8"] {
        assert_eq!(bad.parse::<Cidr>(), Err(CidrError::Address), "{bad}");
    }
    for bad in [
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/8/8",
        "::1/256",
        "::ffff:0.0.0.0/95",
    ] {
        assert_eq!(bad.parse::<Cidr>(), Err(CidrError::Prefix), "{bad}");
    }
    let error = "10.1.2.3/8".parse::<Cidr>().unwrap_err();
    assert_eq!(error, CidrError::HostBits(cidr("10.0.0.0/8")));
    assert!(error.to_string().contains("10.0.0.0/8"));
}

fn client(by: ForwardedBy, peer: &str, values: &[&str]) -> String {
    let trusted = [cidr("10.0.0.0/8"), cidr("::1"), cidr("fd00::/8")];
    client_address(ip(peer), &trusted, by, values.iter().map(|value| value.as_bytes())).to_string()
}

#[test]
fn x_forwarded_for_is_read_from_its_end() {
    let client = |peer, values: &[&str]| client(ForwardedBy::XForwardedFor, peer, values);
    // A stranger is believed nothing.
    assert_eq!(client("203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
    assert_eq!(client("::ffff:203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    assert_eq!(client("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
    assert_eq!(client("::ffff:10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
    // What the client wrote itself stands further left.
    assert_eq!(client("10.0.0.1", &["10.0.0.9, 1.2.3.4, 203.0.113.9"]), "203.0.113.9");
    assert_eq!(client("10.0.0.1", &["1.2.3.4", "203.0.113.9,10.0.0.2"]), "203.0.113.9");
    assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    // Junk ends the walk at the proxy that reported it.
    assert_eq!(client("10.0.0.1", &["1.2.3.4, unknown, 10.0.0.2"]), "10.0.0.2");
    assert_eq!(client("10.0.0.1", &["1.2.3.4,"]), "10.0.0.1");
    // The forms in which proxies write addresses.
    assert_eq!(client("10.0.0.1", &["\t203.0.113.9:55555 "]), "203.0.113.9");
    assert_eq!(client("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
    assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
    assert_eq!(client("10.0.0.1", &["::ffff:203.0.113.9"]), "203.0.113.9");
    assert_eq!(client("fd00::1", &["203.0.113.9"]), "203.0.113.9");
}

#[test]
fn forwarded_is_read_from_its_end() {
    let client = |values: &[&str]| client(ForwardedBy::Forwarded, "10.0.0.1", values);
    assert_eq!(client(&["for=203.0.113.9"]), "203.0.113.9");
    assert_eq!(client(&["for=203.0.113.9;proto=https;by=10.0.0.1"]), "203.0.113.9");
    assert_eq!(client(&["proto=http; FOR=\"[2001:db8::1]:4711\""]), "2001:db8::1");
    assert_eq!(client(&["for=1.2.3.4, for=203.0.113.9, for=10.0.0.2"]), "203.0.113.9");
    assert_eq!(client(&["for=\"203.0.113.9:80\""]), "203.0.113.9");
    for junk in [
        "for=unknown",
        "for=_hidden",
        "for=\"_x",
        "for=",
        "203.0.113.9",
        "for=1.1.1.1;for=2.2.2.2",
        "host=h",
        "",
    ] {
        assert_eq!(client(&[junk]), "10.0.0.1", "{junk}");
    }
    // A quote that the client left open does not swallow what the proxy appended.
    assert_eq!(client(&["for=\"1.2.3.4, for=203.0.113.9"]), "203.0.113.9");
    assert_eq!(client(&["for=\"1.2.3.4", "for=203.0.113.9"]), "203.0.113.9");
}

#[test]
fn a_chain_of_proxies_is_followed_a_bounded_way() {
    let chain = |hops: usize| format!("203.0.113.9{}", ", 10.0.0.2".repeat(hops));
    assert_eq!(client(ForwardedBy::XForwardedFor, "10.0.0.1", &[&chain(31)]), "203.0.113.9");
    assert_eq!(client(ForwardedBy::XForwardedFor, "10.0.0.1", &[&chain(32)]), "10.0.0.2");
}
