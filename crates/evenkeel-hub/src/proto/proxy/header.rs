//! The PROXY protocol, versions 1 and 2: what a proxy writes in front of a connection's first byte.
//!
//! ```
//! use evenkeel_hub::proto::proxy::header::{Endpoints, parse};
//!
//! let bytes = b"PROXY TCP4 203.0.113.9 10.0.0.1 55555 443\r\nGET / HTTP/1.1\r\n";
//! let header = parse(bytes).unwrap().unwrap();
//! assert_eq!(&bytes[header.len..header.len + 3], b"GET");
//! assert!(matches!(header.endpoints, Endpoints::Inet { source, .. } if source.port() == 55555));
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The longest header of version 1 in bytes, with its line end.
pub const MAX_V1: usize = 107;

/// The longest header of version 2 in bytes that is taken: addresses and extensions are far below it.
pub const MAX_V2: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it took. The client's own follow.
    pub len: usize,
    /// Who is connected with whom.
    pub endpoints: Endpoints,
}

/// The two ends of the connection that the proxy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// The proxy speaks for itself, as in a health check: the connection's own addresses hold.
    Local,
    /// The proxy does not know, or will not tell.
    Unknown,
    /// An IPv4 or IPv6 connection.
    Inet {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
    /// A Unix socket. Its paths say nothing about a client's address.
    Unix,
}

/// A connection does not begin with a valid PROXY header. It must be closed: there is nobody who understands an
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// The bytes are not a PROXY header at all.
    Missing,
    /// The line of version 1 is longer than 107 bytes or does not end in CRLF.
    Line,
    /// The line of version 1 is malformed.
    Malformed,
    /// The version, the command, or the address family of version 2 is none of those that are defined.
    Reserved,
    /// The header of version 2 is shorter than its addresses.
    TooShort,
    /// The header of version 2 is longer than [`MAX_V2`].
    TooLong,
    /// An extension of version 2 runs over the header's end.
    Extension,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyError::Missing => "connection does not begin with a PROXY header",
            ProxyError::Line => "PROXY line too long or without CRLF",
            ProxyError::Malformed => "malformed PROXY line",
            ProxyError::Reserved => "reserved version, command or address family in a PROXY header",
            ProxyError::TooShort => "PROXY header shorter than its addresses",
            ProxyError::TooLong => "PROXY header too long",
            ProxyError::Extension => "PROXY extension runs over the end of the header",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Reads a header of either version from the start of a connection.
///
/// `bytes` is all that has arrived so far. `None` means that the header goes on; it is never longer than [`MAX_V2`].
/// The work of a call is bounded by what it looks at: 107 bytes for version 1, the fixed part of version 2 until all
/// of the header is there.
///
/// # Errors
///
/// See [`ProxyError`].
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let is_start = |start: &[u8]| bytes.iter().zip(start).all(|(byte, expected)| byte == expected);
    if is_start(V2_START) {
        return if bytes.len() < V2_START.len() { Ok(None) } else { parse_v2(bytes) };
    }
    if is_start(V1_START) {
        return if bytes.len() < V1_START.len() { Ok(None) } else { parse_v1(bytes) };
    }
    Err(ProxyError::Missing)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() >= MAX_V1 { Err(ProxyError::Line) } else { Ok(None) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(ProxyError::Line)?;
    if line.contains(&b'\r') {
        return Err(ProxyError::Line);
    }
    let line = std::str::from_utf8(&line[V1_START.len()..]).map_err(|_| ProxyError::Malformed)?;
    let mut words = line.split(' ');
    let is_v4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        Some("UNKNOWN") => return Ok(Some(Header { len: end + 1, endpoints: Endpoints::Unknown })),
        _ => return Err(ProxyError::Malformed),
    };
    let mut word = || words.next().ok_or(ProxyError::Malformed);
    let (source, destination) = (address(word()?, is_v4)?, address(word()?, is_v4)?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(ProxyError::Malformed);
    }
    let endpoints = Endpoints::Inet {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    };
    Ok(Some(Header { len: end + 1, endpoints }))
}

fn address(word: &str, is_v4: bool) -> Result<IpAddr, ProxyError> {
    word.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == is_v4).ok_or(ProxyError::Malformed)
}

fn port(word: &str) -> Result<u16, ProxyError> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain).ok_or(ProxyError::Malformed)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let fixed = &bytes[V2_START.len()..];
    let is_local = match fixed.first() {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(ProxyError::Reserved),
    };
    let [_, family, high, low, rest @ ..] = fixed else { return Ok(None) };
    let declared = usize::from(u16::from_be_bytes([*high, *low]));
    let len = V2_START.len() + 4 + declared;
    if len > MAX_V2 {
        return Err(ProxyError::TooLong);
    }
    let Some(block) = rest.get(..declared) else { return Ok(None) };
    let endpoints = if is_local { Endpoints::Local } else { block_v2(*family, block)? };
    Ok(Some(Header { len, endpoints }))
}

/// The addresses, whatever transport they are of; the extensions behind them are walked and skipped.
fn block_v2(family: u8, block: &[u8]) -> Result<Endpoints, ProxyError> {
    let (endpoints, extensions) = match family {
        // What follows an unspecified family has no known form.
        0x00 => return Ok(Endpoints::Unknown),
        0x11 | 0x12 => {
            let (addresses, rest) = block.split_first_chunk::<12>().ok_or(ProxyError::TooShort)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
            (inet([a, b, c, d].into(), [e, f, g, h].into(), ports), rest)
        }
        0x21 | 0x22 => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or(ProxyError::TooShort)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(ProxyError::TooShort)?;
            let (ports, rest) = rest.split_first_chunk::<4>().ok_or(ProxyError::TooShort)?;
            (inet((*source).into(), (*destination).into(), *ports), rest)
        }
        0x31 | 0x32 => (Endpoints::Unix, block.get(216..).ok_or(ProxyError::TooShort)?),
        _ => return Err(ProxyError::Reserved),
    };
    skip_extensions(extensions)?;
    Ok(endpoints)
}

fn inet(source: IpAddr, destination: IpAddr, [a, b, c, d]: [u8; 4]) -> Endpoints {
    Endpoints::Inet {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

fn skip_extensions(mut rest: &[u8]) -> Result<(), ProxyError> {
    while let [_kind, high, low, value @ ..] = rest {
        rest = value.get(usize::from(u16::from_be_bytes([*high, *low]))..).ok_or(ProxyError::Extension)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(ProxyError::Extension) }
}
