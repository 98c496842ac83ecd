//! A client of an event stream, as a browser's `EventSource` is one: it comes back with the last id that it saw.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use evenkeel::sim;
use evenkeel::time;
use serde_json::Value;

use super::setup::{Phase, Shared, app_key};
use super::subscriber::{refused, text_of};
use super::wire::{Heard, Wire};

/// Silence after which a client gives a stream up: there is a heartbeat more often.
const SILENCE: Duration = Duration::from_secs(20);

/// Who follows what.
#[derive(Clone)]
pub struct Follower {
    pub hub: SocketAddr,
    pub app: usize,
    pub channels: Vec<String>,
    /// Whether it breaks off at times.
    pub restless: bool,
    pub first: Duration,
}

/// Runs until the world says to leave.
pub async fn follower(shared: Rc<Shared>, who: Follower) {
    time::sleep(who.first).await;
    let at = shared.history.borrow_mut().follows(who.app, &who.channels);
    while !shared.is(Phase::Leave) {
        let mut begun = false;
        let wait = visit(&shared, &who, at, &mut begun).await;
        if begun {
            shared.history.borrow_mut().visit_ends(at);
        }
        time::sleep(wait.unwrap_or(Duration::from_secs(1))).await;
    }
}

/// What the application's backend has signed for the page.
pub fn path(app: usize, channels: &[String]) -> String {
    let mut path = format!("/sse/{}?", app_key(app).key());
    for channel in channels {
        path.push_str(&format!("channel={channel}&"));
    }
    let now = sim::wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let expires = now + 3600;
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    path.push_str(&format!("expires={expires}&auth={}", app_key(app).stream_auth(&names, expires)));
    path
}

/// One connection. Returns how long to wait for the next.
async fn visit(shared: &Rc<Shared>, who: &Follower, at: usize, begun: &mut bool) -> io::Result<Duration> {
    let mut wire = Wire::connect(who.hub).await?;
    let last = shared.history.borrow().followings[at].last_id.clone();
    let asked = sim::elapsed();
    let field = last.as_ref().map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: hub\r\nAccept: text/event-stream\r\n{field}\r\n",
        path(who.app, &who.channels)
    );
    wire.request(request.as_bytes()).await;
    let head = wire.head().await?;
    if head.status == 401 && shared.clock_jumps {
        return Ok(Duration::from_secs(1));
    }
    if head.status != 200 {
        return refused(shared, head.status, head.retry_after());
    }
    shared.history.borrow_mut().visits(at, asked);
    *begun = true;
    let mut heard = time::now();
    loop {
        while let Some(block) = wire.block() {
            read(shared, at, &block);
        }
        if shared.is(Phase::Leave) || (who.restless && shared.is(Phase::Storm) && sim::random(40) == 0) {
            return Ok(Duration::from_millis(sim::random(2_000)));
        }
        match wire.hear(time::now() + Duration::from_secs(1)).await? {
            Heard::Bytes => heard = time::now(),
            Heard::End => return Ok(Duration::from_secs(1)),
            Heard::Nothing if time::now().saturating_duration_since(heard) > SILENCE => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Heard::Nothing => {}
        }
    }
}

/// Takes one block of the stream.
fn read(shared: &Shared, at: usize, block: &str) {
    let (mut id, mut data) = (None, String::new());
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("id", value)) => id = Some(value),
            Some(("data", value)) => data.push_str(value),
            _ => {}
        }
    }
    if data.is_empty() {
        return;
    }
    let Ok(event) = serde_json::from_str::<Value>(&data) else {
        return sim::fail(format!("no JSON on an event stream: {block:?}"));
    };
    let (name, channel) = (text_of(&event, "event"), text_of(&event, "channel"));
    let data = text_of(&event, "data");
    let history = &mut *shared.history.borrow_mut();
    match name.as_str() {
        "pusher:connection_established" => {
            let now = sim::elapsed();
            history.admitted.push(now);
        }
        "pusher_internal:subscription_succeeded" | "pusher_internal:subscription_count" => {}
        "evenkeel:gap" => history.has_gap(at, &channel),
        "evenkeel:caught_up" => {
            let said: Value = serde_json::from_str(&data).unwrap_or_default();
            let (replayed, complete) = (said["replayed"].as_u64(), said["complete"].as_bool());
            history.caught_up(at, id, replayed.unwrap_or(u64::MAX), complete.unwrap_or(false));
        }
        "news" | "client-news" => history.streams(at, &channel, &data, id),
        other => sim::fail(format!("{other} is no event that was published (I45)")),
    }
}
