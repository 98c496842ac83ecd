//! What is written leaves in order, together, from wherever it was written; and every queue is bounded.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::net::{ConnectOptions, ListenOptions};
use evenkeel::sim::blocking::{self, TcpListener};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, Flow, Message};

use crate::support::{
    Probe, Server, assert_same, exactly, no_limits, pattern, read_all, read_now, reset_on_close,
};

on_every_kernel! {
    writes_of_one_call_leave_as_one_send,
    messages_queued_before_the_connection_is_made_leave_as_one_send,
    i05_writes_of_all_kinds_and_sizes_leave_in_order,
    a_shared_message_is_stored_once,
    watermarks_ask_to_hold_and_tell_when_drained,
    i41_a_queue_has_a_cap_in_bytes,
    i41_a_queue_has_a_cap_in_messages,
    i41_a_writer_without_restraint_is_stopped,
    i41_a_queue_that_stalls_ends_the_connection,
    i03_writes_from_everywhere_leave_a_sleeping_loop,
    a_broadcast_larger_than_the_cork_reaches_everybody,
    i32_writes_to_a_peer_that_has_reset_end_the_connection_only,
    empty_writes_are_nothing,
}

/// Writes bytes, as a shared message or not.
type Sink<'a> = Box<dyn FnMut(&[u8], bool) + 'a>;

fn writes_of_one_call_leave_as_one_send(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        for i in 0..20 {
            conn.write(format!("part {i} ").as_bytes());
            conn.send(&Message::from("and "));
        }
    }));
    let expected: String = (0..20).map(|i| format!("part {i} and ")).collect();
    s.turns(3);
    let before = s.h.stats().sends;
    peer.write_all(b"go").unwrap();
    s.until("it was asked", || seen.chunks.get() == 1);
    s.turns(1);
    assert_eq!(s.h.stats().sends - before, 1);
    let mut one = [0; 4096];
    let n = peer.read(&mut one).unwrap();
    assert_eq!(String::from_utf8_lossy(&one[..n]), expected, "one segment");
}

fn messages_queued_before_the_connection_is_made_leave_as_one_send(backend: Backend) {
    let mut s = Server::new(backend);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let probe = Probe::new();
    let seen = probe.seen.clone();
    let id = s.pool.connect(listener.local_addr().unwrap(), &ConnectOptions::default(), probe).unwrap();
    let big = Message::from(pattern(600));
    let mut expected = Vec::new();
    for i in 0..30 {
        s.h.send(id, &big).unwrap();
        s.h.write(id, format!("{i}").as_bytes()).unwrap();
        expected.extend_from_slice(&big);
        expected.extend_from_slice(format!("{i}").as_bytes());
    }
    assert_eq!(s.h.queued(id), Ok(expected.len()));
    s.until("it is open", || seen.opened.get());
    assert_eq!((s.h.queued(id), s.h.stats().sends), (Ok(0), 1));
    let (mut peer, _) = listener.accept().unwrap();
    assert_same(&exactly(&mut peer, expected.len()), &expected);
}

/// Writes and shared messages of all sizes, from inside and outside of calls, to a peer that is slow now and then.
fn i05_writes_of_all_kinds_and_sizes_leave_in_order(backend: Backend) {
    for seed in 0..if is_simulated() { 2 } else { 6 } {
        let mut options = ListenOptions::default();
        options.send_buffer = (seed % 2 == 0).then_some(8 << 10);
        let mut s = Server::with(backend, no_limits(), options);
        let expected: Rc<RefCell<Vec<u8>>> = Rc::default();
        let rng = Rc::new(RefCell::new(fastrand::Rng::with_seed(seed)));
        let next = {
            let (expected, rng) = (expected.clone(), rng.clone());
            move |mut write: Sink<'_>| {
                let mut rng = rng.borrow_mut();
                for _ in 0..rng.usize(1..6) {
                    let most = [1, 30, 600, 5_000, 20_000, 100_000][rng.usize(..6)];
                    let bytes: Vec<u8> = (0..rng.usize(0..most)).map(|_| rng.u8(..)).collect();
                    expected.borrow_mut().extend_from_slice(&bytes);
                    write(&bytes, rng.bool());
                }
            }
        };
        let inside = next.clone();
        let (mut peer, seen) = s.pair(Probe::new().on_data(move |conn, _| {
            inside(Box::new(|bytes, shared| {
                let flow = if shared { conn.send(&Message::from(bytes)) } else { conn.write(bytes) };
                assert_ne!(flow, Flow::Closed);
            }));
        }));
        let mut got = Vec::new();
        for round in 0..60 {
            if round % 2 == 0 {
                peer.write_all(b"more").unwrap();
            } else {
                let (h, id) = (&s.h, seen.id());
                next(Box::new(|bytes, shared| {
                    let flow = if shared { h.send(id, &Message::from(bytes)) } else { h.write(id, bytes) };
                    assert_ne!(flow, Ok(Flow::Closed));
                }));
            }
            s.turns(2);
            if round % 5 == 4 {
                got.extend(read_now(&mut peer));
            }
        }
        s.until("everything is there", || {
            got.extend(read_now(&mut peer));
            got.len() >= expected.borrow().len()
        });
        assert_same(&got, &expected.borrow());
        assert_eq!(s.h.stats().panics, 0);
    }
}

fn a_shared_message_is_stored_once(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all: Vec<_> = (0..10).map(|_| s.pair(Probe::new())).collect();
    let bytes: Arc<[u8]> = pattern(9_000_000).into();
    let message = Message::from(bytes.clone());
    for (_, seen) in &all {
        s.h.send(seen.id(), &message).unwrap();
    }
    drop(message);
    s.turns(3);
    assert_eq!(Arc::strong_count(&bytes), 11, "one for each connection that has not taken it");
    let readers: Vec<_> =
        all.drain(..5).map(|(mut peer, _)| blocking::spawn(move || exactly(&mut peer, 9_000_000))).collect();
    s.until("half have taken it", || Arc::strong_count(&bytes) == 6);
    for reader in readers {
        assert_same(&reader.join().unwrap(), &bytes);
    }
    drop(all);
    s.until("the rest is gone", || Arc::strong_count(&bytes) == 1);
}

fn watermarks_ask_to_hold_and_tell_when_drained(backend: Backend) {
    let mut limits = no_limits();
    (limits.high_watermark, limits.low_watermark) = (100_000, 20_000);
    let mut s = Server::with_limits(backend, limits);
    let queued_then: Rc<Cell<usize>> = Rc::default();
    let note = queued_then.clone();
    let (mut peer, seen) = s.pair(Probe::new().on_drained(move |conn| note.set(conn.queued())));
    let mut total = 0;
    for _ in 0..2 {
        loop {
            let flow = s.h.write(seen.id(), &[5; 10_000]).unwrap();
            total += 10_000;
            if flow == Flow::Hold {
                break;
            }
            s.turns(1);
        }
        let queued = s.h.queued(seen.id()).unwrap();
        assert!((100_001..=120_000).contains(&queued), "{queued} bytes were queued at the first Hold");
        assert_eq!(s.h.write(seen.id(), b"."), Ok(Flow::Hold), "it goes on being taken");
        total += 1;
        s.turns(5);
        let drained = seen.drained.get();
        assert!(s.h.queued(seen.id()).unwrap() > 0);
        let mut got = 0;
        s.until("on_drained was heard", || {
            got += read_now(&mut peer).len();
            seen.drained.get() > drained
        });
        assert_eq!(seen.drained.get(), drained + 1);
        assert!(queued_then.get() <= 20_000);
        assert_eq!(s.h.write(seen.id(), b"."), Ok(Flow::Go));
        total += 1;
        s.until("all has come", || {
            got += read_now(&mut peer).len();
            got >= total
        });
        assert_eq!((got, seen.drained.get()), (total, drained + 1));
        total = 0;
    }
}

fn i41_a_queue_has_a_cap_in_bytes(backend: Backend) {
    let mut limits = no_limits();
    limits.max_queue_bytes = 200_000;
    let mut s = Server::with_limits(backend, limits);
    let (mut peer, seen) = s.pair(Probe::new());
    let mut taken = 0;
    let h = s.h.clone();
    s.until("the cap is reached", || match h.write(seen.id(), &[1; 50_000]) {
        Ok(Flow::Closed) | Err(_) => true,
        Ok(_) => {
            taken += 50_000;
            assert!(h.queued(seen.id()).unwrap() <= 200_000);
            false
        }
    });
    s.until("it is closed", || seen.closed());
    assert_eq!(seen.why(), "queue full");
    let (got, end) = read_all(&mut peer);
    assert!(got.len() <= taken && end.is_err(), "the peer was reset");
}

fn i41_a_queue_has_a_cap_in_messages(backend: Backend) {
    let mut limits = no_limits();
    limits.max_queue_messages = 100;
    let mut s = Server::with_limits(backend, limits);
    for shared in [false, true] {
        let (_peer, seen) = s.pair(Probe::new());
        // The kernel's buffers are full from here on.
        s.h.write(seen.id(), &pattern(9_000_000)).unwrap();
        let mut taken = 1;
        let message = Message::from("m");
        loop {
            let flow = if shared { s.h.send(seen.id(), &message) } else { s.h.write(seen.id(), b"m") };
            if flow == Ok(Flow::Closed) {
                break;
            }
            flow.unwrap();
            taken += 1;
        }
        assert_eq!(taken, 100, "shared: {shared}");
        s.until("it is closed", || seen.closed());
        assert_eq!(seen.why(), "too many messages queued");
    }
}

fn i41_a_writer_without_restraint_is_stopped(backend: Backend) {
    let mut limits = no_limits();
    limits.max_queue_bytes = 1 << 20;
    let mut s = Server::with_limits(backend, limits);
    let written: Rc<Cell<usize>> = Rc::default();
    let count = written.clone();
    let (mut peer, seen) = s.pair(Probe::new().on_data(move |conn, _| {
        while conn.write(&[9; 1000]) != Flow::Closed {
            count.set(count.get() + 1000);
        }
    }));
    peer.write_all(b"go").unwrap();
    s.until("it is closed", || seen.closed());
    assert_eq!(seen.why(), "queue full");
    assert!(written.get() < 64 << 20, "{} bytes were taken", written.get());
}

fn i41_a_queue_that_stalls_ends_the_connection(backend: Backend) {
    let mut limits = no_limits();
    limits.max_queue_age = Some(Duration::from_millis(80));
    let mut s = Server::with_limits(backend, limits);
    let (_peer, seen) = s.pair(Probe::new());
    let (_other, well) = s.pair(Probe::new());
    s.h.write(well.id(), b"fine").unwrap();
    let bytes = pattern(9_000_000);
    s.turns(1);
    let started = s.h.now();
    s.h.write(seen.id(), &bytes).unwrap();
    s.until("it is closed", || seen.closed());
    assert!(s.h.now() - started >= Duration::from_millis(80));
    assert_eq!((seen.why(), well.why()), ("queue stalled", "open"));
}

fn i03_writes_from_everywhere_leave_a_sleeping_loop(backend: Backend) {
    let mut s = Server::new(backend);
    let (peer, seen) = s.pair(Probe::new());
    let id = seen.id();
    let (mut asker, _) = s.pair(Probe::new().on_data(move |conn, _| {
        conn.handle().write(id, b"call;").unwrap();
    }));
    let remote = s.h.remote();
    s.serve(move |_| {
        let mut peer = peer;
        asker.write_all(b"go").unwrap();
        assert_eq!(exactly(&mut peer, 5), b"call;");
        remote.run(move |h| assert!(h.write(id, b"remote;").is_ok())).unwrap();
        assert_eq!(exactly(&mut peer, 7), b"remote;");
        remote
            .run(move |h| {
                let later = h.clone();
                h.defer(move || assert!(later.write(id, b"deferred;").is_ok()));
            })
            .unwrap();
        assert_eq!(exactly(&mut peer, 9), b"deferred;");
        remote
            .run(move |h| {
                let later = h.clone();
                h.after(Duration::from_millis(2), move || assert!(later.write(id, b"timer;").is_ok()));
            })
            .unwrap();
        assert_eq!(exactly(&mut peer, 6), b"timer;");
        remote
            .run(move |h| {
                let later = h.clone();
                h.spawn(async move {
                    evenkeel::task::yield_now().await;
                    assert!(later.write(id, b"task;").is_ok());
                });
            })
            .unwrap();
        assert_eq!(exactly(&mut peer, 5), b"task;");
    });
}

fn a_broadcast_larger_than_the_cork_reaches_everybody(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all: Vec<_> = (0..60).map(|_| s.pair(Probe::new())).collect();
    let mut expected = Vec::new();
    for round in 0..4 {
        let bytes = pattern(3000 + round);
        let message = Message::from(&bytes[..]);
        for (_, seen) in &all {
            s.h.write(seen.id(), &bytes).unwrap();
            s.h.send(seen.id(), &message).unwrap();
        }
        expected.extend_from_slice(&bytes);
        expected.extend_from_slice(&bytes);
        s.turns(1);
    }
    for (peer, _) in &mut all {
        assert_same(&exactly(peer, expected.len()), &expected);
    }
}

fn i32_writes_to_a_peer_that_has_reset_end_the_connection_only(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut witness, _) = s.pair(Probe::echo());
    for size in [1, 20_000, 5_000_000] {
        for shared in [false, true] {
            let (peer, seen) = s.pair(Probe::new().deaf_to_eof());
            s.turns(2);
            reset_on_close(&peer);
            drop(peer);
            if shared {
                s.h.send(seen.id(), &Message::from(pattern(size))).unwrap();
            } else {
                s.h.write(seen.id(), &pattern(size)).unwrap();
            }
            s.until("it is over", || seen.closed());
            assert!(
                matches!(seen.error(), Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
                "{:?}",
                seen.reason
            );
        }
    }
    witness.write_all(b"still there?").unwrap();
    assert_eq!(s.answer(&mut witness, 12), b"still there?");
}

fn empty_writes_are_nothing(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        assert_eq!(conn.write(b""), Flow::Go);
        assert_eq!(conn.send(&Message::from("")), Flow::Go);
        conn.write(b"x");
        assert_eq!(conn.write(b""), Flow::Go);
        assert_eq!(conn.send(&Message::from("")), Flow::Go);
    }));
    peer.write_all(b"go").unwrap();
    s.until("it was asked", || seen.chunks.get() == 1);
    s.turns(2);
    assert_eq!((exactly(&mut peer, 1), s.h.queued(seen.id())), (b"x".to_vec(), Ok(0)));
    s.h.write(seen.id(), &pattern(9_000_000)).unwrap();
    let queued = s.h.queued(seen.id());
    s.h.write(seen.id(), b"").unwrap();
    s.h.send(seen.id(), &Message::from("")).unwrap();
    assert_eq!(s.h.queued(seen.id()), queued);
}
