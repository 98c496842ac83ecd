//! The opening handshake of a WebSocket: what is answered with 101 is what tungstenite would answer, and what is refused
//! gets a whole answer.

use evenkeel_hub::proto::head::{Framing, HeadReader, Limits, RequestHead};
use evenkeel_hub::proto::origin::{Origins, RequestOrigin};
use evenkeel_hub::proto::ws::Upgrade;
use tungstenite::handshake::derive_accept_key;

/// Reads one head and what it asks for.
pub fn run(bytes: &[u8]) {
    let (mut reader, mut rest) = (HeadReader::new(), bytes);
    let Ok(Some(head)) = reader.next(&mut rest, &Limits::default()) else { return };
    origin(&head);
    match Upgrade::from_head(&head) {
        Ok(upgrade) => accepted(&head, &upgrade),
        Err(error) => {
            assert!(!is_plain_request(&head), "{error} of a request with all that RFC 6455 asks for");
            let response = error.response();
            assert!(response.starts_with(format!("HTTP/1.1 {} ", error.status()).as_bytes()));
            assert!(response.windows(4).any(|end| end == b"\r\n\r\n"));
        }
    }
}

/// A request that nobody could find fault with.
fn is_plain_request(head: &RequestHead<'_>) -> bool {
    let is = |name: &str, value: &[u8]| head.sole(name).is_some_and(|found| found == value);
    let key = head.sole("sec-websocket-key").is_some_and(|key| {
        key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(u8::is_ascii_alphanumeric)
    });
    let bare = head.framing() == Framing::None && head.values("sec-websocket-protocol").next().is_none();
    let asks =
        is("upgrade", b"websocket") && is("connection", b"Upgrade") && is("sec-websocket-version", b"13");
    // Just the request line: a field's value may hold the same words.
    let first = head.bytes().split(|&byte| byte == b'\n').next().unwrap_or_default();
    head.method() == "GET" && first.ends_with(b" HTTP/1.1\r") && key && bare && asks
}

fn accepted(head: &RequestHead<'_>, upgrade: &Upgrade<'_>) {
    assert_eq!(head.method(), "GET");
    assert!(head.wants_websocket() && head.sole("sec-websocket-version") == Some(b"13"));
    let key = head.sole("sec-websocket-key").expect("an accepted request has one key");
    for protocol in [None, Some("not offered"), upgrade.protocols().last().copied()] {
        let mut out = Vec::new();
        upgrade.respond(protocol, &mut out);
        let out = String::from_utf8(out).expect("an answer is ASCII");
        let lines: Vec<&str> =
            out.strip_suffix("\r\n\r\n").expect("an answer is whole").split("\r\n").collect();
        assert!(lines[0].starts_with("HTTP/1.1 101 "));
        let field = |name: &str| {
            let mut found =
                lines[1..].iter().filter_map(|line| line.split_once(": ")).filter(|f| f.0 == name);
            let value = found.next().map(|(_, value)| value);
            assert!(found.next().is_none(), "{name} twice");
            value
        };
        assert_eq!(field("Sec-WebSocket-Accept"), Some(&*derive_accept_key(key)));
        let offered = protocol.filter(|protocol| upgrade.protocols().contains(protocol));
        assert_eq!(field("Sec-WebSocket-Protocol"), offered);
        assert_eq!(lines.len(), 4 + usize::from(offered.is_some()));
    }
}

/// A browser's page of another site is never let in, whatever it is called.
fn origin(head: &RequestHead<'_>) {
    let ours = Origins::parse(["https://a.example.com:8443", "https://*.b.example", "null"]);
    let ours = ours.expect("these are rules");
    match RequestOrigin::from_head(head) {
        RequestOrigin::Absent => assert!(head.values("origin").next().is_none()),
        RequestOrigin::Malformed => assert!(!ours.allow_request(RequestOrigin::Malformed)),
        named @ RequestOrigin::Named(origin) => {
            let lower = origin.to_ascii_lowercase();
            let below = lower.strip_prefix("https://").map(|host| host.strip_suffix(":443").unwrap_or(host));
            let allowed = lower == "https://a.example.com:8443"
                || origin == "null"
                || below.is_some_and(|host| host.ends_with(".b.example"));
            assert!(allowed || !ours.allow_request(named), "{origin}");
        }
    }
}
