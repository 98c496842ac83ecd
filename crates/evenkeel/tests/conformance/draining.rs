//! Draining: handlers are told, may finish, and are closed in their turn.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{Closing, Drain, Drained};
use evenkeel::sim::blocking::TcpStream;
use evenkeel::{Backend, time};

use crate::support::{Probe, Seen, Server, connect, exactly, pattern, read_all};

on_every_kernel! {
    i48_connections_finish_by_themselves_or_are_closed,
    whoever_waits_in_the_backlog_is_served_and_told,
    a_drain_ends_when_nobody_is_left,
    i48_closings_are_spread_over_their_time,
    what_cannot_be_flushed_is_reset_at_the_end,
    a_drain_of_one_pool_leaves_others_alone,
}

const LONG: Duration = Duration::from_secs(20);

fn within(grace: u64, spread: u64, flush: u64) -> Drain {
    let mut drain = Drain::new(48);
    drain.grace = Duration::from_millis(grace);
    drain.spread = Duration::from_millis(spread);
    drain.flush = Duration::from_millis(flush);
    drain
}

fn run(s: &mut Server, drain: &Drain) -> Drained {
    let pool = s.pool.clone();
    s.events.block_on(async move { pool.drain(drain).await }).unwrap()
}

fn counts(drained: Drained) -> (usize, usize, usize) {
    (drained.finished, drained.closed, drained.forced)
}

fn i48_connections_finish_by_themselves_or_are_closed(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut polite, polite_seen) = s.pair(Probe::new().on_drain(|conn| {
        conn.write(b"bye");
        conn.close();
    }));
    let (mut silent, silent_seen) = s.pair(Probe::new().on_close(|_, _| ()));
    let outcome = run(&mut s, &within(30, 30, 20_000));
    assert_eq!(counts(outcome), (1, 1, 0));
    assert_eq!((polite_seen.why(), silent_seen.why()), ("closed", "draining"));
    assert_eq!((polite_seen.told_to_finish.get(), silent_seen.told_to_finish.get()), (1, 1));
    assert_eq!(read_all(&mut polite).0, b"bye");
    let (rest, end) = read_all(&mut silent);
    assert!(rest.is_empty() && end.is_ok(), "an orderly end: {end:?}");
    TcpStream::connect(s.addr).unwrap_err();
}

fn whoever_waits_in_the_backlog_is_served_and_told(backend: Backend) {
    let mut s = Server::new(backend);
    let probe = || {
        Probe::echo().on_drain(|conn| {
            conn.write(b"bye");
        })
    };
    let seen: Vec<_> = (0..30).map(|_| s.expect(probe())).collect();
    let mut peers: Vec<_> = (0..30).map(|_| connect(s.addr)).collect();
    let outcome = run(&mut s, &within(50, 0, 20_000));
    assert_eq!(counts(outcome), (0, 30, 0));
    assert!(seen.iter().all(|seen| seen.told_to_finish.get() == 1 && seen.why() == "draining"));
    for peer in &mut peers {
        let (rest, end) = read_all(peer);
        assert!(rest == b"bye" && end.is_ok(), "{rest:?} {end:?}");
    }
}

fn a_drain_ends_when_nobody_is_left(backend: Backend) {
    let mut s = Server::new(backend);
    let mut drain = within(0, 0, 0);
    (drain.grace, drain.spread, drain.flush) = (100 * LONG, LONG, LONG);
    drain.listeners = Closing::Now;
    let (_peer, _) = s.pair(Probe::new().on_drain(|conn| conn.close()));
    // In minutes the watchdog would have come.
    assert_eq!(counts(run(&mut s, &drain)), (1, 0, 0));
    assert_eq!(counts(run(&mut s, &drain)), (0, 0, 0), "and at once when nobody is there");
}

fn i48_closings_are_spread_over_their_time(backend: Backend) {
    const PEERS: usize = 40;
    const SPREAD: u64 = 200;
    let mut s = Server::new(backend);
    let closed: Rc<RefCell<Vec<_>>> = Rc::default();
    let _peers: Vec<_> = (0..PEERS)
        .map(|at| {
            let closed = closed.clone();
            s.pair(Probe::new().on_close(move |_, _| closed.borrow_mut().push((at, time::now()))))
        })
        .collect();
    let start = time_now(&mut s);
    assert_eq!(counts(run(&mut s, &within(0, SPREAD, 20_000))), (0, PEERS, 0));
    let closed = closed.borrow();
    // Late on a busy machine, but never early: at most so many as are due.
    for (nth, (_, when)) in closed.iter().enumerate() {
        let earliest = Duration::from_millis(SPREAD) * nth as u32 / PEERS as u32;
        let after = when.duration_since(start) + Duration::from_millis(1);
        assert!(after >= earliest, "the {nth}th after {after:?}");
    }
    let order: Vec<_> = closed.iter().map(|(at, _)| *at).collect();
    assert!(!order.is_sorted(), "in random order");
}

fn time_now(s: &mut Server) -> std::time::Instant {
    s.events.block_on(async { time::now() }).unwrap()
}

fn what_cannot_be_flushed_is_reset_at_the_end(backend: Backend) {
    let mut s = Server::new(backend);
    let flood = pattern(16 << 20);
    let (mut slow, seen) = s.pair(Probe::new().on_drain(move |conn| {
        conn.write(&flood);
    }));
    assert_eq!(counts(run(&mut s, &within(0, 0, 50))), (0, 0, 1));
    assert_eq!(seen.why(), "flush timeout");
    let mut all = Vec::new();
    slow.read_to_end(&mut all).unwrap_err();
}

fn a_drain_of_one_pool_leaves_others_alone(backend: Backend) {
    let mut s = Server::new(backend);
    let h = s.h.clone();
    let other = h.listen("127.0.0.1:0", |_| Probe::echo()).unwrap();
    let at = h.listener_addr(other).unwrap().socket_addr().unwrap();
    let (_gone, gone): (_, Rc<Seen>) = s.pair(Probe::new());
    let mut stays = connect(at);
    assert_eq!(counts(run(&mut s, &within(0, 0, 20_000))), (0, 1, 0));
    assert!(gone.closed());
    stays.write_all(b"ping").unwrap();
    s.until("the other pool answers", || h.stats().bytes_out == 4);
    assert_eq!(exactly(&mut stays, 4), b"ping");
    let all = s.events.block_on({
        let h = h.clone();
        async move { h.drain(&within(0, 0, 20_000)).await }
    });
    assert_eq!(counts(all.unwrap()), (0, 1, 0));
    assert!(TcpStream::connect(at).is_err());
}
