//! Clients that do harm, each in its own way, until the faults are over.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::sim::{self, Fault};
use evenkeel::time;
use serde_json::{Value, json};

use super::follower::path;
use super::history::{Label, Outcome};
use super::publisher::signed;
use super::setup::{Phase, Shared, app_key};
use super::subscriber::{member, text_of};
use super::wire::{Frame, Heard, Wire, client_frame, upgrade};

/// What a client does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Subscribes, and reads nothing.
    NeverReads,
    /// Subscribes, and reads a byte a second.
    ReadsSlowly,
    /// Sends as fast as it can.
    Floods,
    /// Ends its half of the connection at once, and waits.
    ClosesHalf,
    /// Sends a request byte by byte, one in a while.
    Drips,
    /// Connects, and sends nothing.
    Silent,
    /// Subscribes, reads, and never says a word again.
    Mute,
    /// Sends what is no frame, or no request.
    Garbage,
    /// Resets or ends the connection after any byte.
    BreaksOff,
    /// Ends many connections in one moment, and opens as many.
    Churns,
    /// Asks for what it must not have.
    Intrudes,
}

pub const HARMS: [Harm; 11] = [
    Harm::NeverReads,
    Harm::ReadsSlowly,
    Harm::Floods,
    Harm::ClosesHalf,
    Harm::Drips,
    Harm::Silent,
    Harm::Mute,
    Harm::Garbage,
    Harm::BreaksOff,
    Harm::Churns,
    Harm::Intrudes,
];

/// Does harm again and again.
pub async fn hostile(shared: Rc<Shared>, hub: SocketAddr, app: usize, harm: Harm, channels: Vec<String>) {
    while shared.is(Phase::Storm) {
        // However it ends, it is tried again.
        let _ = once(&shared, hub, app, harm, &channels).await;
        time::sleep(Duration::from_millis(200 + sim::random(2_000))).await;
    }
}

async fn once(
    shared: &Rc<Shared>,
    hub: SocketAddr,
    app: usize,
    harm: Harm,
    channels: &[String],
) -> io::Result<()> {
    match harm {
        Harm::NeverReads => never_reads(shared, hub, app, channels).await,
        Harm::ReadsSlowly => reads_slowly(shared, hub, app, channels).await,
        Harm::Floods => floods(shared, hub, app).await,
        Harm::ClosesHalf => closes_half(shared, hub, app).await,
        Harm::Drips => drips(shared, hub, app).await,
        Harm::Silent => {
            let mut wire = Wire::connect(hub).await?;
            let deadline = shared.config.limits.handshake_deadline_seconds;
            ended_in_time(shared, &mut wire, deadline, harm).await
        }
        Harm::Mute => {
            let mut wire = subscribed(hub, app, channels).await?;
            let server = &shared.config.server;
            let deadline = server.ping_interval_seconds + server.pong_timeout_seconds;
            ended_in_time(shared, &mut wire, deadline, harm).await
        }
        Harm::Garbage => garbage(shared, hub, app).await,
        Harm::BreaksOff => breaks_off(hub, app).await,
        Harm::Churns => churns(hub).await,
        Harm::Intrudes => intrudes(shared, hub, app, channels).await,
    }
}

/// Reads until the hub ends the connection, as it must within its deadlines, or the storm is over.
async fn until_the_end(shared: &Shared, wire: &mut Wire) -> io::Result<()> {
    while shared.is(Phase::Storm) {
        if wire.hear(time::now() + Duration::from_secs(1)).await? == Heard::End {
            return Ok(());
        }
        wire.unread.clear();
    }
    Ok(())
}

/// As [`until_the_end`]; where nothing is late on its way, that comes within a deadline and what closing takes.
async fn ended_in_time(shared: &Shared, wire: &mut Wire, seconds: u32, harm: Harm) -> io::Result<()> {
    const CLOSING: Duration = Duration::from_secs(7);
    let began = sim::elapsed();
    let ended = until_the_end(shared, wire).await;
    let (took, most) = (sim::elapsed() - began, Duration::from_secs(seconds.into()) + CLOSING);
    if shared.steady && took > most {
        sim::fail(format!("the hub bore with a client for {took:?}: {harm:?} (I50)"));
    }
    ended
}

/// A connection that is subscribed to public channels.
async fn subscribed(hub: SocketAddr, app: usize, channels: &[String]) -> io::Result<Wire> {
    let mut wire = Wire::connect(hub).await?;
    wire.request(upgrade(app_key(app).key()).as_bytes()).await;
    if wire.head().await?.status != 101 {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    for channel in channels.iter().filter(|name| !name.starts_with("pr")) {
        let event = json!({ "event": "pusher:subscribe", "data": { "channel": channel } });
        wire.send_text(&event.to_string()).await?;
    }
    Ok(wire)
}

async fn never_reads(shared: &Shared, hub: SocketAddr, app: usize, channels: &[String]) -> io::Result<()> {
    let _wire = subscribed(hub, app, channels).await?;
    sim::hit(Fault::NeverReads);
    for _ in 0..60 {
        time::sleep(Duration::from_millis(500)).await;
        if !shared.is(Phase::Storm) {
            break;
        }
    }
    Ok(())
}

async fn reads_slowly(shared: &Shared, hub: SocketAddr, app: usize, channels: &[String]) -> io::Result<()> {
    let mut wire = subscribed(hub, app, channels).await?;
    sim::hit(Fault::SlowReader);
    let mut byte = [0; 1];
    while shared.is(Phase::Storm) && wire.stream.read(&mut byte).await? > 0 {
        time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Events that are refused, pings that are answered, and frames that are neither, without reading much.
async fn floods(shared: &Shared, hub: SocketAddr, app: usize) -> io::Result<()> {
    let mut wire = subscribed(hub, app, &[]).await?;
    sim::hit(Fault::Flood);
    let kind = sim::random(4);
    let piece = match kind {
        0 => client_frame(0x81, br#"{"event":"pusher:ping","data":{}}"#),
        1 => client_frame(0x89, b"ping"),
        2 => client_frame(0x81, br#"{"event":"client-x","channel":"private-x","data":1}"#),
        _ => client_frame(0x01, &[b'x'; 1000]),
    };
    let flood = piece.repeat(20);
    for _ in 0..200 {
        wire.send(&flood).await?;
        if kind == 3 || wire.hear(time::now()).await? == Heard::End || !shared.is(Phase::Storm) {
            break;
        }
    }
    until_the_end(shared, &mut wire).await
}

async fn closes_half(shared: &Shared, hub: SocketAddr, app: usize) -> io::Result<()> {
    let mut wire = match sim::random(3) {
        0 => Wire::connect(hub).await?,
        1 => subscribed(hub, app, &[]).await?,
        _ => {
            let mut wire = Wire::connect(hub).await?;
            wire.send(b"GET /health HTTP/1.1\r\nHost: hub\r\n\r\n").await?;
            wire
        }
    };
    wire.stream.shutdown().await?;
    sim::hit(Fault::HalfClose);
    until_the_end(shared, &mut wire).await
}

async fn drips(shared: &Shared, hub: SocketAddr, app: usize) -> io::Result<()> {
    let mut wire = Wire::connect(hub).await?;
    let began = sim::elapsed();
    for byte in upgrade(app_key(app).key()).as_bytes() {
        if shared.steady && sim::elapsed() > began + Duration::from_secs(15) {
            sim::fail("the hub bore with a request that drips for too long (I50)");
        }
        wire.send(&[*byte]).await?;
        if wire.hear(time::now() + Duration::from_millis(400)).await? == Heard::End
            || !shared.is(Phase::Storm)
        {
            return Ok(());
        }
    }
    Ok(())
}

async fn garbage(shared: &Shared, hub: SocketAddr, app: usize) -> io::Result<()> {
    let noise: Vec<u8> = (0..1 + sim::random(400)).map(|_| sim::random(256) as u8).collect();
    let mut wire =
        if sim::random(2) == 0 { Wire::connect(hub).await? } else { subscribed(hub, app, &[]).await? };
    wire.send(&noise).await?;
    until_the_end(shared, &mut wire).await
}

/// Says something sensible, up to any byte of it.
async fn breaks_off(hub: SocketAddr, app: usize) -> io::Result<()> {
    let mut all = upgrade(app_key(app).key()).into_bytes();
    let event = json!({ "event": "pusher:subscribe", "data": { "channel": "news" } });
    all.extend(client_frame(0x81, event.to_string().as_bytes()));
    let most = sim::random(all.len() as u64 + 1) as usize;
    let mut wire = Wire::connect(hub).await?;
    wire.send(&all[..most]).await?;
    time::sleep(Duration::from_millis(sim::random(20))).await;
    if sim::random(2) == 0 {
        sim::hit(Fault::Reset);
        wire.stream.abort();
    } else {
        sim::hit(Fault::EarlyEnd);
    }
    Ok(())
}

/// What the hub closes and what it accepts meet in one turn, and their numbers with them.
async fn churns(hub: SocketAddr) -> io::Result<()> {
    let moment = time::now() + Duration::from_millis(20);
    let one = |_| {
        evenkeel::spawn(async move {
            let first = Wire::connect(hub).await?;
            time::sleep_until(moment).await;
            if sim::random(2) == 0 {
                first.stream.abort();
            } else {
                drop(first);
            }
            Wire::connect(hub).await.map(drop)
        })
    };
    let all: Vec<_> = (0..16).map(one).collect();
    for one in all {
        // Whether it was served does not matter.
        let _ = one.await;
    }
    Ok(())
}

/// Tries every wrong way into private channels, to their events, and to their members.
async fn intrudes(shared: &Rc<Shared>, hub: SocketAddr, app: usize, channels: &[String]) -> io::Result<()> {
    let private: Vec<&String> = channels.iter().filter(|name| name.starts_with("pr")).collect();
    let Some(channel) = private.get(sim::random(private.len().max(1) as u64) as usize) else { return Ok(()) };
    match sim::random(4) {
        0 => publishes_unsigned(shared, hub, app, channel).await,
        1 => streams_unsigned(shared, hub, app, channel).await,
        _ => subscribes_unsigned(shared, hub, app, channel).await,
    }
}

/// Something that nobody must ever get.
fn forbidden(shared: &Shared, app: usize, channel: &str) -> String {
    let history = &mut *shared.history.borrow_mut();
    let label = Label { publisher: history.publisher(), number: 1 };
    let data = history.publishes(label, app, &[channel.to_owned()], 60);
    history.learns(label, Outcome::Refused);
    data
}

async fn publishes_unsigned(
    shared: &Rc<Shared>,
    hub: SocketAddr,
    app: usize,
    channel: &str,
) -> io::Result<()> {
    let mut wire = Wire::connect(hub).await?;
    let data = forbidden(shared, app, channel);
    let body = json!({ "name": "news", "channel": channel, "data": data }).to_string();
    let right = signed(app, "POST", "/events", &[], &body);
    let request = match sim::random(3) {
        // Signed by another application's secret, and sent to this one.
        0 => {
            let other = signed(1 - app, "POST", "/events", &[], &body);
            other.replace(&format!("/apps/{}/", 100 + 1 - app), &format!("/apps/{}/", 100 + app))
        }
        // Another body than the one that was signed.
        1 => right.replace("label:", "Label:"),
        // Another channel.
        _ => right.replace(&format!("\"{channel}\""), &format!("\"{}x\"", &channel[..channel.len() - 1])),
    };
    wire.send(request.as_bytes()).await?;
    let answer = wire.answer().await?;
    if !matches!(answer.status, 400..=499 | 503) {
        sim::fail(format!("publishing without the right signature was answered {} (I45)", answer.status));
    }
    Ok(())
}

async fn streams_unsigned(shared: &Rc<Shared>, hub: SocketAddr, app: usize, channel: &str) -> io::Result<()> {
    let mut wire = Wire::connect(hub).await?;
    // The signature is for one channel of the other application, for another channel, or there is none.
    let signed = match sim::random(3) {
        2 => format!("/sse/key-{app}?channel={channel}"),
        0 => path(1 - app, &[channel.to_owned()]).replace(&format!("key-{}", 1 - app), &format!("key-{app}")),
        _ => path(app, &["private-mine".to_owned()]).replace("private-mine", channel),
    };
    let request = format!("GET {signed} HTTP/1.1\r\nHost: hub\r\n\r\n");
    wire.send(request.as_bytes()).await?;
    let answer = wire.head().await?;
    if !matches!(answer.status, 400..=499 | 503) {
        sim::fail(format!("a stream without the right signature was answered {} (I45)", answer.status));
    }
    until_the_end(shared, &mut wire).await
}

async fn subscribes_unsigned(
    shared: &Rc<Shared>,
    hub: SocketAddr,
    app: usize,
    channel: &str,
) -> io::Result<()> {
    let mut wire = subscribed(hub, app, &[]).await?;
    let user = format!("a{app}-nobody");
    let who = member(&user);
    let data = channel.starts_with("presence-").then_some(who.as_str());
    let until = time::now() + Duration::from_secs(5);
    while time::now() < until && shared.is(Phase::Storm) {
        while let Some(frame) = wire.frame()? {
            let Frame::Text(text) = frame else { continue };
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            let event = text_of(&message, "event");
            if event == "pusher:connection_established" {
                let greeting: Value = serde_json::from_str(&text_of(&message, "data")).unwrap_or_default();
                let socket = text_of(&greeting, "socket_id");
                let auth = match sim::random(5) {
                    0 => String::new(),
                    1 => app_key(1 - app).channel_auth(&socket, channel, data),
                    // Signed for another socket, another channel, or other data.
                    2 => app_key(app).channel_auth("1.1", channel, data),
                    3 => app_key(app).channel_auth(&socket, "private-mine", data),
                    _ => app_key(app).channel_auth(&socket, channel, Some("{\"user_id\":\"a0-1\"}")),
                };
                let asked = json!({ "channel": channel, "auth": auth, "channel_data": data });
                let asked = json!({ "event": "pusher:subscribe", "data": asked });
                wire.send_text(&asked.to_string()).await?;
                let said = forbidden(shared, app, channel);
                let event = json!({ "event": "client-news", "channel": channel, "data": said });
                wire.send_text(&event.to_string()).await?;
            } else if !event.starts_with("pusher:") {
                sim::fail(format!("who is not on {channel} was sent {text} (I45)"));
            }
        }
        if wire.hear(time::now() + Duration::from_secs(1)).await? == Heard::End {
            return Ok(());
        }
    }
    Ok(())
}
