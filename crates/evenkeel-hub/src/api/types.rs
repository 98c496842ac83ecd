//! What the HTTP API asks of the broker, in plain data.
//!
//! The API knows requests and signatures, the broker knows channels and connections. [`Broker`] is all that lies between
//! them, so each is tested without the other.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// The state of the hub, as far as the HTTP API needs it. Applications are named by their id, which the API has looked up
/// and whose request it has verified.
pub trait Broker {
    /// Publishes all of `events`, in order, or none of them. Names and sizes are already checked.
    ///
    /// Returns one [`Published`] for each event.
    ///
    /// # Errors
    /// [`Refusal`], and then nothing was published.
    fn publish(&mut self, app: &str, events: &[Event<'_>]) -> Result<Vec<Published>, Refusal>;

    /// The occupied channels whose names begin with `prefix`, each with the attributes in `info`.
    ///
    /// # Errors
    /// [`Refusal`].
    fn channels(&self, app: &str, prefix: &str, info: Info) -> Result<Vec<(String, Attributes)>, Refusal>;

    /// The state of one channel, with the attributes in `info`.
    ///
    /// # Errors
    /// [`Refusal`].
    fn channel(&self, app: &str, channel: &str, info: Info) -> Result<ChannelState, Refusal>;

    /// The ids of the users on a presence channel, each once.
    ///
    /// # Errors
    /// [`Refusal`].
    fn users(&self, app: &str, channel: &str) -> Result<Vec<String>, Refusal>;

    /// Closes every connection on which this user is signed in. Returns how many.
    fn terminate(&mut self, app: &str, user: &str) -> usize;
}

/// One event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The event's name.
    pub name: Cow<'a, str>,
    /// Where it goes: at least one channel, each once. One may be `#server-to-user-ID`.
    pub channels: Vec<String>,
    /// What subscribers receive as the string `data`.
    pub data: Cow<'a, str>,
    /// The connection that must not receive it, because it caused it.
    pub except: Option<String>,
    /// Which attributes of the channels the publisher wants back.
    pub info: Info,
}

/// A set of attributes of a channel that a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The number of distinct users. Presence channels only.
    pub user_count: bool,
    /// The number of subscribed connections.
    pub subscription_count: bool,
    /// The cached event. Cache channels only.
    pub cache: bool,
}

impl Info {
    /// Whether nothing is asked for.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The attributes of a channel that were asked for, and that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attributes {
    /// The number of distinct users, on a presence channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_count: Option<u64>,
    /// The number of subscribed connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_count: Option<u64>,
}

/// What became of one event: the attributes of its channels, in the order of [`Event::channels`]. Empty when
/// [`Event::info`] is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// One entry for each channel, or none at all.
    pub attributes: Vec<Attributes>,
}

/// The state of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChannelState {
    /// Whether anyone is subscribed.
    pub occupied: bool,
    /// The attributes that were asked for.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// The cached event, if it was asked for and there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CachedEvent>,
}

/// The event that a cache channel keeps for new subscribers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CachedEvent {
    /// Its data.
    pub data: String,
    /// For how many more seconds it is kept.
    pub ttl: u64,
}

/// Why the broker did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The application publishes faster than it may.
    RateLimited {
        /// When to try again, in seconds from now.
        retry_after: u32,
    },
    /// The broker has a rule that the API does not know. Answered with 400.
    Invalid {
        /// The value of the metric label `reason`.
        label: &'static str,
        /// What is wrong, for the developer.
        message: String,
    },
    /// The server has no room, or is stopping.
    Overloaded {
        /// When to try again, in seconds from now.
        retry_after: u32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited { retry_after } => {
                write!(
                    f,
                    "Too many events: this application's publish rate is used up; try again in {retry_after} s"
                )
            }
            Self::Invalid { message, .. } => f.write_str(message),
            Self::Overloaded { retry_after } => {
                write!(f, "The server is overloaded; try again in {retry_after} s")
            }
        }
    }
}
