//! The HTTP side: framing, order, deadlines.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::{
    End, Http, Hub, TOKEN, Ws, api_request, config, connect_narrowly, event, eventually, on_every_backend,
    read_to_end, try_write,
};

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        // Far more than may be in flight at once, in pieces that end anywhere.
        let mut all = String::new();
        for n in 0..200 {
            match n % 4 {
                0 => all += "GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
                1 => all += "HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n",
                2 => all += &api_request("POST", "/apps/1/events", &event("c", &n.to_string())),
                _ => {
                    all += "POST /nowhere HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                }
            }
        }
        for piece in [all.len(), 1000, 77] {
            let mut http = hub.http();
            let mut writer = http.stream.try_clone().unwrap();
            let bytes = all.as_bytes();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    for part in bytes.chunks(piece) {
                        writer.write_all(part).unwrap();
                    }
                });
                for n in 0..200 {
                    let answer = if n % 4 == 1 { http.response_to_head() } else { http.response() };
                    assert_eq!(answer.status, if n % 4 == 3 { 404 } else { 200 }, "{n}: {answer:?}");
                    assert_eq!(answer.body, [&b"ok\n"[..], b"", b"{}", b"there is nothing here\n"][n % 4]);
                }
            });
            assert_eq!(http.get("/ready").status, 200);
        }
    });
}

#[test]
fn an_answer_has_one_type() {
    let hub = Hub::start(evenkeel::Backend::Auto);
    let mut http = hub.http();
    for (method, path, body, wanted) in [
        ("POST", "/apps/1/events", event("c", "1"), "application/json"),
        ("GET", "/apps/1/channels", String::new(), "application/json"),
    ] {
        let head = http.api(method, path, &body).head.to_ascii_lowercase();
        let types: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("content-type: ")).collect();
        assert_eq!(types, [wanted], "{head}");
    }
}

/// Opens a socket and subscribes it to many channels with long names, so that their list is long.
fn occupy(hub: &Hub, channels: usize) -> Ws {
    let mut ws = hub.ws();
    let name = "x".repeat(190);
    for n in 0..channels {
        ws.ask_to_subscribe(&format!("{name}-{n}"), None);
    }
    for _ in 0..channels {
        ws.event("pusher_internal:subscription_succeeded");
    }
    ws
}

#[test]
fn a_slow_reader_gets_all_of_its_answers_whole_and_then_the_end() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "max_channels_per_connection = 30000", ""));
        let _ws = occupy(&hub, 900);
        let request = api_request("GET", "/apps/1/channels", "");
        let mut http = hub.http();
        http.send(&request);
        let whole = http.response().body;
        assert!(whole.len() > 900 * 190);
        let last = request.replacen("Host: localhost", "Host: localhost\r\nConnection: close", 1);
        let upgrade = crate::support::upgrade("/app/key-a?protocol=7", "");
        for times in [0, 1, 40] {
            for upgraded in [false, true] {
                let mut http = Http::on(connect_narrowly(hub.addr));
                let behind = if upgraded { &upgrade } else { &last };
                http.send(&format!("{}{behind}", request.repeat(times)));
                // The server has long been left with most of it when another connection has had its answers.
                (0..3).for_each(|_| assert_eq!(hub.get("/health").status, 200));
                for n in 0..times + usize::from(!upgraded) {
                    let answer = http.response();
                    let (got, due) = (answer.body.len(), whole.len());
                    assert!(answer.body == whole, "{n} of {times}: {got} of {due} bytes");
                }
                if upgraded {
                    let mut ws = Ws::answered(http).unwrap();
                    ws.greeted();
                    ws.is_served();
                } else {
                    assert_eq!(http.ends(), End::Orderly);
                }
            }
        }
    });
}

#[test]
fn a_client_whose_answers_are_slow_to_leave_has_time_for_its_next_request() {
    on_every_backend(|backend| {
        let limits = "[limits]\nhandshake_deadline_seconds = 1";
        let hub = Hub::with(backend, &config("", "max_channels_per_connection = 30000", limits));
        let _ws = occupy(&hub, 900);
        let request = api_request("GET", "/apps/1/channels", "");
        let mut http = Http::on(connect_narrowly(hub.addr));
        let next = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";
        // The beginning of the next request comes while the server cannot get rid of its answers, and so does not read.
        http.send(&format!("{}{}", request.repeat(3), &next[..20]));
        std::thread::park_timeout(Duration::from_millis(1500));
        (0..3).for_each(|n| assert_eq!(http.response().status, 200, "{n}"));
        http.send(&next[20..]);
        assert_eq!(http.response().text(), "ok\n");
        assert_eq!(hub.refusals("handshake_timeout"), 0);
    });
}

#[test]
fn i47_a_reader_that_takes_nothing_of_its_answers_is_cut_off() {
    on_every_backend(|backend| {
        let limits = "[limits]\nmax_queue_age_seconds = 1";
        let hub = Hub::with(backend, &config("", "max_channels_per_connection = 30000", limits));
        let mut canary = hub.canary();
        let _ws = occupy(&hub, 900);
        let mut http = Http::on(connect_narrowly(hub.addr));
        http.send(&api_request("GET", "/apps/1/channels", "").repeat(3));
        eventually("it is served", || hub.metric("evenkeel_hub_http_connections") == 3);
        eventually("it is cut off", || hub.metric("evenkeel_hub_http_connections") == 2);
        hub.refused("slow_reader", 1);
        canary.sings();
    });
}

#[test]
fn bodies_keep_to_their_limits() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[limits]\nmax_body_bytes = 65536"));
        let mut canary = hub.canary();
        // Declared.
        let post = |fields: &str| format!("POST /nowhere HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
        for (length, status) in [(65_536_u64, 404), (65_537, 413), (u64::MAX, 413)] {
            let mut http = hub.http();
            http.send(&post(&format!("Content-Length: {length}")));
            let body = vec![b'x'; length.min(65_536) as usize];
            try_write(&mut http.stream, &body);
            let answer = http.response();
            assert_eq!(answer.status, status, "{length}");
            if status == 413 {
                http.ends();
            }
        }
        hub.refused("body_too_large", 2);
        // In chunks.
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        for (chunks, more, status) in [(4, "0\r\n\r\n", 404), (4, "1\r\nx\r\n0\r\n\r\n", 413), (9, "", 413)] {
            let mut http = hub.http();
            http.send(&post("Transfer-Encoding: chunked"));
            try_write(&mut http.stream, chunk.repeat(chunks).as_bytes());
            try_write(&mut http.stream, more.as_bytes());
            assert_eq!(http.response().status, status, "{chunks} {more}");
            if status == 413 {
                http.ends();
            }
        }
        hub.refused("body_too_large", 4);
        canary.sings();
    });
}

#[test]
fn chunked_bodies_are_served_cut_anywhere() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = hub.ws();
        ws.subscribe("c");
        for piece in [1, 3, 1000] {
            let body = event("c", &format!("in pieces of {piece}"));
            let plain = api_request("POST", "/apps/1/events", &body);
            let (head, _) = plain.split_once("\r\n\r\n").unwrap();
            let head = head.replace(&format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked");
            let chunks: String = body
                .as_bytes()
                .chunks(7)
                .map(|c| format!("{:x}\r\n{}\r\n", c.len(), std::str::from_utf8(c).unwrap()))
                .collect();
            let mut http = hub.http();
            for part in format!("{head}\r\n\r\n{chunks}0\r\n\r\n").as_bytes().chunks(piece) {
                http.send_bytes(part);
            }
            assert_eq!(http.response().status, 200);
            assert_eq!(ws.event("news")["data"], format!("in pieces of {piece}"));
            assert_eq!(http.get("/health").status, 200);
        }
    });
}

/// Whoever is refused in the middle of a request goes on sending it, and is to read why, and not to meet a reset.
#[test]
fn i30_a_refusal_in_the_middle_of_a_request_waits_for_its_client() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let post = "POST /nowhere HTTP/1.1\r\nHost: h\r\n";
        let refused = [
            ("GET / HTTP/1.1\r\nno field\r\n\r\n".to_owned(), 400),
            (format!("GET / HTTP/1.1\r\nHost: {}", "h".repeat(100_000)), 431),
            (format!("{post}Content-Length: 100000000\r\n\r\nx"), 413),
            (format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\nno length\r\n"), 400),
            ("GET /sse/no-app?channel=c HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404),
        ];
        for (request, status) in refused {
            let mut http = hub.http();
            try_write(&mut http.stream, request.as_bytes());
            assert_eq!(http.response().status, status, "{request:.80}");
            assert_eq!(http.ends(), End::Orderly, "{request:.80}");
            for n in 0..3 {
                let sent = http.stream.write_all(&[b'x'; 10_000]);
                assert!(sent.is_ok(), "{request:.80}: {n} {sent:?}");
                hub.connections();
            }
            assert_eq!(hub.connections(), 1, "it is waited for, and counts meanwhile");
            drop(http);
            hub.comes_to_rest();
        }
        // One whose request is complete is not, however long it stays.
        let mut http = hub.http();
        let request = api_request("POST", "/apps/1/events", &event("c", "1"));
        http.send(&request.replacen("\r\n", "\r\nConnection: close\r\n", 1));
        assert_eq!((http.response().status, http.ends()), (200, End::Orderly));
        let gone = (0..50).any(|_| hub.connections() == 0 && http.stream.write_all(b"x").is_err());
        assert!(gone, "nobody listens any more");
    });
}

#[test]
fn slow_bodies_end_at_their_deadline_and_below_their_rate() {
    on_every_backend(|backend| {
        let limits = "[limits]\nbody_deadline_seconds = 1";
        let hub = Hub::with(backend, &config("", "", limits));
        let mut canary = hub.canary();
        let started = Instant::now();
        let mut silent = hub.http();
        silent.send("POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nsome");
        let mut dripping = hub.http();
        dripping.send("POST /nowhere HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        while try_write(&mut dripping.stream, b"1\r\nx\r\n") {
            assert!(started.elapsed() < Duration::from_secs(15), "still open");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        for mut http in [silent, dripping] {
            // At most one answer, and no other than a refusal.
            let (answer, _) = read_to_end(&mut http.stream);
            let text = String::from_utf8_lossy(&answer);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
            assert!(text.matches("HTTP/1.1").count() <= 1, "{text}");
        }
        assert!(started.elapsed() >= Duration::from_secs(1));
        hub.refused("slow_body", 2);
        canary.sings();
    });
}

#[test]
fn a_body_slower_than_the_least_rate_is_cut_off() {
    on_every_backend(|backend| {
        let limits = "[limits]\nmin_body_rate = 100000";
        let hub = Hub::with(backend, &config("", "", limits));
        let started = Instant::now();
        let mut http = hub.http();
        http.send("POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 600000\r\n\r\n");
        while try_write(&mut http.stream, b"x") {
            assert!(started.elapsed() < Duration::from_secs(18), "still open");
            std::thread::park_timeout(Duration::from_millis(100));
        }
        assert!(started.elapsed() >= Duration::from_secs(5), "there is a time of grace");
        hub.refused("slow_body", 1);
    });
}

#[test]
fn every_body_and_every_head_of_a_kept_connection_has_its_own_deadline() {
    on_every_backend(|backend| {
        let limits = "[limits]\nbody_deadline_seconds = 2\nhandshake_deadline_seconds = 2";
        let hub = Hub::with(backend, &config("", "", limits));
        let post = "POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
        let get = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut kept: Vec<_> =
            [post, get].into_iter().map(|one| (hub.http(), one.split_at(one.len() - 2))).collect();
        kept.iter_mut().for_each(|(http, (begin, _))| http.send(begin));
        // There is always a request under way, and none for longer than a step.
        for _ in 0..12 {
            std::thread::park_timeout(Duration::from_millis(250));
            for (http, (begin, end)) in &mut kept {
                http.send(&format!("{end}{begin}"));
                assert_eq!(http.response().status, 404, "{begin:?}");
            }
        }
        for (http, (begin, end)) in &mut kept {
            http.send(&format!("{end}{}", &begin[..10]));
            assert_eq!(http.response().status, 404);
        }
        // Nor has a head the deadline of a body before it.
        kept.iter_mut().for_each(|(http, _)| assert_eq!(read_to_end(&mut http.stream).0, b""));
        hub.refused("handshake_timeout", 2);
        assert_eq!(hub.refusals("slow_body"), 0);
    });
}

#[test]
fn methods_paths_and_versions() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut http = hub.http();
        for (method, path, status) in [
            ("GET", "/health", 200),
            ("GET", "/ready", 200),
            ("GET", "/", 200),
            ("GET", "/console", 200),
            ("GET", "/chat", 200),
            ("GET", "/nowhere", 404),
            ("GET", "/assets/../Cargo.toml", 404),
            ("GET", "/assets/..%2f..%2fCargo.toml", 404),
            ("GET", "//health", 404),
            ("GET", "/health/", 404),
            ("GET", "/apps/1/nothing", 404),
            ("DELETE", "/apps/1/events", 405),
            ("GET", "/apps/1/events", 405),
            ("POST", "/apps/1/channels", 405),
            ("BREW", "/coffee", 404),
        ] {
            http.send(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let answer = http.response();
            assert_eq!(answer.status, status, "{method} {path}");
            assert_eq!(answer.status == 405, answer.field("Allow").is_some());
        }
        for path in ["/health", "/console", "/metrics"] {
            let fields = format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}");
            http.send(&format!("HEAD {path} HTTP/1.1\r\n{fields}\r\n\r\n"));
            let head = http.response_to_head();
            assert_eq!(head.status, 200);
            assert!(head.field("Content-Length").unwrap().parse::<usize>().unwrap() > 0);
        }
        // The same connection, still in step.
        assert_eq!(http.get("/health").text(), "ok\n");
    });
}

#[test]
fn an_expected_continue_comes_before_the_body_and_a_refusal_instead_of_it() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = hub.ws();
        ws.subscribe("c");
        let body = event("c", "expected");
        let request = api_request("POST", "/apps/1/events", &body);
        let (head, _) = request.split_once("\r\n\r\n").unwrap();
        let mut http = hub.http();
        http.send(&format!("{head}\r\nExpect: 100-continue\r\n\r\n"));
        assert_eq!(http.response().status, 100);
        http.send(&body);
        assert_eq!(http.response().status, 200);
        assert_eq!(ws.event("news")["data"], "expected");
        http.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(http.response().status, 413);
        http.ends();
    });
}

#[test]
fn http_1_0_is_served_and_ends_or_is_kept_as_asked() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut http = hub.http();
        http.send("GET /health HTTP/1.0\r\n\r\n");
        assert_eq!(http.response().text(), "ok\n");
        assert_eq!(http.ends(), End::Orderly);
        let mut http = hub.http();
        for _ in 0..3 {
            http.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            assert_eq!(http.response().text(), "ok\n");
        }
    });
}

#[test]
fn i30_a_half_closed_client_still_gets_its_answers() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        for times in [1, 5, 40] {
            let mut http = hub.http();
            http.send(&"GET /health HTTP/1.1\r\nHost: h\r\n\r\n".repeat(times));
            http.stream.shutdown(std::net::Shutdown::Write).unwrap();
            for n in 0..times {
                assert_eq!(http.response().status, 200, "{n} of {times}");
            }
            assert_eq!(http.ends(), End::Orderly);
        }
        // A request that is never complete gets none, or a refusal.
        for part in ["GET /heal", "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"] {
            let mut http = hub.http();
            http.send(part);
            http.stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            http.stream.read_to_string(&mut text).unwrap();
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");
        }
    });
}

#[test]
fn i36_http_clients_that_vanish_at_any_byte_leave_nothing() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let request = api_request("POST", "/apps/1/events", &event("c", "x"));
        for at in (0..=request.len()).step_by(17) {
            for kept in [false, true] {
                let mut http = Http::connect(hub.addr);
                if kept {
                    assert_eq!(http.get("/health").status, 200);
                }
                http.send(&request[..at]);
                crate::support::reset(http.stream);
            }
        }
        hub.comes_to_rest();
        assert_eq!(hub.metric("evenkeel_hub_http_connections"), 1, "the one that asks");
    });
}
