//! Event streams over real sockets.

use crate::support::{Hub, Record, Sse, app_key, config, on_every_backend, unix_seconds};

#[test]
fn a_stream_begins_as_event_sources_expect() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[sse]\nretry_milliseconds = 1234"));
        let mut sse = hub.sse("channel=a&channels=b,c&channel=a");
        for field in ["Content-Type: text/event-stream", "Cache-Control: no-", "X-Accel-Buffering: no"] {
            let head = sse.head.to_ascii_lowercase();
            assert!(head.contains(&field.to_ascii_lowercase()), "{field}: {head}");
        }
        assert!(!sse.head.contains("Content-Length"), "{}", sse.head);
        assert_eq!(sse.next(), Record::Retry(1234));
        let before: Vec<_> =
            sse.is_caught_up().iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect();
        assert_eq!(before[0], "pusher:connection_established");
        assert_eq!(before.iter().filter(|e| *e == "pusher_internal:subscription_succeeded").count(), 3);
        for channel in ["a", "b", "c", "d"] {
            hub.publish(channel, channel);
        }
        for channel in ["a", "b", "c"] {
            let event = sse.event();
            assert_eq!((&event["channel"], &event["data"]), (&channel.into(), &channel.into()));
        }
    });
}

#[test]
fn i44_a_stream_that_comes_back_gets_what_it_missed_once_and_in_order() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut sse = hub.sse("channel=a&channel=b");
        sse.is_caught_up();
        assert_eq!(hub.publish("a", "0").status, 200);
        assert_eq!(sse.event()["data"], "0");
        let id = sse.last_id.take().unwrap();
        drop(sse);
        for n in 1..=20 {
            let channel = if n % 3 == 0 { "b" } else { "a" };
            assert_eq!(hub.publish(channel, &n.to_string()).status, 200);
            assert_eq!(hub.publish("other", "no").status, 200);
        }
        let path = "/sse/key-a?channel=b&channel=a";
        let mut sse = Sse::open(hub.addr, path, &format!("Last-Event-ID: {id}\r\n"));
        let events = sse.is_caught_up();
        let missed: Vec<_> =
            events.iter().filter(|e| e["event"] == "news").map(|e| e["data"].clone()).collect();
        let expected: Vec<_> = (1..=20).map(|n| serde_json::Value::from(n.to_string())).collect();
        assert_eq!(missed, expected);
        assert!(!events.iter().any(|e| e["event"] == "evenkeel:gap"));
        hub.publish("a", "live");
        assert_eq!(sse.event()["data"], "live");
        assert_eq!(hub.metric("evenkeel_hub_replayed_total{app=\"1\"}"), 20);
    });
}

#[test]
fn after_a_restart_a_stream_hears_of_the_gap() {
    on_every_backend(|backend| {
        let first = Hub::start(backend);
        let mut sse = first.sse("channel=a");
        sse.is_caught_up();
        first.publish("a", "1");
        sse.event();
        let id = sse.last_id.take().unwrap();
        drop(sse);
        drop(first);
        let second = Hub::start(backend);
        second.publish("a", "2");
        for last in [id.as_str(), "nonsense", "\u{fc}\u{fc}", "999999999999999999999999-1"] {
            let mut sse =
                Sse::open(second.addr, "/sse/key-a?channel=a", &format!("Last-Event-ID: {last}\r\n"));
            let events = sse.is_caught_up();
            let gaps: Vec<_> = events.iter().filter(|e| e["event"] == "evenkeel:gap").collect();
            assert_eq!(gaps.len(), 1, "{last:?}: {events:?}");
            assert_eq!(gaps[0]["channel"], "a");
            assert!(!events.iter().any(|e| e["event"] == "news"), "old news: {events:?}");
        }
    });
}

#[test]
fn pages_of_allowed_origins_may_read_streams_and_their_refusals() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "allowed_origins = ['https://a.example']", ""));
        let origin = "Origin: https://a.example\r\n";
        let sse = Sse::open(hub.addr, "/sse/key-a?channel=a", origin);
        assert!(sse.head.contains("Access-Control-Allow-Origin: https://a.example\r\n"), "{}", sse.head);
        assert!(sse.head.contains("Vary: Origin\r\n"), "{}", sse.head);
        let refused = Sse::on(hub.http(), "/sse/key-a?channel=private-a", origin).err().unwrap();
        assert_eq!(refused.status, 401);
        assert_eq!(refused.field("Access-Control-Allow-Origin"), Some("https://a.example"));
        let sse = Sse::open(hub.addr, "/sse/key-a?channel=a", "");
        assert!(!sse.head.contains("Access-Control"), "{}", sse.head);
    });
}

#[test]
fn i45_private_channels_need_a_signature_over_all_channels() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let now = unix_seconds();
        let auth = |channels: &[&str], expires: u64| app_key().stream_auth(channels, expires);
        let good = auth(&["private-a", "b"], now + 60);
        let mut sse = hub.sse(&format!("channel=b&channel=private-a&expires={}&auth={good}", now + 60));
        sse.is_caught_up();
        hub.publish("private-a", "secret");
        assert_eq!(sse.event()["data"], "secret");
        let other_app = evenkeel_hub::proto::auth::AppKey::new("key-b", "secret-b");
        for query in [
            "channel=private-a".to_owned(),
            format!("channel=private-a&expires={}&auth={good}", now + 60),
            format!("channel=private-a&channel=b&expires={}&auth={good}", now + 61),
            format!("channel=private-a&channel=b&channel=c&expires={}&auth={good}", now + 60),
            format!("channel=private-a&expires={}&auth={}", now - 1, auth(&["private-a"], now - 1)),
            format!("channel=private-a&expires={}&auth={}", now + 90_000, auth(&["private-a"], now + 90_000)),
            format!(
                "channel=private-a&expires={}&auth={}",
                now + 60,
                other_app.stream_auth(&["private-a"], now + 60)
            ),
            format!("channel=private-a&expires=&auth={}", auth(&["private-a"], 0)),
        ] {
            let mut http = hub.http();
            http.send(&crate::support::sse_request(&format!("/sse/key-a?{query}"), ""));
            let refused = http.response();
            assert_eq!(refused.status, 401, "{query}: {refused:?}");
            assert!(!refused.text().contains("secret-a"));
            http.ends();
        }
        for query in ["channel=presence-a", "channel=", "", "channel=a%2", "channel=%23server-to-x"] {
            let mut http = hub.http();
            http.send(&crate::support::sse_request(&format!("/sse/key-a?{query}"), ""));
            assert_eq!(http.response().status, 400, "{query}");
            http.ends();
        }
    });
}

#[test]
fn a_silent_stream_gets_heartbeats() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[sse]\nheartbeat_seconds = 1"));
        let mut sse = hub.sse("channel=a");
        sse.is_caught_up();
        assert_eq!(sse.next(), Record::Comment);
        assert_eq!(sse.next(), Record::Comment);
    });
}

#[test]
fn a_stream_whose_client_speaks_or_leaves_is_over() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        let mut sse = hub.sse("channel=a");
        sse.is_caught_up();
        assert!(crate::support::try_write(&mut sse.stream, b"\r\n"));
        assert!(matches!(sse.next(), Record::End(_)));
        let gone = hub.sse("channel=a");
        crate::support::reset(gone.stream);
        let half = hub.sse("channel=a");
        half.stream.shutdown(std::net::Shutdown::Write).unwrap();
        crate::support::eventually("no stream is left", || {
            hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"sse\"}") == 0
        });
        canary.sings();
    });
}

#[test]
fn pages_of_allowed_origins_may_ask_before_they_fetch_a_stream() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "allowed_origins = ['https://a.example']", ""));
        let mut http = hub.http();
        let mut ask = |origin: &str, key: &str, bare: bool| {
            http.send(&format!(
                "OPTIONS /sse/{key}?channel=a HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\
                 Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: last-event-id\r\n\r\n"
            ));
            // A 204 has no body and no length.
            if bare { http.response_to_head() } else { http.response() }
        };
        let allowed = ask("https://a.example", "key-a", true);
        assert_eq!(allowed.status, 204);
        assert_eq!(allowed.field("Access-Control-Allow-Origin"), Some("https://a.example"));
        assert!(
            allowed
                .field("Access-Control-Allow-Headers")
                .is_some_and(|names| names.contains("Last-Event-ID"))
        );
        assert_eq!(ask("https://evil.example", "key-a", false).status, 403);
        assert_eq!(ask("https://a.example", "no-such-key", false).status, 403);
    });
}

#[test]
fn only_get_opens_a_stream() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut http = hub.http();
        for method in ["POST", "PUT", "DELETE"] {
            http.send(&format!("{method} /sse/key-a?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let answer = http.response();
            assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, OPTIONS")), "{method}");
        }
        http.send("HEAD /sse/key-a?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(http.response_to_head().status, 405);
        assert_eq!(http.get("/health").status, 200);
        assert_eq!(hub.metric("evenkeel_hub_connections_opened_total{app=\"1\"}"), 0);
    });
}

#[test]
fn streams_can_be_turned_off() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "", "[sse]\nenabled = false"));
        assert_eq!(hub.get("/sse/key-a?channel=a").status, 404);
        hub.canary().sings();
    });
}
