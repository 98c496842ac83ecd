//! How connections end: exactly once, last, with a reason, and without losing what was promised.

use std::cell::RefCell;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{ConnectOptions, Limits, ListenOptions, SocketOption, Stream};
use evenkeel::sim::blocking::{self, TcpListener, TcpStream};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, Conn, EventLoop, Flow, StaleConn};

use crate::support::{
    PEER, Probe, Seen, Server, assert_same, connect, event_loop, exactly, no_limits, pattern, read_all, until,
};

on_every_kernel! {
    close_flushes_a_large_queue_to_a_slow_reader,
    close_gives_up_at_its_deadline,
    i30_close_waits_for_a_peer_that_is_still_sending,
    close_waits_for_a_sending_peer_until_its_deadline_only,
    i30_what_comes_after_a_lingering_close_destroys_nothing,
    i28_a_lingering_close_ends_at_its_deadline,
    a_lingering_close_ends_with_the_peer_and_leaves_no_timer,
    a_lingering_close_takes_no_more_than_its_part,
    i30_a_stream_can_be_closed_lingering,
    close_of_a_paused_connection_with_unread_data_ends_with_the_peer,
    abort_resets,
    i07_close_in_every_call,
    i07_abort_in_every_call,
    i06_no_event_after_the_close_of_another_in_the_same_batch,
    i06_no_event_reaches_a_connection_that_reuses_a_descriptor_within_a_batch,
    i06_stale_ids_are_errors,
    ids_of_another_loop_are_errors,
    handles_outlive_the_loop,
    the_end_of_the_loop_ends_every_connection,
    a_pool_closes_all_of_its_connections_and_no_others,
    the_end_of_the_loop_keeps_what_was_sent_and_resets_what_was_not,
    i03_what_on_close_writes_to_others_leaves_at_once,
    on_close_may_use_every_part_of_the_loop,
}

on_every_backend! {
    // The loops of a world are on its thread.
    a_loop_may_live_until_its_thread_has_ended,
}

/// Kernel buffers that hold little, so that a queue fills up soon.
fn small_buffers() -> ListenOptions {
    let mut options = ListenOptions::default();
    options.send_buffer = Some(16 << 10);
    options
}

fn close_flushes_a_large_queue_to_a_slow_reader(backend: Backend) {
    let mut s = Server::with(backend, no_limits(), small_buffers());
    let (peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        conn.write(&pattern(3_000_000));
        conn.write(b"the end");
        conn.close();
        assert_eq!(conn.write(b"too late"), Flow::Closed);
    }));
    let got = s.serve(move |_| {
        let mut peer = peer;
        peer.write_all(b"go").unwrap();
        let first = exactly(&mut peer, 1000);
        let (rest, end) = read_all(&mut peer);
        end.unwrap();
        [first, rest].concat()
    });
    assert_same(&got, &[&pattern(3_000_000)[..], b"the end"].concat());
    s.until("on_close was heard", || seen.closed());
    assert_eq!((seen.why(), s.h.stats().panics), ("closed", 0));
}

fn close_gives_up_at_its_deadline(backend: Backend) {
    let mut limits = no_limits();
    limits.close_deadline = Duration::from_millis(60);
    let mut s = Server::with(backend, limits, small_buffers());
    let (mut peer, seen) = s.pair(Probe::new());
    s.h.write(seen.id(), &pattern(20_000_000)).unwrap();
    s.turns(2);
    let started = blocking::now();
    s.h.close(seen.id()).unwrap();
    s.until("it gave up", || seen.closed());
    assert!(blocking::now() - started >= Duration::from_millis(60), "not before its deadline");
    assert_eq!(seen.why(), "flush timeout");
    let (got, end) = read_all(&mut peer);
    assert!(got.len() < 20_000_000 && end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}

/// Closing a socket with unread bytes resets the connection, and a reset can destroy what was just sent.
fn i30_close_waits_for_a_peer_that_is_still_sending(backend: Backend) {
    let mut s = Server::new(backend);
    let answers = Probe::new().on_open(|conn| conn.pause()).on_data(|conn, _| {
        conn.write(b"enough, thank you");
        conn.close();
    });
    let (mut peer, seen) = s.pair(answers);
    s.until("it is paused", || seen.opened.get());
    // Both buffers are full before the first byte is read, so something is unread when it closes.
    peer.set_nonblocking(true).unwrap();
    while peer.write(&pattern(65_536)).is_ok() {}
    peer.set_nonblocking(false).unwrap();
    s.h.resume(seen.id()).unwrap();
    let (got, end) = s.serve(move |_| {
        let mut writer = peer.try_clone().unwrap();
        let thread = blocking::spawn(move || {
            writer.write_all(&pattern(500_000)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        thread.join().unwrap();
        read_all(&mut peer)
    });
    assert!(end.is_ok(), "the peer was not reset: {end:?}");
    assert_eq!(got, b"enough, thank you");
    s.until("on_close was heard", || seen.closed());
    assert_eq!((seen.why(), seen.chunks.get()), ("closed", 1));
}

fn close_waits_for_a_sending_peer_until_its_deadline_only(backend: Backend) {
    let mut limits = no_limits();
    limits.close_deadline = Duration::from_millis(50);
    let mut s = Server::with_limits(backend, limits);
    let (mut peer, seen) = s.pair(Probe::new().on_open(|conn| conn.pause()));
    peer.write_all(b"unread").unwrap();
    s.turns(3);
    s.h.close(seen.id()).unwrap();
    s.until("it is over", || seen.closed());
    assert_eq!(seen.why(), "closed");
    assert_eq!(read_all(&mut peer).0, b"");
}

/// A peer with so little room that what it has not read is still on this side.
fn narrow(s: &mut Server, probe: Probe) -> (TcpStream, Rc<Seen>) {
    let seen = s.expect(probe);
    let peer = if is_simulated() {
        let peer = TcpStream::connect(s.addr).unwrap();
        peer.set_option(SocketOption::RecvBuffer(4096)).unwrap();
        peer
    } else {
        // The running kernel offers what it has room for when it connects, and takes nothing back.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&s.addr.into()).unwrap();
        TcpStream::from(std::net::TcpStream::from(socket))
    };
    peer.set_read_timeout(Some(PEER)).unwrap();
    s.until("the connection is open", || seen.opened.get());
    (peer, seen)
}

/// The kernel has taken the whole answer, and the peer has read nothing of it when it goes on sending.
fn i30_what_comes_after_a_lingering_close_destroys_nothing(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = narrow(&mut s, Probe::new());
    s.h.write(seen.id(), &pattern(100_000)).unwrap();
    s.h.close_lingering(seen.id()).unwrap();
    let h = s.h.clone();
    s.until("the kernel has it all", || h.queued(seen.id()) == Ok(0));
    s.turns(3);
    for _ in 0..3 {
        peer.write_all(&pattern(1000)).unwrap();
        s.turns(3);
    }
    assert!(!seen.closed(), "it waits for the peer");
    let (got, end) = s.serve(move |_| read_all(&mut peer));
    assert!(end.is_ok(), "the peer was not reset: {end:?}");
    assert_same(&got, &pattern(100_000));
    s.until("it is over with the peer's end", || seen.closed());
    assert_eq!((seen.why(), seen.chunks.get()), ("closed", 0));
}

fn i28_a_lingering_close_ends_at_its_deadline(backend: Backend) {
    let mut limits = no_limits();
    limits.close_deadline = Duration::from_millis(50);
    let mut s = Server::with_limits(backend, limits);
    let (mut peer, seen) = s.pair(Probe::new());
    let started = blocking::now();
    s.h.write(seen.id(), b"the last word").unwrap();
    s.h.close_lingering(seen.id()).unwrap();
    s.until("it is over", || seen.closed());
    assert!(blocking::now() - started >= Duration::from_millis(50), "it waited for a peer that says nothing");
    assert_eq!((seen.why(), read_all(&mut peer).0.as_slice()), ("closed", b"the last word".as_slice()));
}

fn a_lingering_close_ends_with_the_peer_and_leaves_no_timer(backend: Backend) {
    let mut s = Server::new(backend);
    let (gone, first) = s.pair(Probe::new().on_eof(|conn| conn.close_lingering()));
    drop(gone);
    s.until("an end that has come is not waited for", || first.closed());
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| {
        conn.write(b"the last word");
        conn.close_lingering();
        conn.close();
    }));
    peer.write_all(b"go").unwrap();
    assert_eq!(s.answer(&mut peer, 13), b"the last word");
    assert_eq!(read_all(&mut peer).0, b"");
    let armed = s.h.stats().armed;
    s.turns(3);
    assert!(!seen.closed());
    drop(peer);
    s.until("it is over with the peer's end", || seen.closed());
    assert_eq!((seen.why(), armed, s.h.stats().armed), ("closed", 1, 0));
}

/// Nobody is read from for as long as it likes only because it is not listened to.
fn a_lingering_close_takes_no_more_than_its_part(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    s.h.close_lingering(seen.id()).unwrap();
    let sent = s.serve(move |_| {
        let piece = pattern(1 << 20);
        (0..1000).take_while(|_| peer.write_all(&piece).is_ok()).count()
    });
    assert!((16..200).contains(&sent), "{sent} MiB");
    s.until("it is over", || seen.closed());
    assert_eq!(seen.why(), "closed");
}

fn i30_a_stream_can_be_closed_lingering(backend: Backend) {
    let mut s = Server::new(backend);
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = l.local_addr().unwrap();
    let thread = blocking::spawn(move || {
        let (mut peer, _) = l.accept().unwrap();
        let first = exactly(&mut peer, 5);
        // The end is there, and whoever sends now is not reset for it.
        assert_eq!(read_all(&mut peer).0, b"");
        for _ in 0..3 {
            peer.write_all(&first).unwrap();
        }
        peer
    });
    let before = s.h.stats().sources;
    s.events
        .block_on(async move {
            let mut stream = Stream::connect(at).await.unwrap();
            assert_eq!(stream.send(&b"hello"[..].into()), Flow::Go);
            stream.close_lingering();
        })
        .unwrap();
    s.until("the peer has sent", || thread.is_finished());
    let peer = thread.join().unwrap();
    s.turns(3);
    assert_eq!(s.h.stats().sources, before + 1, "it waits for the peer's end");
    drop(peer);
    let h = s.h.clone();
    s.until("it is over", || h.stats().sources == before);
}

fn close_of_a_paused_connection_with_unread_data_ends_with_the_peer(backend: Backend) {
    let mut limits = no_limits();
    limits.close_deadline = Duration::from_secs(3600);
    let mut s = Server::with_limits(backend, limits);
    let (mut peer, seen) = s.pair(Probe::new().on_open(|conn| conn.pause()));
    peer.write_all(b"unread").unwrap();
    s.turns(3);
    s.h.close(seen.id()).unwrap();
    s.turns(3);
    assert!(!seen.closed(), "it waits for the peer, which is still there");
    assert_eq!(read_all(&mut peer).0, b"", "and has told it that nothing comes");
    drop(peer);
    s.until("it is over with the peer's end", || seen.closed());
}

fn abort_resets(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, _| conn.abort()));
    peer.write_all(b"go").unwrap();
    s.until("it is over", || seen.closed());
    assert_eq!(seen.why(), "aborted");
    assert_eq!(read_all(&mut peer).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Makes a handler do something in one of its calls, brings that call about, and waits for the end.
fn in_every_call(backend: Backend, act: fn(&mut Conn<'_>), reason: &str) {
    let mut s = Server::with(backend, no_limits(), small_buffers());
    let probes: [(&str, Probe); 5] = [
        ("on_open", Probe::new().on_open(act)),
        ("on_data", Probe::new().on_data(move |conn, _| act(conn))),
        ("on_eof", Probe::new().on_eof(act)),
        ("on_notify", Probe::new().on_notify(act)),
        ("on_drained", Probe::new().on_drained(act)),
    ];
    for (call, probe) in probes {
        let (peer, seen) = s.pair(probe);
        let mut ours = peer.try_clone().unwrap();
        match call {
            "on_data" => ours.write_all(&pattern(1000)).unwrap(),
            "on_eof" => ours.shutdown(Shutdown::Write).unwrap(),
            "on_notify" => s.h.notify(seen.id()).unwrap(),
            "on_drained" => {
                assert_eq!(s.h.write(seen.id(), &pattern(1_000_000)), Ok(Flow::Hold));
            }
            _ => {}
        }
        let reader = blocking::spawn(move || {
            let mut peer = peer;
            read_all(&mut peer)
        });
        s.until(&format!("{call}: on_close was heard"), || seen.closed());
        s.turns(3);
        assert_eq!((seen.why(), seen.dropped.get()), (reason, true), "in {call}");
        drop(ours);
        let (got, end) = reader.join().unwrap();
        assert_eq!(end.is_err(), reason == "aborted", "in {call}: the peer saw {end:?}");
        assert!(call != "on_drained" || reason == "aborted" || got.len() == 1_000_000);
    }
    assert_eq!(s.pool.len(), 0);
    assert_eq!(s.h.stats().panics, 0);
}

fn i07_close_in_every_call(backend: Backend) {
    in_every_call(backend, |conn| conn.close(), "closed");
    // A second close, and one after it, change nothing.
    in_every_call(
        backend,
        |conn| {
            conn.close();
            conn.close();
            conn.shutdown_write();
            conn.pause();
            conn.resume();
        },
        "closed",
    );
}

fn i07_abort_in_every_call(backend: Backend) {
    in_every_call(backend, |conn| conn.abort(), "aborted");
    in_every_call(
        backend,
        |conn| {
            conn.write(b"never sent");
            conn.abort();
            conn.abort();
            conn.close();
            assert_eq!(conn.write(b"x"), Flow::Closed);
        },
        "aborted",
    );
}

fn i06_no_event_after_the_close_of_another_in_the_same_batch(backend: Backend) {
    for abort in [false, true] {
        let mut s = Server::new(backend);
        let ids: Rc<RefCell<Vec<_>>> = Rc::default();
        let mut peers = Vec::new();
        for _ in 0..10 {
            let all = ids.clone();
            let (peer, seen) = s.pair(Probe::new().on_data(move |conn, _| {
                let h = conn.handle();
                for id in all.borrow().iter().filter(|id| **id != conn.id()) {
                    let _ = if abort { h.abort(*id) } else { h.close(*id) };
                }
            }));
            ids.borrow_mut().push(seen.id());
            peers.push((peer, seen));
        }
        s.turns(3);
        peers.iter_mut().for_each(|(peer, _)| peer.write_all(b"all at once").unwrap());
        peers.iter().for_each(|(peer, _)| peer.shutdown(Shutdown::Write).unwrap());
        s.until("all are closed", || peers.iter().all(|(_, seen)| seen.closed()));
        let heard = peers.iter().filter(|(_, seen)| seen.len() > 0).count();
        assert_eq!(heard, 1, "the first one ended the others before their bytes came");
    }
}

fn i06_no_event_reaches_a_connection_that_reuses_a_descriptor_within_a_batch(backend: Backend) {
    let mut s = Server::new(backend);
    // Whoever comes in here never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = silent.local_addr().unwrap();
    let ids: Rc<RefCell<Vec<_>>> = Rc::default();
    let fresh: Rc<RefCell<Vec<Rc<Seen>>>> = Rc::default();
    let mut peers = Vec::new();
    for _ in 0..10 {
        let (all, new, pool) = (ids.clone(), fresh.clone(), s.pool.clone());
        let (peer, seen) = s.pair(Probe::new().on_data(move |conn, _| {
            for id in all.take() {
                let _ = conn.handle().abort(id);
                let probe = Probe::new();
                new.borrow_mut().push(probe.seen.clone());
                pool.connect(to, &ConnectOptions::default(), probe).unwrap();
            }
        }));
        ids.borrow_mut().push(seen.id());
        peers.push((peer, seen));
    }
    s.turns(3);
    peers.iter_mut().for_each(|(peer, _)| peer.write_all(b"all at once").unwrap());
    s.until("the new ones are open", || {
        fresh.borrow().len() == 10 && fresh.borrow().iter().all(|seen| seen.opened.get())
    });
    s.turns(10);
    assert!(peers.iter().all(|(_, seen)| seen.closed()));
    assert!(fresh.borrow().iter().all(|seen| seen.len() == 0 && seen.eof.get() == 0 && !seen.closed()));
}

fn i06_stale_ids_are_errors(backend: Backend) {
    let mut s = Server::new(backend);
    let (peer, seen) = s.pair(Probe::new());
    let id = seen.id();
    drop(peer);
    s.until("it is over", || seen.closed());
    // Its place is taken by another connection.
    let (_peer, next) = s.pair(Probe::new());
    let h = &s.h;
    assert!(!h.is_open(id) && h.is_open(next.id()));
    assert_eq!(h.write(id, b"x"), Err(StaleConn::Gone));
    assert_eq!(h.send(id, &b"x"[..].into()), Err(StaleConn::Gone));
    assert_eq!(h.queued(id), Err(StaleConn::Gone));
    for result in [h.close(id), h.abort(id), h.pause(id), h.resume(id), h.notify(id)] {
        assert_eq!(result, Err(StaleConn::Gone));
    }
    s.turns(5);
    assert!(!next.closed() && next.notified.get() == 0);
}

fn ids_of_another_loop_are_errors(backend: Backend) {
    let (mut s, other) = (Server::new(backend), Server::new(backend));
    let (_peer, seen) = s.pair(Probe::new());
    let (id, h) = (seen.id(), &other.h);
    assert!(!h.is_open(id));
    assert_eq!(h.write(id, b"x"), Err(StaleConn::OtherLoop));
    assert_eq!(h.send(id, &b"x"[..].into()), Err(StaleConn::OtherLoop));
    for result in [h.close(id), h.abort(id), h.pause(id), h.resume(id), h.notify(id)] {
        assert_eq!(result, Err(StaleConn::OtherLoop));
    }
    assert!(h.listener_addr(s.listener).is_err() && !h.close_listener(s.listener));
    let timer = s.h.after(Duration::from_secs(3600), || ());
    assert!(!h.cancel(timer) && s.h.cancel(timer) && !s.h.cancel(timer));
    assert!(s.h.is_open(id));
}

fn handles_outlive_the_loop(backend: Backend) {
    let mut s = Server::new(backend);
    let (_peer, seen) = s.pair(Probe::new());
    let (id, listener, pool, h) = (seen.id(), s.listener, s.pool.clone(), s.h.clone());
    let remote = h.remote();
    drop(s);
    assert!(!h.is_open(id));
    assert_eq!(h.write(id, b"x"), Err(StaleConn::Gone));
    assert!(h.listener_addr(listener).is_err() && !h.close_listener(listener));
    assert!(pool.listen("127.0.0.1:0", &ListenOptions::default(), |_| Probe::new()).is_err());
    assert!(pool.connect("127.0.0.1:9", &ConnectOptions::default(), Probe::new()).is_err());
    assert_eq!(pool.len(), 0);
    assert_eq!(remote.run(|_| panic!("a call after the end")), Err(evenkeel::RemoteError::LoopEnded));
    remote.wake();
    h.defer(|| panic!("a deferred call after the end"));
    let timer = h.after(Duration::ZERO, || panic!("a timer after the end"));
    h.cancel(timer);
    h.stop();
    let task = h.spawn(async { panic!("a task after the end") });
    assert!(task.is_finished());
    assert_eq!(h.stats().sources, 0);
}

fn the_end_of_the_loop_ends_every_connection(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all: Vec<_> = (0..5).map(|_| s.pair(Probe::new())).collect();
    s.h.write(all[0].1.id(), &pattern(9_000_000)).unwrap();
    s.h.pause(all[1].1.id()).unwrap();
    s.h.close(all[2].1.id()).unwrap();
    drop(s);
    for (peer, seen) in &mut all {
        assert!(seen.closed() && seen.dropped.get());
        let _ = read_all(peer);
    }
    assert_eq!(all[0].1.why(), "loop ended");
}

fn a_pool_closes_all_of_its_connections_and_no_others(backend: Backend) {
    let mut s = Server::new(backend);
    let mut other = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    let (_bystander, unharmed) = other.pair(Probe::new());
    s.h.write(seen.id(), b"goodbye").unwrap();
    s.pool.close_all();
    s.until("all are closed", || seen.closed());
    let (got, end) = read_all(&mut peer);
    assert!(end.is_ok());
    assert_eq!((got.as_slice(), seen.why()), (b"goodbye".as_slice(), "closed"));
    other.turns(3);
    assert!(s.pool.is_empty() && !unharmed.closed());
}

fn the_end_of_the_loop_keeps_what_was_sent_and_resets_what_was_not(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut whole, first) = s.pair(Probe::new());
    let (mut part, second) = s.pair(Probe::new());
    s.h.write(second.id(), &pattern(9_000_000)).unwrap();
    s.turns(2);
    s.h.write(first.id(), b"the last word").unwrap();
    drop(s);
    let (got, end) = read_all(&mut whole);
    assert!(end.is_ok(), "nothing was lost, so nothing is reset: {end:?}");
    assert_eq!(got, b"the last word");
    let (got, end) = read_all(&mut part);
    assert!(got.len() < 9_000_000 && end.is_err(), "a part must not pass for the whole");
}

/// Nothing but the closing wakes the loop: what its `on_close` wrote must not wait for something else.
fn i03_what_on_close_writes_to_others_leaves_at_once(backend: Backend) {
    let mut s = Server::new(backend);
    let (peer, friend) = s.pair(Probe::new());
    let (h, friend_id) = (s.h.clone(), friend.id());
    let (_gone, leaver) = s.pair(Probe::new().on_close(move |_, _| {
        h.write(friend_id, b"she left").unwrap();
    }));
    let (remote, id) = (s.h.remote(), leaver.id());
    let got = s.serve(move |_| {
        let mut peer = peer;
        remote.run(move |h| h.close(id).unwrap()).unwrap();
        exactly(&mut peer, 8)
    });
    assert_eq!(got, b"she left");
}

fn on_close_may_use_every_part_of_the_loop(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let pool = h.pool(Limits::default());
    let ran: Rc<RefCell<Vec<&str>>> = Rc::default();
    let (log, inner, handle) = (ran.clone(), pool.clone(), h.clone());
    let make = move |_: &_| {
        let (log, pool, h) = (log.clone(), inner.clone(), handle.clone());
        Probe::new().on_close(move |id, _| {
            assert!(h.close(id).is_err());
            for (what, delay) in [("timer", 1), ("another timer", 2)] {
                let log = log.clone();
                h.after(Duration::from_millis(delay), move || log.borrow_mut().push(what));
            }
            let (deferred, task) = (log.clone(), log.clone());
            h.defer(move || deferred.borrow_mut().push("deferred"));
            h.spawn(async move { task.borrow_mut().push("task") });
            let listener = pool.listen("127.0.0.1:0", &ListenOptions::default(), |_| Probe::new()).unwrap();
            let at = h.listener_addr(listener).unwrap();
            pool.connect(at, &ConnectOptions::default(), Probe::new()).unwrap();
            assert!(h.close_listener(listener));
        })
    };
    let listener = pool.listen("127.0.0.1:0", &ListenOptions::default(), make).unwrap();
    let at = h.listener_addr(listener).unwrap().socket_addr().unwrap();
    drop(connect(at));
    until(&mut events, "everything ran", || ran.borrow().len() == 4);
    until(&mut events, "the connection to the closed listener ended", || pool.is_empty());
    assert_eq!(h.stats().panics, 0);
}

/// Kept in a thread's local memory, it is dropped when other such memory is gone already.
fn a_loop_may_live_until_its_thread_has_ended(backend: Backend) {
    thread_local! {
        static KEPT: RefCell<Option<(EventLoop, TcpStream)>> = const { RefCell::new(None) };
    }
    let thread = blocking::spawn(move || {
        // Its memory is given back after the loop's own, which is used later.
        KEPT.set(None);
        let mut s = Server::new(backend);
        let (peer, _) = s.pair(Probe::new());
        KEPT.set(Some((s.events, peer.try_clone().unwrap())));
        peer
    });
    let mut peer = thread.join().unwrap();
    let _ = read_all(&mut peer);
}
