//! Listeners: budgets, limits, and that their end is an end.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{ListenOptions, Listener, ListenerId, Stream};
use evenkeel::sim::blocking::{self, UnixListener};
use evenkeel::{Backend, EventLoop};

use crate::support::{
    Probe, Server, connect, event_loop, exactly, no_limits, read_all, reset_on_close, unique, until,
};

on_every_kernel! {
    a_full_pool_pauses_its_listener,
    a_pool_has_room_again_when_a_connection_is_detached,
    i38_a_panic_in_make_ends_one_connection,
    a_closed_listener_accepts_nobody,
    i06_a_listener_closed_in_make_accepts_nobody_more,
    i37_closing_a_listener_leaves_streams_alone,
    i36_closing_a_listener_drops_what_it_was_given,
    an_address_in_use_is_an_error,
    accepting_can_be_cancelled,
    i05_connections_that_are_gone_before_they_are_accepted,
}

on_every_backend! {
    // Files of a world's sockets are not on its disk.
    unix_listeners_replace_and_remove_their_file,
}

in_processes! {
    i24_a_crowd_of_newcomers_is_accepted_in_portions,
}

fn i24_a_crowd_of_newcomers_is_accepted_in_portions(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut friend, seen) = s.pair(Probe::echo());
    let before = s.h.stats().accepted;
    let mut crowd: Vec<_> = (0..150).map(|_| connect(s.addr)).collect();
    friend.write_all(b"ping").unwrap();
    for _ in 0..2 {
        let accepted = s.h.stats().accepted;
        s.turns(1);
        let portion = s.h.stats().accepted - accepted;
        assert!((1..=40).contains(&portion), "{portion} were accepted in one turn");
    }
    assert_eq!(seen.len(), 4, "whoever is here already does not wait for the crowd");
    let h = s.h.clone();
    s.until("all are accepted", || h.stats().accepted - before == 150);
    assert_eq!(s.pool.len(), 151);
    crowd.clear();
    let pool = s.pool.clone();
    s.until("all are gone", || pool.len() == 1);
}

fn a_full_pool_pauses_its_listener(backend: Backend) {
    let mut limits = no_limits();
    limits.max_connections = Some(3);
    let mut s = Server::with_limits(backend, limits);
    let mut peers: Vec<_> = (0..8).map(|_| connect(s.addr)).collect();
    let pool = s.pool.clone();
    s.until("it is full", || pool.len() == 3);
    assert!(s.turns_in(Duration::from_millis(40)) < 20, "a full pool is quiet");
    assert_eq!(s.pool.len(), 3);
    // The loop sleeps until one goes, and then accepts the next.
    for left in (1..=8).rev() {
        drop(peers.remove(0));
        let h = s.h.clone();
        let accepted = (8 - left + 1 + 3).min(8) as u64;
        s.until("the next one is in", || h.stats().accepted == accepted);
        assert!(s.pool.len() <= 3);
    }
    let pool = s.pool.clone();
    s.until("all are gone", || pool.is_empty());
}

fn a_pool_has_room_again_when_a_connection_is_detached(backend: Backend) {
    let mut limits = no_limits();
    limits.max_connections = Some(1);
    let mut s = Server::with_limits(backend, limits);
    let kept: Rc<RefCell<Vec<Stream>>> = Rc::default();
    let streams = kept.clone();
    let (_first, seen) = s.pair(Probe::new().on_notify(move |conn| {
        streams.borrow_mut().push(conn.detach(b"").unwrap());
    }));
    let waiting = s.expect(Probe::new());
    let _second = connect(s.addr);
    s.turns(5);
    assert!(!waiting.opened.get());
    s.h.notify(seen.id()).unwrap();
    s.until("the second one is in", || waiting.opened.get());
    assert_eq!(kept.borrow().len(), 1);
}

fn i38_a_panic_in_make_ends_one_connection(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let count = Cell::new(0);
    let listener = h
        .listen("127.0.0.1:0", move |_| {
            count.set(count.get() + 1);
            assert!(count.get() != 2, "the second one is refused, loudly");
            Probe::echo()
        })
        .unwrap();
    let at = h.listener_addr(listener).unwrap().socket_addr().unwrap();
    let mut peers: Vec<_> = (0..3).map(|_| connect(at)).collect();
    peers.iter_mut().for_each(|peer| peer.write_all(b"ping").unwrap());
    until(&mut events, "all are accepted", || h.stats().accepted == 3 && h.stats().bytes_out == 8);
    assert_eq!(h.stats().panics, 1);
    assert_eq!(exactly(&mut peers[0], 4), b"ping");
    assert_ne!(read_all(&mut peers[1]).0, b"ping");
    assert_eq!(exactly(&mut peers[2], 4), b"ping");
}

fn a_closed_listener_accepts_nobody(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut friend, _) = s.pair(Probe::echo());
    let mut late = connect(s.addr);
    assert!(s.h.close_listener(s.listener));
    assert!(
        !s.h.close_listener(s.listener) && s.h.listener_addr(s.listener).is_err(),
        "closed already, in this batch"
    );
    s.turns(3);
    assert_eq!(s.h.stats().accepted, 1, "who was in the backlog is not accepted any more");
    assert_eq!(read_all(&mut late).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(blocking::TcpStream::connect(s.addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(!s.h.close_listener(s.listener) && s.h.listener_addr(s.listener).is_err());
    friend.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut friend, 4), b"ping");
}

fn i06_a_listener_closed_in_make_accepts_nobody_more(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let own: Rc<Cell<Option<ListenerId>>> = Rc::default();
    let (made, handle, id) = (Rc::new(Cell::new(0)), h.clone(), own.clone());
    let count = made.clone();
    let listener = h.listen("127.0.0.1:0", move |_| {
        count.set(count.get() + 1);
        assert!(handle.close_listener(id.get().unwrap()));
        Probe::new()
    });
    own.set(Some(listener.unwrap()));
    let at = h.listener_addr(own.get().unwrap()).unwrap().socket_addr().unwrap();
    let _peers: Vec<_> = (0..5).map(|_| connect(at)).collect();
    (0..5).for_each(|_| events.poll().unwrap());
    assert_eq!((made.get(), h.stats().panics), (1, 0));
}

/// Listeners and streams have their places in different tables.
fn i37_closing_a_listener_leaves_streams_alone(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let listeners: Vec<_> = (0..4).map(|_| h.listen("127.0.0.1:0", |_| Probe::new()).unwrap()).collect();
    let (peers, readers): (Vec<_>, Vec<_>) = (0..4)
        .map(|_| {
            let (peer, ours) = blocking::UnixStream::pair().unwrap();
            let task = h.spawn(async move {
                let mut stream = Stream::from_fd(ours.into_fd().unwrap()).unwrap();
                let mut got = [0; 4];
                stream.read_exact(&mut got).await.unwrap();
                got
            });
            (peer, task)
        })
        .unzip();
    // All are waiting.
    (0..3).for_each(|_| events.poll().unwrap());
    listeners.into_iter().for_each(|listener| assert!(h.close_listener(listener)));
    (0..3).for_each(|_| events.poll().unwrap());
    let more: Vec<_> = (0..4)
        .map(|_| {
            let (peer, ours) = blocking::UnixStream::pair().unwrap();
            let stream =
                events.block_on(async { Stream::from_fd(ours.into_fd().unwrap()).unwrap() }).unwrap();
            (peer, stream)
        })
        .collect();
    for (i, mut peer) in peers.iter().enumerate() {
        peer.write_all(&[i as u8; 4]).unwrap();
    }
    for (i, reader) in readers.into_iter().enumerate() {
        assert_eq!(events.block_on(reader).unwrap().unwrap(), [i as u8; 4]);
    }
    drop(more);
}

fn i36_closing_a_listener_drops_what_it_was_given(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let given = Rc::new(());
    for _ in 0..3 {
        let own = given.clone();
        let listener = h
            .listen("127.0.0.1:0", move |_| {
                let _ = &own;
                Probe::new()
            })
            .unwrap();
        assert_eq!(Rc::strong_count(&given), 2);
        h.close_listener(listener);
        events.poll().unwrap();
        assert_eq!(Rc::strong_count(&given), 1, "the closure is dropped with its listener");
    }
}

fn unix_listeners_replace_and_remove_their_file(backend: Backend) {
    let mut s = Server::new(backend);
    let path = std::env::temp_dir().join(unique("accept"));
    let _ = std::fs::remove_file(&path);
    // A file left by a process that is gone.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listen = |s: &Server, options: &ListenOptions| s.pool.listen(&*path, options, |_| Probe::echo());
    let listener = listen(&s, &ListenOptions::default()).unwrap();
    assert_eq!(s.h.listener_addr(listener).unwrap().to_string(), format!("unix:{}", path.display()));
    s.h.close_listener(listener);
    s.turns(2);
    assert!(!path.exists());

    let mut keep = ListenOptions::default();
    keep.unlink = false;
    let listener = listen(&s, &keep).unwrap();
    s.h.close_listener(listener);
    s.turns(2);
    assert!(path.exists(), "as it was asked");
    assert_eq!(listen(&s, &keep).unwrap_err().kind(), ErrorKind::AddrInUse);

    // What is not a socket is never removed.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a letter").unwrap();
    assert_eq!(listen(&s, &ListenOptions::default()).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a letter");
    std::fs::remove_file(&path).unwrap();

    // A task's listener does the same, as does the end of the loop.
    let at = path.clone();
    s.events.block_on(async move { drop(Listener::bind(&*at).unwrap()) }).unwrap();
    s.turns(2);
    assert!(!path.exists());
    listen(&s, &ListenOptions::default()).unwrap();
    drop(s);
    assert!(!path.exists());
}

fn an_address_in_use_is_an_error(backend: Backend) {
    let s = Server::new(backend);
    let sources = s.h.stats().sources;
    let again = s.pool.listen(s.addr, &ListenOptions::default(), |_| Probe::new());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    let bad = s.pool.listen("localhost", &ListenOptions::default(), |_| Probe::new());
    assert_eq!(bad.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(s.h.stats().sources, sources);
}

fn accepting_can_be_cancelled(backend: Backend) {
    let mut events: EventLoop = event_loop(backend);
    events
        .block_on(async {
            let mut listener = Listener::bind("127.0.0.1:0").unwrap();
            let at = listener.local_addr().unwrap().socket_addr().unwrap();
            for _ in 0..3 {
                let none = evenkeel::time::timeout(Duration::from_millis(1), listener.accept()).await;
                assert!(none.is_err());
            }
            let mut peer = connect(at);
            let (stream, from) = listener.accept().await.unwrap();
            assert_eq!(from.socket_addr(), Some(peer.local_addr().unwrap()));
            drop(stream);
            evenkeel::task::yield_now().await;
            evenkeel::task::yield_now().await;
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        })
        .unwrap();
}

fn i05_connections_that_are_gone_before_they_are_accepted(backend: Backend) {
    let mut s = Server::new(backend);
    for reset in [false, true] {
        let before = s.h.stats().accepted;
        for _ in 0..20 {
            let peer = connect(s.addr);
            if reset {
                reset_on_close(&peer);
            }
        }
        let (pool, h) = (s.pool.clone(), s.h.clone());
        s.until("all came and went", || {
            pool.is_empty() && h.stats().accepted >= before + 20 - u64::from(reset) * 20
        });
        s.turns(20);
        assert!(s.turns_in(Duration::from_millis(20)) < 20);
    }
    let (mut peer, _) = s.pair(Probe::echo());
    peer.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut peer, 4), b"ping");
}
