//! Groups that accept from sockets that listen already, give them away, and drain.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use evenkeel::Backend;
use evenkeel::group::{Group, GroupListener, Share};
use evenkeel::net::{Closing, Drain, Limits, ListenOptions};
use socket2::{Domain, Socket, Type};

use crate::support::*;

on_every_backend! {
    every_inherited_socket_is_served,
    i48_a_group_hands_over_under_a_storm_and_resets_nobody,
    a_group_drains_its_queues_and_its_connections,
}

/// Listening sockets at one port, with `SO_REUSEPORT`.
fn sockets(count: usize) -> (Vec<OwnedFd>, SocketAddr) {
    let mut at: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut all = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(1024).unwrap();
        at = socket.local_addr().unwrap().as_socket().unwrap();
        all.push(socket.into());
    }
    (all, at)
}

fn adopt(group: &Group, sockets: Vec<OwnedFd>, share: Share) -> std::io::Result<GroupListener> {
    let (options, limits) = (ListenOptions::default(), Limits::default());
    group.adopt(sockets, &options, &limits, share, |_, _| Echo::default())
}

fn every_inherited_socket_is_served(backend: Backend) {
    const PEERS: usize = 60;
    for (count, loops) in [(1, 1), (1, 3), (2, 3), (3, 3), (5, 2), (4, 1)] {
        for share in SHARES {
            let (sockets, at) = sockets(count);
            // These wait in the queues of all of them, by the kernel's hash.
            let mut peers: Vec<_> = (0..PEERS).map(|_| connect(at)).collect();
            let group = group_on(backend, loops);
            let listener = adopt(&group, sockets, share).unwrap();
            assert_eq!(tcp(&listener), at);
            peers.extend((0..PEERS).map(|_| connect(at)));
            for (nth, peer) in peers.iter_mut().enumerate() {
                ping(peer).unwrap_or_else(|e| panic!("{share:?}, {count} on {loops}, peer {nth}: {e}"));
            }
            let opened = if share == Share::ReusePort { count.max(loops) } else { count };
            assert_eq!(listener.wait_sockets().unwrap().len(), opened, "each once");
            assert_eq!(connections(&listener).iter().sum::<usize>(), 2 * PEERS);
            listener.close().unwrap();
            settle(&group);
            assert_eq!(
                TcpStream::connect(at).unwrap_err().kind(),
                ErrorKind::ConnectionRefused,
                "all are closed"
            );
            join(group);
        }
    }
}

/// Connections from several threads, each served once, until told to stop. How many there were.
struct Storm {
    over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Storm {
    fn new(at: SocketAddr) -> Storm {
        let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..3).map(|_| {
            let (over, served) = (over.clone(), served.clone());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut peer = TcpStream::connect(at).expect("nobody is refused");
                    peer.set_read_timeout(Some(LONG)).unwrap();
                    ping(&mut peer).expect("nobody is reset");
                    // The next one needs this one's port.
                    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Storm { over, served, threads }
    }

    /// Returns when so many more have been served.
    fn rages(&self, more: usize) {
        let until = self.served.load(Ordering::Relaxed) + more;
        while self.served.load(Ordering::Relaxed) < until {
            assert!(!self.threads.iter().any(|thread| thread.is_finished()), "a connection failed");
            thread::yield_now();
        }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn i48_a_group_hands_over_under_a_storm_and_resets_nobody(backend: Backend) {
    for share in SHARES {
        for loops in [1, 3] {
            let old = group_on(backend, 2);
            let listener = echo(&old, share);
            let storm = Storm::new(tcp(&listener));
            storm.rages(50);
            let new = group_on(backend, loops);
            let adopted = adopt(&new, listener.wait_sockets().unwrap(), share).unwrap();
            storm.rages(50);
            listener.close_as(Closing::HandedOver).unwrap();
            storm.rages(50);
            let drained = old.wait_drain(&Drain::new(1)).unwrap();
            assert_eq!((drained.closed, drained.forced), (0, 0));
            join(old);
            storm.rages(50);
            storm.end();
            adopted.close().unwrap();
            join(new);
        }
    }
}

fn a_group_drains_its_queues_and_its_connections(backend: Backend) {
    for share in SHARES {
        let group = group_on(backend, 3);
        let listener = echo(&group, share);
        let at = tcp(&listener);
        let mut peers: Vec<_> = (0..30).map(|_| connect(at)).collect();
        peers.iter_mut().for_each(|peer| ping(peer).unwrap());
        peers.extend((0..30).map(|_| connect(at)));
        peers.iter_mut().for_each(|peer| peer.write_all(b"last").unwrap());
        let mut drain = Drain::new(48);
        (drain.grace, drain.spread) = (Duration::from_millis(100), Duration::from_millis(50));
        let drained = group.wait_drain(&drain).unwrap();
        assert_eq!((drained.finished, drained.closed, drained.forced), (0, 60, 0), "{share:?}");
        for peer in &mut peers {
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"last", "answered, and then an orderly end");
        }
        assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(connections(&listener), [0; 3]);
        join(group);
    }
}

#[test]
fn sockets_of_different_kinds_are_refused_whole() {
    let _alone = alone();
    let group = group(2);
    let before = descriptors();
    let (one, _) = sockets(1);
    let (other, _) = sockets(1);
    let not_listening = TcpStream::connect(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let lists = [
        Vec::new(),
        one.into_iter().chain(other).collect(),
        vec![OwnedFd::from(std::fs::File::open("/dev/null").unwrap())],
        vec![OwnedFd::from(not_listening.unwrap())],
    ];
    for list in lists {
        for share in SHARES {
            let list = list.iter().map(|fd| fd.try_clone().unwrap()).collect();
            let refused = adopt(&group, list, share).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        }
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn a_limit_of_connections_does_not_go_with_sockets_that_must_be_shared() {
    let _alone = alone();
    let group = group(2);
    let socket = || vec![OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap())];
    let mut limits = Limits::default();
    limits.max_connections = Some(1);
    let adopt = |share| {
        group.adopt(socket(), &ListenOptions::default(), &limits, share, |_, _| Echo::default()).map(|_| ())
    };
    assert_eq!(adopt(Share::ReusePort).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(adopt(Share::Shared).unwrap_err().kind(), ErrorKind::InvalidInput);
    adopt(Share::Acceptor).unwrap();
}

#[test]
fn a_unix_socket_is_adopted_in_every_way_and_keeps_its_file_for_a_successor() {
    let _alone = alone();
    for share in SHARES {
        let path = std::env::temp_dir().join(format!("evenkeel-adopt-{}.sock", std::process::id()));
        let old = group(2);
        let at = format!("unix:{}", path.display());
        let (options, limits) = (ListenOptions::default(), Limits::default());
        let listener = old.listen(&*at, &options, &limits, Share::Shared, |_, _| Echo::default()).unwrap();
        let new = group(2);
        let adopted = adopt(&new, listener.wait_sockets().unwrap(), share).unwrap();
        listener.close_as(Closing::HandedOver).unwrap();
        join(old);
        for _ in 0..5 {
            let mut peer = UnixStream::connect(&path).unwrap();
            peer.write_all(b"ping").unwrap();
            peer.read_exact(&mut [0; 4]).unwrap();
        }
        adopted.close().unwrap();
        join(new);
        assert!(!path.exists(), "{share:?}: the last one takes it with it");
    }
}
