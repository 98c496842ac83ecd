//! The pure heart of the hub: applications, connections, channels, presence, users, caches, history and limits.
//!
//! A [`Hub`] does no I/O and knows no clock: the server tells it what happened and when (`now`, in milliseconds from any
//! fixed start, never going back), and lends it an [`Outbox`] for the effects and a [`Verifier`] for signatures. The same
//! calls with the same random seed therefore have the same effects, which is what simulation and the tests live on.
//!
//! ```
//! use evenkeel_hub::config::{AppSettings, Config};
//! use evenkeel_hub::state::{AppConfig, AppId, Connect, Frame, Hub, Outbox, Publication, Verifier, Wire};
//!
//! struct Plain;
//! impl Wire for Plain {
//!     fn websocket(json: &str) -> Vec<u8> { json.into() }
//!     fn sse(_id: Option<&str>, json: &str) -> Vec<u8> { format!("data: {json}\n\n").into() }
//! }
//! #[derive(Default)]
//! struct Sent(Vec<(u64, String)>);
//! impl Outbox for Sent {
//!     type Conn = u64;
//!     fn send(&mut self, to: u64, frame: &Frame) {
//!         self.0.push((to, String::from_utf8_lossy(frame.as_bytes()).into_owned()));
//!     }
//!     fn close(&mut self, _to: u64, _code: u16, _reason: &'static str) {}
//! }
//! struct Never;
//! impl Verifier for Never {
//!     fn channel(&self, _: &AppConfig, _: &str, _: &str, _: Option<&str>, _: &str) -> bool { false }
//!     fn user(&self, _: &AppConfig, _: &str, _: &str, _: &str) -> bool { false }
//!     fn stream(&self, _: &AppConfig, _: &str, _: &str) -> bool { false }
//! }
//!
//! let mut hub: Hub<u64, Plain> = Hub::new(fastrand::Rng::with_seed(1));
//! let app: AppId = hub.add_app(Config::default().app_config(&AppSettings::demonstration())).unwrap();
//! let mut sent = Sent::default();
//! let session = hub.connect(0, &Connect { key: "demo-key", protocol: Some("7"), conn: 7 }, &mut sent).unwrap();
//! hub.receive(1, session, r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#, &Never, &mut sent);
//! let event = Publication { name: "hello", channels: &["news"], data: "{}", ..Publication::default() };
//! hub.publish(2, app, &event, &mut sent).unwrap();
//! assert_eq!(sent.0[2], (7, r#"{"event":"hello","channel":"news","data":"{}"}"#.to_owned()));
//! ```
//!
//! # Contract
//! - Each operation is whole: nothing of it is left for later but what [`Hub::tick`] does, and the hub is consistent
//!   between any two. The outbox never calls back.
//! - What is sent to one connection is sent in one order: the effects of operations in the order of the operations. On a
//!   channel nothing is sent before the answer to the subscription, or after the operation that ended it.
//! - After [`Outbox::close`] the session does not exist; [`Hub::disconnect`] and [`Hub::receive`] do nothing for it.
//! - Everything that a peer can cause is a [`Refusal`], counted for its application.
//! - A user is present in a presence channel from the first connection that joins to the end of the last, and online from
//!   the first sign-in to the end of the last session. [`Hub::disconnect_moving`] keeps the user's seat for a while
//!   longer, for a client that is told to come back: who sees the others never sees it gone.
//! - A hub can go on in another process, with all that it has: [`Hub::hand_over`] and [`Hub::take_over`].

mod app;
mod channel;
mod connect;
mod handover;
mod history;
mod ids;
mod limits;
mod outbox;
mod presence;
mod publish;
mod query;
mod refusal;
mod seats;
mod session;
mod slab;
mod stream;
mod subscribe;
mod users;

#[cfg(any(test, fuzzing))]
pub(crate) mod judge;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::marker::PhantomData;

use self::app::App;
use self::channel::Channel;
use self::ids::Keyed;
use self::refusal::Refusals;
use self::seats::Seats;
use self::session::Session;
use self::slab::{Key, Slab};

pub use self::app::{AppConfig, AppError, AppId, Counters, Limits};
pub use self::connect::Connect;
pub use self::handover::{HandoverError, RefusedSession, TakenOver};
pub use self::ids::{EventId, SocketId};
pub use self::limits::Rate;
pub use self::outbox::{Frame, Outbox, Transport, Verifier, Wire};
pub use self::publish::Publication;
pub use self::query::{AppSnapshot, Cached, ChannelState, Info, Snapshot};
pub use self::refusal::Refusal;
pub use self::session::SessionId;
pub use self::stream::{Connected, StreamChannel, StreamConnect};

/// How much of each kind one tick expires, so that a tick is short.
const TICK_BUDGET: usize = 1_024;

/// The state of the hub on one event loop. `C` is the server's handle of a connection, `W` encodes for the transports.
pub struct Hub<C, W> {
    sessions: Slab<Session<C>>,
    channels: Slab<Channel>,
    /// By [`AppId`]. Applications are disabled, never removed.
    apps: Vec<App>,
    apps_by_key: HashMap<Box<str>, AppId, Keyed>,
    apps_by_id: HashMap<Box<str>, AppId, Keyed>,
    /// Channels whose subscription count waits, by the time when it may be sent.
    counts: BinaryHeap<Reverse<(u64, Key)>>,
    seats: Seats,
    keyed: Keyed,
    /// How many socket ids were given out.
    socket_ids: u64,
    /// How many epochs were given out.
    epochs: u64,
    draining: bool,
    overloaded: bool,
    /// Refusals that no application can be blamed for.
    refusals: Refusals,
    wire: PhantomData<fn() -> W>,
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// An empty hub. `rng` gives the keys of hash maps and socket ids, so outside of simulation its seed must be secret
    /// and fresh.
    pub fn new(mut rng: fastrand::Rng) -> Hub<C, W> {
        Hub::with_keys(Keyed::new(&mut rng))
    }

    fn with_keys(keyed: Keyed) -> Hub<C, W> {
        Hub {
            sessions: Slab::new(),
            channels: Slab::new(),
            apps: Vec::new(),
            apps_by_key: HashMap::with_hasher(keyed.clone()),
            apps_by_id: HashMap::with_hasher(keyed.clone()),
            counts: BinaryHeap::new(),
            seats: Seats::default(),
            keyed,
            socket_ids: 0,
            epochs: 0,
            draining: false,
            overloaded: false,
            refusals: Refusals::new(),
            wire: PhantomData,
        }
    }

    /// Adds an application.
    ///
    /// # Errors
    /// When its id or key is taken, or its configuration cannot work.
    pub fn add_app(&mut self, config: AppConfig) -> Result<AppId, AppError> {
        app::check(&config)?;
        if self.apps_by_id.contains_key(config.id.as_str()) {
            return Err(AppError::DuplicateId(config.id));
        }
        if self.apps_by_key.contains_key(config.key.as_str()) {
            return Err(AppError::DuplicateKey(config.key));
        }
        let id = AppId(u16::try_from(self.apps.len()).map_err(|_| AppError::TooMany)?);
        let epoch = self.new_epoch();
        self.push_app(id, config, epoch);
        Ok(id)
    }

    fn push_app(&mut self, id: AppId, config: AppConfig, epoch: u64) {
        self.apps_by_id.insert(config.id.as_str().into(), id);
        self.apps_by_key.insert(config.key.as_str().into(), id);
        self.apps.push(App::new(config, &self.keyed, epoch));
    }

    fn new_epoch(&mut self) -> u64 {
        // Socket ids count up from zero, epochs down from the top: the two never meet.
        let epoch = self.keyed.number(u64::MAX - self.epochs);
        self.epochs += 1;
        epoch
    }

    /// The application that clients connect to with `key`.
    pub fn app_by_key(&self, key: &str) -> Option<AppId> {
        self.apps_by_key.get(key).copied()
    }

    /// The application of that id, as the HTTP API names it.
    pub fn app_by_id(&self, id: &str) -> Option<AppId> {
        self.apps_by_id.get(id).copied()
    }

    /// The configuration of an application.
    pub fn app_config(&self, app: AppId) -> &AppConfig {
        &self.apps[app.0 as usize].config
    }

    /// Every application.
    pub fn apps(&self) -> impl Iterator<Item = AppId> + use<C, W> {
        (0..self.apps.len() as u16).map(AppId)
    }

    /// Enables an application, or disables it and closes its connections with 4003.
    pub fn set_enabled<O: Outbox<Conn = C>>(&mut self, now: u64, app: AppId, enabled: bool, out: &mut O) {
        self.apps[app.0 as usize].config.enabled = enabled;
        if enabled {
            return;
        }
        let of_app = |(key, session): (Key, &Session<C>)| (session.app == app).then_some(key.index);
        let sessions: Vec<u32> = self.sessions.iter().filter_map(of_app).collect();
        for session in sessions {
            self.close(now, session, Refusal::AppDisabled, out);
        }
    }

    /// Refuses new connections from now on. Those that are there stay until the server closes them, at its own pace.
    pub fn begin_drain(&mut self) {
        self.draining = true;
    }

    /// Refuses events of any publisher while so much waits to be sent that there must not be more.
    pub fn set_overloaded(&mut self, overloaded: bool) {
        self.overloaded = overloaded;
    }

    /// Every session, for the server that drains.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, C, Transport)> {
        self.sessions.iter().map(|(key, session)| (SessionId(key), session.conn, session.transport))
    }

    /// Gives every connection another handle, for a server that knows them by others than the one before.
    pub fn rename_connections(&mut self, name: impl Fn(C) -> C) {
        let places: Vec<u32> = self.sessions.iter().map(|(key, _)| key.index).collect();
        for place in places {
            let session = &mut self.sessions[place];
            session.conn = name(session.conn);
        }
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The socket id of a session.
    pub fn socket_id(&self, session: SessionId) -> Option<SocketId> {
        let tag = self.sessions.get(session.0)?.tag;
        Some(SocketId { tag, index: session.0.index })
    }

    /// Does what is due: sends subscription counts that waited, gives up seats that were kept in vain, drops what is too
    /// old, closes connections that were not authorized in time. The work of one call is bounded; [`Hub::next_tick`] says when to call again.
    pub fn tick<O: Outbox<Conn = C>>(&mut self, now: u64, out: &mut O) {
        self.flush_counts(now, TICK_BUDGET, out);
        self.give_up_seats(now, TICK_BUDGET, out);
        for app in self.apps() {
            self.expire(now, app, TICK_BUDGET);
            self.enforce_deadlines(now, app, TICK_BUDGET, out);
        }
    }

    /// The time at which [`Hub::tick`] has something to do next, which is `now` when it has already. It may turn out to be
    /// nothing, when what was due is gone.
    pub fn next_tick(&self, now: u64) -> Option<u64> {
        let counts = self.counts.peek().map(|Reverse((due, _))| *due);
        let of_apps = self.apps.iter().flat_map(|app| {
            [app.history.next_expiry(), app.caches.next_expiry(), app.deadlines.front().map(|(due, _)| *due)]
        });
        of_apps.chain([counts, self.seats.next_due()]).flatten().min().map(|due| due.max(now))
    }
}

impl<C, W> fmt::Debug for Hub<C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("apps", &self.apps.len())
            .field("sessions", &self.sessions.len())
            .field("channels", &self.channels.len())
            .field("draining", &self.draining)
            .finish_non_exhaustive()
    }
}
