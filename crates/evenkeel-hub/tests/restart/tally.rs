//! Who was to get what: every message that was acknowledged while a subscriber was there, once, in its publisher's order.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

/// What happened, in an order without a clock: a number that only grows, the same for all threads.
#[derive(Default)]
pub(super) struct Tally {
    now: AtomicU64,
    /// By publisher and number: before it was sent, and after it was acknowledged.
    published: Mutex<BTreeMap<Message, (u64, u64)>>,
}

/// Publisher and number.
pub(super) type Message = (usize, u64);

/// What one subscription got.
pub(super) struct Session {
    since: u64,
    got: Vec<Message>,
}

impl Tally {
    pub(super) fn now(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    /// A message that was sent at `start` is acknowledged.
    pub(super) fn published(&self, message: Message, start: u64) {
        let end = self.now();
        assert!(self.published.lock().unwrap().insert(message, (start, end)).is_none());
    }

    /// A subscription that was confirmed by now.
    pub(super) fn session(&self) -> Session {
        Session { since: self.now(), got: Vec::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.published.lock().unwrap().len()
    }

    /// Whether a subscription got what it must have: of each publisher all from the first to the last, once and in order,
    /// and whatever was acknowledged before something else was sent that it got.
    pub(super) fn check(&self, session: &Session) {
        let published = self.published.lock().unwrap();
        let mut ranges: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for (publisher, n) in &session.got {
            let (_, last) = ranges.entry(*publisher).or_insert((*n, *n - 1));
            assert_eq!(*n, *last + 1, "each of publisher {publisher}, once and in order");
            *last = *n;
        }
        let last =
            session.got.iter().filter_map(|message| published.get(message)).map(|(start, _)| *start).max();
        let Some(last) = last else { return };
        let must = published.iter().filter(|(_, (start, end))| *start > session.since && *end < last);
        for ((publisher, n), _) in must {
            let got = ranges.get(publisher).is_some_and(|(first, last)| (first..=last).contains(&n));
            assert!(got, "{n} of {publisher} is missed; of each publisher it has {ranges:?}");
        }
    }
}

impl Session {
    /// A message came. Its text is `PUBLISHER NUMBER`; false for any other.
    pub(super) fn takes(&mut self, message: &Value) -> bool {
        assert_eq!((&message["event"], &message["channel"]), (&"news".into(), &"c".into()), "{message}");
        let text = message["data"].as_str().unwrap();
        let Some((publisher, n)) = text.split_once(' ') else { return false };
        self.got.push((publisher.parse().unwrap(), n.parse().unwrap()));
        true
    }
}
