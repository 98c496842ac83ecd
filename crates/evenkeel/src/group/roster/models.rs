//! Loops that begin, are asked to stop, and end together.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use loom::thread;

use super::Roster;
use crate::remote::{Inbox, Remote};
use crate::sync::{Arc, Bell, model};

/// The life of a loop's thread, from its start to its end, which a stop brings about.
fn live(roster: &Roster, index: usize) {
    let (bell, wake) = Bell::new();
    let remote = Remote::new(std::sync::Arc::new(Inbox::new(wake)));
    roster.runs(index, &remote);
    let calls = &remote.inbox.calls;
    while !(calls.take_wake() && calls.take_stop()) {
        bell.wait();
    }
    roster.has_ended(index);
}

fn start(roster: &Arc<Roster>, index: usize) -> thread::JoinHandle<()> {
    roster.starts(index);
    let roster = roster.clone();
    thread::spawn(move || live(&roster, index))
}

/// A group is stopped as a loop of it begins: that hears it, and whoever waits sees it end.
#[test]
fn i02_a_stop_reaches_a_loop_that_has_yet_to_begin() {
    model(|| {
        let roster = Arc::new(Roster::new(1));
        let thread = start(&roster, 0);
        roster.stop();
        assert!(roster.wait(Duration::MAX).is_empty());
        thread.join().unwrap();
    });
}

/// One loop ends by itself, maybe before the other begins: that one ends too.
#[test]
fn i02_loops_end_together() {
    model(|| {
        let roster = Arc::new(Roster::new(2));
        roster.starts(1);
        let thread = start(&roster, 0);
        roster.has_ended(1);
        assert!(roster.wait(Duration::MAX).is_empty());
        thread.join().unwrap();
    });
}
