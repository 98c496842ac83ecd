//! Sockets that listen already: accepting from them, giving them away, and ending without anybody being reset.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use evenkeel::net::{Closing, ListenOptions, Listener};
use evenkeel::sim::blocking;
use evenkeel::{Backend, EventLoop, Handle};

use crate::support::{Probe, Server, connect, event_loop, exactly, no_limits, unique, until};

on_every_backend! {
    whoever_waits_at_an_inherited_socket_is_served,
    tasks_accept_from_an_inherited_socket,
    tasks_that_hand_over_serve_what_they_have_taken,
    tasks_that_drain_serve_the_queue,
    a_full_pool_that_hands_over_keeps_what_it_has_taken,
    a_drained_listener_serves_its_queue_and_then_closes,
    a_drained_listener_of_a_full_pool_closes_in_the_end,
    what_does_not_listen_is_refused,
    a_unix_sockets_file_stays_with_its_successor,
    a_unix_sockets_file_that_is_anothers_by_now_stays,
    duplicates_outlive_their_listener,
}

// It needs half of the descriptors that `select` can watch.
in_processes! {
    closing_after_handing_over_resets_nobody,
}

/// Peers that have been connected by the kernel, have said something, and wait for somebody to accept them.
fn waiting(at: SocketAddr, count: usize) -> Vec<blocking::TcpStream> {
    let peer = |_| {
        let mut peer = connect(at);
        peer.write_all(b"ping").unwrap();
        peer
    };
    (0..count).map(peer).collect()
}

/// Accepts, with an echo, from a socket that listens already.
fn serve_at(h: &Handle, socket: OwnedFd) {
    let pool = h.pool(no_limits());
    pool.listen_on(socket, &ListenOptions::default(), |_| Probe::echo()).unwrap();
}

fn all_answered(peers: &mut [blocking::TcpStream]) {
    for (at, peer) in peers.iter_mut().enumerate() {
        let mut pong = [0; 4];
        peer.read_exact(&mut pong).unwrap_or_else(|e| panic!("peer {at}: {e}"));
        assert_eq!(&pong, b"ping");
    }
}

fn whoever_waits_at_an_inherited_socket_is_served(backend: Backend) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let mut peers = waiting(at, 20);
    let mut events = event_loop(backend);
    let h = events.handle();
    let listener = h.listen_on(socket, |_| Probe::echo()).unwrap();
    assert_eq!(h.listener_addr(listener).unwrap().socket_addr(), Some(at));
    peers.extend(waiting(at, 20));
    until(&mut events, "all are served", || h.stats().bytes_out == 160);
    all_answered(&mut peers);
}

fn tasks_accept_from_an_inherited_socket(backend: Backend) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peers = waiting(socket.local_addr().unwrap(), 3);
    let mut events = event_loop(backend);
    let accept = async {
        let mut listener = Listener::from_fd(socket, &ListenOptions::default()).unwrap();
        let copy = TcpListener::from(listener.socket().unwrap());
        assert_eq!(Some(copy.local_addr().unwrap()), listener.local_addr().unwrap().socket_addr());
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut ping = [0; 4];
            stream.read_exact(&mut ping).await.unwrap();
            stream.write_all(&ping).await.unwrap();
        }
    };
    events.block_on(accept).unwrap();
    events.poll().unwrap();
    all_answered(&mut peers);
}

/// Stops a task's listener while peers wait, and returns how many it has served by the end.
fn stopped(backend: Backend, closing: Closing) -> (usize, Vec<blocking::TcpStream>, TcpListener) {
    let mut events = event_loop(backend);
    let serve = async {
        let mut listener = Listener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().socket_addr().unwrap();
        let copy = TcpListener::from(listener.socket().unwrap());
        let peers = waiting(at, 40);
        let mut served = 0;
        loop {
            match listener.accept().await {
                Ok((mut stream, _)) => {
                    served += 1;
                    if served == 2 {
                        listener.stop(closing);
                    }
                    let mut ping = [0; 4];
                    stream.read_exact(&mut ping).await.unwrap();
                    stream.write_all(&ping).await.unwrap();
                    stream.flush().await.unwrap();
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::NotConnected, "{e}");
                    assert_eq!(listener.accept().await.unwrap_err().kind(), ErrorKind::NotConnected);
                    return (served, peers, copy);
                }
            }
        }
    };
    events.block_on(serve).unwrap()
}

fn tasks_that_hand_over_serve_what_they_have_taken(backend: Backend) {
    let (served, mut peers, copy) = stopped(backend, Closing::HandedOver);
    assert!(served >= 2);
    // The others are still in the queue: all of them.
    for _ in served..peers.len() {
        let (mut peer, _) = copy.accept().unwrap();
        let ping = exactly(&mut peer, 4);
        peer.write_all(&ping).unwrap();
    }
    all_answered(&mut peers);
}

fn tasks_that_drain_serve_the_queue(backend: Backend) {
    let (served, mut peers, _copy) = stopped(backend, Closing::Drained);
    assert_eq!(served, peers.len());
    all_answered(&mut peers);
    assert_eq!(stopped(backend, Closing::Now).0, 2);
}

fn closing_after_handing_over_resets_nobody(backend: Backend) {
    let mut old = Server::new(backend);
    let mut new = event_loop(backend);
    let mut peers = Vec::new();
    for turns in 0..6 {
        // More than a ring takes ahead of its loop.
        peers.extend((0..30).map(|_| connect(old.addr)));
        old.turns(turns % 3);
    }
    let socket = old.h.listener_socket(old.listener).unwrap();
    assert!(old.h.close_listener_as(old.listener, Closing::HandedOver));
    peers.extend((0..30).map(|_| connect(old.addr)));
    let (h, listener) = (old.h.clone(), old.listener);
    old.until("the old loop has closed it", || h.listener_addr(listener).is_err());
    assert!(!old.h.close_listener_as(listener, Closing::HandedOver), "it is closed");
    peers.extend((0..30).map(|_| connect(old.addr)));
    serve_at(&new.handle(), socket);
    let (old_h, new_h) = (old.h.clone(), new.handle());
    let count = peers.len() as u64;
    while old_h.stats().accepted + new_h.stats().accepted < count {
        old.turns(1);
        new.poll().unwrap();
    }
    assert!(new_h.stats().accepted >= 30, "some were left for the new loop");
    // Every one of them lives, be it here or there.
    for peer in &mut peers {
        peer.write_all(b"ping").unwrap();
        peer.set_nonblocking(true).unwrap();
    }
    let mut left = peers;
    until(&mut new, "every peer is known to live", || {
        old.turns(1);
        left.retain_mut(|peer| match peer.read(&mut [0; 8]) {
            Ok(n) => panic!("{n} bytes"),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock, "a peer was reset");
                // Those of the old loop do not answer; what they sent has come.
                false
            }
        });
        left.is_empty() && old_h.stats().bytes_in + new_h.stats().bytes_in == 4 * count
    });
}

fn a_full_pool_that_hands_over_keeps_what_it_has_taken(backend: Backend) {
    let mut limits = no_limits();
    limits.max_connections = Some(2);
    let mut old = Server::with_limits(backend, limits);
    let mut new = event_loop(backend);
    let mut peers: Vec<_> = (0..10).map(|_| connect(old.addr)).collect();
    let pool = old.pool.clone();
    old.until("it is full", || pool.len() == 2);
    let socket = old.h.listener_socket(old.listener).unwrap();
    old.h.close_listener_as(old.listener, Closing::HandedOver);
    serve_at(&new.handle(), socket);
    let (h, new_h) = (old.h.clone(), new.handle());
    // Room comes one by one; whoever was taken ahead is served then, and the new loop has the others.
    until(&mut new, "everybody is served", || {
        old.turns(1);
        if pool.len() == 2 {
            pool.close_all();
        }
        h.stats().accepted + new_h.stats().accepted == 10
    });
    for peer in &mut peers {
        peer.set_nonblocking(true).unwrap();
        match peer.read(&mut [0; 1]) {
            Ok(n) => assert_eq!(n, 0),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "nobody was reset"),
        }
    }
}

fn a_drained_listener_serves_its_queue_and_then_closes(backend: Backend) {
    let mut s = Server::new(backend);
    let made = Rc::new(Cell::new(0));
    let count = made.clone();
    let make = move |_: &_| {
        count.set(count.get() + 1);
        Probe::echo()
    };
    let listener = s.pool.listen("127.0.0.1:0", &ListenOptions::default(), make).unwrap();
    let at = s.h.listener_addr(listener).unwrap().socket_addr().unwrap();
    let mut peers = waiting(at, 100);
    assert!(s.h.close_listener_as(listener, Closing::Drained));
    let h = s.h.clone();
    s.until("it is closed", || h.listener_addr(listener).is_err());
    assert_eq!(made.get(), 100, "all who waited");
    s.until("they are answered", || h.stats().bytes_out == 400);
    all_answered(&mut peers);
    assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

fn a_drained_listener_of_a_full_pool_closes_in_the_end(backend: Backend) {
    let mut limits = no_limits();
    limits.max_connections = Some(1);
    limits.close_deadline = std::time::Duration::from_millis(20);
    let mut s = Server::with_limits(backend, limits);
    let _peers: Vec<_> = (0..5).map(|_| connect(s.addr)).collect();
    let (h, listener, pool) = (s.h.clone(), s.listener, s.pool.clone());
    s.until("it is full", || pool.len() == 1);
    s.h.close_listener_as(listener, Closing::Drained);
    s.until("it is closed", || h.listener_addr(listener).is_err());
    assert_eq!(s.pool.len(), 1);
}

fn what_does_not_listen_is_refused(backend: Backend) {
    let events = event_loop(backend);
    let h = events.handle();
    let (pair, _other) = UnixStream::pair().unwrap();
    let odd: [OwnedFd; 3] = [
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        pair.into(),
        std::fs::File::open("/dev/null").unwrap().into(),
    ];
    for fd in odd {
        let refused = h.listen_on(fd, |_| Probe::new()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    }
    assert_eq!(h.stats().sources, 0);
}

/// A path of its own, and a listener there.
fn unix(events: &mut EventLoop, name: &str) -> (std::path::PathBuf, evenkeel::net::ListenerId) {
    let backend = events.handle().backend();
    let path = std::env::temp_dir().join(unique(&format!("{name}-{backend}")));
    let at = format!("unix:{}", path.display());
    let listener = events.handle().listen(&*at, |_| Probe::echo()).unwrap();
    (path, listener)
}

fn a_unix_sockets_file_stays_with_its_successor(backend: Backend) {
    let mut old = event_loop(backend);
    let mut new = event_loop(backend);
    let (path, listener) = unix(&mut old, "succeeded");
    let socket = old.handle().listener_socket(listener).unwrap();
    old.handle().close_listener_as(listener, Closing::HandedOver);
    let h = old.handle();
    until(&mut old, "it is closed", || h.listener_addr(listener).is_err());
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"ping").unwrap();
    let h = new.handle();
    let adopted = h.listen_on(socket, |_| Probe::echo()).unwrap();
    until(&mut new, "it is answered", || h.stats().bytes_out == 4);
    assert_eq!(exactly(&mut peer, 4), b"ping");
    // The last one takes the file with it.
    h.close_listener(adopted);
    new.poll().unwrap();
    assert!(!path.exists());
}

fn a_unix_sockets_file_that_is_anothers_by_now_stays(backend: Backend) {
    let mut events = event_loop(backend);
    let (path, listener) = unix(&mut events, "replaced");
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    events.handle().close_listener(listener);
    events.poll().unwrap();
    events.poll().unwrap();
    assert!(path.exists(), "it is another socket's");
    UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
}

fn duplicates_outlive_their_listener(backend: Backend) {
    let mut s = Server::new(backend);
    let socket = s.h.listener_socket(s.listener).unwrap();
    let listener = s.listener;
    s.h.close_listener(listener);
    s.turns(3);
    assert_eq!(s.h.listener_socket(listener).unwrap_err().kind(), ErrorKind::NotFound);
    let mut peer = connect(s.addr);
    peer.write_all(b"ping").unwrap();
    serve_at(&s.h, socket);
    let h = s.h.clone();
    s.until("it is answered", || h.stats().bytes_out == 4);
    assert_eq!(exactly(&mut peer, 4), b"ping");
}
