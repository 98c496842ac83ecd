//! An application: its configuration, and what the hub keeps for it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::history::Retention;
use super::ids::{EventId, Keyed};
use super::limits::{Bucket, Rate};
use super::refusal::Refusals;
use super::slab::Key;
use super::users::User;

/// The place of an application in its hub. It is for that hub only: another may panic at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(pub(super) u16);

/// A text that is never printed: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for signing and verifying only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The configuration of one application.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// The id in the paths of the HTTP API. Some SDKs insist on digits.
    pub id: String,
    /// The public key that clients connect with.
    pub key: String,
    /// The secrets that signatures are made with. The first is the current one; others are accepted while they are
    /// being replaced.
    pub secrets: Vec<Secret>,
    /// A name for people. Default: empty.
    #[serde(default)]
    pub name: String,
    /// Whether the application is served at all. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The origins whose pages may connect, as browsers send them: `https://example.com`, `*.example.com` for any
    /// origin on a subdomain, `*` for any. Clients that send no origin are not browsers and are not concerned.
    /// Default: `["*"]`.
    #[serde(default = "any_origin")]
    pub allowed_origins: Vec<String>,
    /// What the application may use.
    #[serde(default)]
    pub limits: Limits,
}

fn yes() -> bool {
    true
}

fn any_origin() -> Vec<String> {
    vec!["*".to_owned()]
}

impl AppConfig {
    /// An application with one secret and defaults for the rest.
    pub fn new(id: impl Into<String>, key: impl Into<String>, secret: impl Into<String>) -> AppConfig {
        AppConfig {
            id: id.into(),
            key: key.into(),
            secrets: vec![Secret::new(secret)],
            name: String::new(),
            enabled: true,
            allowed_origins: any_origin(),
            limits: Limits::default(),
        }
    }

    /// Whether a request with this `Origin` header may connect.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let host = origin.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        self.allowed_origins.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some("") => true,
            Some(suffix) if suffix.starts_with('.') => {
                let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
                host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
            _ => allowed.eq_ignore_ascii_case(origin),
        })
    }
}

/// What one application may use. Times are in milliseconds, sizes in bytes unless a line says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time, streams included; 0 sets no limit for the application. Default: 0.
    pub max_connections: u32,
    /// Channels that one connection may be subscribed to. Default: 256.
    pub max_channels_per_connection: u32,
    /// Messages of any kind from one connection; more closes it. Default: 100 a second, 1,000 at once.
    pub message_rate: Rate,
    /// The silence in seconds after which a client checks its connection. Not 0. Default: 120.
    pub activity_timeout_s: u32,
    /// How long a connection may stay without signing in or joining a channel that needs a signature; 0 is for ever.
    /// Default: 0.
    pub authorization_deadline: u64,
    /// Whether clients may send events to each other. Default: true.
    pub client_events: bool,
    /// Client events from one connection. Default: 10 a second, 20 at once.
    pub client_event_rate: Rate,
    /// Events published over HTTP, each event of a batch counted. Default: 1,000 a second, 1,000 at once.
    pub publish_rate: Rate,
    /// An event's data. Default: 10,240.
    pub max_payload: u32,
    /// An event's name, in characters. Default: 200.
    pub max_event_name: u32,
    /// A channel's name, in characters. Default: 200.
    pub max_channel_name: u32,
    /// Channels that one event may be published to. Default: 100.
    pub max_publish_channels: u32,
    /// Events in a batch. Default: 10.
    pub max_batch: u32,
    /// Users in a presence channel. Default: 100.
    pub max_presence_members: u32,
    /// A member's `user_info`. Default: 1,024.
    pub max_user_info: u32,
    /// A user's id, in characters. Default: 128.
    pub max_user_id: u32,
    /// How long a cache channel keeps its last event. Default: 30 minutes.
    pub cache_ttl: u64,
    /// What all cached events of the application may cost in memory; the oldest go first. Default: 32 MiB.
    pub cache_bytes: usize,
    /// Events that each channel keeps for streams that come back; 0 keeps none. Default: 100.
    pub history_count: u32,
    /// How long they are kept. Default: 2 minutes.
    pub history_ttl: u64,
    /// What one channel's history may cost in memory. Default: 256 KiB.
    pub history_channel_bytes: usize,
    /// What all histories of the application may cost in memory; the oldest events go first. Default: 32 MiB.
    pub history_bytes: usize,
    /// Whether subscribers are told how many they are. Default: false.
    pub subscription_count: bool,
    /// From how many subscribers on they are told at intervals only. Default: 100.
    pub subscription_count_threshold: u32,
    /// That interval. Default: 5 seconds.
    pub subscription_count_interval: u64,
    /// Whether users may sign in. Default: true.
    pub sign_in: bool,
    /// Users that one user may watch. Default: 100.
    pub max_watchlist: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 0,
            max_channels_per_connection: 256,
            message_rate: Rate { per_second: 100, burst: 1_000 },
            activity_timeout_s: 120,
            authorization_deadline: 0,
            client_events: true,
            client_event_rate: Rate { per_second: 10, burst: 20 },
            publish_rate: Rate { per_second: 1_000, burst: 1_000 },
            max_payload: 10_240,
            max_event_name: 200,
            max_channel_name: 200,
            max_publish_channels: 100,
            max_batch: 10,
            max_presence_members: 100,
            max_user_info: 1_024,
            max_user_id: 128,
            cache_ttl: 30 * 60 * 1_000,
            cache_bytes: 32 << 20,
            history_count: 100,
            history_ttl: 2 * 60 * 1_000,
            history_channel_bytes: 256 << 10,
            history_bytes: 32 << 20,
            subscription_count: false,
            subscription_count_threshold: 100,
            subscription_count_interval: 5_000,
            sign_in: true,
            max_watchlist: 100,
        }
    }
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
        (config.secrets.is_empty(), "an application needs a secret"),
        (config.secrets.iter().any(|s| s.expose().is_empty()), "a secret is empty"),
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
    /// Channels with a subscriber.
    pub(super) occupied: u32,
    /// Users who are signed in.
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

/// What an application has done since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    fn secrets_are_not_printed() {
        let config = AppConfig::new("1", "key", "the-secret");
        assert!(!format!("{config:?}").contains("the-secret"));
        assert_eq!(config.secrets[0].expose(), "the-secret");
    }

    #[test]
    fn origins_are_matched_whole() {
        let mut config = AppConfig::new("1", "key", "secret");
        assert!(config.allows_origin(Some("https://anything")));
        config.allowed_origins = vec!["https://example.com".into(), "*.example.org".into()];
        for good in [
            "https://example.com",
            "HTTPS://EXAMPLE.COM",
            "https://a.example.org",
            "http://a.b.example.org:8080",
        ] {
            assert!(config.allows_origin(Some(good)), "{good}");
        }
        for bad in [
            "null",
            "",
            "http://example.com",
            "https://example.com.evil",
            "https://evilexample.com",
            "https://example.org",
            "https://evilexample.org",
            "https://.example.org",
            "https://a.example.org.evil",
            "https://127.0.0.1",
            "example.com",
        ] {
            assert!(!config.allows_origin(Some(bad)), "{bad}");
        }
        assert!(config.allows_origin(None));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let good = AppConfig::new("1", "key", "secret");
        assert_eq!(check(&good), Ok(()));
        for broken in [
            AppConfig::new("", "k", "s"),
            AppConfig::new("1", "", "s"),
            AppConfig::new("1", "k", ""),
            AppConfig { secrets: Vec::new(), ..good.clone() },
            AppConfig { limits: Limits { activity_timeout_s: 0, ..Limits::default() }, ..good },
        ] {
            assert!(matches!(check(&broken), Err(AppError::Invalid(_))), "{broken:?}");
        }
    }
}
