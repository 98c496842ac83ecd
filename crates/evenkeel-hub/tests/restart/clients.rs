//! What single clients see of a replacement, while both processes have clients and when they are moved.

use serde_json::{Value, json};

use super::site::{Site, settings};
use crate::support::{End, Frame, Record, Ws, app_key, event, on_every_backend};
use rustix::process::Signal;

/// Only the first client is moved by itself; the others are when they are told to.
const SLOWLY: &str = "drain_deadline_seconds = 3600\nloops = 2";

fn room(event: &Value) -> Value {
    serde_json::from_str(event["data"].as_str().unwrap()).unwrap()
}

fn signs_in(ws: &mut Ws, user: &str) {
    let data = json!({ "id": user }).to_string();
    let auth = app_key().user_auth(&ws.socket_id, &data);
    ws.send_event("pusher:signin", &json!({ "auth": auth, "user_data": data }));
    ws.event("pusher:signin_success");
}

fn client_event(ws: &mut Ws, channel: &str, data: &str) {
    ws.send(&json!({ "event": "client-x", "channel": channel, "data": data }).to_string());
}

#[test]
fn clients_of_both_processes_are_one_room() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, SLOWLY);
        let mut first = site.ws();
        let (mut a, _) = site.joins("a");
        let (mut user, mut sse) = (site.ws(), site.sse(""));
        signs_in(&mut user, "u");
        sse.is_caught_up();
        a.subscribe("c");
        let mut kept = site.http();
        assert_eq!(kept.get("/ready").status, 200);
        let old = site.replace();
        first.closes(4200);
        assert_eq!(kept.get("/ready").status, 200, "the service does not go away");
        kept.ends();
        // The new process's client sees the old one's, and the other way round.
        let (mut b, members) = site.joins("b");
        let data: Value = serde_json::from_str(&members).unwrap();
        assert_eq!(
            (&data["presence"]["count"], data["presence"]["hash"].get("a").is_some()),
            (&2.into(), true)
        );
        assert_eq!(room(&a.event("pusher_internal:member_added"))["user_id"], "b");
        b.subscribe("c");
        client_event(&mut a, "presence-room", "from a");
        assert_eq!(b.event("client-x")["data"], "from a");
        client_event(&mut b, "presence-room", "from b");
        assert_eq!(a.event("client-x")["data"], "from b");
        // What is published reaches both, but who is left out.
        for (except, n) in [(None, "1"), (Some(a.socket_id.clone()), "2"), (Some(b.socket_id.clone()), "3")] {
            let body = json!({ "name": "news", "channel": "c", "data": n, "socket_id": except });
            assert_eq!(site.http().api("POST", "/apps/1/events", &body.to_string()).status, 200);
            assert_eq!(sse.event()["data"], n);
            for ws in [&mut a, &mut b] {
                if except.as_ref() != Some(&ws.socket_id) {
                    assert_eq!(ws.event("news")["data"], n);
                }
                ws.is_served();
            }
        }
        let mut http = site.http();
        let path = "/apps/1/channels/presence-room/users";
        assert_eq!(http.api("GET", path, "").text(), r#"{"users":[{"id":"a"},{"id":"b"}]}"#);
        // A user's connection in the old process is the new one's to close.
        assert_eq!(http.api("POST", "/apps/1/users/u/terminate_connections", "").status, 200);
        user.closes(4009);
        // Who leaves the old process has left.
        a.send_bytes(&crate::support::client_frame(0x88, &1000_u16.to_be_bytes()));
        a.closes(1000);
        assert_eq!(room(&b.event("pusher_internal:member_removed"))["user_id"], "a");
        site.signal(old, Signal::TERM);
        assert_eq!(sse.next(), Record::End(End::Orderly));
        assert_eq!(site.ended(old), Some(0));
        b.is_served();
    });
}

#[test]
fn requests_to_the_old_process_are_answered_by_the_new_one() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, SLOWLY);
        let _first = site.ws();
        let mut a = site.ws();
        a.subscribe("c");
        let mut kept = site.http();
        assert_eq!(kept.get("/health").status, 200);
        let (mut upgraded, mut streamed) = (site.http(), site.http());
        assert_eq!(upgraded.get("/health").status, 200);
        assert_eq!(streamed.get("/health").status, 200);
        let old = site.replace();
        let mut b = site.ws();
        b.subscribe("c");
        // Connections of the old process turn to subscriptions there, and come to the new one's state.
        let mut upgraded = Ws::on(upgraded, "/app/key-a?protocol=7", "");
        upgraded.subscribe("c");
        let mut streamed = crate::support::Sse::on(streamed, "/sse/key-a?channel=c", "").unwrap();
        streamed.is_caught_up();
        let answer = kept.api("POST", "/apps/1/events", &event("c", "1"));
        assert_eq!((answer.status, answer.field("Connection")), (200, Some("close")));
        kept.ends();
        for ws in [&mut a, &mut b, &mut upgraded] {
            assert_eq!(ws.event("news")["data"], "1");
            ws.is_served();
        }
        assert_eq!(streamed.event()["data"], "1");
        let question = "/apps/1/channels/c";
        let text = site.http().api("GET", question, "").text();
        assert!(text.contains(r#""occupied":true"#), "{text}");
        site.signal(old, Signal::TERM);
        a.closes(4200);
        upgraded.closes(4200);
        assert_eq!(streamed.next(), Record::End(End::Orderly));
        assert_eq!(site.ended(old), Some(0));
        b.is_served();
    });
}

#[test]
fn i44_a_stream_that_is_moved_misses_nothing_and_its_ids_go_on() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, SLOWLY);
        let mut first = site.ws();
        let mut sse = site.sse("");
        sse.is_caught_up();
        let mut ids = Vec::new();
        let mut gets = |sse: &mut crate::support::Sse, n: &str| {
            assert_eq!(sse.event()["data"], n);
            let (epoch, sequence) = sse.last_id.as_ref().unwrap().split_once('-').unwrap();
            ids.push((epoch.to_owned(), sequence.parse::<u64>().unwrap()));
        };
        assert_eq!(site.publish("c", "1").status, 200);
        gets(&mut sse, "1");
        let old = site.replace();
        first.closes(4200);
        assert_eq!(site.publish("c", "2").status, 200);
        gets(&mut sse, "2");
        site.signal(old, Signal::TERM);
        assert_eq!(sse.next(), Record::End(End::Orderly));
        assert_eq!(site.publish("c", "3").status, 200);
        let id = sse.last_id.take().unwrap();
        let mut sse = site.sse(&format!("Last-Event-ID: {id}\r\n"));
        let events = sse.is_caught_up();
        let missed: Vec<_> = events.iter().filter(|event| event["event"] == "news").collect();
        assert_eq!((missed.len(), &missed[0]["data"]), (1, &"3".into()), "{events:?}");
        assert!(!events.iter().any(|event| event["event"] == "evenkeel:gap"), "{events:?}");
        assert_eq!(site.publish("c", "4").status, 200);
        gets(&mut sse, "4");
        assert!(ids.iter().all(|(epoch, _)| *epoch == ids[0].0), "{ids:?}");
        assert_eq!(ids.iter().map(|(_, n)| n - ids[0].1).collect::<Vec<_>>(), [0, 1, 3], "{ids:?}");
        assert_eq!(site.ended(old), Some(0));
    });
}

#[test]
fn i46_users_who_are_moved_do_not_flap_and_who_stays_away_is_gone() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, SLOWLY);
        let mut first = site.ws();
        let mut users: Vec<_> = ["a", "b", "away"].map(|user| (user, site.joins(user).0)).into();
        let old = site.replace();
        first.closes(4200);
        let (mut witness, _) = site.joins("witness");
        site.signal(old, Signal::TERM);
        users.iter_mut().for_each(|(_, ws)| ws.closes(4200));
        assert_eq!(site.ended(old), Some(0));
        witness.is_served();
        let mut back: Vec<_> = users[..2].iter().map(|(user, _)| site.joins(user).0).collect();
        // Nobody was removed, nobody was added.
        witness.is_served();
        back.iter_mut().for_each(Ws::is_served);
        witness.stream.set_read_timeout(Some(3 * crate::support::PATIENCE)).unwrap();
        assert_eq!(room(&witness.event("pusher_internal:member_removed"))["user_id"], "away");
        witness.is_served();
        let left = site.http().api("GET", "/apps/1/channels/presence-room/users", "").text();
        assert_eq!(left.matches(r#""id""#).count(), 3, "{left}");
    });
}

#[test]
fn i46_a_crowded_room_is_moved_by_itself_and_everybody_sees_everybody() {
    on_every_backend(|backend| {
        let mut site = Site::configured(&settings(backend, "drain_deadline_seconds = 1\nloops = 2", ""));
        let mut all: Vec<_> = (0..12).map(|n| site.joins(&format!("u{n}")).0).collect();
        let old = site.replace();
        for (n, ws) in all.iter_mut().enumerate() {
            // Those who joined after it; nobody leaves.
            loop {
                match ws.next() {
                    Frame::Text(text) => assert!(text.contains("member_added"), "{text}"),
                    Frame::Close(4200, _) => break,
                    other => panic!("{other:?}"),
                }
            }
            let (new, members) = site.joins(&format!("u{n}"));
            let members: Value = serde_json::from_str(&members).unwrap();
            assert_eq!(members["presence"]["count"], 12);
            *ws = new;
        }
        assert_eq!(site.ended(old), Some(0));
        all.iter_mut().for_each(Ws::is_served);
    });
}
