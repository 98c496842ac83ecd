//! UDP at its edges: errors that nobody waits for, sockets that change their peer, IPv6, and many that end in one batch.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{UdpOption, UdpOptions, UdpSocket};
use evenkeel::sim::blocking;
use evenkeel::{Backend, EventLoop, spawn, time};
use socket2::SockRef;

use crate::asynchronous::once;
use crate::support::{PEER, assert_same, event_loop, pattern};

on_every_kernel! {
    i31_an_error_that_nobody_takes_does_not_spin,
    a_sender_to_many_hears_nothing_of_closed_ports,
    a_socket_is_connected_anew,
    a_connected_socket_hears_its_peer_only,
    datagrams_that_wait_are_read_one_by_one,
    empty_datagrams_are_no_end,
    what_does_not_fit_is_cut_and_counted_once,
    addresses_of_both_families,
    a_thousand_sends_to_nobody_hang_nothing,
}

// The model has no multicast groups, and nothing else reads its options.
on_every_backend! {
    groups_of_ipv6_are_joined_and_left,
    options_of_datagram_sockets_are_the_kernels,
}

// It takes many descriptors.
in_processes! {
    i06_sockets_that_end_in_the_batch_in_which_they_were_reported,
}

fn bind(at: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(at).unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

/// An address at which nobody receives, and nobody will while the socket is kept: it hears one peer only, who never speaks.
fn nobody() -> (blocking::UdpSocket, SocketAddr) {
    let kept = blocking::UdpSocket::bind("127.0.0.1:0").unwrap();
    kept.connect("127.0.0.99:9").unwrap();
    let at = kept.local_addr().unwrap();
    (kept, at)
}

fn turns_in(events: &mut EventLoop, time: Duration) -> u64 {
    let before = events.handle().stats().turns;
    events.block_on(async move { time::sleep(time).await }).unwrap();
    events.handle().stats().turns - before
}

/// The network's answer is there, an error of the socket, which is reported for as long as nobody asks.
fn i31_an_error_that_nobody_takes_does_not_spin(backend: Backend) {
    let mut events = event_loop(backend);
    let (_kept, to) = nobody();
    let (socket, _) = events.block_on(async { bind("127.0.0.1:0") }).unwrap();
    socket.connect(to).unwrap();
    for waited in [false, true] {
        events
            .block_on(async {
                if waited {
                    assert!(once(socket.recv(&mut [0; 8])).await.is_none());
                }
                socket.send(b"anybody?").await.unwrap();
            })
            .unwrap();
        let turns = turns_in(&mut events, Duration::from_millis(50));
        assert!(turns < 30, "{turns} turns, waited before: {waited}");
        let error = events.block_on(time::timeout(PEER, socket.recv(&mut [0; 8]))).unwrap().unwrap();
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(turns_in(&mut events, Duration::from_millis(20)) < 20);
    }
}

fn a_sender_to_many_hears_nothing_of_closed_ports(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let ((socket, at), (other, there)) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
            let (_kept, closed) = nobody();
            for _ in 0..5 {
                socket.send_to(b"nobody", closed).await.unwrap();
                socket.send_to(b"you", there).await.unwrap();
                let mut bytes = [0; 8];
                assert_eq!(other.recv_from(&mut bytes).await.unwrap(), (3, at));
                other.send_to(b"back", at).await.unwrap();
                assert_eq!(socket.recv_from(&mut bytes).await.unwrap(), (4, there));
            }
        })
        .unwrap();
}

fn a_socket_is_connected_anew(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let (socket, own) = bind("127.0.0.1:0");
            assert_eq!(socket.send(b"x").await.unwrap_err().raw_os_error(), Some(libc::EDESTADDRREQ));
            let peers = [bind("127.0.0.1:0"), bind("127.0.0.1:0")];
            let mut bytes = [0; 8];
            for round in 0..6 {
                let (peer, at) = &peers[round % 2];
                let (stranger, _) = &peers[(round + 1) % 2];
                // One waits for the peer before, and goes on waiting.
                let mut waiting = Box::pin(socket.recv_from(&mut bytes));
                assert!(once(waiting.as_mut()).await.is_none());
                socket.connect(*at).unwrap();
                assert_eq!(socket.peer_addr().unwrap(), *at);
                socket.send(b"hello").await.unwrap();
                assert_eq!(peer.recv_from(&mut [0; 8]).await.unwrap(), (5, own));
                stranger.send_to(b"not for you", own).await.unwrap();
                peer.send_to(b"back", own).await.unwrap();
                assert_eq!(waiting.await.unwrap(), (4, *at));
            }
        })
        .unwrap();
}

fn a_connected_socket_hears_its_peer_only(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let ((socket, own), (peer, at), (stranger, _)) =
                (bind("127.0.0.1:0"), bind("127.0.0.1:0"), bind("127.0.0.1:0"));
            // What came before is still there.
            stranger.send_to(b"early", own).await.unwrap();
            socket.connect(at).unwrap();
            for _ in 0..3 {
                stranger.send_to(b"late", own).await.unwrap();
            }
            peer.send_to(b"peer", own).await.unwrap();
            let mut bytes = [0; 8];
            assert_eq!(socket.recv(&mut bytes).await.unwrap(), 5);
            assert_eq!(socket.recv_from(&mut bytes).await.unwrap(), (4, at));
            assert!(once(socket.recv(&mut bytes)).await.is_none());
            // It may send elsewhere all the same.
            socket.send_to(b"you", stranger.local_addr().unwrap()).await.unwrap();
            assert_eq!(stranger.recv_from(&mut bytes).await.unwrap(), (3, own));
        })
        .unwrap();
}

/// They came together, as one report; and each is taken by a call of its own, with turns between them.
fn datagrams_that_wait_are_read_one_by_one(backend: Backend) {
    let mut events = event_loop(backend);
    let (socket, at) = events.block_on(async { bind("127.0.0.1:0") }).unwrap();
    let peer = blocking::UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in 1..=40 {
        peer.send_to(&pattern(len), at).unwrap();
    }
    for len in 1..=40 {
        let mut bytes = [0; 64];
        let n = events.block_on(time::timeout(PEER, socket.recv(&mut bytes))).unwrap().unwrap().unwrap();
        assert_same(&bytes[..n], &pattern(len));
        (0..len % 3).for_each(|_| events.poll().unwrap());
    }
    let none = events.block_on(async { once(socket.recv(&mut [0; 8])).await.is_none() }).unwrap();
    assert!(none);
    // And one that comes when all were taken is heard.
    peer.send_to(b"late", at).unwrap();
    assert_eq!(events.block_on(time::timeout(PEER, socket.recv(&mut [0; 8]))).unwrap().unwrap().unwrap(), 4);
}

fn empty_datagrams_are_no_end(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let ((socket, at), (peer, from)) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
            let receiver = spawn(async move {
                let mut lens = Vec::new();
                while lens.len() < 20 {
                    let (n, who) = socket.recv_from(&mut [0; 8]).await.unwrap();
                    assert_eq!(who, from);
                    lens.push(n);
                }
                lens
            });
            for i in 0..20 {
                assert_eq!(peer.send_to(&[7; 4][..i % 3], at).await.unwrap(), i % 3);
                if i % 5 == 0 {
                    evenkeel::task::yield_now().await;
                }
            }
            let lens = time::timeout(PEER, receiver).await.unwrap().unwrap();
            assert_eq!(lens, (0..20).map(|i| i % 3).collect::<Vec<_>>());
        })
        .unwrap();
}

fn what_does_not_fit_is_cut_and_counted_once(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let ((socket, at), (peer, _)) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
            let mut bytes = [0; 5000];
            for most in [0, 1, 100, 1499, 1500, 1501, 5000] {
                peer.send_to(&pattern(1500), at).await.unwrap();
                peer.send_to(b"next", at).await.unwrap();
                let n = socket.recv(&mut bytes[..most]).await.unwrap();
                assert_eq!(n, most.min(1500));
                assert_same(&bytes[..n], &pattern(1500)[..n]);
                assert_eq!(socket.recv(&mut bytes).await.unwrap(), 4, "after a read of {most} at most");
            }
        })
        .unwrap();
}

/// The first task that hears something ends all the others, whose datagrams were reported with it, and makes new sockets,
/// which get the numbers of the old.
fn i06_sockets_that_end_in_the_batch_in_which_they_were_reported(backend: Backend) {
    const MANY: usize = 60;
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let tasks: Rc<RefCell<Vec<_>>> = Rc::default();
            let found: Rc<RefCell<Vec<UdpSocket>>> = Rc::default();
            let mut all = Vec::new();
            for i in 0..MANY {
                let (socket, at) = bind("127.0.0.1:0");
                all.push(at);
                let (list, new) = (tasks.clone(), found.clone());
                let task = spawn(async move {
                    let got = socket.recv(&mut [0; 8]).await;
                    let others: Vec<evenkeel::task::JoinHandle<usize>> = list.take();
                    others.iter().for_each(|task| task.abort());
                    drop(others);
                    new.borrow_mut()
                        .extend((0..if got.is_ok() { MANY } else { 0 }).map(|_| bind("127.0.0.1:0").0));
                    i
                });
                tasks.borrow_mut().push(task);
            }
            evenkeel::task::yield_now().await;
            let peer = blocking::UdpSocket::bind("127.0.0.1:0").unwrap();
            for at in &all {
                peer.send_to(b"now", at).unwrap();
            }
            while found.borrow().is_empty() {
                time::sleep(Duration::from_millis(1)).await;
            }
            time::sleep(Duration::from_millis(2)).await;
            assert!(found.borrow().len() >= MANY);
            let found = found.take();
            for socket in &found {
                let early = once(socket.recv(&mut [0; 8])).await;
                assert!(early.is_none(), "a datagram or an event of the one before: {early:?}");
            }
            for socket in found {
                peer.send_to(b"you", socket.local_addr().unwrap()).unwrap();
                let heard = time::timeout(PEER, socket.recv(&mut [0; 8])).await.unwrap();
                assert_eq!(heard.unwrap(), 3);
            }
        })
        .unwrap();
}

fn addresses_of_both_families(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let mut bytes = [0; 8];
            let (both, at) = bind("[::]:0");
            let (four, from) = bind("127.0.0.1:0");
            four.send_to(b"four", SocketAddr::new("127.0.0.1".parse().unwrap(), at.port())).await.unwrap();
            let (n, who) = both.recv_from(&mut bytes).await.unwrap();
            assert_eq!((n, who.ip().to_canonical(), who.port()), (4, from.ip(), from.port()));
            both.send_to(b"back", who).await.unwrap();
            assert_eq!(four.recv(&mut bytes).await.unwrap(), 4);
            let mut options = UdpOptions::default();
            options.only_v6 = true;
            let only = UdpSocket::bind_with("[::]:0", &options).unwrap();
            let port = only.local_addr().unwrap().port();
            four.connect(SocketAddr::new("127.0.0.1".parse().unwrap(), port)).unwrap();
            let _ = four.send(b"four").await;
            assert!(once(only.recv(&mut bytes)).await.is_none());
            let (six, from) = bind("[::1]:0");
            six.send_to(b"six", SocketAddr::new("::1".parse().unwrap(), port)).await.unwrap();
            assert_eq!(only.recv_from(&mut bytes).await.unwrap(), (3, from));
            let wrong = six.send_to(b"x", "127.0.0.1:9").await.unwrap_err();
            assert!(wrong.raw_os_error().is_some(), "{wrong}");
        })
        .unwrap();
}

fn groups_of_ipv6_are_joined_and_left(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let any = blocking::UdpSocket::bind("[::1]:0").unwrap();
            let loopback = rustix::net::netdevice::name_to_index(any.std().unwrap(), "lo").unwrap();
            let (member, at) = bind("[::]:0");
            // A group of this body's own, on this machine.
            let group = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0xe7e2, at.port());
            member.set_option(UdpOption::JoinV6(group, loopback)).unwrap();
            let again = member.set_option(UdpOption::JoinV6(group, loopback)).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AddrInUse);
            let (sender, from) = bind("[::1]:0");
            sender.set_option(UdpOption::MulticastInterfaceV6(loopback)).unwrap();
            sender.set_option(UdpOption::MulticastLoopV6(true)).unwrap();
            let to = SocketAddr::new(group.into(), at.port());
            let here = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), at.port());
            let mut bytes = [0; 8];
            // Some machines have no route for groups on this interface; then nobody can be heard.
            match sender.send_to(b"all", to).await {
                Err(e) => assert_eq!(e.kind(), ErrorKind::NetworkUnreachable),
                Ok(_) => {
                    let heard = time::timeout(PEER, member.recv_from(&mut bytes)).await.unwrap().unwrap();
                    assert_eq!(heard, (3, from));
                }
            }
            member.set_option(UdpOption::LeaveV6(group, loopback)).unwrap();
            assert!(member.set_option(UdpOption::LeaveV6(group, loopback)).is_err());
            let _ = sender.send_to(b"all", to).await;
            sender.send_to(b"you", here).await.unwrap();
            member.recv(&mut bytes).await.unwrap();
            assert_eq!(&bytes[..3], b"you");
        })
        .unwrap();
}

fn options_of_datagram_sockets_are_the_kernels(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let (four, _) = bind("127.0.0.1:0");
            for option in [
                UdpOption::Ttl(7),
                UdpOption::MulticastTtl(9),
                UdpOption::MulticastLoop(false),
                UdpOption::Broadcast(true),
                UdpOption::SendBuffer(30_000),
                UdpOption::RecvBuffer(40_000),
            ] {
                four.set_option(option).unwrap();
            }
            assert!(four.set_option(UdpOption::Ttl(256)).is_err());
            let fd = four.into_fd().unwrap();
            let socket = SockRef::from(&fd);
            assert_eq!((socket.ttl_v4().unwrap(), socket.multicast_ttl_v4().unwrap()), (7, 9));
            assert!(!socket.multicast_loop_v4().unwrap() && socket.broadcast().unwrap());
            let sizes = (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap());
            assert_eq!(sizes, (60_000, 80_000), "the kernel doubles them");
            let (six, _) = bind("[::1]:0");
            six.set_option(UdpOption::HopLimit(5)).unwrap();
            six.set_option(UdpOption::MulticastHopLimit(6)).unwrap();
            six.set_option(UdpOption::MulticastLoopV6(false)).unwrap();
            let fd = six.into_fd().unwrap();
            let socket = SockRef::from(&fd);
            assert_eq!((socket.unicast_hops_v6().unwrap(), socket.multicast_hops_v6().unwrap()), (5, 6));
            assert!(!socket.multicast_loop_v6().unwrap());
        })
        .unwrap();
}

/// One after another and without a pause: each ends, whatever becomes of the datagram.
fn a_thousand_sends_to_nobody_hang_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let sent = events.block_on(time::timeout(PEER, async {
        let ((socket, _), (_kept, to)) = (bind("127.0.0.1:0"), nobody());
        for _ in 0..500 {
            socket.send_to(b"anybody?", to).await.unwrap();
        }
        socket.connect(to).unwrap();
        let mut refused = 0;
        for _ in 0..500 {
            match socket.send(&[7; 1000]).await {
                Ok(n) => assert_eq!(n, 1000),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
                    refused += 1;
                }
            }
        }
        refused
    }));
    assert!(sent.unwrap().unwrap() > 0, "a connected one hears of it");
}
