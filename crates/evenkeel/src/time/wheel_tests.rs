//! The wheel against a sorted map, and at every boundary.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Entry, Key, Wheel};

/// xorshift64*: enough for tests, the same on every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A span of any magnitude up to 2^bits, often next to a power of two.
    fn span(&mut self, bits: u64) -> u64 {
        let power = 1u64.checked_shl(self.below(bits + 1) as u32).unwrap_or(u64::MAX);
        match self.below(4) {
            0 => power.saturating_sub(1),
            1 => power.saturating_add(1),
            2 => power,
            _ => self.below(power),
        }
    }
}

/// What the wheel must do, said with a sorted map: deadline and order of arming -> timer.
struct Model {
    now: u64,
    armed: u64,
    timers: BTreeMap<(u64, u64), usize>,
    /// Armed in this pass for a time that has come.
    waiting: BTreeSet<(u64, u64)>,
}

impl Model {
    fn arm(&mut self, deadline: u64, id: usize) -> (u64, u64) {
        self.armed += 1;
        let place = (deadline.max(self.now), self.armed);
        self.timers.insert(place, id);
        if deadline <= self.now {
            self.waiting.insert(place);
        }
        place
    }

    fn disarm(&mut self, place: (u64, u64)) {
        self.timers.remove(&place);
        self.waiting.remove(&place);
    }

    fn begin_pass(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.waiting.clear();
    }

    fn pop(&mut self) -> Option<usize> {
        let due = self.timers.range(..=(self.now, u64::MAX));
        let (&place, &id) = due.into_iter().find(|(place, _)| !self.waiting.contains(place))?;
        self.timers.remove(&place);
        Some(id)
    }

    fn first(&self) -> Option<u64> {
        self.timers.first_key_value().map(|(place, _)| place.0)
    }
}

/// A timer that is in both, and how to find it.
#[derive(Clone, Copy)]
struct Live {
    key: Key,
    place: (u64, u64),
}

struct Both {
    rng: Rng,
    wheel: Wheel<usize>,
    model: Model,
    /// By id; `None` when it has ended.
    live: Vec<Option<Live>>,
    stale: Option<Key>,
    bits: u64,
    fired: u64,
}

impl Both {
    fn new(seed: u64, start: u64, bits: u64) -> Both {
        Both {
            rng: Rng(seed | 1),
            wheel: Wheel::new(start),
            model: Model { now: start, armed: 0, timers: BTreeMap::new(), waiting: BTreeSet::new() },
            live: Vec::new(),
            stale: None,
            bits,
            fired: 0,
        }
    }

    fn deadline(&mut self) -> u64 {
        let span = self.rng.span(self.bits);
        match self.rng.below(16) {
            0 => self.model.now.saturating_sub(span),
            1 => self.model.now,
            2 => u64::MAX,
            _ => self.model.now.saturating_add(span),
        }
    }

    fn insert(&mut self) {
        let (deadline, id) = (self.deadline(), self.live.len());
        let place = self.model.arm(deadline, id);
        let key = self.wheel.insert(deadline, id);
        self.live.push(Some(Live { key, place }));
    }

    /// Some timer, more often a young one; it may have ended.
    fn pick(&mut self) -> Option<usize> {
        if self.live.is_empty() {
            return None;
        }
        let back = self.rng.below(self.live.len().min(200) as u64) as usize;
        Some(self.live.len() - 1 - back)
    }

    fn cancel(&mut self) {
        let Some(id) = self.pick() else { return };
        if let Some(live) = self.live[id].take() {
            assert_eq!(self.wheel.cancel(live.key), Some(id));
            self.model.disarm(live.place);
            self.stale = Some(live.key);
        }
    }

    fn reset(&mut self) {
        let Some(id) = self.pick() else { return };
        let deadline = self.deadline();
        if let Some(live) = self.live[id] {
            assert!(self.wheel.reset(live.key, deadline));
            self.model.disarm(live.place);
            let place = self.model.arm(deadline, id);
            self.live[id] = Some(Live { place, ..live });
        }
    }

    fn edit(&mut self) {
        match self.rng.below(8) {
            0..=3 => self.insert(),
            4..=5 => self.cancel(),
            6 => self.reset(),
            _ => {
                if let Some(key) = self.stale {
                    assert_eq!(self.wheel.get_mut(key), None);
                    assert_eq!(self.wheel.cancel(key), None);
                    assert!(!self.wheel.reset(key, 0));
                }
            }
        }
    }

    /// A pass with edits between the pops, sometimes left half way.
    fn pass(&mut self) {
        let now = match (self.rng.below(4), self.wheel.next_deadline()) {
            (0, Some(next)) => next,
            (1, Some(next)) => next.saturating_sub(1),
            (2, _) => self.model.now,
            _ => self.model.now.saturating_add(self.rng.span(self.bits)),
        };
        self.wheel.begin_pass(now);
        self.model.begin_pass(now);
        let mut budget = if self.rng.below(4) == 0 { self.rng.below(4) } else { u64::MAX };
        while budget > 0 {
            budget -= 1;
            let (due, expected) = (self.wheel.pop(), self.model.pop());
            assert_eq!(due, expected, "at {now}");
            let Some(id) = due else { break };
            self.stale = self.live[id].take().map(|live| live.key);
            self.fired += 1;
            if self.rng.below(3) == 0 {
                self.edit();
            }
        }
    }

    fn step(&mut self) {
        if self.rng.below(8) == 0 {
            self.pass();
        } else {
            self.edit();
        }
        assert_eq!(self.wheel.len(), self.model.timers.len());
        match (self.wheel.next_deadline(), self.model.first()) {
            (Some(next), Some(first)) => assert!(next <= first.max(self.model.now), "{next} misses {first}"),
            (next, first) => assert_eq!(next, first),
        }
    }
}

#[test]
fn i18_i22_i23_agrees_with_a_sorted_map() {
    let starts = [0, 1, 63, 64, (1 << 30) - 1, 1 << 32, (1 << 41) - 7, u64::MAX - (1 << 20)];
    let mut fired = 0;
    for (i, start) in starts.into_iter().enumerate() {
        for bits in [3, 8, 14, 33, 64] {
            let mut both = Both::new(0x9E37_79B9 + 1000 * i as u64 + bits, start, bits);
            for _ in 0..50_000 {
                both.step();
            }
            fired += both.fired;
        }
    }
    assert!(fired > 300_000, "the run was too quiet to prove anything: {fired}");
}

/// Runs until the wheel is empty, waiting exactly as long as it says. Returns (time, value) of each and the
/// number of passes.
fn run_out<T>(wheel: &mut Wheel<T>) -> (Vec<(u64, T)>, usize) {
    let (mut fired, mut passes) = (Vec::new(), 0);
    while let Some(now) = wheel.next_deadline() {
        passes += 1;
        wheel.begin_pass(now);
        while let Some(value) = wheel.pop() {
            fired.push((now, value));
        }
    }
    (fired, passes)
}

#[test]
fn i18_i19_i20_every_boundary_fires_exactly_then_after_one_wait() {
    let near = |k: u32| (-1..=1).map(move |d| 1u64.checked_shl(k).unwrap_or(0).wrapping_add_signed(d));
    for start in (0..64).flat_map(near) {
        let mut wheel = Wheel::new(start);
        let mut expected: Vec<u64> = (0..=64).flat_map(near).map(|span| start.saturating_add(span)).collect();
        for &deadline in expected.iter().rev() {
            wheel.insert(deadline, deadline);
        }
        expected.sort_unstable();
        let (fired, passes) = run_out(&mut wheel);
        assert!(fired.iter().all(|&(at, deadline)| at == deadline), "from {start}");
        assert!(fired.iter().map(|f| f.1).eq(expected.iter().copied()), "from {start}");
        expected.dedup();
        assert_eq!(passes, expected.len(), "from {start}");
    }
}

#[test]
fn i19_one_endless_timer_and_sixty_days_of_short_ones() {
    const DAY: u64 = 86_400_000;
    for start in (20..64).map(|k| (1u64 << k) - 1) {
        let mut wheel = Wheel::new(start);
        wheel.insert(u64::MAX, 0);
        let mut at = start;
        // Steps of about an hour pass the limits of 12.4, 24.8 and 49.7 days.
        while at < start + 60 * DAY {
            let deadline = at + 3_599_999;
            wheel.insert(deadline, deadline);
            assert_eq!(wheel.next_deadline(), Some(deadline));
            wheel.begin_pass(deadline - 1);
            assert_eq!(wheel.pop(), None);
            wheel.begin_pass(deadline);
            assert_eq!(wheel.pop(), Some(deadline));
            assert_eq!(wheel.pop(), None);
            at = deadline;
        }
        assert_eq!(wheel.next_deadline(), Some(u64::MAX));
        assert_eq!(wheel.len(), 1);
    }
}

#[test]
fn a_deadline_in_the_past_fires_in_the_next_pass() {
    let mut wheel = Wheel::new(1000);
    wheel.insert(1000, 'a');
    wheel.insert(0, 'b');
    assert_eq!(wheel.next_deadline(), Some(1000));
    assert_eq!(wheel.pop(), None, "no pass has begun");
    wheel.begin_pass(1000);
    assert_eq!((wheel.pop(), wheel.pop(), wheel.pop()), (Some('a'), Some('b'), None));
}

#[test]
fn i22_a_timer_that_arms_itself_again_fires_once_in_a_pass() {
    let mut wheel = Wheel::new(0);
    for id in 0..1000 {
        wheel.insert(0, id);
    }
    for now in [0, 0, 7] {
        wheel.begin_pass(now);
        for id in 0..1000 {
            assert_eq!(wheel.pop(), Some(id));
            wheel.insert(if id % 2 == 0 { 0 } else { now }, id);
        }
        assert_eq!(wheel.pop(), None);
    }
}

#[test]
fn i22_self_arming_timers_do_not_keep_others_from_their_turn() {
    let mut wheel = Wheel::new(0);
    for _ in 0..10 {
        wheel.insert(0, "busy");
    }
    wheel.insert(5, "patient");
    // Each pass is left after fewer timers than are due.
    let found = (1..=20).find(|&now| {
        wheel.begin_pass(now);
        (0..5).any(|_| match wheel.pop() {
            Some("busy") => {
                wheel.insert(0, "busy");
                false
            }
            other => other == Some("patient"),
        })
    });
    assert!(found.is_some_and(|pass| pass <= 8), "{found:?}");
}

#[test]
fn i23_a_due_timer_can_be_cancelled_and_reset_during_the_pass() {
    let mut wheel = Wheel::new(0);
    let keys: Vec<Key> = (0..4).map(|id| wheel.insert(10, id)).collect();
    wheel.begin_pass(10);
    assert_eq!(wheel.pop(), Some(0));
    assert_eq!(wheel.cancel(keys[0]), None, "it has fired");
    assert_eq!(wheel.cancel(keys[1]), Some(1));
    assert!(wheel.reset(keys[2], 10), "due, so armed for the next pass");
    assert_eq!((wheel.pop(), wheel.pop()), (Some(3), None));
    assert_eq!(wheel.get_mut(keys[2]), Some(&mut 2));
    wheel.begin_pass(10);
    assert_eq!((wheel.pop(), wheel.pop()), (Some(2), None));
}

#[test]
fn i20_cancelled_timers_cost_at_most_one_empty_pass_each() {
    let mut rng = Rng(77);
    let mut wheel = Wheel::new(0);
    let keys: Vec<Key> = (0..2000).map(|_| wheel.insert(1 + rng.below(1 << 24), ())).collect();
    let last = wheel.insert(1 << 25, ());
    for key in keys {
        wheel.cancel(key).unwrap();
    }
    let (fired, passes) = run_out(&mut wheel);
    assert_eq!((fired, passes), (vec![(1 << 25, ())], 1), "empty slots are not visited");
    assert_eq!(wheel.get_mut(last), None);

    let mut wheel = Wheel::new(0);
    let cancelled: Vec<Key> = (0..50).map(|i| wheel.insert(4096 + i, 0)).collect();
    wheel.insert(4096 + 60, 1);
    for key in cancelled {
        wheel.cancel(key).unwrap();
    }
    let (fired, passes) = run_out(&mut wheel);
    assert_eq!(fired, [(4096 + 60, 1)]);
    assert!(passes <= 2, "{passes}");
}

#[test]
fn time_does_not_run_backwards() {
    let mut wheel = Wheel::new(100);
    wheel.insert(150, ());
    wheel.begin_pass(140);
    assert_eq!(wheel.pop(), None);
    wheel.begin_pass(20);
    assert_eq!((wheel.pop(), wheel.next_deadline()), (None, Some(150)));
    wheel.begin_pass(150);
    assert_eq!(wheel.pop(), Some(()));
}

#[test]
fn a_key_never_matches_a_later_timer() {
    let mut wheel = Wheel::new(0);
    let old = wheel.insert(5, "old");
    wheel.cancel(old).unwrap();
    let new = wheel.insert(5, "new");
    assert_eq!((old.index, new.index), (0, 0), "the entry is used again");
    assert_eq!((wheel.get_mut(old).is_none(), wheel.cancel(old), wheel.reset(old, 9)), (true, None, false));
    assert_eq!(wheel.cancel(new), Some("new"));

    // The last generation: the entry is given up.
    wheel.entries[0].generation = u32::MAX;
    let last = wheel.insert(5, "last");
    assert_eq!(wheel.cancel(last), Some("last"));
    assert_eq!((wheel.cancel(last), wheel.len()), (None, 0));
    assert_eq!(wheel.insert(5, "next").index, 1);
}

#[test]
fn values_are_dropped_once() {
    let value = Rc::new(());
    let mut wheel = Wheel::new(0);
    let keys: Vec<Key> = (0..10).map(|i| wheel.insert(i, Rc::clone(&value))).collect();
    drop(wheel.cancel(keys[3]));
    wheel.begin_pass(5);
    drop(wheel.pop());
    assert_eq!(Rc::strong_count(&value), 9);
    drop(wheel);
    assert_eq!(Rc::strong_count(&value), 1);
}

#[test]
fn a_timer_costs_little_memory() {
    assert_eq!(size_of::<Key>(), 8);
    assert_eq!(size_of::<Entry<std::task::Waker>>() - size_of::<std::task::Waker>(), 24);
}
