//! Slow and silent peers.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::Limits;
use evenkeel::sim::blocking::TcpStream;
use evenkeel::{Backend, time};

use crate::support::{Probe, Seen, Server, no_limits};

on_every_kernel! {
    silence_meets_the_idle_timeout,
    traffic_in_either_direction_is_not_silence,
    a_first_message_that_never_comes_meets_the_message_deadline,
    a_message_that_trickles_in_meets_its_deadline,
    a_message_that_is_done_in_time_is_fine,
    a_message_slower_than_the_minimum_rate_is_ended,
    limits_hold_whatever_the_handler_paused,
    short_limits_are_kept_beside_long_ones,
}

const LIMIT: Duration = Duration::from_millis(120);

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = no_limits();
    set(&mut limits);
    limits
}

/// Waits for the end and says how long it took by the loop's clock, and why.
fn end_of(s: &mut Server, seen: &Rc<Seen>, since: std::time::Instant) -> (Duration, &'static str) {
    s.until("it was ended", || seen.closed());
    (s.h.now() - since, seen.why())
}

/// Sends a byte every 20 ms for as long as the loop's life lasts.
fn trickle(s: &Server, peer: &TcpStream) {
    let peer = RefCell::new(peer.try_clone().unwrap());
    s.h.spawn(async move {
        while peer.borrow_mut().write_all(b".").is_ok() {
            time::sleep(Duration::from_millis(20)).await;
        }
    })
    .detach();
}

fn silence_meets_the_idle_timeout(backend: Backend) {
    let mut s = Server::with_limits(backend, limits(|l| l.idle_timeout = Some(LIMIT)));
    let (mut peer, seen) = s.pair(Probe::new());
    s.turns(2);
    let since = s.h.now();
    peer.write_all(b"x").unwrap();
    let (time, why) = end_of(&mut s, &seen, since);
    assert_eq!(why, "idle timeout");
    assert!(time >= LIMIT, "{time:?}");
}

/// The machine may stop for longer than the limit; then it is tried again.
fn traffic_in_either_direction_is_not_silence(backend: Backend) {
    assert!(
        (0..5).any(|_| both_stay_open(backend)),
        "talking or being talked to was taken for silence, each time"
    );
}

fn both_stay_open(backend: Backend) -> bool {
    let mut s = Server::with_limits(backend, limits(|l| l.idle_timeout = Some(LIMIT)));
    let (peer, talks) = s.pair(Probe::new());
    trickle(&s, &peer);
    let (mut other, listens) = s.pair(Probe::new());
    other.write_all(b"first message").unwrap();
    let (h, id) = (s.h.clone(), listens.id());
    s.h.spawn(async move {
        while h.write(id, b".").is_ok() {
            time::sleep(Duration::from_millis(20)).await;
        }
    })
    .detach();
    let (mut third, silent) = s.pair(Probe::new());
    third.write_all(b"hello").unwrap();
    s.until("the silent one is ended", || silent.closed());
    let _ = s.turns_in(2 * LIMIT);
    (talks.why(), listens.why()) == ("open", "open")
}

fn a_first_message_that_never_comes_meets_the_message_deadline(backend: Backend) {
    let mut s = Server::with_limits(backend, limits(|l| l.message_deadline = Some(LIMIT)));
    s.turns(1);
    let since = s.h.now();
    let (_peer, seen) = s.pair(Probe::new());
    let (mut good, fine) = s.pair(Probe::new());
    good.write_all(b"x").unwrap();
    let (time, why) = end_of(&mut s, &seen, since);
    assert!(why == "message timeout" && time >= LIMIT, "{why} after {time:?}");
    let _ = s.turns_in(2 * LIMIT);
    assert_eq!(fine.why(), "open", "bytes are a message to a handler that does not frame");
}

fn a_message_that_trickles_in_meets_its_deadline(backend: Backend) {
    let both = limits(|l| (l.message_deadline, l.idle_timeout) = (Some(LIMIT), Some(LIMIT)));
    let mut s = Server::with_limits(backend, both);
    let framed = Probe::new().on_open(|conn| conn.message_started());
    s.turns(1);
    let since = s.h.now();
    let (peer, seen) = s.pair(framed);
    trickle(&s, &peer);
    let (time, why) = end_of(&mut s, &seen, since);
    assert!(why == "message timeout" && time >= LIMIT, "{why} after {time:?}");
    assert!(seen.len() > 1);
}

fn a_message_that_is_done_in_time_is_fine(backend: Backend) {
    let mut s = Server::with_limits(backend, limits(|l| l.message_deadline = Some(LIMIT)));
    let framed = Probe::new().on_open(|conn| conn.message_started()).on_data(|conn, _| conn.message_done());
    let (mut peer, seen) = s.pair(framed);
    peer.write_all(b"whole").unwrap();
    s.until("it was heard", || seen.len() == 5);
    let _ = s.turns_in(3 * LIMIT);
    assert_eq!(seen.why(), "open");
    // The next one has a deadline of its own.
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        conn.message_done();
        conn.message_started();
    }));
    peer.write_all(b"whole and a part").unwrap();
    s.until("it was heard", || seen.chunks.get() == 1);
    let since = s.h.now();
    let (time, why) = end_of(&mut s, &seen, since);
    assert!(why == "message timeout" && time >= LIMIT - Duration::from_millis(2), "{why} after {time:?}");
}

fn a_message_slower_than_the_minimum_rate_is_ended(backend: Backend) {
    let rate = limits(|l| (l.min_rate, l.rate_grace) = (1000, LIMIT));
    let mut s = Server::with_limits(backend, rate);
    let framed = || Probe::new().on_open(|conn| conn.message_started());
    s.turns(1);
    let since = s.h.now();
    let (slow, seen) = s.pair(framed());
    trickle(&s, &slow);
    let (mut fast, well) = s.pair(framed());
    fast.write_all(&[1; 100_000]).unwrap();
    let (_idle, calm) = s.pair(Probe::new());
    let (time, why) = end_of(&mut s, &seen, since);
    assert!(why == "too slow" && time >= LIMIT, "{why} after {time:?}");
    let _ = s.turns_in(LIMIT);
    assert_eq!((well.why(), calm.why()), ("open", "open"), "only an announced message has a rate");
}

fn limits_hold_whatever_the_handler_paused(backend: Backend) {
    let mut s = Server::with_limits(backend, limits(|l| l.idle_timeout = Some(LIMIT)));
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| conn.pause()));
    peer.write_all(b"x").unwrap();
    s.until("it was heard", || seen.len() == 1);
    drop(peer);
    s.until("it was ended", || seen.closed());
    assert_eq!(seen.why(), "idle timeout");
}

/// A pool of patient limits came first; the sweep must not keep its pace.
fn short_limits_are_kept_beside_long_ones(backend: Backend) {
    let mut s =
        Server::with_limits(backend, limits(|l| l.idle_timeout = Some(Duration::from_secs(24 * 3600))));
    let pool = s.h.pool(limits(|l| l.message_deadline = Some(LIMIT)));
    let (stream, _peer) = crate::asynchronous::pair(&mut s.events);
    let probe = Probe::new();
    let seen = probe.seen.clone();
    let since = s.h.now();
    let _ = pool.adopt(stream, probe, b"");
    assert_eq!(end_of(&mut s, &seen, since).1, "message timeout");
    // And the other way round: a patient pool does not slow the sweep down.
    let _patient = s.h.pool::<Probe>(limits(|l| l.idle_timeout = Some(Duration::MAX)));
    let (stream, _peer) = crate::asynchronous::pair(&mut s.events);
    let probe = Probe::new();
    let seen = probe.seen.clone();
    let _ = pool.adopt(stream, probe, b"");
    assert_eq!(end_of(&mut s, &seen, since).1, "message timeout");
}
