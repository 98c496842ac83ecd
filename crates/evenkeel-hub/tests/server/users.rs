//! Presence, and users who signed in, when connections come and go in every way.

use serde_json::{Value, json};

use crate::support::{Hub, Ws, app_key, eventually, on_every_backend, reset};

fn joins(hub: &Hub, user: &str) -> Ws {
    let mut ws = hub.ws();
    ws.subscribe_as("presence-room", Some(&json!({ "user_id": user, "user_info": {} }).to_string()));
    ws
}

#[test]
fn i46_presence_converges_when_clients_vanish() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let mut witness = joins(&hub, "witness");
        let mut present = Vec::new();
        for n in 0..12 {
            present.push((n % 6, joins(&hub, &format!("user-{}", n % 6))));
        }
        for n in 0..6 {
            let joined = witness.event("pusher_internal:member_added");
            let data: Value = serde_json::from_str(joined["data"].as_str().unwrap()).unwrap();
            assert_eq!(data["user_id"], format!("user-{n}"));
        }
        // Each user has two connections; the first to go tells nothing. They go by reset, by the end of the stream, by
        // a close, and in the middle of a message.
        let gone = |n: usize, mut ws: Ws| match n % 4 {
            0 => reset(ws.stream),
            1 => drop(ws),
            2 => {
                ws.send_bytes(&crate::support::client_frame(0x88, &1000_u16.to_be_bytes()));
                ws.closes(1000);
            }
            _ => {
                ws.send_bytes(&[0x81]);
                reset(ws.stream);
            }
        };
        let second = present.split_off(6);
        present.into_iter().for_each(|(n, ws)| gone(n, ws));
        eventually("the first are gone", || {
            hub.metric("evenkeel_hub_connections{app=\"1\",transport=\"websocket\"}") == 7
        });
        witness.is_served();
        let users = |hub: &Hub| hub.http().api("GET", "/apps/1/channels/presence-room/users", "").text();
        assert_eq!(users(&hub).matches("user-").count(), 6);
        second.into_iter().for_each(|(n, ws)| gone(n + 1, ws));
        let mut removed: Vec<String> = (0..6)
            .map(|_| {
                let left = witness.event("pusher_internal:member_removed");
                let data: Value = serde_json::from_str(left["data"].as_str().unwrap()).unwrap();
                data["user_id"].as_str().unwrap().to_owned()
            })
            .collect();
        removed.sort();
        assert_eq!(removed, (0..6).map(|n| format!("user-{n}")).collect::<Vec<_>>());
        witness.is_served();
        assert_eq!(users(&hub).matches("user-").count(), 0);
        assert!(users(&hub).contains("witness"));
    });
}

fn signs_in(hub: &Hub, user: &str) -> Ws {
    let mut ws = hub.ws();
    let data = json!({ "id": user }).to_string();
    let auth = app_key().user_auth(&ws.socket_id, &data);
    ws.send_event("pusher:signin", &json!({ "auth": auth, "user_data": data }));
    ws.event("pusher:signin_success");
    ws
}

#[test]
fn i45_events_for_a_user_reach_its_connections_only() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let (mut one, mut two, mut other) =
            (signs_in(&hub, "u"), signs_in(&hub, "u"), signs_in(&hub, "other"));
        one.subscribe("#server-to-user-u");
        two.subscribe("#server-to-user-u");
        other.ask_to_subscribe("#server-to-user-u", None);
        other.event("pusher:subscription_error");
        assert_eq!(hub.publish("#server-to-user-u", "for u").status, 200);
        assert_eq!(one.event("news")["data"], "for u");
        assert_eq!(two.event("news")["data"], "for u");
        other.is_served();
        // A signature for another connection signs nobody in.
        let mut forger = hub.ws();
        let data = json!({ "id": "u" }).to_string();
        let auth = app_key().user_auth(&one.socket_id, &data);
        forger.send_event("pusher:signin", &json!({ "auth": auth, "user_data": data }));
        forger.error(4009);
        hub.app_refused("user_unauthorized", 1);
        forger.is_served();
    });
}

#[test]
fn a_terminated_users_connections_are_closed_and_no_others() {
    on_every_backend(|backend| {
        let hub = Hub::start(backend);
        let (mut one, mut two, mut other) =
            (signs_in(&hub, "u"), signs_in(&hub, "u"), signs_in(&hub, "other"));
        let mut witness = joins(&hub, "witness");
        one.subscribe_as("presence-room", None);
        witness.event("pusher_internal:member_added");
        let path = "/apps/1/users/u/terminate_connections";
        assert_eq!(hub.http().api("POST", path, "").status, 200);
        one.closes(4009);
        two.closes(4009);
        witness.event("pusher_internal:member_removed");
        other.is_served();
        witness.is_served();
        assert_eq!(hub.metric("evenkeel_hub_users{app=\"1\"}"), 1);
        assert_eq!(hub.http().api("POST", path, "").status, 200, "nobody is left, which is fine");
    });
}

#[test]
fn a_connection_that_is_not_authorized_in_time_is_closed() {
    on_every_backend(|backend| {
        let hub = Hub::with(backend, &crate::support::config("", "signin_deadline_seconds = 1", ""));
        let (mut anonymous, mut private, mut signed_in) = (hub.ws(), hub.ws(), signs_in(&hub, "u"));
        anonymous.subscribe("public");
        private.subscribe("private-a");
        anonymous.closes(4009);
        hub.app_refused("authorization_timeout", 1);
        private.is_served();
        signed_in.is_served();
    });
}
