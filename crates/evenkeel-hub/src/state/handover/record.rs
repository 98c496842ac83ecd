//! The state as it is written. The names of the fields are the format.
//!
//! The same records are written, with borrowed texts and one at a time, and read, with texts of their own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::state::app::Counters;
use crate::state::limits::Rate;
use crate::state::refusal::{Refusal, Refusals};

/// What tells whether the rest can be read.
#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) version: u64,
}

/// A whole hub: lists of [`AppRecord`], and of [`SessionRecord`] and [`ChannelRecord`] with nothing for a free place.
#[derive(Serialize, Deserialize)]
pub(super) struct HubRecord<A, S, C> {
    pub(super) version: u64,
    pub(super) keys: (u64, u64),
    pub(super) socket_ids: u64,
    pub(super) epochs: u64,
    #[serde(default)]
    pub(super) refusals: Tally,
    pub(super) apps: A,
    pub(super) session_generation: u32,
    pub(super) sessions: S,
    pub(super) channel_generation: u32,
    pub(super) channels: C,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AppRecord<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    pub(super) forgotten: u64,
    #[serde(default)]
    pub(super) counters: Counters,
    #[serde(default)]
    pub(super) refusals: Tally,
    #[serde(default)]
    pub(super) message_rate: Option<Rate>,
    #[serde(default)]
    pub(super) client_event_rate: Option<Rate>,
    #[serde(default)]
    pub(super) publish_rate: Option<Rate>,
    /// Microseconds until the bucket is full; so are the others.
    #[serde(default)]
    pub(super) publishes: u64,
    /// When sessions must be authorized, and their places.
    #[serde(default)]
    pub(super) deadlines: Vec<(Delay, u32)>,
    /// Users who are online without a session, and until when.
    #[serde(default)]
    pub(super) kept_online: Vec<(Cow<'a, str>, Delay)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SessionRecord<'a, C> {
    pub(super) generation: u32,
    pub(super) conn: C,
    pub(super) tag: u32,
    /// The place in the list of applications.
    pub(super) app: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) stream: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) authorized: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) messages: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) client_events: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<UserRecord<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) subscriptions: Vec<SubscriptionRecord>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct UserRecord<'a> {
    pub(super) id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) info: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) watchlist: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SubscriptionRecord {
    pub(super) channel: u32,
    /// The place in the channel's member list.
    pub(super) position: u32,
    /// The place among the channel's users, of presence channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<u32>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ChannelRecord<'a> {
    pub(super) generation: u32,
    pub(super) app: u32,
    pub(super) name: Cow<'a, str>,
    pub(super) gone: u64,
    /// The earliest time at which many subscribers may be told their number again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) count_due: Delay,
    /// When the number of subscribers is sent, if it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) count_queued: Option<Delay>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) events: Vec<EventRecord<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cached: Option<EventRecord<'a>>,
    /// The users of a presence channel, in their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) users: Vec<Option<PresentRecord<'a>>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EventRecord<'a> {
    pub(super) sequence: u64,
    pub(super) expires: Delay,
    /// Left out of a cached event that is among the channel's events too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) json: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PresentRecord<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) info: Cow<'a, str>,
    /// Until when a seat is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<Delay>,
}

/// A time, as its distance in milliseconds from the moment of the hand-over. Negative is past.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Delay(i64);

impl Delay {
    pub(super) fn until(at: u64, now: u64) -> Delay {
        let distance = i64::try_from(at.abs_diff(now)).unwrap_or(i64::MAX);
        Delay(if at < now { -distance } else { distance })
    }

    /// The time on a clock that shows `now`.
    pub(super) fn from(self, now: u64) -> u64 {
        now.saturating_add_signed(self.0)
    }
}

/// Counts of refusals, by name: a refusal that the reader does not know is passed over.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Tally(pub(super) BTreeMap<Cow<'static, str>, u64>);

impl Tally {
    pub(super) fn of(refusals: &Refusals) -> Tally {
        Tally(refusals.iter().map(|(refusal, count)| (refusal.name().into(), count)).collect())
    }

    pub(super) fn refusals(&self) -> Refusals {
        let mut refusals = Refusals::new();
        for refusal in Refusal::all() {
            refusals.set(refusal, self.0.get(refusal.name()).copied().unwrap_or(0));
        }
        refusals
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A list that is made while it is written, one entry at a time.
pub(super) struct Lazy<F>(pub(super) F);

impl<F, I> Serialize for Lazy<F>
where
    F: Fn() -> I,
    I: IntoIterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}
