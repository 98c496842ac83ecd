//! Signed requests to the hub's HTTP API: somebody who publishes, and whoever wants to know.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use evenkeel::sim::{self, Fault};
use evenkeel::time;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::history::{Label, Outcome};
use super::setup::{Phase, Shared, app_id, app_key};
use super::wire::{Answer, Wire};

/// A request with its signature.
pub fn signed(app: usize, method: &str, path: &str, query: &[(&str, &str)], body: &str) -> String {
    let path = format!("/apps/{}{path}", app_id(app));
    let now =
        sim::wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    let key = app_key(app);
    let md5: String = Md5::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut query: Vec<(&str, &str)> = query.to_vec();
    query.extend([("auth_key", key.key()), ("auth_timestamp", &now), ("auth_version", "1.0")]);
    if !body.is_empty() {
        query.push(("body_md5", &md5));
    }
    query.sort_unstable();
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = query.join("&");
    let signature = key.sign(&[method, "\n", &path, "\n", &query]).to_hex();
    format!(
        "{method} {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: hub\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// How long a body may take, however short it is (the hub's README, "Limits").
const BODY_GRACE: Duration = Duration::from_secs(5);

/// Somebody who publishes to some channels of an application, one message after the other.
#[derive(Clone)]
pub struct Publisher {
    pub hub: SocketAddr,
    pub app: usize,
    pub channels: Vec<String>,
    /// How long messages are at most.
    pub len: usize,
    /// How long it waits between two messages, in milliseconds.
    pub pause: u64,
}

/// Publishes until the world has settled.
pub async fn publisher(shared: Rc<Shared>, who: Publisher) {
    while shared.phase.get() < Phase::Still {
        let wait = publish_on_one(&shared, &who).await;
        time::sleep(wait.unwrap_or(Duration::from_millis(500))).await;
    }
}

/// Publishes over one connection. What is under way when that breaks may have been taken or not, and may be taken later: so
/// what comes over the next one is another publisher's.
async fn publish_on_one(shared: &Rc<Shared>, who: &Publisher) -> io::Result<Duration> {
    let mut wire = Wire::connect(who.hub).await?;
    let publisher = shared.history.borrow_mut().publisher();
    let mut number = 0;
    while shared.phase.get() < Phase::Still {
        // After the storm a few are enough to show that they arrive.
        let pause = if shared.is(Phase::Storm) { who.pause } else { who.pause.max(2_000) };
        time::sleep(Duration::from_millis(pause / 2 + sim::random(pause))).await;
        let events = 1 + sim::random(8).saturating_sub(5);
        let labels: Vec<Label> =
            (0..events).map(|i| Label { publisher, number: number + 1 + i as u32 }).collect();
        number += events as u32;
        let request = request(shared, who, &labels);
        let sent = sim::elapsed();
        wire.request(request.as_bytes()).await;
        let answer = wire.answer().await?;
        let outcome = match answer.status {
            200 => Outcome::Accepted(sim::elapsed()),
            _ => Outcome::Refused,
        };
        labels.iter().for_each(|label| shared.history.borrow_mut().learns(*label, outcome));
        match answer.status {
            200 => {}
            429 | 503 => {
                shared.history.borrow_mut().tells(format!("status {}", answer.status));
                sim::hit(Fault::Bound);
                match answer.retry_after() {
                    Some(wait) => return Ok(wait),
                    None => sim::fail("refused for now, without saying for how long (I48)"),
                }
            }
            401 if shared.clock_jumps => {}
            // A network that stood still within the body: nothing is published, and the connection ends.
            408 if sim::elapsed() - sent > BODY_GRACE => return Ok(Duration::ZERO),
            other => sim::fail(format!("publishing was answered {other}: {}", text(&answer))),
        }
    }
    Ok(Duration::ZERO)
}

/// A request that publishes these messages: one to one or two channels, several as a batch.
fn request(shared: &Shared, who: &Publisher, labels: &[Label]) -> String {
    let mut history = shared.history.borrow_mut();
    let mut events = labels.iter().map(|label| {
        let first = sim::random(who.channels.len() as u64) as usize;
        let mut channels = vec![who.channels[first].clone()];
        let second = &who.channels[sim::random(who.channels.len() as u64) as usize];
        // Encrypted channels share no message, since each has a key of its own.
        let encrypted = |name: &str| name.contains("encrypted");
        let both = labels.len() == 1 && !encrypted(second) && !encrypted(&channels[0]);
        if both && *second != channels[0] && sim::random(3) == 0 {
            channels.push(second.clone());
        }
        let len = 40 + sim::random(who.len as u64) as usize;
        let mut data = history.publishes(*label, who.app, &channels, len);
        if encrypted(&channels[0]) {
            data = json!({ "nonce": "", "ciphertext": data }).to_string();
        }
        (channels, data)
    });
    if labels.len() == 1 {
        let body = events
            .next()
            .map(|(channels, data)| json!({ "name": "news", "channels": channels, "data": data }));
        return signed(who.app, "POST", "/events", &[], &body.unwrap_or_default().to_string());
    }
    let batch: Vec<Value> = events
        .map(|(channels, data)| json!({ "name": "news", "channel": channels[0], "data": data }))
        .collect();
    signed(who.app, "POST", "/batch_events", &[], &json!({ "batch": batch }).to_string())
}

pub fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}
