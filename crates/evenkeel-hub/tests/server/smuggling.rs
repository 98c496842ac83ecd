//! Requests that two servers could read differently, and the connection behind them.
//!
//! Behind each malformed request come bytes that would be a request of their own, if the server took the first one to
//! end elsewhere. The client must see exactly one refusal, and the end.

use crate::support::{Http, Hub, on_every_backend, read_to_end, try_write};

/// Heads that are refused by themselves, and with which status.
const HEADS: &[(&str, u16)] = &[
    // Two ways to frame one body.
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nContent-Length: 5\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\n", 400),
    // Lengths and codings that parsers read differently.
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6, 6\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +6\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x6\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity, chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    // Names and lines that only some see.
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length\0: 6\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\nHost: h\n\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    // Whose request it is.
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    // The request line.
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
];

/// Chunked bodies that are refused while they arrive.
const CHUNKS: &[(&str, u16)] = &[
    ("5;a=b\r\nhello\r\n0\r\n\r\n", 400),
    ("5;\nx\r\n0\r\n\r\n", 400),
    ("5 \r\nhello\r\n0\r\n\r\n", 400),
    ("5\nhello\r\n0\r\n\r\n", 400),
    ("5\r\rhello\r\n0\r\n\r\n", 400),
    ("5\r\nhello\n0\r\n\r\n", 400),
    ("5\r\nhello!\r\n0\r\n\r\n", 400),
    ("5\r\nhello\r\n0\r\n\n", 400),
    ("+5\r\nhello\r\n0\r\n\r\n", 400),
    ("0x5\r\nhello\r\n0\r\n\r\n", 400),
    ("10000000000000005\r\nhello\r\n", 400),
    ("ffffffffffffffff\r\nhello\r\n", 413),
    ("5\r\nhello\r\nfffffffffffffffc\r\n", 413),
    ("0\r\nX: y\r\n\r\n", 400),
    ("0\r\nContent-Length: 5\r\n\r\n", 400),
];

const SMUGGLED: &str =
    "0\r\n\r\nGET /health HTTP/1.1\r\nHost: h\r\n\r\nGET /ready HTTP/1.1\r\nHost: h\r\n\r\n";

/// Sends bytes in pieces, and returns the statuses of all answers until the end.
fn answers(mut http: Http, bytes: &[u8], piece: usize) -> Vec<u16> {
    for part in bytes.chunks(piece) {
        if !try_write(&mut http.stream, part) {
            break;
        }
    }
    let (all, _) = read_to_end(&mut http.stream);
    let text = [http.take_unread(), all].concat();
    let text = String::from_utf8_lossy(&text);
    let statuses =
        text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    statuses.collect()
}

#[test]
fn i50_malformed_heads_get_one_refusal_and_the_end() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        for (head, status) in HEADS {
            let attack = format!("{head}{SMUGGLED}");
            assert_eq!(answers(hub.http(), attack.as_bytes(), attack.len()), [*status], "{head:?}");
            assert_eq!(answers(hub.http(), attack.as_bytes(), 1), [*status], "in bytes: {head:?}");
            // Behind a request that was served, on the HTTP server's side.
            let mut http = hub.http();
            assert_eq!(http.get("/health").status, 200);
            assert_eq!(answers(http, attack.as_bytes(), attack.len()), [*status], "second: {head:?}");
            let pipelined = format!("GET /health HTTP/1.1\r\nHost: h\r\n\r\n{attack}");
            let all = pipelined.len();
            assert_eq!(answers(hub.http(), pipelined.as_bytes(), all), [200, *status], "pipelined: {head:?}");
        }
        let cases = HEADS.len() as u64;
        hub.refused("request_head", 4 * cases);
        assert_eq!(hub.refusals("request_framing"), 0);
        canary.sings();
    });
}

#[test]
fn i50_malformed_chunks_get_one_refusal_and_the_end() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        for (n, (body, status)) in CHUNKS.iter().enumerate() {
            let path = ["/apps/1/events", "/health", "/nowhere"][n % 3];
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
            let attack = format!("{head}{body}{SMUGGLED}");
            assert_eq!(answers(hub.http(), attack.as_bytes(), attack.len()), [*status], "{body:?}");
            assert_eq!(answers(hub.http(), attack.as_bytes(), 1), [*status], "in bytes: {body:?}");
            let mut http = hub.http();
            http.send(&head);
            assert_eq!(
                answers(http, &attack.as_bytes()[head.len()..], attack.len()),
                [*status],
                "apart: {body:?}"
            );
        }
        let too_large = CHUNKS.iter().filter(|(_, status)| *status == 413).count() as u64;
        hub.refused("body_too_large", 3 * too_large);
        hub.refused("request_framing", 3 * (CHUNKS.len() as u64 - too_large));
        canary.sings();
    });
}

#[test]
fn i50_bodies_that_look_like_requests_are_bodies() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let inner = "GET /ready HTTP/1.1\r\nHost: h\r\n\r\n";
        let length = inner.len();
        for head in [
            format!("POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{inner}"),
            format!("GET /health HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{inner}"),
            format!(
                "POST /nowhere HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"
            ),
        ] {
            for piece in [1, 4096] {
                let last = "GET /ready HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
                let all = format!("{head}{last}");
                let statuses = answers(hub.http(), all.as_bytes(), piece);
                assert_eq!(statuses.len(), 2, "{head}");
                assert_eq!(statuses[1], 200);
            }
        }
    });
}

#[test]
fn i50_nothing_is_served_behind_the_last_request() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let late = "GET /ready HTTP/1.1\r\nHost: h\r\n\r\n";
        for last in [
            "GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Close\r\n\r\n",
            "GET /health HTTP/1.0\r\n\r\n",
        ] {
            for piece in [1, 4096] {
                assert_eq!(answers(hub.http(), format!("{last}{late}").as_bytes(), piece), [200], "{last}");
            }
        }
    });
}
