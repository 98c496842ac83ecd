//! What does not become a subscriber, and what it is told.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::{
    End, Http, Hub, Response, Ws, config, connect, on_every_backend, read_to_end, try_write, upgrade,
};

#[test]
fn i50_refused_applications_and_protocols_are_told_by_close_codes() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        for (path, code, reason) in [
            ("/app/unknown?protocol=7", 4001, "unknown_app"),
            ("/app/?protocol=7", 4001, "unknown_app"),
            ("/app/key%2Da%00?protocol=7", 4001, "unknown_app"),
            ("/app/key-off?protocol=7", 4003, "app_disabled"),
            ("/app/key-a?protocol=4", 4007, "unsupported_protocol"),
            ("/app/key-a?protocol=8", 4007, "unsupported_protocol"),
            ("/app/key-a?protocol=seven", 4007, "unsupported_protocol"),
            ("/app/key-a?protocol=-7", 4007, "unsupported_protocol"),
            ("/app/key-a?protocol=", 4007, "unsupported_protocol"),
        ] {
            let before = hub.refusals(reason);
            Ws::is_refused(hub.addr, path, code);
            hub.refused(reason, before + 1);
        }
        for path in ["/app/key-a", "/app/key%2Da?protocol=5", "/app/key-a?client=js&protocol=6&flash=false"] {
            Ws::on(hub.http(), path, "").is_served();
        }
        canary.sings();
    });
}

#[test]
fn over_capacity_is_told_and_ends() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "max_connections = 2", ""));
        let (mut first, second) = (hub.ws(), hub.ws());
        Ws::is_refused(hub.addr, "/app/key-a?protocol=7", 4100);
        hub.refused("over_capacity", 1);
        hub.app_refused("over_capacity", 1);
        // A stream counts like a WebSocket.
        let refused = crate::support::Sse::on(hub.http(), "/sse/key-a?channel=c", "").err().unwrap();
        assert_eq!((refused.status, refused.field("Retry-After")), (503, Some("1")));
        Ws::open(hub.addr, "key-b").is_served();
        first.is_served();
        drop(second);
        crate::support::eventually("there is room again", || {
            let mut ws = Ws::upgraded(hub.http(), "/app/key-a?protocol=7", "").unwrap();
            ws.message()["event"] == "pusher:connection_established"
        });
    });
}

/// Sends a request in one piece and in single bytes; the answers must be the same, and the connection ends with them.
fn refusal_of(hub: &Hub, request: &[u8]) -> Response {
    let answer = |pieces: usize| {
        let mut http = hub.http();
        for piece in request.chunks(pieces) {
            if !try_write(&mut http.stream, piece) {
                break;
            }
        }
        let response = http.response();
        assert!(response.head.contains("\r\nConnection: close\r\n"), "{response:?}");
        http.ends();
        response
    };
    let (whole, dripped) = (answer(request.len().max(1)), answer(1));
    assert_eq!((whole.status, &whole.head, &whole.body), (dripped.status, &dripped.head, &dripped.body));
    whole
}

#[test]
fn i50_malformed_upgrades_are_refused_with_their_status() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        let good = upgrade("/app/key-a?protocol=7", "");
        for (from, to, status) in [
            ("GET ", "POST ", 405),
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("Upgrade: websocket\r\n", "", 426),
            ("Connection: Upgrade\r\n", "", 426),
            ("Upgrade: websocket", "Upgrade: h2c", 426),
            ("Version: 13", "Version: 8", 426),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
            ("Host: localhost\r\n", "Host: localhost\r\nContent-Length: 5\r\n", 400),
            ("Host: localhost\r\n", "Host: localhost\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Host: localhost\r\n", "Host: localhost\r\nSec-WebSocket-Protocol: a b\r\n", 400),
        ] {
            let before = hub.refusals("websocket_handshake");
            let refused = refusal_of(&hub, good.replacen(from, to, 1).as_bytes());
            assert_eq!(refused.status, status, "{from} -> {to}");
            if status == 426 {
                assert_eq!(refused.field("Sec-WebSocket-Version"), Some("13"));
            }
            hub.refused("websocket_handshake", before + 2);
        }
        canary.sings();
    });
}

#[test]
fn i50_foreign_origins_are_refused() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "allowed_origins = ['https://*.example.com']", ""));
        let mut canary = hub.canary();
        for (n, origin) in
            ["https://example.org", "null", "https://example.com.evil.test", "http://a.example.com"]
                .into_iter()
                .enumerate()
        {
            let fields = format!("Origin: {origin}\r\n");
            let refused = Ws::upgraded(hub.http(), "/app/key-a?protocol=7", &fields).err().unwrap();
            assert_eq!(refused.status, 403, "{origin}");
            let refused = crate::support::Sse::on(hub.http(), "/sse/key-a?channel=c", &fields).err().unwrap();
            assert_eq!(
                (refused.status, refused.field("Access-Control-Allow-Origin")),
                (403, None),
                "{origin}"
            );
            hub.refused("origin", 2 * n as u64 + 2);
        }
        Ws::on(hub.http(), "/app/key-a?protocol=7", "Origin: https://www.example.com\r\n").is_served();
        canary.sings();
    });
}

#[test]
fn i50_heads_beyond_their_limits_are_refused() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[limits]\nmax_head_bytes = 8192"));
        let mut canary = hub.canary();
        let long = "x".repeat(9000);
        for (request, status) in [
            (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}"), 431),
            (format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(65)), 431),
            (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", &long[..5000]), 414),
            ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03 hello\r\n\r\n".to_owned(), 400),
            ("SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(), 400),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ] {
            let before = hub.refusals("request_head");
            let mut http = hub.http();
            try_write(&mut http.stream, request.as_bytes());
            let refused = http.response();
            assert_eq!(refused.status, status, "{}", &request[..20]);
            http.ends();
            hub.refused("request_head", before + 1);
        }
        // At the limit to the byte, and one more.
        let request = |len: usize| {
            let head = "GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: ";
            format!("{head}{}\r\n\r\n", "y".repeat(len - head.len() - 4))
        };
        for (len, status) in [(8192, 200), (8193, 431)] {
            let mut http = hub.http();
            http.send(&request(len));
            assert_eq!(http.response().status, status, "{len}");
            http.ends();
        }
        canary.sings();
    });
}

#[test]
fn a_handshake_that_drips_ends_at_its_deadline() {
    on_every_backend(|backend| {
        let limits = "[limits]\nhandshake_deadline_seconds = 1";
        let hub = Hub::with(backend, &config("", "", limits));
        let mut canary = hub.canary();
        let started = Instant::now();
        let silent = connect(hub.addr);
        let mut dripping = connect(hub.addr);
        let head = upgrade("/app/key-a", "");
        let mut written = 0;
        for byte in head.as_bytes().iter().cycle() {
            // The head would take minutes at this pace.
            if dripping.write_all(std::slice::from_ref(byte)).is_err() {
                break;
            }
            written += 1;
            assert!(started.elapsed() < Duration::from_secs(15), "{written} bytes dripped and still open");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        // The failed write has taken note of the reset already.
        assert_eq!(read_to_end(&mut dripping).0, b"");
        let mut silent = silent;
        assert_eq!(read_to_end(&mut silent), (Vec::new(), End::Reset));
        assert!(started.elapsed() >= Duration::from_secs(1), "not before the deadline");
        hub.refused("handshake_timeout", 2);
        canary.sings();
    });
}

#[test]
fn a_client_that_leaves_within_its_handshake_is_forgotten() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let head = upgrade("/app/key-a?protocol=7", "");
        for at in [0, 1, 20, head.len() - 1] {
            let mut half_closed = Http::connect(hub.addr);
            half_closed.send(&head[..at]);
            half_closed.stream.shutdown(std::net::Shutdown::Write).unwrap();
            half_closed.ends();
            let mut gone = connect(hub.addr);
            gone.write_all(&head.as_bytes()[..at]).unwrap();
            crate::support::reset(gone);
        }
        hub.comes_to_rest();
        hub.canary().sings();
    });
}

#[test]
fn frames_behind_the_upgrade_in_one_piece_are_served() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut http = hub.http();
        let ping = crate::support::client_frame(0x81, br#"{"event":"pusher:ping"}"#);
        http.send_bytes(&[upgrade("/app/key-a?protocol=7", "").as_bytes(), &ping, &ping].concat());
        let mut ws = Ws::answered(http).unwrap();
        ws.greeted();
        ws.event("pusher:pong");
        ws.event("pusher:pong");
        ws.is_served();
    });
}
