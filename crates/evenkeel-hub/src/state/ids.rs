//! Identifiers that peers see, and the keyed hash behind them and behind every map with peer-chosen keys.

#![allow(deprecated, reason = "std's SipHasher is its only hasher with a key; its successor has none")]

use std::fmt;
use std::hash::{BuildHasher, Hasher, SipHasher};

/// A SipHash key. Maps whose keys a peer chooses hash with it, and ids are drawn from it as from a pseudo-random
/// function: who sees many ids learns nothing of the key or of the next.
#[derive(Clone)]
pub(super) struct Keyed {
    keys: (u64, u64),
}

impl Keyed {
    pub(super) fn new(rng: &mut fastrand::Rng) -> Keyed {
        Keyed { keys: (rng.u64(..), rng.u64(..)) }
    }

    pub(super) fn from_keys(keys: (u64, u64)) -> Keyed {
        Keyed { keys }
    }

    /// The keys themselves, which are a secret of the hub.
    pub(super) fn keys(&self) -> (u64, u64) {
        self.keys
    }

    /// The pseudo-random number that belongs to `n`.
    pub(super) fn number(&self, n: u64) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write_u64(n);
        hasher.finish()
    }
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyed(..)")
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher;

    fn build_hasher(&self) -> SipHasher {
        SipHasher::new_with_keys(self.keys.0, self.keys.1)
    }
}

/// A `socket_id`: `TAG.INDEX`. The index is the session's place, so that finding a session by its socket id needs no
/// map; the tag is 32 pseudo-random bits, which tell it from those who had the place before and cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId {
    pub(super) tag: u32,
    pub(super) index: u32,
}

impl SocketId {
    /// Reads a socket id. Ids of other servers need not fit: `None` is returned only for what is not of the form
    /// `digits.digits`, and ids that are, but are not ours, name no session.
    pub fn parse(text: &str) -> Option<SocketId> {
        let (tag, index) = text.split_once('.')?;
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if text.len() > 64 || !digits(tag) || !digits(index) {
            return None;
        }
        match (tag.parse(), index.parse()) {
            (Ok(tag), Ok(index)) if SocketId { tag, index }.to_string() == text => {
                Some(SocketId { tag, index })
            }
            // No slab has this place.
            _ => Some(SocketId { tag: 0, index: u32::MAX }),
        }
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.tag, self.index)
    }
}

/// The id of an event on an SSE stream: `EPOCH-SEQUENCE`.
///
/// The sequence counts the events of one application since the epoch began, over all its channels, so that one id is a
/// position in every channel of a stream. The epoch is 16 hexadecimal digits drawn when the application was added: an id
/// from a hub that has gone has another one and is seen to be stale. A hub that takes over from another goes on with its
/// epochs and sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    pub(super) epoch: u64,
    pub(super) sequence: u64,
}

impl EventId {
    /// Reads what a client sent as `Last-Event-ID`.
    pub fn parse(text: &str) -> Option<EventId> {
        let (epoch, sequence) = text.split_once('-')?;
        let id = EventId { epoch: u64::from_str_radix(epoch, 16).ok()?, sequence: sequence.parse().ok()? };
        // Only the form that we write: no signs, no leading zeros, no capitals.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn socket_ids_round_trip_and_foreign_ones_name_nobody() {
        let id = SocketId { tag: 4_000_000_000, index: 12 };
        assert_eq!(id.to_string(), "4000000000.12");
        assert_eq!(SocketId::parse("4000000000.12"), Some(id));
        for foreign in ["99999999999.1", "1.99999999999", "007.1", "1.01"] {
            assert_eq!(SocketId::parse(foreign).unwrap().index, u32::MAX, "{foreign}");
        }
        for bad in ["", ".", "1.", ".1", "1", "1.2.3", "a.1", "+1.2", "-1.2", "1.2 ", "1,2", "1.2\n"] {
            assert_eq!(SocketId::parse(bad), None, "{bad:?}");
        }
        assert_eq!(SocketId::parse(&format!("{}.1", "1".repeat(64))), None);
    }

    #[test]
    fn event_ids_round_trip_and_nothing_else_is_one() {
        let id = EventId { epoch: 0xabc, sequence: 77 };
        assert_eq!(id.to_string(), "0000000000000abc-77");
        assert_eq!(EventId::parse("0000000000000abc-77"), Some(id));
        for bad in
            ["", "-", "abc-77", "0000000000000abc-077", "0000000000000ABC-77", "0000000000000abc-+7", "x-1"]
        {
            assert_eq!(EventId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_follow_from_the_key_alone() {
        let a = Keyed::new(&mut fastrand::Rng::with_seed(1));
        let b = Keyed::new(&mut fastrand::Rng::with_seed(1));
        let c = Keyed::new(&mut fastrand::Rng::with_seed(2));
        assert_eq!(a.number(5), b.number(5));
        assert_ne!(a.number(5), c.number(5));
        assert_ne!(a.number(5), a.number(6));
    }
}
