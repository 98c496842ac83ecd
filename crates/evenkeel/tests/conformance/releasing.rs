//! Descriptors: each is closed once, when nothing is in flight on it, and none is left behind. Each body runs in a
//! process of its own, since descriptors are the process's.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::rc::Rc;

use evenkeel::net::{ListenOptions, Listener, Stream};
use evenkeel::sim::blocking::{self, TcpStream};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, EventLoop};

use crate::asynchronous::{once, pair};
use crate::support::{
    Probe, Server, broken, connect, descriptors, event_loop, no_limits, pattern, read_all, reset_on_close,
    until,
};

in_processes! {
    i11_bytes_never_reach_a_connection_that_uses_the_number_again,
    i10_a_listener_that_is_dropped_while_many_come_leaves_nothing,
    i10_a_handlers_listener_that_is_closed_while_many_come_leaves_nothing,
    i10_accepts_dropped_while_many_come_lose_nobody,
    i10_connects_that_are_dropped_leave_nothing,
    i16_a_loop_that_ends_at_any_turn_leaves_nothing,
    i16_a_loop_that_ends_with_a_receive_in_a_closing_stream_leaves_nothing,
    i41_newcomers_wait_in_the_kernel_while_the_loop_is_busy,
}

// Without the last: its peers connect without waiting, which those of a world cannot.
in_hosts! {
    i11_bytes_never_reach_a_connection_that_uses_the_number_again,
    i10_a_listener_that_is_dropped_while_many_come_leaves_nothing,
    i10_a_handlers_listener_that_is_closed_while_many_come_leaves_nothing,
    i10_accepts_dropped_while_many_come_lose_nobody,
    i10_connects_that_are_dropped_leave_nothing,
    i16_a_loop_that_ends_at_any_turn_leaves_nothing,
    i16_a_loop_that_ends_with_a_receive_in_a_closing_stream_leaves_nothing,
}

fn reset(peer: &TcpStream) {
    reset_on_close(peer);
}

/// A handler that takes the first byte for its connection's label, and answers with it.
fn labelled(rng: &Rc<RefCell<fastrand::Rng>>) -> Probe {
    let (rng, mut label) = (rng.clone(), None);
    Probe::new().on_data(move |conn, bytes| {
        let own = *label.get_or_insert(bytes[0]);
        if bytes.iter().any(|byte| *byte != own) {
            broken(format!("bytes of another connection came to {own}"));
        }
        conn.write(&vec![own; bytes.len()]);
        match rng.borrow_mut().u8(..12) {
            0 => conn.close(),
            1 => conn.abort(),
            2 => conn.shutdown_write(),
            _ => {}
        }
    })
}

fn i11_bytes_never_reach_a_connection_that_uses_the_number_again(backend: Backend) {
    let before = descriptors();
    let mut s = Server::new(backend);
    let rng = Rc::new(RefCell::new(fastrand::Rng::with_seed(11)));
    let mut peers: Vec<(u8, TcpStream)> = Vec::new();
    let mut seen = Vec::new();
    for round in 0..400u32 {
        for i in 0..4 {
            seen.push(s.expect(labelled(&rng)));
            peers.push(((round * 4 + i) as u8, connect(s.addr)));
        }
        for (label, peer) in &mut peers {
            let len = [1, 100, 4000, 20_000][rng.borrow_mut().usize(..4)];
            // One that the handler has ended refuses.
            let _ = peer.set_nonblocking(true).and_then(|()| peer.write(&vec![*label; len]));
        }
        // Some go before a turn, and some of those that stay are closed in it.
        let gone = rng.borrow_mut().usize(..6);
        for _ in 0..gone.min(peers.len()) {
            let at = rng.borrow_mut().usize(..peers.len());
            let (_, peer) = peers.swap_remove(at);
            match rng.borrow_mut().u8(..3) {
                0 => reset(&peer),
                1 => drop(peer.shutdown(Shutdown::Write)),
                _ => {}
            }
        }
        s.turns(1);
        peers.retain_mut(|(label, peer)| {
            let mut memory = vec![0; 100_000];
            match std::io::Read::read(peer, &mut memory) {
                Ok(0) => false,
                Ok(n) => {
                    assert!(memory[..n].iter().all(|byte| byte == label), "an answer to another came");
                    true
                }
                Err(e) => e.kind() == ErrorKind::WouldBlock,
            }
        });
    }
    drop(peers);
    let pool = s.pool.clone();
    // Those that were gone before they were accepted are not heard of.
    s.until("all are gone", || pool.is_empty() && seen.iter().all(|s| s.closed() || !s.opened.get()));
    drop((s, pool, seen));
    assert_eq!(descriptors(), before);
}

/// All of them are told, by a reset or an end, that nobody will serve them.
fn all_turned_away(peers: Vec<TcpStream>) {
    for mut peer in peers {
        let (got, end) = read_all(&mut peer);
        assert!(got.is_empty());
        assert_eq!(
            end.unwrap_err().kind(),
            ErrorKind::ConnectionReset,
            "as the kernel does with its backlog"
        );
    }
}

fn i10_a_listener_that_is_dropped_while_many_come_leaves_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let before = descriptors();
    for turns in 0..5 {
        for asks in [false, true] {
            let mut listener = events.block_on(async { Listener::bind("127.0.0.1:0") }).unwrap().unwrap();
            let at = listener.local_addr().unwrap().socket_addr().unwrap();
            if asks {
                assert!(events.block_on(once(listener.accept())).unwrap().is_none());
            }
            let mut peers: Vec<_> = (0..100).map(|_| connect(at)).collect();
            (0..turns).for_each(|_| events.poll().unwrap());
            if turns > 2 {
                let (taken, _) = events.block_on(listener.accept()).unwrap().unwrap();
                drop(taken);
                peers.remove(0);
            }
            let more = connect(at);
            peers.push(more);
            drop(listener);
            events.poll().unwrap();
            events.poll().unwrap();
            assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            all_turned_away(peers);
        }
    }
    let h = events.handle();
    until(&mut events, "all is released", || h.stats().sources == 0);
    assert_eq!(descriptors(), before);
}

fn i10_a_handlers_listener_that_is_closed_while_many_come_leaves_nothing(backend: Backend) {
    for turns in 0..5 {
        let before = descriptors();
        let mut s = Server::new(backend);
        let seen: Vec<_> = (0..200).map(|_| s.expect(Probe::new())).collect();
        let mut peers: Vec<_> = (0..100).map(|_| connect(s.addr)).collect();
        s.turns(turns);
        peers.extend((0..100).map(|_| connect(s.addr)));
        assert!(s.h.close_listener(s.listener));
        s.turns(2);
        let accepted = seen.iter().filter(|seen| seen.opened.get()).count();
        assert_eq!(s.h.stats().accepted as usize, accepted);
        // Who was accepted came first.
        all_turned_away(peers.split_off(accepted));
        drop(peers);
        let pool = s.pool.clone();
        s.until("those that were accepted are gone", || pool.is_empty());
        drop((s, seen, pool));
        assert_eq!(descriptors(), before);
    }
}

fn i10_accepts_dropped_while_many_come_lose_nobody(backend: Backend) {
    let mut events = event_loop(backend);
    let before = descriptors();
    let mut listener = events.block_on(async { Listener::bind("127.0.0.1:0") }).unwrap().unwrap();
    let at = listener.local_addr().unwrap().socket_addr().unwrap();
    let mut rng = fastrand::Rng::with_seed(10);
    let (mut peers, mut streams) = (Vec::new(), Vec::new());
    while streams.len() < 300 {
        if peers.len() < 300 && rng.bool() {
            peers.extend((0..rng.usize(1..20)).map(|_| connect(at)));
        }
        let accepted = events.block_on(async {
            let accept = once(listener.accept());
            accept.await.map(|accepted| accepted.unwrap().0)
        });
        match accepted.unwrap() {
            Some(stream) => streams.push(stream),
            None => (0..rng.usize(..3)).for_each(|_| events.poll().unwrap()),
        }
    }
    // Each has the peer that it says.
    let mut ports: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap().port()).collect();
    for stream in &streams {
        let port = stream.peer_addr().unwrap().socket_addr().unwrap().port();
        let place = ports.iter().position(|p| *p == port).expect("nobody was accepted twice");
        ports.swap_remove(place);
    }
    drop((peers, streams, listener));
    let h = events.handle();
    until(&mut events, "all is released", || h.stats().sources == 0);
    assert_eq!(descriptors(), before);
}

fn i10_connects_that_are_dropped_leave_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let before = descriptors();
    let listener = blocking::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    for turns in 0..6 {
        for _ in 0..10 {
            let mut connecting = Box::pin(Stream::connect(at));
            for _ in 0..turns {
                // Polled once more in each turn.
                if events.block_on(once(connecting.as_mut())).unwrap().is_some() {
                    break;
                }
                events.poll().unwrap();
            }
        }
    }
    drop(listener);
    let h = events.handle();
    until(&mut events, "all is released", || h.stats().sources == 0);
    (0..3).for_each(|_| events.poll().unwrap());
    assert_eq!(descriptors(), before);
}

/// What waits for its handler in the loop is bounded, as what waits in the kernel is.
fn i41_newcomers_wait_in_the_kernel_while_the_loop_is_busy(backend: Backend) {
    const BACKLOG: usize = 60;
    let mut options = ListenOptions::default();
    options.backlog = BACKLOG as u32;
    let mut s = Server::with(backend, no_limits(), options);
    let before = descriptors().len();
    let (mut peers, mut most) = (Vec::new(), 0);
    for _ in 0..40 {
        for _ in 0..50 {
            let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            peer.set_nonblocking(true).unwrap();
            // The kernel drops those for which there is no room; they would try again in a second.
            let _ = peer.connect(&s.addr.into());
            peers.push(peer);
        }
        s.turns(1);
        let waiting = descriptors().len() - before - peers.len() - s.pool.len();
        most = most.max(waiting);
    }
    assert!(most <= 64 + 2 * BACKLOG, "{most} connections waited in the loop");
}

/// Connections that send, echo, wait, flood, accept and connect, as far as the loop gets in `turns` turns.
fn busy(backend: Backend, turns: usize) -> (EventLoop, Vec<TcpStream>, Vec<Stream>) {
    let mut s = Server::new(backend);
    let mut peers: Vec<_> = (0..6).map(|_| connect(s.addr)).collect();
    (0..3).for_each(|_| drop(s.expect(Probe::echo())));
    drop(s.expect(Probe::new().on_data(|conn, _| conn.pause())));
    drop(s.expect(Probe::new().on_data(|conn, _| conn.close())));
    drop(s.expect(Probe::new().on_data(|conn, _| {
        conn.write(&pattern(3_000_000));
    })));
    let at = s.addr;
    for i in 0..4 {
        let probe = Probe::echo();
        let pool = s.pool.clone();
        let _task = s.h.spawn(async move {
            let mut stream = Stream::connect(at).await.unwrap();
            stream.write_all(&pattern(100 << (4 * i))).await.unwrap();
            if i == 3 {
                let _ = pool.adopt(stream, probe, b"unread");
                return;
            }
            while let Ok(1..) = stream.read(&mut [0; 500]).await {}
        });
    }
    let _accepting = s.h.spawn(async move {
        let mut listener = Listener::bind("127.0.0.1:0").unwrap();
        let _peer = connect(listener.local_addr().unwrap().socket_addr().unwrap());
        let (one, _) = listener.accept().await.unwrap();
        let _ = listener.accept().await;
        drop(one);
    });
    let (stream, peer) = pair(&mut s.events);
    peers.push(peer);
    for turn in 0..turns {
        for peer in &mut peers {
            peer.set_nonblocking(true).unwrap();
            let _ = peer.write(&pattern(10_000 << (turn % 5)));
        }
        s.turns(1);
    }
    (s.events, peers, vec![stream])
}

fn i16_a_loop_that_ends_at_any_turn_leaves_nothing(backend: Backend) {
    let before = descriptors();
    // Odd ones and even ones, all the same.
    for turns in (0..25).step_by(if is_simulated() { 5 } else { 1 }) {
        let (events, peers, streams) = busy(backend, turns);
        if turns % 2 == 0 {
            drop(streams);
            drop(events);
        } else {
            drop(events);
            drop(streams);
        }
        drop(peers);
        assert_eq!(descriptors(), before, "after {turns} turns");
    }
}

fn i16_a_loop_that_ends_with_a_receive_in_a_closing_stream_leaves_nothing(backend: Backend) {
    let before = descriptors();
    for turns in 0..6 {
        let mut s = Server::new(backend);
        let closing = Rc::new(Cell::new(false));
        let flag = closing.clone();
        // Its peer has not ended, so it is waited for; and one that has unsent bytes.
        let (mut first, _) = s.pair(Probe::new().on_data(move |conn, _| {
            flag.set(true);
            conn.close();
        }));
        let (second, seen) = s.pair(Probe::new());
        // As much as a socket takes before anybody reads.
        first.write_all(&pattern(if is_simulated() { 60_000 } else { 400_000 })).unwrap();
        s.h.write(seen.id(), &pattern(8_000_000)).unwrap();
        s.h.close(seen.id()).unwrap();
        s.until("it closes", || closing.get());
        s.turns(turns);
        drop(s);
        assert!(seen.closed());
        drop((first, second));
        assert_eq!(descriptors(), before);
    }
}
