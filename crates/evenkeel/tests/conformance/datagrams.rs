//! UDP: datagrams whole and once, and errors of the network.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::unix::UnixDatagram;
use evenkeel::net::{UdpOption, UdpOptions, UdpSocket};
use evenkeel::sim::{blocking, is_simulated};
use evenkeel::{Backend, spawn, time};

use crate::asynchronous::once;
use crate::support::{assert_same, event_loop, pattern, serve};

on_every_kernel! {
    datagrams_of_every_size_come_back,
    i10_a_receive_that_is_dropped_loses_nothing,
    tasks_share_a_socket,
    a_closed_port_is_heard_of_once,
    sockets_change_hands,
    a_loop_that_sleeps_is_woken_by_a_datagram,
    broadcast_must_be_asked_for,
    two_sockets_on_one_port,
    what_is_no_internet_address_is_refused,
    i24_a_flood_keeps_nobody_waiting,
}

// The model has no multicast groups.
on_every_backend! {
    groups_are_joined_and_left,
}

fn datagrams_of_every_size_come_back(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            let at = server.local_addr().unwrap();
            spawn(async move {
                let mut bytes = vec![0; 65536];
                loop {
                    let (n, from) = server.recv_from(&mut bytes).await.unwrap();
                    server.send_to(&bytes[..n], from).await.unwrap();
                }
            });
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(at).unwrap();
            assert_eq!(client.peer_addr().unwrap(), at);
            let mut back = vec![0; 65536];
            for len in [0, 1, 1200, 1500, 9000, 65507] {
                let sent = pattern(len);
                assert_eq!(client.send(&sent).await.unwrap(), len);
                let n = client.recv(&mut back).await.unwrap();
                assert_same(&back[..n], &sent);
            }
            assert_eq!(client.send(&[0; 65508]).await.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
            // What does not fit is lost, and the next one is whole.
            client.send(b"longer").await.unwrap();
            client.send(b"next").await.unwrap();
            assert_eq!(client.recv(&mut back[..4]).await.unwrap(), 4);
            assert_eq!(client.recv(&mut back).await.unwrap(), 4);
            assert_eq!(&back[..4], b"next");
        })
        .unwrap();
}

fn i10_a_receive_that_is_dropped_loses_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let to = UdpSocket::bind("127.0.0.1:0").unwrap();
            let from = UdpSocket::bind("127.0.0.1:0").unwrap();
            let at = to.local_addr().unwrap();
            let (mut got, mut bytes) = (Vec::new(), [0; 16]);
            for round in 0..100u8 {
                assert!(once(to.recv(&mut bytes)).await.is_none());
                from.send_to(&[round], at).await.unwrap();
                if round % 3 == 0 {
                    time::sleep(Duration::from_millis(1)).await;
                    drop(to.recv(&mut bytes));
                }
                while let Some(n) = once(to.recv(&mut bytes)).await {
                    assert_eq!(n.unwrap(), 1);
                    got.push(bytes[0]);
                }
                while got.len() <= usize::from(round) {
                    to.recv(&mut bytes).await.unwrap();
                    got.push(bytes[0]);
                }
            }
            assert_eq!(got, (0..100).collect::<Vec<u8>>());
        })
        .unwrap();
}

fn tasks_share_a_socket(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let to = Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
            let got = Rc::new(RefCell::new(Vec::new()));
            let one = |_| {
                let (to, got) = (to.clone(), got.clone());
                spawn(async move {
                    let mut bytes = [0; 16];
                    loop {
                        to.recv(&mut bytes).await.unwrap();
                        got.borrow_mut().push(bytes[0]);
                        evenkeel::task::yield_now().await;
                    }
                })
            };
            let _tasks: Vec<_> = (0..5).map(one).collect();
            let from = UdpSocket::bind("127.0.0.1:0").unwrap();
            for n in 0..100 {
                from.send_to(&[n], to.local_addr().unwrap()).await.unwrap();
            }
            while got.borrow().len() < 100 {
                time::sleep(Duration::from_millis(1)).await;
            }
            let mut got = got.take();
            got.sort_unstable();
            assert_eq!(got, (0..100).collect::<Vec<u8>>());
        })
        .unwrap();
}

fn a_closed_port_is_heard_of_once(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
            let at = gone.local_addr().unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(at).unwrap();
            drop(gone);
            for _ in 0..3 {
                let mut bytes = [0; 16];
                // A task that waits already hears it, too.
                assert!(once(socket.recv(&mut bytes)).await.is_none());
                socket.send(b"anybody?").await.unwrap();
                let error = socket.recv(&mut bytes).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                assert!(once(socket.recv(&mut bytes)).await.is_none(), "once");
            }
            socket.send(b"anybody?").await.unwrap();
            assert_eq!(socket.send(b"!").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        })
        .unwrap();
}

fn sockets_change_hands(backend: Backend) {
    let mut events = event_loop(backend);
    let other = blocking::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = other.local_addr().unwrap();
    let socket = events
        .block_on(async {
            let socket = UdpSocket::from_fd(other.into_fd().unwrap()).unwrap();
            assert_eq!(socket.local_addr().unwrap(), at);
            let mut bytes = [0; 16];
            assert!(once(socket.recv(&mut bytes)).await.is_none());
            time::sleep(Duration::from_millis(1)).await;
            socket.into_fd().unwrap()
        })
        .unwrap();
    let socket = blocking::UdpSocket::from_fd(socket).unwrap();
    socket.send_to(b"to itself", at).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(socket.recv(&mut bytes).unwrap(), 9);
    assert_eq!(socket.recv(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn a_loop_that_sleeps_is_woken_by_a_datagram(backend: Backend) {
    let mut events = event_loop(backend);
    let (at, task) = events
        .block_on(async {
            let socket = UdpSocket::bind("[::1]:0").unwrap();
            let at = socket.local_addr().unwrap();
            (
                at,
                Some(spawn(async move {
                    let mut bytes = [0; 16];
                    for _ in 0..20 {
                        let (n, from) = socket.recv_from(&mut bytes).await.unwrap();
                        socket.send_to(&bytes[..n], from).await.unwrap();
                    }
                })),
            )
        })
        .unwrap();
    serve(&mut events, move |_| {
        let peer = blocking::UdpSocket::bind("[::1]:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for n in 0..20u8 {
            peer.send_to(&[n], at).unwrap();
            let mut back = [0; 16];
            assert_eq!(peer.recv_from(&mut back).unwrap(), (1, at));
            assert_eq!(back[0], n);
        }
    });
    drop(task);
}

fn broadcast_must_be_asked_for(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let to: SocketAddr = "127.255.255.255:9".parse().unwrap();
            assert_eq!(socket.send_to(b"x", to).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
            socket.set_option(UdpOption::Broadcast(true)).unwrap();
            socket.send_to(b"x", to).await.unwrap();
            socket.set_option(UdpOption::Ttl(3)).unwrap();
            socket.set_option(UdpOption::RecvBuffer(100_000)).unwrap();
        })
        .unwrap();
}

fn groups_are_joined_and_left(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let here = Ipv4Addr::LOCALHOST;
            let member = UdpSocket::bind("0.0.0.0:0").unwrap();
            let port = member.local_addr().unwrap().port();
            // A group of this body's own: what a host has joined by any socket reaches all that are bound to the port.
            let [high, low] = port.to_be_bytes();
            let group = Ipv4Addr::new(239, 255, high, low);
            member.set_option(UdpOption::Join(group, here)).unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.set_option(UdpOption::MulticastInterface(here)).unwrap();
            sender.set_option(UdpOption::MulticastLoop(true)).unwrap();
            let to = SocketAddr::from((group, port));
            sender.send_to(b"all", to).await.unwrap();
            let mut bytes = [0; 16];
            let (n, from) = member.recv_from(&mut bytes).await.unwrap();
            assert_eq!((n, from), (3, sender.local_addr().unwrap()));
            member.set_option(UdpOption::Leave(group, here)).unwrap();
            sender.send_to(b"all", to).await.unwrap();
            sender.send_to(b"you", SocketAddr::from((here, port))).await.unwrap();
            member.recv(&mut bytes).await.unwrap();
            assert_eq!(&bytes[..3], b"you");
        })
        .unwrap();
}

fn two_sockets_on_one_port(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let mut options = UdpOptions::default();
            options.reuse_port = true;
            let first = UdpSocket::bind_with("127.0.0.1:0", &options).unwrap();
            let at = first.local_addr().unwrap();
            let second = UdpSocket::bind_with(at, &options).unwrap();
            assert_eq!(UdpSocket::bind(at).unwrap_err().kind(), ErrorKind::AddrInUse);
            let (mut a, mut b) = ([0; 4], [0; 4]);
            let mut seen = (0, 0);
            for _ in 0..64 {
                let from = UdpSocket::bind("127.0.0.1:0").unwrap();
                from.send_to(b"x", at).await.unwrap();
            }
            while seen.0 + seen.1 < 64 {
                seen.0 += usize::from(once(first.recv(&mut a)).await.is_some());
                seen.1 += usize::from(once(second.recv(&mut b)).await.is_some());
                evenkeel::task::yield_now().await;
            }
            assert!(seen.0 > 0 && seen.1 > 0, "{seen:?}");
        })
        .unwrap();
}

fn what_is_no_internet_address_is_refused(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let refused = |e: io::Error| assert_eq!(e.kind(), ErrorKind::InvalidInput);
            refused(UdpSocket::bind("unix:/tmp/nothing").unwrap_err());
            refused(UdpSocket::bind("nonsense").unwrap_err());
            let unix = UnixDatagram::unbound().unwrap().into_fd().unwrap();
            refused(UdpSocket::from_fd(unix).unwrap_err());
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            refused(socket.send_to(b"x", "unix:/tmp/nothing").await.unwrap_err());
            assert_eq!(socket.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
            assert!(socket.send(b"x").await.is_err());
        })
        .unwrap();
}

fn i24_a_flood_keeps_nobody_waiting(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let flooded = UdpSocket::bind("127.0.0.1:0").unwrap();
            let at = flooded.local_addr().unwrap();
            let sender = spawn(async move {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                loop {
                    socket.send_to(&[7; 100], at).await.unwrap();
                }
            });
            let reader = spawn(async move {
                let mut bytes = [0; 200];
                loop {
                    flooded.recv(&mut bytes).await.unwrap();
                }
            });
            for _ in 0..if is_simulated() { 1 } else { 3 } {
                time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!sender.is_finished() && !reader.is_finished());
        })
        .unwrap();
}
