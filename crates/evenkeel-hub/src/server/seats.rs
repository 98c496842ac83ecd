//! Admission: how many connections each address has, and how fast new ones come.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};

use crate::config::LimitSettings;
use crate::proto::addr::AddrKey;

/// A connection's place in the count of its address; [`Seat::FREE`] for addresses that are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat(u32);

impl Seat {
    /// Not counted: loopback, trusted proxies, or no limit.
    pub(super) const FREE: Seat = Seat(u32::MAX);
}

/// Connections for each address, and the bucket of new ones.
pub(super) struct Seats {
    per_address: u32,
    rate: u32,
    /// New connections that may come now, in thousandths.
    tokens: u64,
    refilled: u64,
    by_address: HashMap<AddrKey, u32, Keyed>,
    places: Vec<(AddrKey, u32)>,
    free: Vec<u32>,
}

/// SipHash with keys that peers cannot know (addresses are theirs to choose).
#[derive(Clone)]
pub(super) struct Keyed([u64; 2]);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        self.0.iter().for_each(|key| hasher.write_u64(*key));
        hasher
    }
}

impl Seats {
    pub(super) fn new(limits: &LimitSettings, keys: [u64; 2]) -> Self {
        let rate = limits.accept_rate;
        Seats {
            per_address: limits.max_connections_per_address,
            rate,
            tokens: u64::from(rate) * 1000,
            refilled: 0,
            by_address: HashMap::with_hasher(Keyed(keys)),
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Whether one more connection may be accepted now. A second's worth may come at once.
    pub(super) fn admit(&mut self, now_ms: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let full = u64::from(self.rate) * 1000;
        let grown = now_ms.saturating_sub(self.refilled).saturating_mul(u64::from(self.rate));
        self.tokens = self.tokens.saturating_add(grown).min(full);
        self.refilled = now_ms.max(self.refilled);
        let admitted = self.tokens >= 1000;
        if admitted {
            self.tokens -= 1000;
        }
        admitted
    }

    /// Takes a place for one more connection of an address. None: it has as many as it may.
    pub(super) fn take(&mut self, address: AddrKey) -> Option<Seat> {
        if self.per_address == 0 {
            return Some(Seat::FREE);
        }
        if let Some(&place) = self.by_address.get(&address) {
            let (_, count) = &mut self.places[place as usize];
            if *count >= self.per_address {
                return None;
            }
            *count += 1;
            return Some(Seat(place));
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((address, 0));
            (self.places.len() - 1) as u32
        });
        self.places[place as usize] = (address, 1);
        self.by_address.insert(address, place);
        Some(Seat(place))
    }

    /// The connection is over.
    pub(super) fn leave(&mut self, seat: Seat) {
        if seat == Seat::FREE {
            return;
        }
        let (address, count) = &mut self.places[seat.0 as usize];
        *count -= 1;
        if *count == 0 {
            self.by_address.remove(address);
            self.free.push(seat.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(per_address: u32, rate: u32) -> Seats {
        let limits = LimitSettings {
            max_connections_per_address: per_address,
            accept_rate: rate,
            ..LimitSettings::default()
        };
        Seats::new(&limits, [1, 2])
    }

    fn key(n: u8) -> AddrKey {
        AddrKey::from(std::net::IpAddr::from([10, 0, 0, n]))
    }

    #[test]
    fn an_address_has_as_many_seats_as_it_may_and_no_more() {
        let mut all = seats(2, 0);
        let (a, b) = (all.take(key(1)), all.take(key(1)));
        assert!(a.is_some() && b.is_some() && all.take(key(1)).is_none());
        assert!(all.take(key(2)).is_some(), "another address is not affected");
        all.leave(a.unwrap_or(Seat::FREE));
        assert!(all.take(key(1)).is_some());
    }

    #[test]
    fn i36_empty_addresses_are_forgotten() {
        let mut all = seats(5, 0);
        for n in 0..200 {
            let seat = all.take(key(n)).unwrap_or(Seat::FREE);
            all.leave(seat);
        }
        assert!(all.by_address.is_empty() && all.places.len() == 1);
    }

    #[test]
    fn new_connections_come_at_the_rate() {
        let mut all = seats(0, 10);
        let burst = (0..100).filter(|_| all.admit(5)).count();
        assert_eq!(burst, 10, "a second's worth at once");
        let later = (0..100).filter(|_| all.admit(305)).count();
        assert_eq!(later, 3, "a tenth of a second brings one");
        assert!((0..100).filter(|_| all.admit(1_000_000)).count() == 10, "no more is saved up");
    }
}
