//! How peers end, in every state that we can be in: reading or not, with bytes unread, with a queue, just accepted, or about
//! to end ourselves. Callbacks and tasks.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::net::{ConnectOptions, ListenOptions};
use evenkeel::sim::blocking::{self, TcpStream, UnixStream};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, Flow, Message, time};

use crate::asynchronous::{once, pair};
use crate::support::{
    PEER, Probe, Seen, Server, assert_same, connect, event_loop, exactly, pattern, read_all, reset_on_close,
    unique, until,
};

on_every_kernel! {
    i30_i31_every_end_in_every_state,
    i30_i31_every_end_of_a_stream_in_every_state,
    i30_i31_every_end_beside_a_queue,
    i30_a_unix_peer_that_speaks_and_ends_at_once,
    i30_both_sides_close_at_once,
    i30_both_sides_end_their_halves_at_once,
    i31_a_reset_behind_data_in_the_backlog,
    i31_a_reset_that_comes_with_the_end,
    i31_after_a_reset_no_operation_waits,
    i07_i31_whatever_is_done_after_a_reset_that_nobody_heard_of,
    a_reset_after_the_end_of_the_write_half,
    the_end_of_the_write_half_is_asked_for_twice,
}

/// How a peer ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// It says nothing more, and goes on reading.
    Shutdown,
    /// It closes, having read all.
    Close,
    Reset,
}

pub const ENDS: [End; 3] = [End::Shutdown, End::Close, End::Reset];

/// Ends a peer; what is left of it can still read.
pub fn end(peer: TcpStream, how: End) -> Option<TcpStream> {
    match how {
        End::Shutdown => {
            peer.shutdown(Shutdown::Write).unwrap();
            return Some(peer);
        }
        End::Close => {}
        End::Reset => reset_on_close(&peer),
    }
    None
}

/// What may be unread when the end comes: nothing, a little, and more than the loop reads at once.
const PENDING: [usize; 3] = [0, 5, 200_000];

/// Every end, with each amount of data before it, paused and not, and with both known to the loop one by one or together.
fn i30_i31_every_end_in_every_state(backend: Backend) {
    let mut s = Server::new(backend);
    for (how, pending) in ENDS.into_iter().flat_map(|how| PENDING.map(|pending| (how, pending))) {
        for (paused, settled) in [(false, false), (false, true), (true, false), (true, true)] {
            let case = format!("{how:?} after {pending} bytes, paused: {paused}, settled: {settled}");
            let (mut peer, seen) = s.pair(Probe::new().deaf_to_eof());
            let id = seen.id();
            if paused {
                s.h.pause(id).unwrap();
            }
            let sent = pattern(pending);
            peer.write_all(&sent).unwrap();
            if settled {
                s.turns(4);
            }
            let left = end(peer, how);
            if paused {
                s.turns(6);
                assert_eq!((seen.len(), seen.eof.get()), (0, 0), "{case}: delivered while paused");
                let _ = s.h.resume(id);
            }
            s.until(&case, || seen.eof.get() == 1 || seen.closed());
            if how == End::Reset {
                assert_eq!((seen.eof.get(), seen.error()), (0, Some(ErrorKind::ConnectionReset)), "{case}");
                assert!(sent.starts_with(&seen.data.borrow()), "{case}: what came is not what was sent");
                continue;
            }
            assert_same(&seen.data.borrow(), &sent);
            assert_eq!((seen.eof.get(), seen.why()), (1, "open"), "{case}");
            match left {
                Some(mut peer) => {
                    s.h.write(id, b"answer").unwrap();
                    s.h.close(id).unwrap();
                    s.until(&case, || seen.closed());
                    let (got, end) = read_all(&mut peer);
                    assert!(got == b"answer" && end.is_ok(), "{case}: {got:?} {end:?}");
                    assert_eq!(seen.why(), "closed", "{case}");
                }
                // The write is answered by a reset, which is an error like any other.
                None => {
                    let h = s.h.clone();
                    s.until(&case, || h.write(id, b"anybody?").is_err());
                    assert_eq!(seen.why(), "error", "{case}");
                }
            }
        }
    }
    assert_eq!((s.pool.len(), s.h.stats().panics), (0, 0));
}

fn i30_i31_every_end_of_a_stream_in_every_state(backend: Backend) {
    let mut events = event_loop(backend);
    for (how, pending) in ENDS.into_iter().flat_map(|how| PENDING.map(|pending| (how, pending))) {
        for (waits, settled) in [(false, false), (false, true), (true, false), (true, true)] {
            let case = format!("{how:?} after {pending} bytes, a task waits: {waits}, settled: {settled}");
            let (mut stream, mut peer) = pair(&mut events);
            let sent = pattern(pending);
            events
                .block_on(async {
                    if waits {
                        assert!(once(stream.read(&mut [0; 8])).await.is_none(), "{case}");
                    }
                    peer.write_all(&sent).unwrap();
                    if settled {
                        time::sleep(Duration::from_millis(1)).await;
                    }
                    let _left = end(peer, how);
                    let (mut got, mut few) = (Vec::new(), vec![0; 30_000]);
                    let ended = loop {
                        let read = time::timeout(PEER, stream.read(&mut few)).await;
                        match read.unwrap_or_else(|_| panic!("{case}: the end is not heard")) {
                            Ok(0) => break None,
                            Ok(n) => got.extend_from_slice(&few[..n]),
                            Err(e) => break Some(e.kind()),
                        }
                    };
                    if how == End::Reset {
                        assert_eq!(ended, Some(ErrorKind::ConnectionReset), "{case}");
                        assert!(sent.starts_with(&got), "{case}");
                    } else {
                        assert_eq!(ended, None, "{case}");
                        assert_same(&got, &sent);
                        assert_eq!(stream.read(&mut few).await.unwrap(), 0, "{case}: the end stays");
                        stream.write_all(b"one more").await.unwrap();
                    }
                })
                .unwrap();
        }
    }
}

/// More is queued than the kernel takes. It leaves after the peer's end as before it, and is given back after a reset.
fn i30_i31_every_end_beside_a_queue(backend: Backend) {
    let len = if is_simulated() { 900_000 } else { 9_000_000 };
    let mut s = Server::new(backend);
    for (how, paused) in ENDS.into_iter().flat_map(|how| [(how, false), (how, true)]) {
        let case = format!("{how:?}, paused: {paused}");
        let (peer, seen) = s.pair(Probe::new().deaf_to_eof());
        let bytes: Arc<[u8]> = pattern(len).into();
        s.h.send(seen.id(), &Message::from(bytes.clone())).unwrap();
        s.turns(2);
        assert!(s.h.queued(seen.id()).unwrap() > 0, "{case}: the kernel took it all");
        if paused {
            s.h.pause(seen.id()).unwrap();
        }
        match end(peer, how) {
            Some(mut peer) => {
                if !paused {
                    s.until(&case, || seen.eof.get() == 1);
                }
                let reader = blocking::spawn(move || exactly(&mut peer, len));
                let h = s.h.clone();
                s.until(&case, || h.queued(seen.id()) == Ok(0));
                assert_same(&reader.join().unwrap(), &bytes);
                s.h.abort(seen.id()).unwrap();
                s.turns(2);
            }
            None => {
                if paused {
                    s.turns(6);
                    let _ = s.h.resume(seen.id());
                }
                s.until(&case, || seen.closed());
                let error = seen.error();
                let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(error.is_some_and(|e| reset.contains(&e)), "{case}: {error:?}");
                assert_eq!(seen.eof.get(), 0, "{case}");
            }
        }
        s.until(&case, || Arc::strong_count(&bytes) == 1);
    }
}

/// Both come before the loop looks, as one report or as two, again and again.
fn i30_a_unix_peer_that_speaks_and_ends_at_once(backend: Backend) {
    let mut s = Server::new(backend);
    let path = std::env::temp_dir().join(unique("ends"));
    let heard: Rc<RefCell<Vec<Rc<Seen>>>> = Rc::default();
    let all = heard.clone();
    let make = move |_: &_| {
        let probe = Probe::new().deaf_to_eof();
        all.borrow_mut().push(probe.seen.clone());
        probe
    };
    let listener = s.pool.listen(&*path, &ListenOptions::default(), make).unwrap();
    for round in 0..60 {
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.set_read_timeout(Some(PEER)).unwrap();
        if round % 3 > 0 {
            s.until("it is open", || heard.borrow().len() == round + 1);
            s.turns(round % 5);
        }
        peer.write_all(b"all I have to say").unwrap();
        if round % 2 == 0 {
            peer.shutdown(Shutdown::Write).unwrap();
        } else {
            drop(peer.try_clone().unwrap());
            drop(peer);
        }
        s.until("it was heard and has ended", || {
            heard.borrow().get(round).is_some_and(|seen| seen.eof.get() == 1)
        });
        let seen = heard.borrow()[round].clone();
        assert_eq!((seen.text().as_str(), seen.why()), ("all I have to say", "open"));
        s.h.close(seen.id()).unwrap();
    }
    let pool = s.pool.clone();
    s.until("all are over", || pool.is_empty());
    assert!(s.h.close_listener(listener));
}

/// Both ends are connections of one loop, which are closed before either is looked at.
fn i30_both_sides_close_at_once(backend: Backend) {
    // Neither reads before it has flushed: what is queued has to fit into the kernel's buffers.
    for queue in [0, 10, if is_simulated() { 300_000 } else { 3_000_000 }] {
        let mut s = Server::new(backend);
        let theirs = s.expect(Probe::new());
        let probe = Probe::new();
        let ours = probe.seen.clone();
        s.pool.connect(s.addr, &ConnectOptions::default(), probe).unwrap();
        s.until("both are open", || ours.opened.get() && theirs.opened.get());
        for seen in [&ours, &theirs] {
            s.h.write(seen.id(), &pattern(queue)).unwrap();
            s.h.close(seen.id()).unwrap();
            assert_eq!(s.h.write(seen.id(), b"late"), Ok(Flow::Closed));
        }
        s.until("both are closed", || ours.closed() && theirs.closed());
        for seen in [&ours, &theirs] {
            assert_eq!((seen.why(), seen.len(), seen.eof.get()), ("closed", 0, 0), "queue {queue}");
        }
    }
}

fn i30_both_sides_end_their_halves_at_once(backend: Backend) {
    let mut s = Server::new(backend);
    for queue in [0, 10, 50_000] {
        let (mut peer, seen) = s.pair(Probe::new().deaf_to_eof());
        s.turns(2);
        peer.write_all(&pattern(queue)).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        s.h.send(seen.id(), &Message::from(pattern(queue))).unwrap();
        let id = seen.id();
        let remote = s.h.remote();
        remote.run(move |h| h.close(id).unwrap()).unwrap();
        s.until("it is over", || seen.closed());
        let (got, end) = read_all(&mut peer);
        assert!(end.is_ok(), "queue {queue}: {end:?}");
        assert_same(&got, &pattern(queue));
        assert_eq!(seen.why(), "closed");
        // Whatever came before the close was asked for was delivered, in order.
        assert!(pattern(queue).starts_with(&seen.data.borrow()));
    }
}

/// The connection came, spoke, and was reset before the loop looked at its listener.
fn i31_a_reset_behind_data_in_the_backlog(backend: Backend) {
    let mut s = Server::new(backend);
    let all: Vec<_> = (0..20)
        .map(|i| {
            let seen = s.expect(Probe::echo());
            let mut peer = connect(s.addr);
            peer.write_all(&pattern(i * 100)).unwrap();
            end(peer, End::Reset);
            seen
        })
        .collect();
    let (mut good, last) = {
        let last = s.expect(Probe::echo());
        (connect(s.addr), last)
    };
    good.write_all(b"ping").unwrap();
    let pool = s.pool.clone();
    s.until("the resets were heard", || pool.len() == 1);
    assert_eq!(s.answer(&mut good, 4), b"ping");
    // Which of them the kernel still hands out is its own affair; those that were opened were told the truth.
    let opened = all.iter().filter(|seen| seen.opened.get()).count();
    for (i, seen) in all.iter().enumerate().filter(|(_, seen)| seen.opened.get() && seen.closed()) {
        assert_eq!((seen.eof.get(), seen.error()), (0, Some(ErrorKind::ConnectionReset)), "the {i}th");
        assert!(pattern(i * 100).starts_with(&seen.data.borrow()));
    }
    assert_eq!(s.h.stats().accepted, opened as u64 + u64::from(last.opened.get()));
    assert!(s.turns_in(Duration::from_millis(20)) < 20);
}

/// The loop hears of both at once: nothing will tell it of the reset again. `select` tells of resets only to who reads, which
/// nobody does behind an end.
fn i31_a_reset_that_comes_with_the_end(backend: Backend) {
    if backend == Backend::Select {
        return;
    }
    let mut s = Server::new(backend);
    for words in [&b"last words"[..], b""] {
        let (mut peer, seen) = s.pair(Probe::new().on_eof(|_| {}));
        s.turns(3);
        peer.write_all(words).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        end(peer, End::Reset);
        s.until("the reset was heard", || seen.closed());
        assert_eq!((&seen.data.borrow()[..], seen.why()), (words, "error"));
    }
}

fn i31_after_a_reset_no_operation_waits(backend: Backend) {
    let mut events = event_loop(backend);
    for heard in [false, true] {
        let (mut stream, peer) = pair(&mut events);
        end(peer, End::Reset);
        if heard {
            (0..4).for_each(|_| events.poll().unwrap());
        }
        let all = async {
            assert_eq!(stream.read(&mut [0; 4]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            for _ in 0..3 {
                let again = stream.read(&mut [0; 4]).await;
                assert!(!again.is_ok_and(|n| n > 0), "bytes after the end");
                assert!(stream.read_with(|_, _| ()).await.ok().flatten().is_none());
                let refused = stream.write(b"x").await.unwrap_err();
                assert!(matches!(refused.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
                let _ = stream.send(&Message::from("x"));
                let _ = stream.flush().await;
                let _ = stream.shutdown().await;
            }
        };
        let waited = events.block_on(time::timeout(PEER, all)).unwrap();
        assert!(waited.is_ok(), "an operation waits for a peer that has reset");
    }
}

/// The loop has not looked when the program ends the connection: one end, by one reason, whichever is found first.
fn i07_i31_whatever_is_done_after_a_reset_that_nobody_heard_of(backend: Backend) {
    let mut s = Server::new(backend);
    type Act = fn(&Server, evenkeel::ConnId);
    let acts: [(&str, Act); 7] = [
        ("close", |s, id| s.h.close(id).unwrap()),
        ("abort", |s, id| s.h.abort(id).unwrap()),
        ("write and close", |s, id| {
            s.h.write(id, b"goodbye").unwrap();
            s.h.close(id).unwrap();
        }),
        ("a large write and close", |s, id| {
            let _ = s.h.write(id, &pattern(300_000));
            let _ = s.h.close(id);
        }),
        ("pause and resume", |s, id| {
            s.h.pause(id).unwrap();
            s.h.resume(id).unwrap();
        }),
        ("notify", |s, id| s.h.notify(id).unwrap()),
        ("nothing", |_, _| ()),
    ];
    for (what, act) in acts {
        let ends = Rc::new(Cell::new(0));
        let count = ends.clone();
        let probe = Probe::new().on_close(move |_, _| count.set(count.get() + 1));
        let (peer, seen) = s.pair(probe.on_notify(|conn| conn.shutdown_write()));
        s.turns(2);
        end(peer, End::Reset);
        act(&s, seen.id());
        s.until(what, || seen.closed());
        s.turns(4);
        assert_eq!((ends.get(), seen.eof.get(), seen.dropped.get()), (1, 0, true), "{what}");
        let reasons = ["closed", "aborted", "error"];
        assert!(reasons.contains(&seen.why()), "{what}: {}", seen.why());
        assert!(what != "nothing" || seen.why() == "error");
    }
    assert!(s.turns_in(Duration::from_millis(20)) < 20);
}

/// The peer has read the end of what we had to say, and still talks, when it is reset.
fn a_reset_after_the_end_of_the_write_half(backend: Backend) {
    let mut s = Server::new(backend);
    let listener = blocking::TcpListener::bind("127.0.0.1:0").unwrap();
    for accepted in [true, false] {
        let says = |probe: Probe| {
            probe.on_open(|conn| {
                conn.write(b"all");
                conn.shutdown_write();
            })
        };
        let (mut peer, seen) = if accepted {
            s.pair(says(Probe::new()))
        } else {
            let probe = says(Probe::new());
            let seen = probe.seen.clone();
            let to = listener.local_addr().unwrap();
            s.pool.connect(to, &ConnectOptions::default(), probe).unwrap();
            s.until("it is open", || seen.opened.get());
            let (peer, _) = listener.accept().unwrap();
            peer.set_read_timeout(Some(PEER)).unwrap();
            (peer, seen)
        };
        s.turns(2);
        assert_eq!(read_all(&mut peer).0, b"all");
        peer.write_all(b"still talking").unwrap();
        s.until("it was heard", || seen.len() == 13);
        s.h.abort(seen.id()).unwrap();
        s.until("it is over", || seen.closed());
        assert_eq!(seen.why(), "aborted");
        until(&mut s.events, "the peer is told", || peer.write_all(b"more").is_err());
    }
}

fn the_end_of_the_write_half_is_asked_for_twice(backend: Backend) {
    let mut s = Server::new(backend);
    for queue in [3, 4_000_000] {
        let (mut peer, seen) = s.pair(Probe::new().on_notify(move |conn| {
            conn.write(&pattern(queue));
            conn.shutdown_write();
            conn.shutdown_write();
        }));
        s.h.notify(seen.id()).unwrap();
        s.turns(2);
        let again = seen.id();
        s.h.notify(again).unwrap();
        let reader = blocking::spawn(move || {
            let all = read_all(&mut peer);
            (all, peer)
        });
        s.turns(2);
        s.until("its end was read", || reader.is_finished());
        let ((got, end), mut peer) = reader.join().unwrap();
        end.unwrap();
        assert_same(&got, &pattern(queue));
        peer.write_all(b"fine").unwrap();
        s.until("reading goes on", || seen.len() == 4);
        drop(peer);
        s.until("it is over", || seen.closed());
        assert_eq!((seen.why(), seen.notified.get()), ("closed", 2));
    }
    let (mut stream, mut peer) = pair(&mut s.events);
    s.events
        .block_on(async {
            stream.write_all(b"last").await.unwrap();
            for _ in 0..3 {
                stream.shutdown().await.unwrap();
            }
            assert_eq!(stream.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        })
        .unwrap();
    assert_eq!(read_all(&mut peer).0, b"last");
}
