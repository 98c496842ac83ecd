//! A count that one loop raises and another one lowers.

#![allow(clippy::unwrap_used)]

use loom::thread;

use super::{Live, Tally};
use crate::sync::model;

/// The accepting loop expects connections, of which one comes and ends elsewhere and one does not come, while a third one is moved
/// in and out: the count never falls below what is there, and ends at nothing.
#[test]
fn a_count_never_falls_below_nothing() {
    model(|| {
        let tally = std::sync::Arc::new(Tally::default());
        tally.expect();
        let there = tally.clone();
        let other = thread::spawn(move || {
            let live = Live::expected(&there);
            assert!(there.connections() >= 1);
            drop(live);
        });
        tally.expect();
        tally.lose();
        let here = Live::arrived(&tally);
        assert!((1..=2).contains(&tally.connections()));
        drop(here);
        other.join().unwrap();
        let counts = tally.counts();
        assert_eq!((counts.connections, counts.accepted, counts.refused), (0, 2, 1));
    });
}
