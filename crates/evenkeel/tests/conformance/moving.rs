//! A live connection moves to another loop, of the same backend and of each other one. Both loops live on the test's
//! thread and are driven step by step, so that it moves at the very event that a test means; `tests/group` has the same with
//! threads.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{Limits, Parcel, Pool, Stream};
use evenkeel::sim::blocking::{self, TcpStream};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, Conn, EventLoop, Flow, Handle, Message, time};

use crate::asynchronous::{once, pair, read_to_end};
use crate::support::{
    PEER, Probe, Seen, Server, assert_same, descriptors, event_loop, exactly, no_limits, pattern, read_all,
    reset_on_close,
};

on_every_kernel! {
    i43_a_connection_moves_at_every_event_of_a_flood,
    i43_a_stream_moves_between_reads_of_a_flood,
    i43_what_is_queued_is_sent_by_the_next_loop,
    i43_a_stream_takes_its_queue_along,
    i43_the_ends_of_both_halves_move_along,
    i43_a_half_that_is_to_end_ends_after_its_queue,
    i43_what_a_paused_handler_did_not_see_is_seen,
    i43_a_reset_that_nobody_heard_of_is_heard_of,
    i43_a_failed_stream_tells_of_it_elsewhere,
    i43_moving_on_at_once_loses_nothing,
    i43_a_notification_finds_the_next_handler,
    a_moved_message_keeps_its_deadline,
    a_moved_queue_keeps_its_age,
    a_parcel_that_nobody_opens_resets,
    a_refused_parcel_goes_on_where_it_was,
    a_closing_connection_does_not_move,
}

in_processes! {
    i43_there_and_back_a_hundred_times_under_an_echo,
}

/// Two loops, and a place for what is on its way between them.
struct Two {
    s: Server,
    other: EventLoop,
    pool: Pool<Probe>,
    way: Rc<RefCell<Option<Parcel>>>,
}

impl Two {
    fn new(backend: Backend, other: Backend) -> Self {
        Self::within(backend, other, no_limits())
    }

    fn within(backend: Backend, other: Backend, limits: Limits) -> Self {
        let other = event_loop(other);
        let pool = other.handle().pool(limits.clone());
        Two { s: Server::with_limits(backend, limits), other, pool, way: Rc::default() }
    }

    /// What a hook does to move its connection, with `unread` of its bytes left.
    fn mover(&self) -> impl FnMut(&mut Conn<'_>, &[u8]) + Clone + 'static {
        let way = self.way.clone();
        move |conn, unread| *way.borrow_mut() = Some(conn.pack(unread).unwrap())
    }

    /// A handler that moves as soon as it is notified.
    fn moves_when_told(&self, probe: Probe) -> Probe {
        let mut mover = self.mover();
        probe.on_notify(move |conn| mover(conn, b""))
    }

    fn turns(&mut self, n: usize) {
        for _ in 0..n {
            self.s.turns(1);
            self.other.poll().unwrap();
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let since = blocking::now();
        let mut turns = 0;
        while !condition() {
            assert!(blocking::now() - since < PEER, "waited in vain until {what}");
            self.turns(1);
            turns += 1;
            if turns > 50 {
                self.s.events.block_on(async { time::sleep(Duration::from_millis(1)).await }).unwrap();
            }
        }
    }

    /// Waits for a parcel.
    #[track_caller]
    fn parcel(&mut self) -> Parcel {
        let way = self.way.clone();
        self.until("it is on its way", || way.borrow().is_some());
        self.way.take().unwrap()
    }

    /// Waits for a parcel and opens it on the second loop.
    #[track_caller]
    fn arrive(&mut self, probe: Probe) -> Rc<Seen> {
        let (parcel, seen) = (self.parcel(), probe.seen.clone());
        self.pool.unpack(parcel, probe).map_err(|(refused, _)| refused).unwrap();
        seen
    }

    fn other(&self) -> Handle {
        self.other.handle()
    }

    /// Runs a stream's code on the second loop.
    fn block_on<R>(&mut self, code: impl Future<Output = R>) -> R {
        self.other.block_on(async { time::timeout(PEER, code).await }).unwrap().expect("it does not hang")
    }

    fn is_empty(&self) -> bool {
        self.s.pool.is_empty() && self.pool.is_empty()
    }
}

/// With each backend at the other end.
fn with_each(backend: Backend, body: impl Fn(Two)) {
    for other in Backend::ALL {
        body(Two::new(backend, *other));
    }
}

/// A peer that writes the pattern in pieces of many sizes and ends.
fn writes(mut peer: TcpStream, len: usize) -> blocking::JoinHandle<TcpStream> {
    blocking::spawn(move || {
        let bytes = pattern(len);
        let mut rest = &bytes[..];
        for len in [1, 900, 70_000, 16, 5000].into_iter().cycle() {
            let (piece, after) = rest.split_at(len.min(rest.len()));
            peer.write_all(piece).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        peer.shutdown(Shutdown::Write).unwrap();
        peer
    })
}

fn i43_a_connection_moves_at_every_event_of_a_flood(backend: Backend) {
    let much = if is_simulated() { 500_000 } else { 3_000_000 };
    with_each(backend, |mut two| {
        let (stream, peer) = pair(&mut two.s.events);
        let writing = writes(peer, much);
        *two.way.borrow_mut() = Some(stream.pack().unwrap());
        let got: Rc<RefCell<Vec<u8>>> = Rc::default();
        let ended = Rc::new(Cell::new(false));
        let mut handlers = 0;
        for round in 0.. {
            let (all, end, mut mover, mut calls) = (got.clone(), ended.clone(), two.mover(), 0);
            let probe = Probe::new().on_data(move |conn, bytes| {
                calls += 1;
                // With nothing, half or all of the last bytes left to the next.
                let moves = calls > round % 4;
                let ours = if moves { bytes.len() * (2 - (round % 3).min(2)) / 2 } else { bytes.len() };
                all.borrow_mut().extend(&bytes[..ours]);
                if moves {
                    mover(conn, &bytes[ours..]);
                }
            });
            let probe = probe.on_eof(move |conn| {
                end.set(true);
                conn.close();
            });
            let parcel = two.parcel();
            let (seen, to) = (probe.seen.clone(), if round % 2 == 0 { &two.pool } else { &two.s.pool });
            handlers += 1;
            to.unpack(parcel, probe).map_err(|(refused, _)| refused).unwrap();
            let (way, last) = (two.way.clone(), seen.clone());
            two.until("it moves on or ends", || way.borrow().is_some() || last.closed());
            if two.way.borrow().is_none() {
                assert_eq!((seen.why(), seen.eof.get()), ("closed", 1));
                break;
            }
            assert!(!seen.closed() && seen.dropped.get(), "a handler that is left behind hears nothing");
        }
        assert!(ended.get() && handlers > 1);
        assert_same(&got.borrow(), &pattern(much));
        drop(writing.join().unwrap());
        assert!(two.is_empty());
    });
}

fn i43_a_stream_moves_between_reads_of_a_flood(backend: Backend) {
    const MUCH: usize = 2_000_000;
    with_each(backend, |mut two| {
        let (mut stream, peer) = pair(&mut two.s.events);
        let writing = writes(peer, MUCH);
        let mut got = Vec::new();
        for round in 0.. {
            let read = async {
                let mut memory = vec![0; 1 + round * 7919 % 90_000];
                let n = stream.read(&mut memory).await.unwrap();
                memory.truncate(n);
                (memory, stream)
            };
            let on = if round % 2 == 0 { &mut two.s.events } else { &mut two.other };
            let (bytes, back) = on.block_on(read).unwrap();
            if bytes.is_empty() {
                break;
            }
            got.extend(bytes);
            if round % 3 == 0 {
                // More may be received ahead.
                two.turns(2);
            }
            let to = if round % 2 == 0 { two.other() } else { two.s.h.clone() };
            stream = back.pack().unwrap().unpack(&to).unwrap();
        }
        assert_same(&got, &pattern(MUCH));
        drop(writing.join().unwrap());
    });
}

/// Writes and messages until the kernel takes no more, and some beyond; returns what was written.
fn fill(conn: &mut Conn<'_>) -> Vec<u8> {
    let mut written = Vec::new();
    let shared = Message::from(pattern(30_000));
    while conn.queued() < 200_000 {
        for len in [10, 700, 20_000] {
            conn.write(&pattern(len));
            written.extend(pattern(len));
        }
        conn.send(&shared);
        written.extend(pattern(30_000));
        // What is corked is not queued yet: another write of this size makes it leave.
        conn.write(&pattern(70_000));
        written.extend(pattern(70_000));
    }
    written
}

fn i43_what_is_queued_is_sent_by_the_next_loop(backend: Backend) {
    for other in Backend::ALL {
        let mut limits = no_limits();
        (limits.high_watermark, limits.low_watermark) = (100_000, 50_000);
        let mut two = Two::within(backend, *other, limits);
        let written: Rc<RefCell<Vec<u8>>> = Rc::default();
        let (all, mut mover) = (written.clone(), two.mover());
        let (queued, seen_queue) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let before = queued.clone();
        let (peer, old) = two.s.pair(Probe::new().on_open(move |conn| {
            *all.borrow_mut() = fill(conn);
            before.set(conn.queued());
            // In the cork, it leaves or is queued behind all others.
            conn.write(b"last");
            all.borrow_mut().extend(b"last");
            mover(conn, b"");
        }));
        let after = seen_queue.clone();
        let seen =
            two.arrive(Probe::new().on_open(move |conn| after.set(conn.queued())).on_drained(|conn| {
                assert!(conn.queued() <= 50_000);
                conn.write(b"and on");
            }));
        two.until("it is open", || seen.opened.get());
        let whole = queued.get()..=queued.get() + 4;
        assert!(whole.contains(&seen_queue.get()), "{whole:?} was queued, {} is", seen_queue.get());
        assert_eq!(old.drained.get(), 0);
        let len = written.borrow().len();
        let mut peer = peer;
        let reading = blocking::spawn(move || (exactly(&mut peer, len + 6), peer));
        two.until("it has drained", || seen.drained.get() == 1);
        let (id, h) = (seen.id(), two.other());
        two.until("all is sent", || h.queued(id) == Ok(0));
        let (got, mut peer) = reading.join().unwrap();
        written.borrow_mut().extend(b"and on");
        assert_same(&got, &written.borrow());
        peer.write_all(b"heard").unwrap();
        two.until("it hears its peer", || seen.len() == 5);
        assert_eq!(seen.drained.get(), 1, "once");
    }
}

fn i43_a_stream_takes_its_queue_along(backend: Backend) {
    with_each(backend, |mut two| {
        let (mut stream, mut peer) = pair(&mut two.s.events);
        let message = Message::from(pattern(100_000));
        let mut sent = 0;
        while stream.send(&message) != Flow::Hold {
            sent += 1;
            two.s.turns(1);
        }
        let mut stream = stream.pack().unwrap().unpack(&two.other()).unwrap();
        let len = (sent + 1) * 100_000;
        let reading = blocking::spawn(move || (exactly(&mut peer, len + 5), peer));
        two.block_on(async {
            stream.flush().await.unwrap();
            stream.write_all(b"after").await.unwrap();
            stream.flush().await.unwrap();
        });
        let (got, mut peer) = reading.join().unwrap();
        let mut want = pattern(100_000).repeat(sent + 1);
        want.extend(b"after");
        assert_same(&got, &want);
        peer.write_all(b"heard").unwrap();
        let heard = two.block_on(async { stream.read_with(|bytes, _| bytes.to_vec()).await });
        assert_eq!(heard.unwrap().unwrap(), b"heard");
    });
}

fn i43_the_ends_of_both_halves_move_along(backend: Backend) {
    with_each(backend, |mut two| {
        // The peer has ended, and its handler knows.
        let probe = two.moves_when_told(Probe::new().on_eof(|_| ()));
        let (mut peer, old) = two.s.pair(probe);
        peer.shutdown(Shutdown::Write).unwrap();
        let heard = old.clone();
        two.until("the end was heard", || heard.eof.get() == 1);
        two.s.h.notify(old.id()).unwrap();
        let seen = two.arrive(Probe::new().on_eof(|conn| {
            conn.write(b"the other half");
        }));
        two.until("the next one hears it, too", || seen.eof.get() == 1);
        two.turns(3);
        assert_eq!(exactly(&mut peer, 14), b"the other half");
        let (h, id) = (two.other(), seen.id());
        h.close(id).unwrap();
        two.until("it is closed", || seen.closed());
        assert_eq!((seen.why(), read_all(&mut peer).0), ("closed", vec![]));

        // This side has ended, and the peer goes on.
        let (mut stream, mut peer) = pair(&mut two.s.events);
        let stream = two.s.events.block_on(async move {
            stream.write_all(b"whole").await.unwrap();
            stream.shutdown().await.map(|()| stream)
        });
        let mut stream = stream.unwrap().unwrap().pack().unwrap().unpack(&two.other()).unwrap();
        assert_eq!(read_all(&mut peer).0, b"whole");
        peer.write_all(b"goes on").unwrap();
        drop(peer);
        let (got, refused) = two.block_on(async {
            (read_to_end(&mut stream).await, stream.write(b"x").await.map_err(|e| e.kind()))
        });
        assert_eq!((&got[..], refused), (&b"goes on"[..], Err(ErrorKind::BrokenPipe)));
        // Read to its end, it has still ended elsewhere.
        let mut stream = stream.pack().unwrap().unpack(&two.s.h).unwrap();
        let again = two.s.events.block_on(async { read_to_end(&mut stream).await }).unwrap();
        assert_eq!(again, b"");
    });
}

fn i43_a_half_that_is_to_end_ends_after_its_queue(backend: Backend) {
    with_each(backend, |mut two| {
        let written: Rc<RefCell<Vec<u8>>> = Rc::default();
        let (all, mut mover) = (written.clone(), two.mover());
        let (mut peer, _) = two.s.pair(Probe::new().on_open(move |conn| {
            *all.borrow_mut() = fill(conn);
            conn.shutdown_write();
            mover(conn, b"");
        }));
        let seen = two.arrive(Probe::new());
        let reading = blocking::spawn(move || (read_all(&mut peer).0, peer));
        let open = seen.clone();
        two.until("it is open", || open.opened.get());
        two.until("it is read to its end", || reading.is_finished());
        let (got, mut peer) = reading.join().unwrap();
        assert_same(&got, &written.borrow());
        peer.write_all(b"the other half").unwrap();
        drop(peer);
        two.until("both halves have ended", || seen.closed());
        assert_eq!((seen.text().as_str(), seen.why()), ("the other half", "closed"));
    });
}

fn i43_what_a_paused_handler_did_not_see_is_seen(backend: Backend) {
    with_each(backend, |mut two| {
        let probe = two.moves_when_told(Probe::new().on_open(|conn| conn.pause()));
        let (mut peer, old) = two.s.pair(probe);
        peer.write_all(&pattern(50_000)).unwrap();
        drop(peer);
        two.turns(5);
        two.s.h.notify(old.id()).unwrap();
        let seen = two.arrive(Probe::new());
        two.until("it is closed", || seen.closed());
        assert_eq!((old.len(), seen.eof.get(), seen.why()), (0, 1, "closed"));
        assert_same(&seen.data.borrow(), &pattern(50_000));
    });
}

fn resets(peer: TcpStream) {
    reset_on_close(&peer);
}

/// Only a ring learns of a reset before anybody reads; the kernel tells of it once.
fn i43_a_reset_that_nobody_heard_of_is_heard_of(backend: Backend) {
    with_each(backend, |mut two| {
        for paused in [true, false] {
            let probe = two.moves_when_told(Probe::new().on_open(move |conn| {
                if paused {
                    conn.pause();
                }
            }));
            let (mut peer, old) = two.s.pair(probe);
            two.turns(3);
            two.s.h.pause(old.id()).unwrap();
            peer.write_all(b"before").unwrap();
            resets(peer);
            two.turns(3);
            if !two.s.h.is_open(old.id()) {
                continue;
            }
            two.s.h.notify(old.id()).unwrap();
            let seen = two.arrive(Probe::new());
            two.until("it is closed", || seen.closed());
            assert_eq!(seen.error(), Some(ErrorKind::ConnectionReset), "{}", seen.why());
        }
        // The loop has served it; or it waits in the batch in which another handler packs the stream.
        for served in [true, false] {
            let place: Rc<RefCell<Option<Stream>>> = Rc::default();
            let (from, way) = (place.clone(), two.way.clone());
            let (mut other, _) = two.s.pair(Probe::new().on_data(move |_, _| {
                *way.borrow_mut() = from.take().map(|stream| stream.pack().unwrap());
            }));
            let (mut stream, peer) = pair(&mut two.s.events);
            // With nothing there, a ring is asked for more.
            let nothing = async { once(stream.read(&mut [0; 1])).await };
            assert!(two.s.events.block_on(nothing).unwrap().is_none());
            two.turns(2);
            place.replace(Some(stream));
            if served {
                resets(peer);
                two.turns(3);
                other.write_all(b"now").unwrap();
            } else {
                other.write_all(b"now").unwrap();
                resets(peer);
            }
            let mut stream = two.parcel().unpack(&two.other()).unwrap();
            let end = two.block_on(async { stream.read(&mut [0; 9]).await.map_err(|e| e.kind()) });
            assert_eq!(end, Err(ErrorKind::ConnectionReset), "served: {served}");
        }
    });
}

fn i43_a_failed_stream_tells_of_it_elsewhere(backend: Backend) {
    with_each(backend, |mut two| {
        let (mut stream, mut peer) = pair(&mut two.s.events);
        peer.write_all(b"whole").unwrap();
        let message = Message::from(pattern(100_000));
        while stream.send(&message) != Flow::Closed {}
        let parcel = stream.pack().unwrap();
        let (refused, _) = two.pool.unpack(parcel, Probe::new()).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::BrokenPipe);
        let mut stream = refused.parcel.unpack(&two.other()).unwrap();
        let kind = two.block_on(async { stream.flush().await.map_err(|e| e.kind()) });
        assert_eq!(kind, Err(ErrorKind::QuotaExceeded));
        let read = two.block_on(async { stream.read_with(|bytes, _| bytes.to_vec()).await });
        assert_eq!(read.unwrap().unwrap(), b"whole");
        drop(stream);
        let thread = blocking::spawn(move || read_all(&mut peer));
        two.until("it is reset", || thread.is_finished());
        assert!(thread.join().unwrap().1.is_err(), "bytes are missing: the peer is told by a reset");
    });
}

fn i43_moving_on_at_once_loses_nothing(backend: Backend) {
    with_each(backend, |mut two| {
        let (stream, mut peer) = pair(&mut two.s.events);
        peer.write_all(b"hello").unwrap();
        // No turn between: nothing has been received, or told to anybody.
        let parcel = stream.pack().unwrap().unpack(&two.other()).unwrap().pack().unwrap();
        let mut stream = parcel.unpack(&two.s.h).unwrap().pack().unwrap().unpack(&two.other()).unwrap();
        let read = two.block_on(async {
            let got = stream.read_with(|bytes, reply| (bytes.to_vec(), reply.write(b"answer"))).await;
            (got.unwrap().unwrap().0, stream)
        });
        assert_eq!(read.0, b"hello");
        // With an answer that has not left, and from one handler to the next as soon as each opens.
        *two.way.borrow_mut() = Some(read.1.pack().unwrap());
        for _ in 0..4 {
            let mut mover = two.mover();
            let parcel = two.parcel();
            let probe = Probe::new().on_open(move |conn| {
                conn.write(b".");
                mover(conn, b"x");
            });
            two.s.pool.unpack(parcel, probe).map_err(|(refused, _)| refused).unwrap();
        }
        let seen = two.arrive(Probe::echo());
        peer.write_all(b"end").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        two.until("it is closed", || seen.closed());
        assert_eq!(seen.text(), "xxxxend");
        assert_eq!(String::from_utf8(read_all(&mut peer).0).unwrap(), "answer....xxxxend");
    });
}

fn i43_a_notification_finds_the_next_handler(backend: Backend) {
    with_each(backend, |mut two| {
        let mut mover = two.mover();
        let (mut peer, old) = two.s.pair(Probe::new().on_data(move |conn, _| {
            conn.handle().notify(conn.id()).unwrap();
            mover(conn, b"");
        }));
        peer.write_all(b"go").unwrap();
        let seen = two.arrive(Probe::new());
        two.until("it is notified", || seen.notified.get() == 1);
        assert_eq!(old.notified.get(), 0);
        assert!(two.s.h.notify(old.id()).is_err(), "the old name is stale");
    });
}

fn a_moved_message_keeps_its_deadline(backend: Backend) {
    for other in Backend::ALL {
        let mut limits = no_limits();
        limits.message_deadline = Some(Duration::from_millis(150));
        let mut two = Two::within(backend, *other, limits);
        let (_peer, _) = {
            let mut mover = two.mover();
            two.s.pair(Probe::new().on_open(move |conn| {
                conn.message_started();
                mover(conn, b"");
            }))
        };
        let since = blocking::now();
        // It moves all the time, and never gets a new deadline.
        let seen = loop {
            let probe = two.moves_when_told(Probe::new());
            let (parcel, seen) = (two.parcel(), probe.seen.clone());
            let id = two.pool.unpack(parcel, probe).map_err(|(refused, _)| refused).unwrap();
            let open = seen.clone();
            two.until("it is open or has ended", || open.opened.get() || open.closed());
            two.other.block_on(async { time::sleep(Duration::from_millis(20)).await }).unwrap();
            if two.other().notify(id).is_err() {
                break seen;
            }
            let (way, last) = (two.way.clone(), seen.clone());
            two.until("it moves or ends", || way.borrow().is_some() || last.closed());
            if seen.closed() {
                break seen;
            }
            assert!(blocking::now() - since < PEER);
        };
        assert_eq!(seen.why(), "message timeout");
    }
}

fn a_moved_queue_keeps_its_age(backend: Backend) {
    for other in Backend::ALL {
        let mut limits = no_limits();
        limits.max_queue_age = Some(Duration::from_millis(100));
        let mut two = Two::within(backend, *other, limits);
        let mut mover = two.mover();
        let (_peer, _) = two.s.pair(Probe::new().on_open(move |conn| {
            fill(conn);
            mover(conn, b"");
        }));
        let parcel = two.parcel();
        two.s.events.block_on(async { time::sleep(Duration::from_millis(120)).await }).unwrap();
        let (probe, since) = (Probe::new(), blocking::now());
        let seen = probe.seen.clone();
        two.pool.unpack(parcel, probe).map_err(|(refused, _)| refused).unwrap();
        while !seen.closed() {
            assert!(blocking::now() - since < PEER, "it has waited for longer than it may");
            two.turns(1);
        }
        assert_eq!(seen.why(), "queue stalled");
    }
}

fn a_parcel_that_nobody_opens_resets(backend: Backend) {
    let mut two = Two::new(backend, backend);
    let (mut peer, seen) = {
        let mut mover = two.mover();
        two.s.pair(Probe::new().on_open(move |conn| {
            conn.write(b"so far");
            mover(conn, b"");
        }))
    };
    let sources = two.s.h.stats().sources;
    assert_eq!(sources, 1, "the listener");
    drop(two.parcel());
    assert_eq!(read_all(&mut peer).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(seen.dropped.get() && !seen.closed());
    // In the mailbox of a loop that ends.
    let (stream, mut peer) = pair(&mut two.s.events);
    let remote = two.other().remote();
    stream.pack().unwrap().send(&remote, |_, _| panic!("it is never opened")).unwrap();
    drop(two.pool);
    drop(two.other);
    assert_eq!(read_all(&mut peer).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn a_refused_parcel_goes_on_where_it_was(backend: Backend) {
    let mut two = Two::new(backend, backend);
    let (remote, h) = (two.other().remote(), two.other());
    drop(two.pool);
    drop(two.other);
    let (stream, mut peer) = pair(&mut two.s.events);
    peer.write_all(b"hello").unwrap();
    two.s.turns(3);
    let refused = stream.pack().unwrap().send(&remote, |_, _| ()).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::NotConnected);
    let refused = refused.parcel.unpack(&h).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::NotConnected);
    let stream = refused.parcel.unpack(&two.s.h).unwrap();
    let probe = Probe::echo();
    let seen = probe.seen.clone();
    assert!(two.s.pool.adopt(stream, probe, b"").is_ok());
    two.s.until("it was heard", || seen.len() == 5);
    two.s.turns(2);
    assert_eq!(exactly(&mut peer, 5), b"hello");
}

fn a_closing_connection_does_not_move(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_open(|conn| {
        conn.write(b"bye");
        conn.close();
        assert_eq!(conn.pack(b"").unwrap_err().kind(), ErrorKind::NotConnected);
    }));
    s.until("it is closed", || seen.closed());
    assert_eq!((seen.why(), read_all(&mut peer).0), ("closed", b"bye".to_vec()));
}

fn i43_there_and_back_a_hundred_times_under_an_echo(backend: Backend) {
    const MUCH: usize = 8_000_000;
    let mut two = Two::new(backend, Backend::ALL[(backend.name().len() + 1) % Backend::ALL.len()]);
    two.turns(3);
    let before = descriptors();
    let (stream, peer) = pair(&mut two.s.events);
    // Answer by answer, so that all of it does not come in a few calls.
    let talking = blocking::spawn(move || {
        let (mut peer, bytes) = (peer, pattern(MUCH));
        let mut rest = &bytes[..];
        for len in [1, 900, 70_000, 16, 5000].into_iter().cycle() {
            let (piece, after) = rest.split_at(len.min(rest.len()));
            peer.write_all(piece).unwrap();
            assert_same(&exactly(&mut peer, piece.len()), piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    });
    *two.way.borrow_mut() = Some(stream.pack().unwrap());
    let moves = Rc::new(Cell::new(0));
    loop {
        let (mut mover, count, mut calls) = (two.mover(), moves.clone(), 0);
        let probe = Probe::new().on_data(move |conn, bytes| {
            calls += 1;
            let moves_on = calls == 2 && count.get() < 100;
            let ours = if moves_on { bytes.len() / 2 } else { bytes.len() };
            let held = conn.write(&bytes[..ours]) == Flow::Hold;
            if moves_on {
                count.set(count.get() + 1);
                mover(conn, &bytes[ours..]);
            } else if held {
                conn.pause();
            }
        });
        let probe = probe.on_drained(|conn| conn.resume());
        let (parcel, seen) = (two.parcel(), probe.seen.clone());
        let to = if moves.get() % 2 == 0 { &two.pool } else { &two.s.pool };
        to.unpack(parcel, probe).map_err(|(refused, _)| refused).unwrap();
        let (way, last) = (two.way.clone(), seen.clone());
        two.until("it moves on or ends", || way.borrow().is_some() || last.closed());
        if seen.closed() {
            assert_eq!(seen.why(), "closed");
            break;
        }
    }
    assert_eq!(moves.get(), 100);
    talking.join().unwrap();
    two.turns(3);
    assert_eq!(descriptors(), before);
}

/// Streams are not for two loops; a parcel is.
#[test]
fn parcels_cross_threads() {
    fn is_send<T: Send>() {}
    is_send::<Parcel>();
    let _ = |stream: Stream| stream.pack();
}
