//! A session: one connection as the hub knows it. Thousands of them are idle, so each field is weighed.

use serde::{Deserialize, Serialize};

use super::app::AppId;
use super::limits::Bucket;
use super::outbox::Transport;
use super::slab::Key;
use super::users::SignedIn;

/// The hub's handle of a connection. It stays valid for one connection only: once that has ended, it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u64", from = "u64")]
pub struct SessionId(pub(super) Key);

impl SessionId {
    /// The handle as a number, for a process that talks to the hub of another.
    pub fn to_bits(self) -> u64 {
        u64::from(self.0.generation) << 32 | u64::from(self.0.index)
    }

    /// The handle of that number. One that the hub did not give out names nothing.
    pub fn from_bits(bits: u64) -> SessionId {
        SessionId(Key { index: bits as u32, generation: (bits >> 32) as u32 })
    }
}

impl From<SessionId> for u64 {
    fn from(id: SessionId) -> u64 {
        id.to_bits()
    }
}

impl From<u64> for SessionId {
    fn from(bits: u64) -> SessionId {
        SessionId::from_bits(bits)
    }
}

#[derive(Debug)]
pub(super) struct Session<C> {
    pub(super) conn: C,
    pub(super) subscriptions: Subscriptions,
    pub(super) user: Option<Box<SignedIn>>,
    pub(super) messages: Bucket,
    pub(super) client_events: Bucket,
    /// The first half of its socket id.
    pub(super) tag: u32,
    pub(super) app: AppId,
    pub(super) transport: Transport,
    /// Whether it has shown a signature of the application.
    pub(super) authorized: bool,
}

/// One channel of a session. The channel's member list points back with [`super::channel::Member`], so that either side
/// finds the other without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) channel: u32,
    /// The place in the channel's member list.
    pub(super) position: u32,
}

/// The channels of a session. Most have one, which needs no memory of its own.
#[derive(Debug)]
pub(super) enum Subscriptions {
    None,
    One(Subscription),
    Many(Vec<Subscription>),
}

impl From<Vec<Subscription>> for Subscriptions {
    fn from(subscriptions: Vec<Subscription>) -> Subscriptions {
        match subscriptions[..] {
            [] => Subscriptions::None,
            [only] => Subscriptions::One(only),
            _ => Subscriptions::Many(subscriptions),
        }
    }
}

impl Subscriptions {
    pub(super) fn as_slice(&self) -> &[Subscription] {
        match self {
            Subscriptions::None => &[],
            Subscriptions::One(one) => std::slice::from_ref(one),
            Subscriptions::Many(many) => many,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Subscription] {
        match self {
            Subscriptions::None => &mut [],
            Subscriptions::One(one) => std::slice::from_mut(one),
            Subscriptions::Many(many) => many,
        }
    }

    /// The slot of the subscription to `channel`.
    pub(super) fn slot_of(&self, channel: u32) -> Option<u32> {
        self.as_slice().iter().position(|s| s.channel == channel).map(|slot| slot as u32)
    }

    /// Adds a subscription and returns its slot.
    pub(super) fn push(&mut self, subscription: Subscription) -> u32 {
        match self {
            Subscriptions::None => *self = Subscriptions::One(subscription),
            Subscriptions::One(first) => *self = Subscriptions::Many(vec![*first, subscription]),
            Subscriptions::Many(many) => many.push(subscription),
        }
        (self.as_slice().len() - 1) as u32
    }

    /// Takes out the subscription in `slot`; the last one moves there.
    pub(super) fn swap_remove(&mut self, slot: u32) -> Subscription {
        match self {
            Subscriptions::Many(many) => {
                let removed = many.swap_remove(slot as usize);
                match many[..] {
                    [only] => *self = Subscriptions::One(only),
                    _ => super::slab::shrink(many),
                }
                removed
            }
            Subscriptions::One(one) => {
                assert_eq!(slot, 0, "a session with one subscription has one slot");
                let removed = *one;
                *self = Subscriptions::None;
                removed
            }
            Subscriptions::None => panic!("a session without subscriptions has no slots"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::channel::Member;
    use crate::state::slab::Entry;
    use std::mem::size_of;

    /// What one idle WebSocket with one public channel costs here, when 10,000 are there: the vectors double, so at
    /// worst (just after doubling) each entry pays for two.
    #[test]
    fn an_idle_subscriber_costs_at_most_200_bytes() {
        type Conn = [u64; 2];
        let entry = size_of::<Entry<Session<Conn>>>();
        let subscribers = 10_000_usize;
        let room = subscribers.next_power_of_two();
        let each = (room * (entry + size_of::<Member>())).div_ceil(subscribers);
        assert!(
            each <= 200,
            "{each} bytes: a session's entry is {entry}, a member's {}",
            size_of::<Member>()
        );
        assert!(2 * (entry + size_of::<Member>()) <= 200, "even just after the vectors doubled");
    }

    #[test]
    fn subscriptions_agree_with_a_vector() {
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut subscriptions, mut model) = (Subscriptions::None, Vec::new());
        for n in 0..10_000 {
            if model.is_empty() || (model.len() < 40 && rng.bool()) {
                let s = Subscription { channel: n, position: n };
                model.push(s);
                assert_eq!(subscriptions.push(s) as usize, model.len() - 1);
            } else {
                let slot = rng.usize(0..model.len());
                assert_eq!(subscriptions.swap_remove(slot as u32), model.swap_remove(slot));
            }
            assert_eq!(subscriptions.as_slice(), model);
            assert_eq!(
                matches!(subscriptions, Subscriptions::Many(_)),
                model.len() > 1,
                "one needs no vector"
            );
            assert_eq!(subscriptions.slot_of(n), model.iter().position(|s| s.channel == n).map(|p| p as u32));
        }
    }
}
