//! The PROXY protocol: against a second reader of both versions, and every cut of the header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use evenkeel_hub::proto::proxy::header::{Endpoints, Header, MAX_V1, MAX_V2, parse};

/// Reads a header.
pub fn run(bytes: &[u8]) {
    let found = parse(bytes);
    // The verdict over all bytes is that of the first prefix that has one.
    let first = (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|verdict| *verdict != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), found);
    match found {
        Ok(Some(header)) => {
            assert_eq!(Some(header), reference(bytes), "the grammar says something else");
            assert!(header.len <= bytes.len().min(MAX_V2));
            comes_back(header.endpoints);
        }
        Ok(None) => {
            assert!(bytes.len() < MAX_V2 && reference(bytes).is_none());
            assert!(bytes.first() != Some(&b'P') || bytes.len() < MAX_V1);
        }
        Err(_) => assert_eq!(reference(bytes), None, "the grammar accepts it"),
    }
}

fn reference(bytes: &[u8]) -> Option<Header> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    if bytes.starts_with(signature) { version_2(bytes) } else { version_1(bytes) }
}

fn version_1(bytes: &[u8]) -> Option<Header> {
    let end = bytes.windows(2).take(MAX_V1 - 1).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    if line.contains(['\r', '\n']) {
        return None;
    }
    let words: Vec<&str> = line.split(' ').collect();
    let endpoints = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Endpoints::Unknown,
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let address = |text: &str| -> Option<IpAddr> {
                match family {
                    "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                    _ => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                }
            };
            let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
            Endpoints::Inet {
                source: SocketAddr::new(address(from)?, port(from_port)?),
                destination: SocketAddr::new(address(to)?, port(to_port)?),
            }
        }
        _ => return None,
    };
    Some(Header { len: end + 2, endpoints })
}

fn version_2(bytes: &[u8]) -> Option<Header> {
    let declared = usize::from(*bytes.get(14)?) << 8 | usize::from(*bytes.get(15)?);
    let len = 16 + declared;
    let block = bytes.get(16..len).filter(|_| len <= MAX_V2)?;
    let word = |at: usize| Some(u16::from(*block.get(at)?) << 8 | u16::from(*block.get(at + 1)?));
    let (endpoints, used) = match (bytes[12], bytes[13]) {
        (0x20, _) => (Endpoints::Local, declared),
        (0x21, 0x00) => (Endpoints::Unknown, declared),
        (0x21, 0x11 | 0x12) => {
            let ip = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(block.get(at..at + 4)?).ok()?));
            let source = SocketAddr::new(ip(0)?, word(8)?);
            (Endpoints::Inet { source, destination: SocketAddr::new(ip(4)?, word(10)?) }, 12)
        }
        (0x21, 0x21 | 0x22) => {
            let ip = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(block.get(at..at + 16)?).ok()?));
            let source = SocketAddr::new(ip(0)?, word(32)?);
            (Endpoints::Inet { source, destination: SocketAddr::new(ip(16)?, word(34)?) }, 36)
        }
        (0x21, 0x31 | 0x32) if declared >= 216 => (Endpoints::Unix, 216),
        _ => return None,
    };
    let mut at = used;
    while at < declared {
        at += 3 + usize::from(word(at + 1)?);
    }
    (at == declared).then_some(Header { len, endpoints })
}

/// What was read is written in both versions, and read again.
fn comes_back(endpoints: Endpoints) {
    let Endpoints::Inet { source, destination } = endpoints else { return };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.port(), destination.port());
    let line = format!("PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip());
    assert!(line.len() <= MAX_V1);
    let read = parse(line.as_bytes()).expect("a line is read").expect("it is whole");
    assert_eq!((read.len, read.endpoints), (line.len(), endpoints));
    let mut block: Vec<u8> = Vec::new();
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => block.extend(ip.octets()),
            IpAddr::V6(ip) => block.extend(ip.octets()),
        }
    }
    block.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    bytes.push(if source.is_ipv4() { 0x11 } else { 0x21 });
    bytes.extend((block.len() as u16).to_be_bytes());
    bytes.extend(&block);
    let read = parse(&bytes).expect("a header is read").expect("it is whole");
    assert_eq!((read.len, read.endpoints), (bytes.len(), endpoints));
}
