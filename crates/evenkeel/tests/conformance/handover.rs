//! A connection changes its owner, with all that it is in the middle of.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{Limits, Reply, Stream};
use evenkeel::sim::blocking;
use evenkeel::{Backend, Flow, Message, time};

use crate::asynchronous::pair;
use crate::support::{Probe, Server, event_loop, no_limits, pattern, read_all, until};

on_every_kernel! {
    i43_bytes_that_a_handler_never_saw_reach_the_next_owner,
    bytes_that_come_with_a_connection_are_its_first_message,
    bytes_that_come_with_a_connection_count_for_its_rate,
    a_message_in_progress_is_forgotten_with_its_handler,
    a_stream_that_has_failed_is_not_adopted,
    an_answer_that_is_sent_before_a_gap_is_not_the_end,
}

fn handed_over() -> (Rc<RefCell<Option<Stream>>>, Probe) {
    let place: Rc<RefCell<Option<Stream>>> = Rc::default();
    let into = place.clone();
    (place, Probe::new().on_open(move |conn| *into.borrow_mut() = conn.detach(b"")))
}

fn i43_bytes_that_a_handler_never_saw_reach_the_next_owner(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut stream, mut peer) = pair(&mut s.events);
    peer.write_all(b"read already").unwrap();
    // A short read: the kernel has nothing more to report.
    let read = s.events.block_on(async { stream.read(&mut [0; 100]).await.map(|n| (n, stream)) });
    let (n, stream) = read.unwrap().unwrap();
    let (place, probe) = handed_over();
    let _ = s.pool.adopt(stream, probe, &b"read already"[..n]);
    s.until("the handler has passed it on", || place.borrow().is_some());
    s.turns(5);
    let mut stream = place.take().unwrap();
    let wait = async { time::timeout(Duration::from_secs(10), stream.read_with(|b, _| b.to_vec())).await };
    let got = s.events.block_on(wait).unwrap();
    assert_eq!(got.expect("the bytes are there").unwrap().unwrap(), b"read already");
}

/// A server whose connections of the second pool have these limits.
fn adopted(backend: Backend, limits: Limits, unread: &[u8], probe: Probe) -> &'static str {
    let mut s = Server::new(backend);
    let pool = s.h.pool(limits);
    let (stream, _peer) = pair(&mut s.events);
    let seen = probe.seen.clone();
    let _ = pool.adopt(stream, probe, unread);
    s.until("it was ended", || seen.closed());
    seen.why()
}

fn bytes_that_come_with_a_connection_are_its_first_message(backend: Backend) {
    let mut limits = no_limits();
    limits.message_deadline = Some(Duration::from_millis(40));
    limits.idle_timeout = Some(Duration::from_millis(200));
    assert_eq!(adopted(backend, limits.clone(), b"", Probe::new()), "message timeout");
    assert_eq!(adopted(backend, limits, b"hello", Probe::new()), "idle timeout");
}

fn bytes_that_come_with_a_connection_count_for_its_rate(backend: Backend) {
    let mut limits = no_limits();
    limits.message_deadline = Some(Duration::from_millis(300));
    limits.min_rate = 1000;
    limits.rate_grace = Duration::from_millis(20);
    let framed = || Probe::new().on_open(|conn| conn.message_started());
    assert_eq!(adopted(backend, limits.clone(), b"slow", framed()), "too slow");
    assert_eq!(adopted(backend, limits, &pattern(1_000_000), framed()), "message timeout");
}

fn a_message_in_progress_is_forgotten_with_its_handler(backend: Backend) {
    let mut limits = no_limits();
    limits.min_rate = 1000;
    limits.rate_grace = Duration::from_millis(10);
    limits.message_deadline = Some(Duration::from_millis(300));
    let mut s = Server::with_limits(backend, limits);
    let place: Rc<RefCell<Option<Stream>>> = Rc::default();
    let into = place.clone();
    let (_peer, _) = s.pair(Probe::new().on_open(move |conn| {
        conn.message_started();
        *into.borrow_mut() = conn.detach(b"");
    }));
    let probe = Probe::new();
    let seen = probe.seen.clone();
    let _ = s.pool.adopt(place.take().unwrap(), probe, b"");
    s.until("it was ended", || seen.closed());
    assert_eq!(seen.why(), "message timeout", "its handler announced no message");
}

/// A stream that was ended because more was queued than it may; the peer has not read.
fn failed(stream: &mut Stream) {
    let message = Message::from(pattern(100_000));
    while stream.send(&message) != Flow::Closed {}
}

fn a_stream_that_has_failed_is_not_adopted(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut stream, mut peer) = pair(&mut s.events);
    failed(&mut stream);
    let before = s.h.stats().sources;
    assert!(s.pool.adopt(stream, Probe::new(), b"").is_err());
    let thread = blocking::spawn(move || read_all(&mut peer));
    let h = s.h.clone();
    s.until("it is released", || h.stats().sources < before);
    assert!(thread.join().unwrap().1.is_err(), "bytes are missing: the peer is told by a reset");
}

fn an_answer_that_is_sent_before_a_gap_is_not_the_end(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut stream, mut peer) = pair(&mut events);
    peer.write_all(b"ask").unwrap();
    let stream = events.block_on(async move {
        let message = Message::from(pattern(100_000));
        let answer = |_: &[u8], reply: &mut Reply<'_>| {
            reply.write(b"leaves with this turn");
            while reply.send(&message) != Flow::Closed {}
        };
        stream.read_with(answer).await.unwrap();
        stream
    });
    for _ in 0..5 {
        events.poll().unwrap();
    }
    // What came before the gap may arrive; an end may not.
    let thread = blocking::spawn(move || read_all(&mut peer));
    for _ in 0..50 {
        events.poll().unwrap();
    }
    drop(stream);
    let h = events.handle();
    until(&mut events, "it is released", || h.stats().sources == 0);
    assert!(thread.join().unwrap().1.is_err(), "a stream with a gap does not end as a whole one does");
}
