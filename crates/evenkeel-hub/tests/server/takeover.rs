//! Kept connections that become subscriptions.

use crate::support::{
    End, Frame, Hub, Record, Sse, Ws, client_frame, eventually, on_every_backend, sse_request, upgrade,
};

#[test]
fn i43_a_kept_connection_becomes_a_websocket_with_every_byte() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let ping = client_frame(0x81, br#"{"event":"pusher:ping"}"#);
        for requests in [1, 3, 30] {
            let before = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n".repeat(requests);
            let all =
                [before.as_bytes(), upgrade("/app/key-a?protocol=7", "").as_bytes(), &ping, &ping].concat();
            for piece in [all.len(), 1, 37] {
                let mut http = hub.http();
                for part in all.chunks(piece) {
                    http.send_bytes(part);
                }
                for _ in 0..requests {
                    assert_eq!(http.response().text(), "ok\n");
                }
                let mut ws = Ws::answered(http).unwrap();
                ws.greeted();
                ws.event("pusher:pong");
                ws.event("pusher:pong");
                ws.subscribe("c");
                assert_eq!(hub.publish("c", "after").status, 200);
                assert_eq!(ws.event("news")["data"], "after");
            }
        }
        let mut http = hub.http();
        assert_eq!(http.get("/health").status, 200);
        let mut ws = Ws::on(http, "/app/key-a?protocol=7", "");
        eventually("it is one connection still", || hub.connections() == 1);
        ws.is_served();
    });
}

#[test]
fn i43_a_kept_connection_becomes_a_stream() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        for requests in [1, 20] {
            let before = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n".repeat(requests);
            for piece in [4096, 1] {
                let mut http = hub.http();
                let all = format!("{before}{}", sse_request("/sse/key-a?channel=c", ""));
                for part in all.as_bytes().chunks(piece) {
                    http.send_bytes(part);
                }
                for _ in 0..requests {
                    assert_eq!(http.response().text(), "ok\n");
                }
                let mut sse = Sse::answered(http).unwrap();
                sse.is_caught_up();
                assert_eq!(hub.publish("c", "live").status, 200);
                assert_eq!(sse.event()["data"], "live");
            }
        }
        // A stream's connection serves nothing else afterwards.
        let mut http = hub.http();
        assert_eq!(http.get("/health").status, 200);
        http.send(&format!(
            "{}GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
            sse_request("/sse/key-a?channel=c", "")
        ));
        let mut sse = Sse::answered(http).unwrap();
        sse.is_caught_up();
        assert!(matches!(sse.next(), Record::End(_)));
    });
}

#[test]
fn a_refused_subscription_on_a_kept_connection_ends_it() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        for (request, status) in [
            ("GET /app/key-a HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 426),
            (sse_request("/sse/unknown?channel=c", ""), 404),
            (sse_request("/sse/key-a?channel=private-x", ""), 401),
            (sse_request("/sse/key-a", ""), 400),
        ] {
            let mut http = hub.http();
            assert_eq!(http.get("/health").status, 200);
            http.send(&format!("{request}GET /health HTTP/1.1\r\nHost: h\r\n\r\n"));
            let refused = http.response();
            assert_eq!(refused.status, status, "{refused:?}");
            http.ends();
        }
        let mut http = hub.http();
        assert_eq!(http.get("/health").status, 200);
        let mut ws = Ws::upgraded(http, "/app/unknown?protocol=7", "").unwrap();
        ws.error(4001);
        ws.closes(4001);
        canary.sings();
    });
}

#[test]
fn a_websocket_does_not_turn_back_to_http() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = hub.ws();
        ws.send_bytes(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
        // `G` is a text frame with reserved bits.
        assert!(matches!(ws.next(), Frame::Close(1002, _)));
        assert_eq!(ws.next(), Frame::End(End::Orderly));
    });
}

#[test]
fn i36_a_client_that_vanishes_on_the_way_back_to_the_front_door_leaves_nothing() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        for request in [upgrade("/app/key-a?protocol=7", ""), sse_request("/sse/key-a?channel=c", "")] {
            for _ in 0..20 {
                let mut http = hub.http();
                assert_eq!(http.get("/health").status, 200);
                http.send(&request);
                crate::support::reset(http.stream);
            }
        }
        hub.comes_to_rest();
        assert_eq!(hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"websocket\"}"), 0);
        assert_eq!(hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"sse\"}"), 0);
    });
}
