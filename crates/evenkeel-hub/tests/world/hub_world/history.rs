//! What happened in a world, as its clients saw it: everything published, and of every connection what it asked for and what
//! it was sent, when. What may never happen at all is noticed as it is written down; the rest is for `check`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use evenkeel::sim;

/// Virtual time since the world began.
pub type Time = Duration;

/// A message: who published it, as a number that no two have, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    pub publisher: u32,
    pub number: u32,
}

impl Label {
    /// The message's data: every byte of it says whose it is.
    pub fn data(self, app: usize, channels: &[String], len: usize) -> String {
        let mut data = format!("label:{app}:{}:{}:{}:", self.publisher, self.number, channels.join("|"));
        data.extend(std::iter::repeat_n('.', len.saturating_sub(data.len())));
        data
    }

    fn parse(data: &str) -> Option<(usize, Label, &str)> {
        let at = data.find("label:")?;
        let mut parts = data[at + 6..].splitn(5, ':');
        let (app, publisher) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let number = parts.next()?.parse().ok()?;
        Some((app, Label { publisher, number }, parts.next()?))
    }
}

/// What its publisher knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No answer has come, or ever will.
    Unknown,
    /// The hub has said by this time that it has it.
    Accepted(Time),
    /// The hub has said that it does not take it.
    Refused,
}

#[derive(Debug)]
pub struct Message {
    pub app: usize,
    pub channels: Vec<String>,
    pub sent: Time,
    pub outcome: Outcome,
    /// The connection that does not get it, by its number.
    pub except: Option<usize>,
    pub data: String,
}

/// A subscription of one connection to one channel.
#[derive(Debug, Default)]
pub struct Subscription {
    pub channel: String,
    /// When the hub's answer came.
    pub confirmed: Option<Time>,
    /// When the client asked to leave.
    pub left: Option<Time>,
    /// The hub has done so.
    pub over: bool,
    pub got: Vec<Label>,
    /// Who is there, as the client was told.
    pub members: BTreeSet<String>,
    /// How many are there, as the client was told.
    pub count: Option<u64>,
}

/// A ping that was not answered yet, and what the answer will tell.
#[derive(Debug)]
struct Ping {
    sent: Time,
    published: Vec<Label>,
    left: Vec<usize>,
}

/// One connection of a WebSocket client.
#[derive(Debug, Default)]
pub struct Connection {
    pub app: usize,
    pub user: String,
    pub socket_id: String,
    /// When it was greeted.
    pub opened: Time,
    pub subscriptions: Vec<Subscription>,
    /// Everything that the hub did before this time has come: it has answered a ping that was sent then.
    pub covered: Time,
    pub ended: Option<Time>,
    /// By the hub, with this code.
    pub close_code: Option<u16>,
    /// What it has published and left since its last ping.
    published: Vec<Label>,
    left: Vec<usize>,
    pings: VecDeque<Ping>,
}

/// One connection of an event stream.
#[derive(Debug, Default)]
pub struct Visit {
    pub asked: Time,
    /// Which hub it is, once the stream is live.
    pub epoch: Option<String>,
    /// The id that it came back with.
    pub last_id: Option<String>,
    pub gaps: BTreeSet<String>,
    /// When everything missed had come.
    pub live: Option<Time>,
    replayed: u64,
    pub ended: Option<Time>,
}

/// An event stream over all of its connections.
#[derive(Debug, Default)]
pub struct Following {
    pub app: usize,
    pub channels: Vec<String>,
    pub visits: Vec<Visit>,
    pub got: BTreeMap<(String, Label), usize>,
    order: BTreeMap<(String, u32), u32>,
    pub last_id: Option<String>,
    /// Epoch and number of the last message.
    position: Option<(String, u64)>,
}

#[derive(Debug, Default)]
pub struct History {
    pub messages: BTreeMap<Label, Message>,
    pub by_channel: BTreeMap<(usize, String), Vec<Label>>,
    publishers: u32,
    pub connections: Vec<Connection>,
    pub followings: Vec<Following>,
    /// The longest that a message took from its publisher to a client that reads.
    pub slowest: Duration,
    /// Messages that clients received.
    pub received: u64,
    /// When connections were told that they are served.
    pub admitted: Vec<Time>,
    /// Refusals and close codes, as clients saw them.
    pub told: BTreeMap<String, u64>,
}

impl History {
    /// A number for a publisher whose messages come one after the other.
    pub fn publisher(&mut self) -> u32 {
        self.publishers += 1;
        self.publishers
    }

    /// A message is about to be sent.
    pub fn publishes(&mut self, label: Label, app: usize, channels: &[String], len: usize) -> String {
        let data = label.data(app, channels, len);
        let message = Message {
            app,
            channels: channels.to_vec(),
            sent: sim::elapsed(),
            outcome: Outcome::Unknown,
            except: None,
            data: data.clone(),
        };
        self.messages.insert(label, message);
        for channel in channels {
            self.by_channel.entry((app, channel.clone())).or_default().push(label);
        }
        data
    }

    pub fn learns(&mut self, label: Label, outcome: Outcome) {
        if let Some(message) = self.messages.get_mut(&label) {
            message.outcome = outcome;
        }
    }

    /// A client event of a connection.
    pub fn says(&mut self, conn: usize, label: Label, channel: &str, len: usize) -> String {
        let channels = [channel.to_owned()];
        let data = self.publishes(label, self.connections[conn].app, &channels, len);
        self.messages.entry(label).and_modify(|message| message.except = Some(conn));
        self.connections[conn].published.push(label);
        data
    }

    pub fn tells(&mut self, what: impl Into<String>) {
        *self.told.entry(what.into()).or_default() += 1;
    }

    // ---- connections ----

    pub fn opens(&mut self, app: usize, user: &str, socket_id: &str) -> usize {
        let opened = sim::elapsed();
        self.admitted.push(opened);
        let (user, socket_id) = (user.to_owned(), socket_id.to_owned());
        self.connections.push(Connection { app, user, socket_id, opened, ..Connection::default() });
        self.connections.len() - 1
    }

    pub fn ends(&mut self, conn: usize, close_code: Option<u16>) {
        let conn = &mut self.connections[conn];
        conn.ended = Some(sim::elapsed());
        conn.close_code = close_code;
    }

    /// The subscription to a channel that a connection has, or has asked for.
    pub fn subscription(&mut self, conn: usize, channel: &str) -> Option<&mut Subscription> {
        self.connections[conn].subscriptions.iter_mut().rev().find(|s| s.channel == channel)
    }

    /// Whether a subscription may be asked for: there is none, or it is over for certain.
    pub fn may_subscribe(&mut self, conn: usize, channel: &str) -> bool {
        self.subscription(conn, channel).is_none_or(|s| s.over)
    }

    pub fn asks_for(&mut self, conn: usize, channel: &str) {
        let subscription = Subscription { channel: channel.to_owned(), ..Subscription::default() };
        self.connections[conn].subscriptions.push(subscription);
    }

    pub fn leaves(&mut self, conn: usize, channel: &str) {
        let conn = &mut self.connections[conn];
        let Some(at) = conn.subscriptions.iter().rposition(|s| s.channel == channel) else { return };
        conn.subscriptions[at].left = Some(sim::elapsed());
        conn.left.push(at);
    }

    pub fn pings(&mut self, conn: usize) {
        let conn = &mut self.connections[conn];
        let (published, left) = (std::mem::take(&mut conn.published), std::mem::take(&mut conn.left));
        conn.pings.push_back(Ping { sent: sim::elapsed(), published, left });
    }

    /// A ping was answered: the hub has done all that it was asked before, and all that it sent before has come.
    pub fn ponged(&mut self, conn: usize) {
        let Some(ping) = self.connections[conn].pings.pop_front() else {
            return sim::fail(format!("connection {conn} was sent an answer to no ping"));
        };
        self.connections[conn].covered = ping.sent;
        for label in ping.published {
            let message = self.messages.get_mut(&label);
            // Unless it was refused meanwhile.
            if let Some(message) = message.filter(|m| m.outcome == Outcome::Unknown) {
                message.outcome = Outcome::Accepted(sim::elapsed());
            }
        }
        for at in ping.left {
            self.connections[conn].subscriptions[at].over = true;
        }
    }

    /// One of the client events that are under way was refused, nobody says which: none counts.
    pub fn refused_some(&mut self, conn: usize) {
        let conn = &mut self.connections[conn];
        conn.published.clear();
        conn.pings.iter_mut().for_each(|ping| ping.published.clear());
    }

    /// A connection was sent a message.
    pub fn gets(&mut self, conn: usize, channel: &str, data: &str) {
        let app = self.connections[conn].app;
        let label = match self.belongs(app, channel, data) {
            Ok(label) => label,
            Err(why) => return sim::fail(format!("connection {conn}: {why}")),
        };
        let Some(subscription) = self.subscription(conn, channel) else {
            return sim::fail(format!(
                "connection {conn} never asked for {channel} and was sent {label:?} (I45)"
            ));
        };
        if subscription.confirmed.is_none() {
            return sim::fail(format!("connection {conn} was sent {label:?} before it was subscribed (I44)"));
        }
        if subscription.over {
            return sim::fail(format!(
                "connection {conn} was sent {label:?} after it had left {channel} (I44)"
            ));
        }
        let last = subscription.got.iter().rev().find(|got| got.publisher == label.publisher);
        if let Some(last) = last.filter(|last| last.number >= label.number) {
            let why = format!("connection {conn} on {channel} was sent {label:?} after {last:?} (I44)");
            return sim::fail(why);
        }
        subscription.got.push(label);
        if self.messages.get(&label).is_some_and(|message| message.except == Some(conn)) {
            sim::fail(format!("connection {conn} was sent its own {label:?}"));
        }
        if !channel.contains("cache-") {
            self.took(label);
        }
    }

    /// Whose a message is: it must be one of this application and this channel, as it was sent, and one that was not refused.
    fn belongs(&mut self, app: usize, channel: &str, data: &str) -> Result<Label, String> {
        self.received += 1;
        let Some((of, label, _)) = Label::parse(data) else {
            return Err(format!("data without a label came on {channel}: {data:?} (I45)"));
        };
        let message =
            self.messages.get(&label).ok_or_else(|| format!("nobody has published {label:?} (I45)"))?;
        if of != app || message.app != app {
            return Err(format!("{label:?} of application {of} reached one of {app} on {channel} (I45)"));
        }
        if !message.channels.iter().any(|of| of == channel) {
            return Err(format!("{label:?} of {:?} came on {channel} (I45)", message.channels));
        }
        if !data.contains(&message.data) {
            return Err(format!("{label:?} was changed on its way"));
        }
        if message.outcome == Outcome::Refused {
            return Err(format!("{label:?} was refused, and was sent all the same"));
        }
        Ok(label)
    }

    /// A message has arrived as soon as it could.
    fn took(&mut self, label: Label) {
        if let Some(message) = self.messages.get(&label) {
            self.slowest = self.slowest.max(sim::elapsed().saturating_sub(message.sent));
        }
    }

    // ---- event streams ----

    pub fn follows(&mut self, app: usize, channels: &[String]) -> usize {
        self.followings.push(Following { app, channels: channels.to_vec(), ..Following::default() });
        self.followings.len() - 1
    }

    pub fn visits(&mut self, following: usize, asked: Time) {
        let following = &mut self.followings[following];
        let last_id = following.last_id.clone();
        following.visits.push(Visit { asked, last_id, ..Visit::default() });
    }

    pub fn visit_ends(&mut self, following: usize) {
        if let Some(visit) = self.followings[following].visits.last_mut() {
            visit.ended = Some(sim::elapsed());
        }
    }

    pub fn has_gap(&mut self, following: usize, channel: &str) {
        if let Some(visit) = self.followings[following].visits.last_mut() {
            visit.gaps.insert(channel.to_owned());
        }
    }

    /// The stream says that it is live, and what it has sent before.
    pub fn caught_up(&mut self, at: usize, id: Option<&str>, replayed: u64, complete: bool) {
        let following = &mut self.followings[at];
        if let Some(id) = id {
            following.last_id = Some(id.to_owned());
        }
        let all = following.channels.len();
        let Some(visit) = following.visits.last_mut() else { return };
        visit.live = Some(sim::elapsed());
        let epoch = |id: &str| id.split('-').next().map(str::to_owned);
        visit.epoch = id.and_then(epoch);
        let other = visit.last_id.as_deref().and_then(epoch) != visit.epoch;
        if visit.last_id.is_some() && other && visit.gaps.len() != all {
            sim::fail(format!("stream {at} came back to another hub and was told of no gap (I44)"));
        } else if complete != visit.gaps.is_empty() || replayed != visit.replayed {
            let got = visit.replayed;
            sim::fail(format!("stream {at} got {got} again and was told of {replayed}, {complete} (I44)"));
        }
    }

    /// A stream was sent a message.
    pub fn streams(&mut self, at: usize, channel: &str, data: &str, id: Option<&str>) {
        let label = match self.belongs(self.followings[at].app, channel, data) {
            Ok(label) => label,
            Err(why) => return sim::fail(format!("stream {at}: {why}")),
        };
        let following = &mut self.followings[at];
        if !following.channels.iter().any(|of| of == channel) {
            return sim::fail(format!("stream {at} never asked for {channel} (I45)"));
        }
        let (Some(visit), Some(id)) = (following.visits.last_mut(), id) else {
            return sim::fail(format!("stream {at} was sent {label:?} without an id (I44)"));
        };
        visit.replayed += u64::from(visit.live.is_none());
        let live = visit.live.is_some();
        following.last_id = Some(id.to_owned());
        let position = id.split_once('-').and_then(|(epoch, n)| Some((epoch.to_owned(), n.parse().ok()?)));
        if position.is_none() || following.position.as_ref().is_some_and(|before| !follows(before, &position))
        {
            let before = &following.position;
            return sim::fail(format!("stream {at} was sent {position:?} after {before:?} (I44)"));
        }
        following.position = position;
        let order = following.order.entry((channel.to_owned(), label.publisher)).or_default();
        if *order >= label.number {
            return sim::fail(format!("stream {at} was sent {label:?} after {order} (I44)"));
        }
        *order = label.number;
        following.got.insert((channel.to_owned(), label), following.visits.len() - 1);
        if live {
            self.took(label);
        }
    }
}

/// Whether a position comes after another, if they are of the same hub.
fn follows(before: &(String, u64), after: &Option<(String, u64)>) -> bool {
    after.as_ref().is_some_and(|after| after.0 != before.0 || after.1 > before.1)
}
