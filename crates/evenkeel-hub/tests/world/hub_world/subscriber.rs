//! A WebSocket client that keeps to the protocol: it subscribes, says things, leaves, comes back by the protocol's rules, and
//! writes down everything.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use evenkeel::sim::{self, Fault};
use evenkeel::time;
use evenkeel_hub::proto::auth::AppKey;
use serde_json::{Value, json};

use super::history::Label;
use super::setup::{Phase, Shared, app_key};
use super::wire::{Frame, Heard, Wire, client_frame, upgrade};

/// Silence after which a client gives a connection up: the hub pings more often.
const SILENCE: Duration = Duration::from_secs(20);

/// Who a subscriber is, and what it is interested in.
#[derive(Clone)]
pub struct Subscriber {
    pub hub: SocketAddr,
    pub app: usize,
    pub user: String,
    /// What it is subscribed to in the end, and most of the time before.
    pub channels: Vec<String>,
    /// How long its client events are.
    pub len: usize,
    /// How long it waits between two things that it does, in milliseconds.
    pub pause: u64,
    /// Whether it leaves channels and connections at times, and says things itself.
    pub restless: bool,
    /// Whether it is there in the end, and not gone with the storm.
    pub stays: bool,
    /// When it comes.
    pub first: Duration,
}

/// How a connection ended, as far as coming back is concerned.
enum End {
    /// It is not to come back.
    Done,
    /// It is to come back after this time.
    Again(Duration),
}

/// Runs until the world says to leave.
pub async fn subscriber(shared: Rc<Shared>, who: Subscriber) {
    time::sleep(who.first).await;
    while !shared.is(Phase::Leave) && (who.stays || shared.is(Phase::Storm)) {
        match visit(&shared, &who).await {
            Ok(End::Done) => return,
            Ok(End::Again(wait)) => time::sleep(wait).await,
            // Plain clients wait for a second, all of them.
            Err(_) => time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// When to come back after a close, by its code.
fn back_off(code: u16) -> Result<Duration, String> {
    match code {
        4100..=4199 => {
            sim::hit(Fault::Bound);
            Ok(Duration::from_secs(1))
        }
        4200..=4299 => Ok(Duration::ZERO),
        // What a client that keeps to the rules must never hear, since it does not come back after it.
        4000..=4099 | 4300.. => Err(format!("a well-behaved client was closed with {code} (I48)")),
        _ => Ok(Duration::from_secs(1)),
    }
}

/// One connection, from beginning to end.
async fn visit(shared: &Rc<Shared>, who: &Subscriber) -> io::Result<End> {
    let mut wire = Wire::connect(who.hub).await?;
    wire.request(upgrade(app_key(who.app).key()).as_bytes()).await;
    let answer = wire.head().await?;
    if answer.status != 101 {
        return refused(shared, answer.status, answer.retry_after());
    }
    let mut session = Session {
        shared,
        who,
        wire,
        conn: None,
        publisher: shared.history.borrow_mut().publisher(),
        said: 0,
        heard: time::now(),
        pinged: time::now(),
        code: None,
        refusal: None,
        key: app_key(who.app),
    };
    let end = session.run().await;
    if let Some(conn) = session.conn {
        shared.history.borrow_mut().ends(conn, session.code);
    }
    let Some(code) = session.code else { return end };
    shared.history.borrow_mut().tells(format!("close {code}"));
    if let (4200, None) = (code, shared.draining.get()) {
        sim::fail("told to come back by a hub that does not drain (I48)");
    }
    match back_off(code) {
        Ok(wait) => Ok(End::Again(wait)),
        Err(why) => {
            sim::fail(why);
            Ok(End::Done)
        }
    }
}

/// An answer instead of an upgrade: it must say when to come back.
pub fn refused<T: From<Duration>>(
    shared: &Shared,
    status: u16,
    retry_after: Option<Duration>,
) -> io::Result<T> {
    shared.history.borrow_mut().tells(format!("status {status}"));
    sim::hit(Fault::Bound);
    match (status, retry_after) {
        (429 | 503, Some(wait)) => Ok(T::from(wait)),
        _ => {
            sim::fail(format!("a well-behaved client was answered {status}, {retry_after:?} (I48)"));
            Ok(T::from(Duration::from_secs(1)))
        }
    }
}

impl From<Duration> for End {
    fn from(wait: Duration) -> End {
        End::Again(wait)
    }
}

/// A connection of a subscriber.
struct Session<'a> {
    shared: &'a Rc<Shared>,
    who: &'a Subscriber,
    wire: Wire,
    /// Its place in the history, once it was greeted.
    conn: Option<usize>,
    /// Its client events are one publisher's.
    publisher: u32,
    said: u32,
    heard: Instant,
    pinged: Instant,
    code: Option<u16>,
    /// The last code of an error message.
    refusal: Option<u16>,
    key: AppKey,
}

impl Session<'_> {
    async fn run(&mut self) -> io::Result<End> {
        loop {
            let pause = self.who.pause / 2 + sim::random(self.who.pause);
            let next = time::now() + Duration::from_millis(pause);
            while time::now() < next {
                if let Heard::End = self.listen(next).await? {
                    return Ok(End::Again(Duration::from_secs(1)));
                }
            }
            if time::now().saturating_duration_since(self.heard) > SILENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let Some(conn) = self.conn else { continue };
            if !self.who.stays && !self.shared.is(Phase::Storm) {
                // Without a word.
                return Ok(End::Done);
            }
            if self.shared.is(Phase::Leave) {
                return self.part().await;
            }
            if !self.act(conn).await? {
                return Ok(End::Again(Duration::from_secs(1)));
            }
        }
    }

    /// Ends the connection as the protocol has it, and waits for the hub to do so, too.
    async fn part(&mut self) -> io::Result<End> {
        self.wire.send(&client_frame(0x88, &1000u16.to_be_bytes())).await?;
        let until = time::now() + Duration::from_secs(20);
        while time::now() < until && self.listen(until).await? != Heard::End {}
        // Its own code came back.
        self.code = None;
        Ok(End::Done)
    }

    /// Takes what comes, until a time.
    async fn listen(&mut self, until: Instant) -> io::Result<Heard> {
        while let Some(frame) = self.wire.frame()? {
            match frame {
                Frame::Text(text) => self.message(&text).await?,
                Frame::Ping(payload) => self.wire.send(&client_frame(0x8a, &payload)).await?,
                Frame::Pong => {}
                Frame::Close(code) => {
                    self.code = Some(code);
                    // Answered, as the RFC has it; the hub may be gone already.
                    let _ = self.wire.send(&client_frame(0x88, &code.to_be_bytes())).await;
                    return Ok(Heard::End);
                }
            }
        }
        let heard = self.wire.hear(until).await?;
        if heard == Heard::Bytes {
            self.heard = time::now();
        }
        Ok(heard)
    }

    async fn message(&mut self, text: &str) -> io::Result<()> {
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            sim::fail(format!("no JSON: {text}"));
            return Ok(());
        };
        let (event, channel) = (text_of(&message, "event"), text_of(&message, "channel"));
        let data = match &message["data"] {
            Value::String(data) => data.clone(),
            other => other.to_string(),
        };
        let shared = self.shared;
        if event == "pusher:connection_established" {
            let greeting: Value = serde_json::from_str(&data).unwrap_or_default();
            let socket_id = text_of(&greeting, "socket_id");
            self.conn = Some(shared.history.borrow_mut().opens(self.who.app, &self.who.user, &socket_id));
            return Ok(());
        }
        if event == "pusher:error" {
            self.error(message["data"]["code"].as_u64().unwrap_or(0) as u16);
            return Ok(());
        }
        if event == "pusher:ping" {
            return self.wire.send_text(r#"{"event":"pusher:pong","data":{}}"#).await;
        }
        let Some(conn) = self.conn else {
            sim::fail(format!("{event} came before the greeting"));
            return Ok(());
        };
        let history = &mut *shared.history.borrow_mut();
        match event.as_str() {
            "pusher:pong" => history.ponged(conn),
            "pusher:subscription_error" => {
                sim::fail(format!("{} was refused {channel}: {data}", self.who.user));
            }
            "pusher_internal:subscription_succeeded" => confirmed(history, conn, &channel, &data),
            "pusher_internal:subscription_count" => {
                let count: Value = serde_json::from_str(&data).unwrap_or_default();
                if let Some(subscription) = history.subscription(conn, &channel) {
                    subscription.count = count["subscription_count"].as_u64();
                }
            }
            "pusher_internal:member_added" => joined(history, conn, &channel, &data, true),
            "pusher_internal:member_removed" => joined(history, conn, &channel, &data, false),
            "pusher:cache_miss" => {}
            "news" | "client-news" => history.gets(conn, &channel, &data),
            other => sim::fail(format!("{other} is no event that was published (I45)")),
        }
        Ok(())
    }

    /// The hub refuses something, or everything if it closes the connection next.
    fn error(&mut self, code: u16) {
        self.refusal = Some(code);
        let history = &mut *self.shared.history.borrow_mut();
        history.tells(format!("error {code}"));
        match (code, self.conn) {
            // Too many client events; or the hub is overloaded.
            (4301, Some(conn)) => {
                sim::hit(Fault::Bound);
                history.refused_some(conn);
            }
            // Before the greeting: the connection is refused.
            (4100..=4299, None) => {}
            _ => sim::fail(format!("a well-behaved client was refused something with {code} (I50)")),
        }
    }

    /// Does something. False if it is to go.
    async fn act(&mut self, conn: usize) -> io::Result<bool> {
        for channel in &self.who.channels {
            let free = self.shared.history.borrow_mut().may_subscribe(conn, channel);
            // One that has just left asks for the answer to that first.
            if free {
                let asked = self.subscribe(conn, channel);
                self.wire.send_text(&asked).await?;
                return Ok(true);
            }
        }
        if time::now().saturating_duration_since(self.pinged) >= Duration::from_secs(1) {
            return self.ping(conn).await.map(|()| true);
        }
        if !self.who.restless || !self.shared.is(Phase::Storm) {
            return Ok(true);
        }
        match sim::random(20) {
            0..=7 => self.speak(conn).await?,
            8..=9 => self.leave(conn).await?,
            10 if sim::random(4) == 0 => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    async fn ping(&mut self, conn: usize) -> io::Result<()> {
        self.pinged = time::now();
        self.shared.history.borrow_mut().pings(conn);
        self.wire.send_text(r#"{"event":"pusher:ping","data":{}}"#).await
    }

    fn subscribe(&self, conn: usize, channel: &str) -> String {
        let history = &mut *self.shared.history.borrow_mut();
        history.asks_for(conn, channel);
        let mut data = json!({ "channel": channel });
        let socket_id = &history.connections[conn].socket_id;
        if channel.starts_with("presence-") {
            let who = member(&self.who.user);
            data["auth"] = self.key.channel_auth(socket_id, channel, Some(&who)).into();
            data["channel_data"] = who.into();
        } else if channel.starts_with("private-") {
            data["auth"] = self.key.channel_auth(socket_id, channel, None).into();
        }
        json!({ "event": "pusher:subscribe", "data": data }).to_string()
    }

    /// A channel that it is subscribed to, by chance, if one is of this kind.
    fn one_of(&self, conn: usize, kind: impl Fn(&str) -> bool) -> Option<String> {
        let history = self.shared.history.borrow();
        let here = history.connections[conn].subscriptions.iter();
        let here: Vec<_> = here.filter(|s| s.confirmed.is_some() && s.left.is_none()).collect();
        let some: Vec<_> = here.iter().filter(|s| kind(&s.channel)).collect();
        if some.is_empty() {
            return None;
        }
        Some(some[sim::random(some.len() as u64) as usize].channel.clone())
    }

    async fn speak(&mut self, conn: usize) -> io::Result<()> {
        let may = |name: &str| {
            (name.starts_with("private-") || name.starts_with("presence-")) && !name.contains("encrypted")
        };
        let Some(channel) = self.one_of(conn, may) else { return Ok(()) };
        self.said += 1;
        let label = Label { publisher: self.publisher, number: self.said };
        let data = self.shared.history.borrow_mut().says(conn, label, &channel, self.who.len);
        let event = json!({ "event": "client-news", "channel": channel, "data": data });
        self.wire.send_text(&event.to_string()).await
    }

    async fn leave(&mut self, conn: usize) -> io::Result<()> {
        let Some(channel) = self.one_of(conn, |_| true) else { return Ok(()) };
        self.shared.history.borrow_mut().leaves(conn, &channel);
        let event = json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } });
        self.wire.send_text(&event.to_string()).await?;
        self.ping(conn).await
    }
}

/// What a presence channel is told of a user.
pub fn member(user: &str) -> String {
    json!({ "user_id": user, "user_info": { "of": user } }).to_string()
}

pub fn text_of(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// A subscription has begun.
fn confirmed(history: &mut super::history::History, conn: usize, channel: &str, data: &str) {
    let app = history.connections[conn].app;
    let asked = history.subscription(conn, channel).filter(|s| s.confirmed.is_none());
    let Some(subscription) = asked else {
        return sim::fail(format!("connection {conn} was subscribed to {channel} without asking"));
    };
    subscription.confirmed = Some(sim::elapsed());
    if channel.starts_with("presence-") {
        let there: Value = serde_json::from_str(data).unwrap_or_default();
        let ids = there["presence"]["ids"].as_array().cloned().unwrap_or_default();
        subscription.members = ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
        let count = there["presence"]["count"].as_u64();
        if count != Some(ids.len() as u64) || subscription.members.len() != ids.len() {
            return sim::fail(format!(
                "connection {conn} was told of members that do not add up: {data} (I46)"
            ));
        }
        if let Some(alien) = subscription.members.iter().find(|user| !is_of(user, app)) {
            sim::fail(format!("connection {conn} of application {app} was told of {alien} (I45)"));
        }
    }
}

/// Users' names begin with their application.
fn is_of(user: &str, app: usize) -> bool {
    user.starts_with(&format!("a{app}-"))
}

/// A member came or went.
fn joined(history: &mut super::history::History, conn: usize, channel: &str, data: &str, came: bool) {
    let (app, own) = (history.connections[conn].app, history.connections[conn].user.clone());
    let who: Value = serde_json::from_str(data).unwrap_or_default();
    let user = text_of(&who, "user_id");
    if !is_of(&user, app) {
        return sim::fail(format!("connection {conn} of application {app} was told of {user} (I45)"));
    }
    let Some(subscription) = history.subscription(conn, channel).filter(|s| s.confirmed.is_some() && !s.over)
    else {
        return sim::fail(format!("connection {conn} heard of {user} on {channel}, where it is not (I44)"));
    };
    let changed =
        if came { subscription.members.insert(user.clone()) } else { subscription.members.remove(&user) };
    if !changed || (user == own && !came) {
        sim::fail(format!("connection {conn} on {channel} heard of {user} once more, {came} (I46)"));
    }
}
