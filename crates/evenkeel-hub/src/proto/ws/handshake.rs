//! The opening handshake: from an HTTP/1.1 request to the 101 response.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::proto::head::{Framing, RequestHead, Version};
use crate::proto::reply::refusal;

/// The constant that RFC 6455 appends to the client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer to a client's key: the base64 of the SHA-1 of the key and a constant.
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    let mut text = [0; 28];
    let written = STANDARD.encode_slice(digest, &mut text);
    assert_eq!(written, Ok(28), "20 bytes make 28 characters of base64");
    text
}

/// A request that may be answered with 101. The bytes that follow its head are frames.
#[derive(Clone, Debug)]
pub struct Upgrade<'b> {
    accept: [u8; 28],
    protocols: Vec<&'b str>,
}

impl<'b> Upgrade<'b> {
    /// Checks that `head` asks for WebSocket as RFC 6455 says. The origin is the caller's to check, see
    /// [`origin`](crate::proto::origin).
    ///
    /// # Errors
    ///
    /// What is wrong with the request, with the response that tells the client.
    pub fn from_head(head: &RequestHead<'b>) -> Result<Upgrade<'b>, HandshakeError> {
        if head.method() != "GET" {
            return Err(HandshakeError::Method);
        }
        if head.version() != Version::Http11 {
            return Err(HandshakeError::HttpVersion);
        }
        if !head.lists("upgrade", "websocket") || !head.lists("connection", "upgrade") {
            return Err(HandshakeError::NotAnUpgrade);
        }
        if !matches!(head.framing(), Framing::None | Framing::Length(0)) {
            return Err(HandshakeError::Body);
        }
        if head.sole("sec-websocket-version") != Some(b"13") {
            return Err(HandshakeError::WebSocketVersion);
        }
        let key = head.sole("sec-websocket-key").filter(|key| is_key(key)).ok_or(HandshakeError::Key)?;
        let mut protocols = Vec::new();
        for item in head.values("sec-websocket-protocol").flat_map(|value| value.split(|&byte| byte == b','))
        {
            let name = std::str::from_utf8(item.trim_ascii()).unwrap_or_default();
            if !is_token(name) {
                return Err(HandshakeError::Protocol);
            }
            protocols.push(name);
        }
        Ok(Upgrade { accept: accept_key(key), protocols })
    }

    /// The subprotocols that the client offers, in its order of preference.
    #[must_use]
    pub fn protocols(&self) -> &[&'b str] {
        &self.protocols
    }

    /// Appends the 101 response. `protocol` is the chosen one of [`protocols`](Upgrade::protocols); one that the
    /// client did not offer is left out, because every browser would fail the connection over it.
    pub fn respond(&self, protocol: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        );
        out.extend_from_slice(b"Sec-WebSocket-Accept: ");
        out.extend_from_slice(&self.accept);
        if let Some(protocol) = protocol.filter(|protocol| self.protocols.contains(protocol)) {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(protocol.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// Why an upgrade request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The method is not GET.
    Method,
    /// The request speaks HTTP/1.0.
    HttpVersion,
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing.
    NotAnUpgrade,
    /// The request has a body, whose bytes could be taken for frames.
    Body,
    /// `Sec-WebSocket-Version` is not 13.
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is not the base64 of 16 bytes.
    Key,
    /// `Sec-WebSocket-Protocol` is not a list of tokens.
    Protocol,
}

impl HandshakeError {
    /// The HTTP status that answers this error.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            HandshakeError::Method => 405,
            HandshakeError::NotAnUpgrade | HandshakeError::WebSocketVersion => 426,
            _ => 400,
        }
    }

    /// The complete response, which announces that the connection closes.
    #[must_use]
    pub fn response(&self) -> Vec<u8> {
        let fields: &[(&str, &str)] = match self {
            HandshakeError::Method => &[("Allow", "GET")],
            HandshakeError::NotAnUpgrade | HandshakeError::WebSocketVersion => {
                &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
            }
            _ => &[],
        };
        refusal(self.status(), fields, self)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandshakeError::Method => "a WebSocket begins with GET",
            HandshakeError::HttpVersion => "a WebSocket begins with HTTP/1.1",
            HandshakeError::NotAnUpgrade => "this address serves WebSocket only",
            HandshakeError::Body => "a WebSocket request has no body",
            HandshakeError::WebSocketVersion => "Sec-WebSocket-Version is not 13",
            HandshakeError::Key => "Sec-WebSocket-Key is not 16 bytes of base64",
            HandshakeError::Protocol => "malformed Sec-WebSocket-Protocol",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// Whether `key` is the base64 of 16 bytes. Leftover bits of the last character need not be zero: clients exist that
/// send random ones, and nothing depends on them.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

fn is_token(name: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token_byte)
}
