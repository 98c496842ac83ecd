//! What the hub keeps of the past: the last event of cache channels, and the latest events of all channels for streams
//! that come back.
//!
//! Both are bounded four ways: by age, by a channel's count and bytes (history only), and by the application's bytes. An
//! application keeps one queue of its histories and one of its caches, in the order of publication, which with a fixed
//! time to live is the order of expiry too; the oldest goes first, wherever it is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Hub;
use super::app::AppId;
use super::outbox::{Event, Wire};
use super::slab::Key;

/// The books of one kind of keeping in one application.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Oldest first. An entry whose event was dropped by its channel stays until it is met or the queue is swept.
    queue: VecDeque<Retained>,
    /// Entries whose event is still kept.
    live: usize,
    /// What the kept events cost.
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Retained {
    pub(super) expires: u64,
    pub(super) sequence: u64,
    pub(super) channel: Key,
}

impl Retention {
    /// The books of kept events, in the order of their sequences, with what each costs.
    ///
    /// Returns nothing when their times are not in that order too, or one sequence is there twice.
    pub(super) fn from_kept(kept: impl Iterator<Item = (Retained, usize)>) -> Option<Retention> {
        let mut retention = Retention::default();
        for (entry, cost) in kept {
            let in_order = |last: &Retained| last.sequence < entry.sequence && last.expires <= entry.expires;
            if !retention.queue.back().is_none_or(in_order) {
                return None;
            }
            retention.add(entry, cost);
        }
        Some(retention)
    }

    /// When the event of that sequence expires, if it is kept.
    pub(super) fn expiry(&self, sequence: u64) -> Option<u64> {
        let place = self.queue.partition_point(|entry| entry.sequence < sequence);
        self.queue.get(place).filter(|entry| entry.sequence == sequence).map(|entry| entry.expires)
    }

    fn add(&mut self, entry: Retained, cost: usize) {
        self.queue.push_back(entry);
        self.live += 1;
        self.bytes += cost;
    }

    fn forget(&mut self, cost: usize) {
        self.live -= 1;
        self.bytes -= cost;
    }

    /// Whether sweeping out dead entries is worth its cost.
    fn is_crowded(&self) -> bool {
        self.queue.len() > 2 * self.live + 64
    }

    fn pop(&mut self) -> Option<Retained> {
        let entry = self.queue.pop_front();
        if self.queue.capacity() > 64 && self.queue.len() * 4 < self.queue.capacity() {
            self.queue.shrink_to(self.queue.len() * 2);
        }
        entry
    }

    /// Checks that the books are of just these events.
    #[cfg(any(test, fuzzing))]
    pub(super) fn check<'a>(&self, kept: impl Iterator<Item = (Key, &'a Event)>) {
        let (mut live, mut bytes) = (0, 0);
        let entries: std::collections::HashSet<(Key, u64)> =
            self.queue.iter().map(|entry| (entry.channel, entry.sequence)).collect();
        for (key, event) in kept {
            assert!(entries.contains(&(key, sequence(event))));
            live += 1;
            bytes += event.cost();
        }
        assert_eq!((self.live, self.bytes), (live, bytes));
        assert!(self.queue.iter().is_sorted_by(|a, b| a.sequence < b.sequence && a.expires <= b.expires));
    }

    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.queue.front().map(|entry| entry.expires)
    }
}

pub(super) fn sequence(event: &Event) -> u64 {
    event.id.map_or(0, |id| id.sequence)
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// Keeps `event` for the channel: as the one that new subscribers are sent, in the history, or both. The channel may
    /// be gone afterwards, if nobody is in it and the event is larger than what may be kept.
    pub(super) fn keep(&mut self, now: u64, index: u32, event: Arc<Event>, cache: bool, history: bool) {
        let key = self.channels.key(index);
        let id = self.channels[index].app;
        if cache {
            self.keep_cached(now, key, event.clone());
        }
        if history {
            self.keep_history(now, key, event);
        }
        self.trim_app(id);
        if self.channels.get(key).is_some() {
            self.free_if_unused(index);
        }
        self.sweep(id);
    }

    /// Drops what is more than the application may keep.
    pub(super) fn trim_app(&mut self, id: AppId) {
        let limits = &self.apps[id.0 as usize].config.limits;
        let (cache_bytes, history_bytes) = (limits.cache_bytes, limits.history_bytes);
        while self.apps[id.0 as usize].caches.bytes > cache_bytes && self.expire_cached(id) {}
        while self.apps[id.0 as usize].history.bytes > history_bytes && self.expire_history(id) {}
    }

    /// Drops what is more than the channel may keep for streams.
    pub(super) fn trim_channel(&mut self, index: u32) {
        let limits = &self.apps[self.channels[index].app.0 as usize].config.limits;
        let (count, bytes) = (limits.history_count as usize, limits.history_channel_bytes);
        while self.channels[index].past.events.len() > count || self.channels[index].past.bytes > bytes {
            self.drop_oldest(index);
        }
    }

    fn keep_history(&mut self, now: u64, key: Key, event: Arc<Event>) {
        let channel = &mut self.channels[key.index];
        let app = &mut self.apps[channel.app.0 as usize];
        let expires = now.saturating_add(app.config.limits.history_ttl);
        let cost = event.cost();
        app.history.add(Retained { expires, sequence: sequence(&event), channel: key }, cost);
        channel.past.events.push_back(event);
        channel.past.bytes += cost;
        self.trim_channel(key.index);
    }

    fn keep_cached(&mut self, now: u64, key: Key, event: Arc<Event>) {
        let channel = &mut self.channels[key.index];
        let app = &mut self.apps[channel.app.0 as usize];
        let expires = now.saturating_add(app.config.limits.cache_ttl);
        app.caches.add(Retained { expires, sequence: sequence(&event), channel: key }, event.cost());
        if let Some(old) = channel.past.cached.replace(event) {
            app.caches.forget(old.cost());
        }
    }

    /// Drops what is too old, at most `budget` entries of each kind.
    pub(super) fn expire(&mut self, now: u64, id: AppId, budget: usize) {
        let due = |retention: &Retention| retention.next_expiry().is_some_and(|at| at <= now);
        for _ in 0..budget {
            if !due(&self.apps[id.0 as usize].history) || !self.expire_history(id) {
                break;
            }
        }
        for _ in 0..budget {
            if !due(&self.apps[id.0 as usize].caches) || !self.expire_cached(id) {
                break;
            }
        }
    }

    /// When the cached event of the channel ends, if it has one. It is the last entry of its channel in the queue.
    pub(super) fn cached_until(&self, index: u32) -> Option<u64> {
        let channel = &self.channels[index];
        let wanted = sequence(channel.past.cached.as_ref()?);
        self.apps[channel.app.0 as usize].caches.expiry(wanted)
    }

    /// Drops the oldest event of the channel's history.
    fn drop_oldest(&mut self, index: u32) {
        let channel = &mut self.channels[index];
        if let Some(event) = channel.past.events.pop_front() {
            channel.past.bytes -= event.cost();
            channel.past.gone = sequence(&event);
            self.apps[channel.app.0 as usize].history.forget(event.cost());
        }
        if channel.past.events.is_empty() {
            channel.past.events = VecDeque::new();
        }
    }

    /// Takes the oldest entry from the history queue, and its event if it is still kept; false when there is no entry.
    fn expire_history(&mut self, id: AppId) -> bool {
        let Some(entry) = self.apps[id.0 as usize].history.pop() else { return false };
        let oldest = self.channels.get(entry.channel).and_then(|channel| channel.past.events.front());
        if oldest.is_some_and(|event| sequence(event) == entry.sequence) {
            self.drop_oldest(entry.channel.index);
            self.free_if_unused(entry.channel.index);
        }
        true
    }

    /// As [`Hub::expire_history`], for cached events.
    fn expire_cached(&mut self, id: AppId) -> bool {
        let Some(entry) = self.apps[id.0 as usize].caches.pop() else { return false };
        let cached = self.channels.get(entry.channel).and_then(|channel| channel.past.cached.as_ref());
        if let Some(event) = cached.filter(|event| sequence(event) == entry.sequence) {
            self.apps[id.0 as usize].caches.forget(event.cost());
            self.channels[entry.channel.index].past.cached = None;
            self.free_if_unused(entry.channel.index);
        }
        true
    }

    /// Sweeps entries out of the queues whose events their channels have dropped, when there are many.
    fn sweep(&mut self, id: AppId) {
        let (channels, app) = (&self.channels, &mut self.apps[id.0 as usize]);
        if app.history.is_crowded() {
            app.history.queue.retain(|entry| {
                let oldest = channels.get(entry.channel).and_then(|channel| channel.past.events.front());
                oldest.is_some_and(|event| sequence(event) <= entry.sequence)
            });
        }
        if app.caches.is_crowded() {
            app.caches.queue.retain(|entry| {
                let cached = channels.get(entry.channel).and_then(|channel| channel.past.cached.as_ref());
                cached.is_some_and(|event| sequence(event) == entry.sequence)
            });
        }
    }
}
