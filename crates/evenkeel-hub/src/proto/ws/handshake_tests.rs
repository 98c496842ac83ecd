#![allow(clippy::unwrap_used)]

use super::*;
use crate::proto::head::{Limits as HeadLimits, RequestHead};

const REQUEST: &str = "GET /app/key?protocol=7 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn upgrade(request: &str) -> Result<Vec<u8>, HandshakeError> {
    let head = RequestHead::parse(request.as_bytes(), &HeadLimits::default()).unwrap();
    let upgrade = Upgrade::from_head(&head)?;
    let mut out = Vec::new();
    upgrade.respond(upgrade.protocols().first().copied(), &mut out);
    Ok(out)
}

#[test]
fn accept_key_of_the_rfc() {
    assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn a_proper_request_is_answered_with_101() {
    let response = String::from_utf8(upgrade(REQUEST).unwrap()).unwrap();
    assert_eq!(
        response,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

#[test]
fn tokens_are_compared_without_case_and_within_lists() {
    for (from, to) in [
        ("Upgrade: websocket", "uPGRADE: h2c, WebSocket"),
        ("Connection: keep-alive, Upgrade", "connection:upgrade"),
        ("Connection: keep-alive, Upgrade", "Connection: close\r\nConnection: \t UPGRADE ,x"),
        ("Sec-WebSocket-Version", "sec-websocket-version"),
        ("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
    ] {
        assert!(upgrade(&REQUEST.replacen(from, to, 1)).is_ok(), "{to}");
    }
}

#[test]
fn i50_improper_requests_are_refused() {
    use HandshakeError::*;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    for (from, to, error, status) in [
        ("GET", "POST", Method, 405),
        ("GET", "get", Method, 405),
        ("HTTP/1.1", "HTTP/1.0", HttpVersion, 400),
        ("Upgrade: websocket\r\n", "", NotAnUpgrade, 426),
        ("Upgrade: websocket", "Upgrade: websockets", NotAnUpgrade, 426),
        ("keep-alive, Upgrade", "keep-alive", NotAnUpgrade, 426),
        ("keep-alive, Upgrade", "keep-alive Upgrade", NotAnUpgrade, 426),
        ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n", Body, 400),
        ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", Body, 400),
        ("Version: 13", "Version: 8", WebSocketVersion, 426),
        ("Version: 13", "Version: 13, 8", WebSocketVersion, 426),
        ("Sec-WebSocket-Version: 13\r\n", "", WebSocketVersion, 426),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", WebSocketVersion, 426),
        ("Sec-WebSocket-Key", "X-Key", Key, 400),
        (key, "dGhlIHNhbXBsZSBub25jZQ=", Key, 400),
        (key, "dGhlIHNhbXBsZSBub25jZQAA", Key, 400),
        (key, "dGhlIHNhbXBsZSBub25jZQ===", Key, 400),
        (key, "dGhlIHNhbXBsZSBub25j-Q==", Key, 400),
        (key, "", Key, 400),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a b\r\n\r\n", Protocol, 400),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a,,b\r\n\r\n", Protocol, 400),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: \u{fc}\r\n\r\n", Protocol, 400),
    ] {
        let request = REQUEST.replacen(from, to, 1);
        assert_eq!(upgrade(&request), Err(error), "{from:?} -> {to:?}");
        assert_eq!(error.status(), status);
        let response = String::from_utf8(error.response()).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        assert_eq!(response.contains("Sec-WebSocket-Version: 13\r\n"), status == 426, "{response}");
    }
}

#[test]
fn only_an_offered_protocol_is_chosen() {
    let request = REQUEST.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat, v2.json\r\n\r\n");
    let head = RequestHead::parse(request.as_bytes(), &HeadLimits::default()).unwrap();
    let upgrade = Upgrade::from_head(&head).unwrap();
    assert_eq!(upgrade.protocols(), ["chat", "v2.json"]);
    let answer = |protocol| {
        let mut out = Vec::new();
        upgrade.respond(protocol, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert!(answer(Some("v2.json")).ends_with("\r\nSec-WebSocket-Protocol: v2.json\r\n\r\n"));
    for not_offered in [None, Some("other"), Some("chat\r\nX: y")] {
        assert!(!answer(not_offered).contains("Protocol:"));
    }
}
