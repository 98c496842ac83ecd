//! Who receives what, and in which order.

use std::sync::Barrier;

use evenkeel_hub::proto::auth::AppKey;
use serde_json::json;

use crate::support::{
    Frame, Hub, Sse, Ws, api_request, app_key, client_frame, event, on_each_backend, on_every_backend,
    unix_seconds,
};

const MESSAGES: usize = 100;

/// Follows what two publishers send to one channel.
#[derive(Default)]
struct Follower([usize; 2]);

impl Follower {
    /// Takes a message `PUBLISHER N`; true when it was the last of all.
    fn takes(&mut self, message: &serde_json::Value) -> bool {
        assert_eq!((&message["event"], &message["channel"]), (&json!("news"), &json!("c")), "{message}");
        let (publisher, n) = message["data"].as_str().unwrap().split_once(' ').unwrap();
        let next = &mut self.0[publisher.parse::<usize>().unwrap()];
        assert_eq!(n.parse::<usize>().unwrap(), *next, "each once, in the order of its publisher");
        *next += 1;
        self.0 == [MESSAGES; 2]
    }
}

#[test]
fn i44_fifty_subscribers_of_both_transports_get_everything_once_and_in_order() {
    on_each_backend(|backend| {
        let hub = Hub::start(backend);
        let mut sockets: Vec<Ws> = (0..25).map(|_| hub.ws()).collect();
        let mut streams: Vec<Sse> = (0..25).map(|_| hub.sse("channel=c")).collect();
        sockets.iter_mut().for_each(|ws| drop(ws.subscribe("c")));
        streams.iter_mut().for_each(|sse| drop(sse.is_caught_up()));
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            for publisher in 0..2 {
                let (hub, together) = (&hub, &together);
                scope.spawn(move || {
                    let mut http = hub.http();
                    let requests: String = (0..MESSAGES)
                        .map(|n| {
                            api_request("POST", "/apps/1/events", &event("c", &format!("{publisher} {n}")))
                        })
                        .collect();
                    together.wait();
                    // One pipelines all, the other waits for each answer.
                    if publisher == 0 {
                        http.send(&requests);
                        (0..MESSAGES).for_each(|_| assert_eq!(http.response().status, 200));
                    } else {
                        for n in 0..MESSAGES {
                            let body = event("c", &format!("1 {n}"));
                            assert_eq!(http.api("POST", "/apps/1/events", &body).status, 200);
                        }
                    }
                });
            }
        });
        for ws in &mut sockets {
            let mut follower = Follower::default();
            while !follower.takes(&ws.message()) {}
            ws.is_served();
        }
        for sse in &mut streams {
            let mut follower = Follower::default();
            while !follower.takes(&sse.event()) {}
        }
        assert_eq!(hub.metric("evenkeel_hub_events_published_total{app=\"1\"}"), 2 * MESSAGES as u64);
    });
}

#[test]
fn i44_nothing_comes_before_the_answer_or_after_the_leaving() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = hub.ws();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (stopped, hub) = (&stop, &hub);
            scope.spawn(move || {
                let mut http = hub.http();
                for n in 0.. {
                    if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    assert_eq!(http.api("POST", "/apps/1/events", &event("c", &n.to_string())).status, 200);
                }
            });
            let mut last = None;
            for _ in 0..20 {
                ws.subscribe("c");
                for _ in 0..3 {
                    let n = ws.event("news")["data"].as_str().unwrap().parse::<u64>().unwrap();
                    assert!(last.is_none_or(|last| n > last));
                    last = Some(n);
                }
                ws.send_event("pusher:unsubscribe", &json!({ "channel": "c" }));
                ws.send_event("pusher:ping", &json!({}));
                // What was sent before the server heard of it may come; then the answer, then nothing.
                while ws.message()["event"] != "pusher:pong" {}
                ws.is_served();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

/// Whichever loop they come to: on those that do not have the state, its answers take a turn longer than what the loop itself
/// has to say.
#[test]
fn i44_answers_come_before_the_close_that_was_caused_behind_them() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut watcher = hub.ws();
        watcher.subscribe_as("presence-here", Some(r#"{"user_id":"watcher"}"#));
        for n in 0..16 {
            let mut ws = hub.ws();
            let data = json!({ "user_id": n.to_string() }).to_string();
            let auth = app_key().channel_auth(&ws.socket_id, "presence-here", Some(&data));
            let subscribe = json!({ "event": "pusher:subscribe",
                "data": { "channel": "presence-here", "auth": auth, "channel_data": data } });
            let valid = client_frame(0x81, subscribe.to_string().as_bytes());
            let ping = client_frame(0x89, b"?");
            let (last, code) = match n % 3 {
                0 => (client_frame(0xc1, b"a reserved bit"), 1002),
                1 => (client_frame(0x82, b"binary"), 1003),
                _ => (client_frame(0x88, &1000_u16.to_be_bytes()), 1000),
            };
            ws.send_bytes(&[valid, ping, last].concat());
            let mut before = [ws.next(), ws.next()];
            before.sort_by_key(|frame| matches!(frame, Frame::Pong(_)));
            let [Frame::Text(answer), Frame::Pong(_)] = before else { panic!("{before:?}") };
            assert!(answer.contains("pusher_internal:subscription_succeeded"), "{answer}");
            ws.closes(code);
            // It is not present any longer than that, however long it stays.
            let member = json!(n.to_string());
            let user = |message: &serde_json::Value| {
                serde_json::from_str::<serde_json::Value>(message["data"].as_str().unwrap()).unwrap()["user_id"]
                    .clone()
            };
            assert_eq!(user(&watcher.event("pusher_internal:member_added")), member);
            assert_eq!(user(&watcher.event("pusher_internal:member_removed")), member);
        }
    });
}

/// What a client sends when it is closed already is on its way before it can know.
#[test]
fn i30_who_is_closed_for_a_mistake_is_not_reset_for_what_comes_behind_it() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut ws = hub.ws();
        ws.send_bytes(&client_frame(0xc1, b"a reserved bit"));
        ws.closes(1002);
        for _ in 0..3 {
            ws.send_bytes(&client_frame(0x81, &[b'x'; 10_000]));
            hub.connections();
        }
        assert_eq!(hub.connections(), 1, "it is waited for");
        drop(ws);
        hub.comes_to_rest();
    });
}

#[test]
fn i45_two_applications_do_not_hear_each_other() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let (mut a, mut b) = (hub.ws(), Ws::open(hub.addr, "key-b"));
        let mut stream_b = Sse::open(hub.addr, "/sse/key-b?channel=c", "");
        stream_b.is_caught_up();
        a.subscribe("c");
        b.subscribe("c");
        a.subscribe("private-c");
        let key_b = AppKey::new("key-b", "secret-b");
        // Signed by the other application, for a socket of either.
        for key in [app_key(), AppKey::new("key-b", "secret-a"), AppKey::new("key-a", "secret-b")] {
            let auth = key.channel_auth(&b.socket_id, "private-c", None);
            b.send_event("pusher:subscribe", &json!({ "channel": "private-c", "auth": auth }));
            assert_eq!(b.event("pusher:subscription_error")["data"]["status"], 401);
        }
        let auth = key_b.channel_auth(&b.socket_id, "private-c", None);
        b.send_event("pusher:subscribe", &json!({ "channel": "private-c", "auth": auth }));
        b.event("pusher_internal:subscription_succeeded");
        assert_eq!(hub.publish("c", "of a").status, 200);
        assert_eq!(hub.publish("private-c", "of a").status, 200);
        a.event("news");
        a.event("news");
        a.send(r#"{"event":"client-x","channel":"private-c","data":1}"#);
        a.is_served();
        b.is_served();
        // A request signed by one application for the other.
        let body = event("c", "forged");
        for key in [&app_key(), &key_b] {
            for app in ["1", "2"] {
                let path = format!("/apps/{app}/events");
                let query = key.sign_request("POST", &path, &[], body.as_bytes(), unix_seconds());
                let mut http = hub.http();
                let length = body.len();
                http.send(&format!(
                    "POST {path}?{query} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
                let own = (key.key() == "key-a") == (app == "1");
                assert_eq!(http.response().status, if own { 200 } else { 401 }, "{} {app}", key.key());
            }
        }
        assert_eq!(b.event("news")["data"], "forged", "its own, once");
        assert_eq!(stream_b.event()["data"], "forged");
        assert_eq!(a.event("news")["data"], "forged");
        a.is_served();
        b.is_served();
        assert_eq!(hub.metric("evenkeel_hub_messages_received_total{app=\"2\"}"), 7);
    });
}

#[test]
fn a_publisher_can_leave_its_own_socket_out() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let (mut own, mut other) = (hub.ws(), hub.ws());
        own.subscribe("c");
        other.subscribe("c");
        let body =
            json!({ "name": "news", "channel": "c", "data": "1", "socket_id": own.socket_id }).to_string();
        assert_eq!(hub.http().api("POST", "/apps/1/events", &body).status, 200);
        assert_eq!(other.event("news")["data"], "1");
        own.is_served();
    });
}
