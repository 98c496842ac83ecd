//! A bounded memory of requests already seen, so that a recorded request cannot be sent again.
//!
//! Off by default, because an honest client may send the same request twice: the SDKs stamp requests in whole seconds, so
//! the same event published twice within a second is byte for byte the same request. Applications that give each event an
//! id of its own lose nothing by turning it on.

use std::collections::BTreeSet;

use super::request::{TIMESTAMP_TOLERANCE_SECONDS, Verified};

/// Signatures that are still within the time in which they would be accepted.
///
/// Only verified requests are remembered, so only the holder of a secret can fill it. When it is full, the entry that ends
/// soonest is forgotten early, and counted: a capacity below the number of requests in 20 minutes weakens the protection
/// and never stops publishing.
#[derive(Debug)]
pub struct ReplayCache {
    capacity: usize,
    /// Ordered by the last second at which the signature would still be accepted. The request itself determines that
    /// second, so one ordered set serves both the search and the expiry, and no hasher is needed.
    seen: BTreeSet<(u64, [u8; 32])>,
    forgotten_early: u64,
}

/// The request was accepted once before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed;

impl ReplayCache {
    /// A cache of at most `capacity` requests, about 64 bytes each.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, seen: BTreeSet::new(), forgotten_early: 0 }
    }

    /// Remembers `request`. `now` is the Unix time in seconds, the one that it was verified with.
    ///
    /// # Errors
    /// [`Replayed`] when it was remembered before.
    pub fn admit(&mut self, request: &Verified, now: u64) -> Result<(), Replayed> {
        while self.seen.first().is_some_and(|&(until, _)| until < now) {
            self.seen.pop_first();
        }
        let entry = (request.timestamp.saturating_add(TIMESTAMP_TOLERANCE_SECONDS), request.signature.0);
        if !self.seen.insert(entry) {
            return Err(Replayed);
        }
        if self.seen.len() > self.capacity {
            self.seen.pop_first();
            self.forgotten_early += 1;
        }
        Ok(())
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// How many were forgotten while they could still have been replayed, for want of room.
    pub fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }
}
