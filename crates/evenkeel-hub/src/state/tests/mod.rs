//! Tests of the whole hub: what it sends to whom.
#![allow(clippy::unwrap_used)]

mod channels;
mod connections;
mod events;
mod handover;
mod memory;
mod model;
mod presence;
mod queries;
mod recovery;
mod seats;
mod streams;
mod users;

use std::cell::Cell;
use std::collections::HashMap;

use serde_json::Value;

use super::judge::consistency;
use super::*;
use crate::config::{AppSettings, Config};

thread_local! {
    static ENCODINGS: Cell<usize> = const { Cell::new(0) };
}

/// Frames that a test can read: the JSON itself, with the id before it on a stream.
pub(super) struct Readable;

impl Wire for Readable {
    fn websocket(json: &str) -> Vec<u8> {
        ENCODINGS.set(ENCODINGS.get() + 1);
        json.into()
    }

    fn sse(id: Option<&str>, json: &str) -> Vec<u8> {
        ENCODINGS.set(ENCODINGS.get() + 1);
        format!("{}|{json}", id.unwrap_or("")).into()
    }
}

#[derive(Default)]
struct Sent {
    messages: Vec<(u32, Frame)>,
    closed: HashMap<u32, u16>,
}

impl Outbox for Sent {
    type Conn = u32;

    fn send(&mut self, to: u32, frame: &Frame) {
        assert!(!self.closed.contains_key(&to), "a message to {to} after its close");
        self.messages.push((to, frame.clone()));
    }

    fn close(&mut self, to: u32, code: u16, _reason: &'static str) {
        assert_eq!(self.closed.insert(to, code), None, "{to} is closed twice");
    }
}

/// A signature is the text that it would sign, which proves that the verifier is given the right texts.
struct Echo;

impl Verifier for Echo {
    fn channel(
        &self,
        app: &AppConfig,
        socket_id: &str,
        channel: &str,
        data: Option<&str>,
        auth: &str,
    ) -> bool {
        let data = data.map_or(String::new(), |data| format!(":{data}"));
        auth == format!("{}:{socket_id}:{channel}{data}", app.key)
    }

    fn user(&self, app: &AppConfig, socket_id: &str, user_data: &str, auth: &str) -> bool {
        auth == format!("{}:{socket_id}::user::{user_data}", app.key)
    }

    fn stream(&self, app: &AppConfig, channel: &str, auth: &str) -> bool {
        auth == format!("{}:{channel}", app.key)
    }
}

/// A hub with everything that a test needs around it.
struct World {
    hub: Hub<u32, Readable>,
    sent: Sent,
    now: u64,
    app: AppId,
    next_conn: u32,
    sessions: HashMap<u32, (SessionId, String)>,
}

/// An application with the limits that the configuration has by default, and with client events.
pub(super) fn app_config(id: &str, key: &str) -> AppConfig {
    let app = AppSettings { id: id.into(), key: key.into(), ..AppSettings::demonstration() };
    Config::default().app_config(&app)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

impl World {
    fn new() -> World {
        World::with(|_| {})
    }

    /// A world whose application (key `key`) has other limits than the default.
    fn with(change: impl FnOnce(&mut Limits)) -> World {
        let mut hub = Hub::new(fastrand::Rng::with_seed(1));
        let mut config = app_config("1", "key");
        change(&mut config.limits);
        let app = hub.add_app(config).unwrap();
        World { hub, sent: Sent::default(), now: 1_000_000, app, next_conn: 0, sessions: HashMap::new() }
    }

    /// Adds another application and returns it.
    fn add_app(&mut self, id: &str, key: &str) -> AppId {
        self.hub.add_app(app_config(id, key)).unwrap()
    }

    fn try_connect(&mut self, key: &str, protocol: Option<&str>) -> Result<u32, Refusal> {
        self.next_conn += 1;
        let conn = self.next_conn;
        let session = self.hub.connect(self.now, &Connect { key, protocol, conn }, &mut self.sent)?;
        let socket_id = self.hub.socket_id(session).unwrap().to_string();
        self.sessions.insert(conn, (session, socket_id));
        Ok(conn)
    }

    /// Connects and drops the greeting.
    fn connect(&mut self) -> u32 {
        let conn = self.try_connect("key", Some("7")).unwrap();
        self.take(conn);
        conn
    }

    fn session(&self, conn: u32) -> SessionId {
        self.sessions[&conn].0
    }

    fn socket_id(&self, conn: u32) -> String {
        self.sessions[&conn].1.clone()
    }

    fn disconnect(&mut self, conn: u32) {
        self.hub.disconnect(self.now, self.session(conn), &mut self.sent);
    }

    fn say(&mut self, conn: u32, text: &str) {
        self.hub.receive(self.now, self.session(conn), text, &Echo, &mut self.sent);
    }

    /// Subscribes with the right signature, on behalf of the application with `key`.
    fn subscribe_as(&mut self, conn: u32, key: &str, channel: &str, data: Option<&str>) {
        let signed = data.map_or(String::new(), |data| format!(":{data}"));
        let auth = format!("{key}:{}:{channel}{signed}", self.socket_id(conn));
        let data = data.map_or(String::new(), |data| format!(r#","channel_data":{}"#, quote(data)));
        self.say(
            conn,
            &format!(
                r#"{{"event":"pusher:subscribe","data":{{"channel":{},"auth":{}{data}}}}}"#,
                quote(channel),
                quote(&auth)
            ),
        );
    }

    fn subscribe(&mut self, conn: u32, channel: &str) {
        self.subscribe_as(conn, "key", channel, None);
    }

    fn join(&mut self, conn: u32, channel: &str, user: &str) {
        self.subscribe_as(conn, "key", channel, Some(&format!(r#"{{"user_id":{}}}"#, quote(user))));
    }

    fn unsubscribe(&mut self, conn: u32, channel: &str) {
        self.say(
            conn,
            &format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":{}}}}}"#, quote(channel)),
        );
    }

    fn sign_in(&mut self, conn: u32, data: &str) {
        let auth = format!("key:{}::user::{data}", self.socket_id(conn));
        let text = format!(
            r#"{{"event":"pusher:signin","data":{{"auth":{},"user_data":{}}}}}"#,
            quote(&auth),
            quote(data)
        );
        self.say(conn, &text);
    }

    fn publish(&mut self, channel: &str, data: &str) {
        let event = Publication { name: "e", channels: &[channel], data, ..Publication::default() };
        self.hub.publish(self.now, self.app, &event, &mut self.sent).unwrap();
    }

    fn try_publish(&mut self, event: &Publication<'_>) -> Result<Vec<ChannelState>, Refusal> {
        self.hub.publish(self.now, self.app, event, &mut self.sent)
    }

    fn tick(&mut self) {
        self.hub.tick(self.now, &mut self.sent);
    }

    /// What was sent to `conn` since it was last asked.
    fn take(&mut self, conn: u32) -> Vec<String> {
        let text = |frame: &Frame| String::from_utf8(frame.as_bytes().to_vec()).unwrap();
        let own =
            self.sent.messages.iter().filter(|(to, _)| *to == conn).map(|(_, frame)| text(frame)).collect();
        self.sent.messages.retain(|(to, _)| *to != conn);
        own
    }

    /// As `take`, in short: the event's name, and its data unless it is `{}` or missing.
    fn take_short(&mut self, conn: u32) -> Vec<String> {
        self.take(conn).iter().map(|text| short(text)).collect()
    }

    fn refusals(&self) -> Vec<(Refusal, u64)> {
        self.hub.snapshot().apps[self.app.0 as usize].refusals.clone()
    }

    /// Asserts that the only thing that `conn` was sent is this refusal, as an error event, and that it was counted.
    fn assert_refused(&mut self, conn: u32, refusal: Refusal) {
        let got = self.take(conn);
        assert_eq!(got.len(), 1, "{refusal:?}: {got:?}");
        let got = json(&got[0]);
        if got["event"] == "pusher:subscription_error" {
            assert_eq!(got["data"]["error"], refusal.message());
            assert_eq!(got["data"]["status"], refusal.http_status());
        } else {
            assert_eq!(got["event"], "pusher:error");
            assert_eq!(got["data"]["message"], refusal.message());
            assert_eq!(got["data"]["code"], refusal.code());
        }
        assert!(self.refusals().iter().any(|(counted, n)| *counted == refusal && *n > 0), "{refusal:?}");
    }
}

fn short(text: &str) -> String {
    let body = &text[text.find('{').unwrap()..];
    let message = json(body);
    let name = message["event"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    match &message["data"] {
        Value::Null => name,
        Value::String(data) if data == "{}" => name,
        Value::String(data) => format!("{name} {data}"),
        data => format!("{name} {data}"),
    }
}
