//! How many connections there may be, and how fast they may come.

use std::io::Write;

use crate::support::{End, Http, Hub, Response, TOKEN, Ws, config, connect, eventually, on_every_backend};

const BEHIND_PROXY: &str = "[proxy]\ntrusted = ['127.0.0.1']\n[limits]\nmax_connections_per_address = 2";

fn metric(http: &mut Http, name: &str) -> u64 {
    http.send(&format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"));
    let text = http.response().text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.map_or(0, |value| value.parse().unwrap())
}

fn is_turned_away(mut http: Http, status: u16) {
    let refused = http.response();
    assert_eq!((refused.status, refused.field("Retry-After")), (status, Some("1")), "{refused:?}");
    http.ends();
}

#[test]
fn addresses_behind_a_trusted_proxy_have_seats_of_their_own() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", BEHIND_PROXY));
        let mut canary = hub.canary();
        let from = |client: &str| {
            Ws::upgraded(hub.http(), "/app/key-a?protocol=7", &format!("X-Forwarded-For: {client}\r\n"))
        };
        let first = from("10.0.0.1").unwrap();
        let _second = from("10.0.0.1").unwrap();
        let refused = |answer: Result<Ws, Response>| {
            let refused = answer.err().expect("no seat is left");
            assert_eq!((refused.status, refused.field("Retry-After")), (429, Some("1")));
        };
        refused(from("10.0.0.1"));
        // Only what the proxy itself added counts, and all of an IPv6 network is one address.
        refused(from("192.0.2.9, 10.0.0.1"));
        hub.refused("connections_per_address", 2);
        let _others = [from("10.0.0.2").unwrap(), from("2001:db8::1").unwrap(), from("2001:db8::2").unwrap()];
        refused(from("2001:db8::3"));
        // HTTP takes seats like anything else.
        let mut http = hub.http();
        http.send("GET /health HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n");
        is_turned_away(http, 429);
        hub.refused("connections_per_address", 4);
        drop(first);
        eventually("the seat is free again", || from("10.0.0.1").is_ok());
        canary.sings();
    });
}

fn v2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(source);
    header.extend([127, 0, 0, 1, 0x10, 0, 0x17, 0x71]);
    header
}

#[test]
fn addresses_in_proxy_headers_have_seats_of_their_own() {
    on_every_backend(|backend| {
        let toml = BEHIND_PROXY.replace("[limits]", "proxy_protocol = true\n[limits]");
        let hub = Hub::with(backend, &config("", "", &toml));
        let v1 = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 4096 6001\r\n").into_bytes();
        // The header alone, then byte by byte, then together with everything.
        let open = |header: Vec<u8>, piece: usize| {
            let request = crate::support::upgrade("/app/key-a?protocol=7", "");
            let all = [header, request.into_bytes()].concat();
            let mut http = Http::on(connect(hub.addr));
            for part in all.chunks(piece) {
                http.send_bytes(part);
            }
            Ws::answered(http)
        };
        let mut held = Vec::new();
        for (n, piece) in [1, 7, 4096, 30, 1, 4096].into_iter().enumerate() {
            let address = 1 + n as u8 / 2;
            let header = if n % 2 == 0 { v1(&format!("10.0.0.{address}")) } else { v2([10, 0, 0, address]) };
            let mut ws = open(header, piece).unwrap();
            ws.greeted();
            ws.is_served();
            held.push(ws);
        }
        for header in [v1("10.0.0.1"), v2([10, 0, 0, 2])] {
            let mut http = Http::on(connect(hub.addr));
            http.send_bytes(&header);
            is_turned_away(http, 429);
        }
        let mut http = Http::on(connect(hub.addr));
        http.send_bytes(&v1("10.9.9.9"));
        assert_eq!(metric(&mut http, "evenkeel_hub_refusals_total{reason=\"connections_per_address\"}"), 2);
        // A trusted proxy that does not say whose connection it is, or says nonsense.
        for wrong in
            [&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIT\nX"]
        {
            let mut stream = connect(hub.addr);
            stream.write_all(wrong).unwrap();
            assert_eq!(crate::support::read_to_end(&mut stream), (Vec::new(), End::Reset));
        }
        assert_eq!(metric(&mut http, "evenkeel_hub_refusals_total{reason=\"proxy_header\"}"), 3);
        for mut ws in held {
            ws.is_served();
        }
    });
}

#[test]
fn frames_behind_a_proxy_header_and_an_upgrade_in_one_piece_are_served() {
    on_every_backend(|backend| {
        let toml = "[proxy]\ntrusted = ['127.0.0.1']\nproxy_protocol = true";
        let hub = Hub::with(backend, &config("", "", toml));
        let ping = crate::support::client_frame(0x81, br#"{"event":"pusher:ping"}"#);
        let request = crate::support::upgrade("/app/key-a?protocol=7", "");
        let mut http = Http::on(connect(hub.addr));
        http.send_bytes(&[v2([10, 0, 0, 1]), request.into_bytes(), ping].concat());
        let mut ws = Ws::answered(http).unwrap();
        ws.greeted();
        ws.event("pusher:pong");
        // A body behind a proxy header reaches the HTTP server.
        let body = crate::support::event("c", "1");
        let mut http = Http::on(connect(hub.addr));
        let request = crate::support::api_request("POST", "/apps/1/events", &body);
        http.send_bytes(&[v2([10, 0, 0, 1]), request.into_bytes()].concat());
        assert_eq!(http.response().status, 200);
        // A stream whose client says something ends, header or not.
        let mut http = Http::on(connect(hub.addr));
        let request = crate::support::sse_request("/sse/key-a?channel=c", "");
        http.send_bytes(&[v2([10, 0, 0, 1]), request.into_bytes(), b"x".to_vec()].concat());
        let mut sse = crate::support::Sse::answered(http).unwrap();
        sse.is_caught_up();
        assert!(matches!(sse.next(), crate::support::Record::End(_)));
    });
}

#[test]
fn i48_new_connections_are_admitted_at_the_rate() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[limits]\naccept_rate = 1"));
        let mut first = hub.http();
        assert_eq!(first.get("/health").status, 200);
        // One a second: of so many in a row nearly all are refused.
        let mut refused = 0;
        for _ in 0..20 {
            let mut http = hub.http();
            let _ = http.stream.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            match http.response() {
                answer if answer.status == 503 => {
                    assert_eq!(answer.field("Retry-After"), Some("1"));
                    refused += 1;
                }
                answer => assert_eq!(answer.status, 200),
            }
            http.ends();
        }
        assert!(refused > 0);
        assert_eq!(metric(&mut first, "evenkeel_hub_refusals_total{reason=\"accept_rate\"}"), refused);
        eventually("one more is admitted", || {
            let mut http = hub.http();
            let _ = http.stream.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            http.response().status == 200
        });
    });
}

/// The answer comes before the request: whoever sends that is to read the answer, and not to meet a reset.
#[test]
fn i30_who_is_turned_away_may_still_be_sending_its_request() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[limits]\nmax_connections = 1"));
        let mut kept = hub.http();
        assert_eq!(kept.get("/health").status, 200);
        // One after the other, since loops take newcomers in any order; and fewer than there are places to be waited for.
        let mut refused: Vec<Http> = Vec::new();
        for n in 0..20 {
            let mut http = hub.http();
            assert_eq!(http.response().status, 503);
            assert_eq!(http.ends(), End::Orderly);
            for _ in 0..3 {
                assert!(http.stream.write_all(&[b'x'; 1000]).is_ok(), "{n} was reset");
                hub.connections();
            }
            refused.push(http);
        }
        // More than there are places: the others are closed at once, and told all the same.
        let mut crowd: Vec<Http> = (0..20).map(|_| hub.http()).collect();
        assert!(crowd.iter_mut().all(|http| http.response().status == 503));
        refused.append(&mut crowd);
        // Those that were closed at once do until they are.
        eventually("they do not count as connections", || hub.connections() == 1);
        drop(refused);
        assert_eq!(kept.get("/health").status, 200);
        drop(kept);
        hub.comes_to_rest();
    });
}

#[test]
fn i48_beyond_the_most_connections_newcomers_are_told_to_wait() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[limits]\nmax_connections = 3"));
        let mut canary = hub.canary();
        let mut http = hub.http();
        assert_eq!(http.get("/health").status, 200);
        for n in 1..=3 {
            is_turned_away(hub.http(), 503);
            let name = "evenkeel_hub_refusals_total{reason=\"too_many_connections\"}";
            assert_eq!(metric(&mut http, name), n);
        }
        canary.sings();
        drop(canary);
        eventually("there is room again", || {
            let mut newcomer = hub.http();
            newcomer.stream.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").is_ok()
                && newcomer.response().status == 200
        });
    });
}
