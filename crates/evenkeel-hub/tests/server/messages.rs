//! Messages that are well-formed frames and nothing that the protocol allows.

use serde_json::json;

use crate::support::{Hub, Ws, config, on_every_backend};

#[test]
fn i50_json_bombs_are_refused_and_the_client_is_served_on() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        let mut ws = hub.ws();
        for (text, reason) in [
            ("[".repeat(65_000), "too_deep"),
            (format!(r#"{{"event":"pusher:ping","data":{}{}}}"#, "[".repeat(16), "]".repeat(16)), "too_deep"),
            (format!(r#"{{"event":"pusher:ping","data":[{}1]}}"#, "1,".repeat(2_000)), "too_many_nodes"),
            ("{".to_owned(), "malformed"),
            (String::new(), "malformed"),
            ("null".to_owned(), "malformed"),
            (r#"{"event":7}"#.to_owned(), "malformed"),
            (r#"{"event":"pusher:ping","event":"pusher:ping"}"#.to_owned(), "malformed"),
            (r#"{"event":"pusher:subscribe"}"#.to_owned(), "malformed"),
            (r#"{"event":"pusher:subscribe","data":{"channel":1e999}}"#.to_owned(), "malformed"),
            (r#"{"event":"pusher:subscribe","data":{"channel":"\ud800"}}"#.to_owned(), "malformed"),
            (r#"{"event":"pusher:error","data":{}}"#.to_owned(), "unknown_event"),
            (r#"{"event":"pusher_internal:member_added","data":"{}"}"#.to_owned(), "unknown_event"),
        ] {
            let before = hub.app_refusals(reason);
            ws.send(&text);
            ws.error(4300);
            ws.is_served();
            hub.app_refused(reason, before + 1);
        }
        canary.sings();
    });
}

fn is_refused(ws: &mut Ws, channel: &str, status: u16) {
    ws.ask_to_subscribe(channel, None);
    let answer = ws.event("pusher:subscription_error");
    assert_eq!((&answer["channel"], &answer["data"]["status"]), (&json!(channel), &json!(status)));
}

#[test]
fn i50_subscriptions_beyond_the_rules_are_refused() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "max_channels_per_connection = 3", ""));
        let mut ws = hub.ws();
        for channel in ["", "a b", "a\u{1}", "gr\u{fc}n", "a/b", &"x".repeat(201), "#server-to-me", "#x"] {
            ws.ask_to_subscribe(channel, None);
            let answer = ws.event("pusher:subscription_error");
            assert!(answer["data"]["status"].as_u64().unwrap() >= 400, "{channel}: {answer}");
        }
        ws.subscribe(&"x".repeat(200));
        ws.subscribe("private-a");
        // Signed for another channel, or for another connection, or not at all.
        let mut other = hub.ws();
        let forged = crate::support::app_key().channel_auth(&other.socket_id, "private-b", None);
        for auth in [forged.as_str(), "key-a:00", "key-b:00", "", "nonsense"] {
            ws.send_event("pusher:subscribe", &json!({ "channel": "private-b", "auth": auth }));
            let answer = ws.event("pusher:subscription_error");
            assert_eq!(
                (&answer["data"]["type"], &answer["data"]["status"]),
                (&json!("AuthError"), &json!(401))
            );
        }
        hub.app_refused("unauthorized", 5);
        ws.subscribe("third");
        is_refused(&mut ws, "fourth", 429);
        hub.app_refused("too_many_channels", 1);
        ws.send_event("pusher:unsubscribe", &json!({ "channel": "third" }));
        ws.subscribe("fourth");
        other.is_served();
        assert_eq!(hub.publish("fourth", "still here").status, 200);
        assert_eq!(ws.event("news")["data"], "still here");
    });
}

fn client_event(channel: &str, n: usize) -> String {
    json!({ "event": "client-typing", "channel": channel, "data": n }).to_string()
}

#[test]
fn client_events_keep_to_their_rules_and_their_rate() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &config("", "client_event_rate = 1\nclient_event_burst = 5", ""));
        let (mut sender, mut receiver) = (hub.ws(), hub.ws());
        for ws in [&mut sender, &mut receiver] {
            ws.subscribe("private-room");
            ws.subscribe("public-room");
        }
        for (text, reason, times) in [
            (client_event("public-room", 0), "client_event_channel", 1),
            (client_event("private-other", 0), "not_subscribed", 1),
            (client_event("presence-other", 0), "not_subscribed", 2),
            (r#"{"event":"client-x"}"#.to_owned(), "malformed", 1),
        ] {
            sender.send(&text);
            sender.error(4300);
            hub.app_refused(reason, times);
        }
        let burst: Vec<u8> = (0..30)
            .flat_map(|n| crate::support::client_frame(0x81, client_event("private-room", n).as_bytes()))
            .collect();
        sender.send_bytes(&burst);
        sender.send(r#"{"event":"pusher:ping"}"#);
        let mut refused = 0;
        loop {
            let message = sender.message();
            if message["event"] == "pusher:pong" {
                break;
            }
            assert_eq!(message["data"]["code"], 4301, "{message}");
            refused += 1;
        }
        // The four above may have taken tokens or not; at one a second, hardly more than five pass.
        assert!((20..=30).contains(&refused), "{refused} of 30 were refused");
        hub.app_refused("client_event_rate", refused);
        let mut last = None;
        for _ in 0..30 - refused {
            let message = receiver.event("client-typing");
            assert!(message["data"].as_u64() > last, "in order, each once");
            last = message["data"].as_u64();
        }
        // Not to the sender, and nothing of what was refused.
        sender.is_served();
        receiver.is_served();
    });
}

#[test]
fn client_events_of_an_application_without_them_are_refused() {
    on_every_backend(|backend| {
        let toml = config("", "", "").replacen("client_events = true", "client_events = false", 1);
        let hub = Hub::with(backend, &toml);
        let mut ws = hub.ws();
        ws.subscribe("private-room");
        ws.send(&client_event("private-room", 1));
        ws.error(4300);
        hub.app_refused("client_events_disabled", 1);
        ws.is_served();
    });
}

#[test]
fn a_flood_of_messages_is_closed_and_others_do_not_notice() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut canary = hub.canary();
        let mut ws = hub.ws();
        ws.subscribe("room");
        let ping = crate::support::client_frame(0x81, br#"{"event":"pusher:ping"}"#);
        ws.send_bytes(&ping.repeat(5_000));
        ws.closes(4301);
        hub.app_refused("message_rate", 1);
        canary.sings();
    });
}
