//! An application: its configuration, and what the hub keeps for it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::history::Retention;
use super::ids::{EventId, Keyed};
use super::limits::{Bucket, Rate};
use super::refusal::Refusals;
use super::slab::Key;
use super::users::User;

/// The place of an application in its hub. It is for that hub only: another may panic at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(pub(super) u16);

/// The configuration of one application. Its secrets and its origins are the server's: the hub asks a
/// [`Verifier`](super::Verifier), and hears of a connection only when its origin may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppConfig {
    /// The id in the paths of the HTTP API. Some SDKs insist on digits.
    pub id: String,
    /// The public key that clients connect with.
    pub key: String,
    /// A name for people. May be empty.
    pub name: String,
    /// Whether the application is served at all.
    pub enabled: bool,
    /// What the application may use.
    pub limits: Limits,
}

/// What one application may use. Times are in milliseconds, sizes in bytes unless a line says otherwise.
///
/// There are no defaults here: the configuration has them, and makes these limits of an application's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, streams included; 0 sets no limit for the application.
    pub max_connections: u32,
    /// Channels that one connection may be subscribed to.
    pub max_channels_per_connection: u32,
    /// Messages of any kind from one connection; more closes it.
    pub message_rate: Rate,
    /// The silence in seconds after which a client checks its connection. Not 0.
    pub activity_timeout_s: u32,
    /// How long a connection may stay without signing in or joining a channel that needs a signature; 0 is for ever.
    pub authorization_deadline: u64,
    /// Whether clients may send events to each other.
    pub client_events: bool,
    /// Client events from one connection.
    pub client_event_rate: Rate,
    /// Events published over HTTP, each event of a batch counted.
    pub publish_rate: Rate,
    /// An event's data.
    pub max_payload: u32,
    /// An event's name, in characters.
    pub max_event_name: u32,
    /// A channel's name, in characters.
    pub max_channel_name: u32,
    /// Channels that one event may be published to.
    pub max_publish_channels: u32,
    /// Events in a batch.
    pub max_batch: u32,
    /// Users in a presence channel.
    pub max_presence_members: u32,
    /// A member's `user_info`.
    pub max_user_info: u32,
    /// A user's id, in characters.
    pub max_user_id: u32,
    /// How long a cache channel keeps its last event.
    pub cache_ttl: u64,
    /// What all cached events of the application may cost in memory; the oldest go first.
    pub cache_bytes: usize,
    /// Events that each channel keeps for streams that come back; 0 keeps none.
    pub history_count: u32,
    /// How long they are kept.
    pub history_ttl: u64,
    /// What one channel's history may cost in memory.
    pub history_channel_bytes: usize,
    /// What all histories of the application may cost in memory; the oldest events go first.
    pub history_bytes: usize,
    /// Whether subscribers are told how many they are.
    pub subscription_count: bool,
    /// From how many subscribers on they are told at intervals only.
    pub subscription_count_threshold: u32,
    /// That interval.
    pub subscription_count_interval: u64,
    /// Whether users may sign in.
    pub sign_in: bool,
    /// Users that one user may watch.
    pub max_watchlist: u32,
}

/// Why an application could not be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppError {
    /// Another application has this id.
    DuplicateId(String),
    /// Another application has this key.
    DuplicateKey(String),
    /// A field has a value that cannot work; the text says which and why.
    Invalid(&'static str),
    /// The hub has as many applications as it can hold (65,536).
    TooMany,
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppError::DuplicateId(id) => write!(f, "two applications have the id {id:?}"),
            AppError::DuplicateKey(key) => write!(f, "two applications have the key {key:?}"),
            AppError::Invalid(what) => f.write_str(what),
            AppError::TooMany => f.write_str("there are too many applications"),
        }
    }
}

impl std::error::Error for AppError {}

/// Checks what no default can mend.
pub(super) fn check(config: &AppConfig) -> Result<(), AppError> {
    let rules = [
        (config.id.is_empty(), "an application needs an id"),
        (config.key.is_empty(), "an application needs a key"),
        (config.limits.activity_timeout_s == 0, "activity_timeout_s must not be 0: clients refuse it"),
    ];
    match rules.into_iter().find(|(broken, _)| *broken) {
        Some((_, what)) => Err(AppError::Invalid(what)),
        None => Ok(()),
    }
}

/// What the hub keeps for an application.
#[derive(Debug)]
pub(super) struct App {
    pub(super) config: AppConfig,
    pub(super) channels: HashMap<Arc<str>, u32, Keyed>,
    /// Users who are signed in, or watched by one who is.
    pub(super) users: HashMap<Arc<str>, User, Keyed>,
    pub(super) connections: u32,
    /// How many of `connections` are SSE streams.
    pub(super) streams: u32,
    /// Channels with a subscriber, or with a seat that is kept for one.
    pub(super) occupied: u32,
    /// Users who are signed in, or whose seat is kept.
    pub(super) online: u32,
    pub(super) publishes: Bucket,
    /// The id of the latest event.
    pub(super) position: EventId,
    /// The latest event of any channel that the hub no longer knows. A channel that is new to it may have had events up
    /// to here.
    pub(super) forgotten: u64,
    pub(super) history: Retention,
    pub(super) caches: Retention,
    /// Connections that must be authorized by a time, in the order of these times.
    pub(super) deadlines: VecDeque<(u64, Key)>,
    pub(super) counters: Counters,
    pub(super) refusals: Refusals,
}

/// What an application has done since it was added. The names of the fields are those of the hand-over too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Connections and streams that were accepted.
    pub connections: u64,
    /// Messages from clients, refused ones included.
    pub messages_in: u64,
    /// Messages handed to the outbox, one for each receiver.
    pub messages_out: u64,
    /// Events published over HTTP, counted once for each channel.
    pub published: u64,
    /// Client events that were passed on.
    pub client_events: u64,
    /// Events sent again to streams that came back.
    pub replayed: u64,
    /// Channels of streams that came back and had missed what is no longer kept.
    pub gaps: u64,
}

impl App {
    pub(super) fn new(config: AppConfig, keyed: &Keyed, epoch: u64) -> App {
        App {
            config,
            channels: HashMap::with_hasher(keyed.clone()),
            users: HashMap::with_hasher(keyed.clone()),
            connections: 0,
            streams: 0,
            occupied: 0,
            online: 0,
            publishes: Bucket::default(),
            position: EventId { epoch, sequence: 0 },
            forgotten: 0,
            history: Retention::default(),
            caches: Retention::default(),
            deadlines: VecDeque::new(),
            counters: Counters::default(),
            refusals: Refusals::new(),
        }
    }

    pub(super) fn next_event_id(&mut self) -> EventId {
        self.position.sequence += 1;
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        let good = super::super::tests::app_config("1", "key");
        assert_eq!(check(&good), Ok(()));
        let silent = Limits { activity_timeout_s: 0, ..good.limits.clone() };
        for broken in [
            AppConfig { id: String::new(), ..good.clone() },
            AppConfig { key: String::new(), ..good.clone() },
            AppConfig { limits: silent, ..good },
        ] {
            assert!(matches!(check(&broken), Err(AppError::Invalid(_))), "{broken:?}");
        }
    }
}
