//! Where one listens and connects: every kind of address, those that cannot be, ports that are shared and used again, and
//! the options of sockets.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{Addr, ConnectOptions, KeepAlive, ListenOptions, ListenerId, SocketOption, Stream};
use evenkeel::sim::blocking::{self, TcpListener, TcpStream, UnixStream};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, ConnId};
use socket2::{Domain, SockRef, Socket, Type};

use crate::asynchronous::pair;
use crate::connecting::{closed_port, full_backlog};
use crate::support::{PEER, Probe, Seen, Server, broken, connect, event_loop, exactly, read_all, unique};

on_every_kernel! {
    i32_ipv6_is_no_other_matter,
    a_listener_on_both_families_tells_them_apart,
    i32_addresses_that_cannot_be_reached_say_so,
    i32_an_unspecified_address_is_this_machine,
    i32_many_attempts_end_each_in_its_own_way,
    i07_attempts_that_end_before_the_loop_looks,
    addresses_that_are_not_here_are_errors,
    i06_a_listener_that_is_closed_in_the_batch_of_its_newcomers,
    many_connect_to_one_path,
}

on_every_backend! {
    // The kernel is asked for the options themselves, and the model forgets those that change nothing in it.
    options_are_the_kernels,
    // Files of a world's sockets are not on its disk, and have no directories.
    paths_that_cannot_be_are_errors,
}

// A child that another test is starting has a copy of a listening socket until its program begins.
in_processes! {
    a_port_is_shared_by_listeners,
    i11_a_port_is_listened_at_again_at_once,
}

fn ask(s: &Server, to: impl evenkeel::net::IntoAddr, probe: Probe) -> (std::io::Result<ConnId>, Rc<Seen>) {
    let seen = probe.seen.clone();
    (s.pool.connect(to, &ConnectOptions::default(), probe), seen)
}

/// A port of the test's own, at which nobody else can listen while the socket is kept.
fn bound(at: &str) -> (Option<Socket>, SocketAddr) {
    if is_simulated() {
        // Nobody else is in this world, and its ports come back late.
        return (None, TcpListener::bind(at).unwrap().local_addr().unwrap());
    }
    let at: SocketAddr = at.parse().unwrap();
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&at.into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (Some(socket), at)
}

fn i32_ipv6_is_no_other_matter(backend: Backend) {
    let mut s = Server::new(backend);
    let listener = s.pool.listen("[::1]:0", &ListenOptions::default(), |_| Probe::echo()).unwrap();
    let at = s.h.listener_addr(listener).unwrap().socket_addr().unwrap();
    assert!(at.is_ipv6());
    let got = s.serve(move |_| {
        let mut peer = connect(at);
        peer.write_all(b"over six").unwrap();
        exactly(&mut peer, 8)
    });
    assert_eq!(got, b"over six");
    let (id, seen) = ask(&s, at, Probe::new());
    s.h.write(id.unwrap(), b"back and forth").unwrap();
    s.until("the echo came", || seen.len() == 14);
    assert!(s.h.close_listener(listener));
    s.turns(2);
    let (_kept, closed) = bound("[::1]:0");
    let (_, refused) = ask(&s, closed, Probe::new());
    s.until("it was refused", || refused.closed());
    assert_eq!(refused.error(), Some(ErrorKind::ConnectionRefused));
    let local = s.events.block_on(async {
        let mut options = ConnectOptions::default();
        options.bind = Some("[::1]:0".parse().unwrap());
        let listener = evenkeel::net::Listener::bind("[::1]:0").unwrap();
        let stream = Stream::connect_with(listener.local_addr().unwrap(), &options).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        stream.local_addr().unwrap()
    });
    assert_eq!(local.unwrap().ip(), Some("::1".parse().unwrap()));
}

fn a_listener_on_both_families_tells_them_apart(backend: Backend) {
    for dual_stack in [true, false] {
        let mut s = Server::new(backend);
        let peers: Rc<RefCell<Vec<Addr>>> = Rc::default();
        let list = peers.clone();
        let mut options = ListenOptions::default();
        options.dual_stack = dual_stack;
        let make = move |from: &Addr| {
            list.borrow_mut().push(from.clone());
            Probe::new()
        };
        let listener = s.pool.listen("[::]:0", &options, make).unwrap();
        let port = s.h.listener_addr(listener).unwrap().socket_addr().unwrap().port();
        let six = connect(SocketAddr::new("::1".parse().unwrap(), port));
        s.until("the first is in", || peers.borrow().len() == 1);
        assert_eq!(peers.borrow()[0].socket_addr(), Some(six.local_addr().unwrap()));
        let four = TcpStream::connect(("127.0.0.1", port));
        if dual_stack {
            let four = four.unwrap();
            s.until("the second is in", || peers.borrow().len() == 2);
            assert_eq!(peers.borrow()[1].ip(), Some(four.local_addr().unwrap().ip()), "without its disguise");
        } else {
            // Another test's socket may listen at that port on the other family.
            s.turns(3);
            drop(four);
            assert_eq!(peers.borrow().len(), 1);
        }
    }
}

/// No connection goes to a group or to everybody; the kernel knows it at once.
fn i32_addresses_that_cannot_be_reached_say_so(backend: Backend) {
    let mut s = Server::new(backend);
    let sources = s.h.stats().sources;
    for to in ["255.255.255.255:80", "224.0.0.1:80", "[ff02::1]:80"] {
        let (id, seen) = ask(&s, to, Probe::new());
        let error = match id {
            Err(error) => error.kind(),
            Ok(_) => {
                s.until("it failed", || seen.closed());
                assert_eq!(seen.why(), "connect failed");
                seen.error().unwrap()
            }
        };
        assert!(!seen.opened.get());
        let unreachable = [
            ErrorKind::NetworkUnreachable,
            ErrorKind::HostUnreachable,
            ErrorKind::AddrNotAvailable,
            ErrorKind::InvalidInput,
        ];
        assert!(unreachable.contains(&error), "{to}: {error:?}");
        let tasks = s.events.block_on(Stream::connect(to)).unwrap().unwrap_err();
        assert_eq!(tasks.kind(), error, "{to}: a task hears the same");
    }
    s.turns(2);
    assert_eq!(s.h.stats().sources, sources);
}

fn i32_an_unspecified_address_is_this_machine(backend: Backend) {
    let mut s = Server::new(backend);
    let to = SocketAddr::new("0.0.0.0".parse().unwrap(), s.addr.port());
    let echo = s.expect(Probe::echo());
    let (id, seen) = ask(&s, to, Probe::new());
    s.h.write(id.unwrap(), b"hello").unwrap();
    s.until("the echo came", || seen.len() == 5);
    assert_eq!(echo.len(), 5);
}

/// All are asked for before the loop looks once: accepted, refused, never answered and given up, or met by their deadline.
fn i32_many_attempts_end_each_in_its_own_way(backend: Backend) {
    let mut s = Server::new(backend);
    let (_closed, refuses) = closed_port();
    let (_kept, _fill, silent) = full_backlog();
    let mut options = ConnectOptions::default();
    options.deadline = Some(Duration::from_millis(30));
    let mut all = Vec::new();
    for i in 0..32 {
        let probe = Probe::new();
        let seen = probe.seen.clone();
        let to = [s.addr, refuses, silent, silent][i % 4];
        let options = if i % 4 == 3 { options.clone() } else { ConnectOptions::default() };
        let id = s.pool.connect(to, &options, probe).unwrap();
        s.h.write(id, b"first words").unwrap();
        all.push((id, seen));
    }
    s.turns(3);
    for (id, _) in all.iter().skip(2).step_by(4) {
        s.h.abort(*id).unwrap();
    }
    s.until("each has its answer", || {
        all.iter()
            .enumerate()
            .all(|(i, (_, seen))| if i % 4 == 0 { seen.opened.get() } else { seen.closed() })
    });
    for (i, (id, seen)) in all.iter().enumerate() {
        let (why, error) = [
            ("open", None),
            ("connect failed", Some(ErrorKind::ConnectionRefused)),
            ("aborted", None),
            ("connect failed", Some(ErrorKind::TimedOut)),
        ][i % 4];
        assert_eq!((seen.why(), seen.error(), seen.opened.get()), (why, error, i % 4 == 0), "the {i}th");
        assert_eq!(s.h.is_open(*id), i % 4 == 0);
    }
    let h = s.h.clone();
    s.until("what was written has come", || h.stats().bytes_in == 8 * 11);
}

fn i07_attempts_that_end_before_the_loop_looks(backend: Backend) {
    let mut s = Server::new(backend);
    let (_closed, refuses) = closed_port();
    let sources = s.h.stats().sources;
    for to in [s.addr, refuses] {
        for round in 0..4 {
            let (id, seen) = ask(&s, to, Probe::new());
            let id = id.unwrap();
            s.h.write(id, b"never").unwrap();
            match round {
                0 => s.h.abort(id).unwrap(),
                1 => s.h.close(id).unwrap(),
                2 => {
                    s.h.close(id).unwrap();
                    let _ = s.h.abort(id);
                }
                _ => {
                    s.h.abort(id).unwrap();
                    let (again, other) = ask(&s, to, Probe::new());
                    assert_ne!(again.as_ref().unwrap(), &id);
                    s.h.abort(again.unwrap()).unwrap();
                    s.until("the other is over, too", || other.closed());
                }
            }
            s.until("it is over", || seen.closed());
            assert!(["aborted", "closed"].contains(&seen.why()), "{}", seen.why());
            assert!(!seen.opened.get());
        }
    }
    let (h, pool) = (s.h.clone(), s.pool.clone());
    s.until("nothing is left", || h.stats().sources == sources && pool.is_empty());
}

fn addresses_that_are_not_here_are_errors(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let kind = |at: &str| h.listen(at, |_| Probe::new()).unwrap_err().kind();
    // An address for documentation, and one whose interface is not said.
    assert_eq!(kind("192.0.2.1:0"), ErrorKind::AddrNotAvailable);
    assert_eq!(kind("[2001:db8::1]:0"), ErrorKind::AddrNotAvailable);
    assert_eq!(kind("[fe80::1]:0"), ErrorKind::InvalidInput);
    for at in ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", ":80", "[::1]", "1.2.3:80", "localhost:80"] {
        assert_eq!(kind(at), ErrorKind::InvalidInput, "{at}");
    }
    assert_eq!(h.stats().sources, 0);
    let bound = events.block_on(async { evenkeel::net::Listener::bind("192.0.2.1:0").map(drop) }).unwrap();
    assert_eq!(bound.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
}

fn paths_that_cannot_be_are_errors(backend: Backend) {
    let mut s = Server::new(backend);
    let listen = |path: &str| {
        let at = Addr::Unix(Some(path.into()));
        s.pool.listen(at, &ListenOptions::default(), |_| Probe::new()).map(drop)
    };
    let ask_at = |path: &str| ask(&s, Addr::Unix(Some(path.into())), Probe::new()).0.map(drop);
    let folder = std::env::temp_dir();
    // The kernel takes 107 bytes and a zero, and Linux 108 without one.
    let path = |len: usize| {
        let name = unique("path-");
        let start = format!("{}/{name}", folder.display());
        format!("{start}{}", "x".repeat(len - start.len()))
    };
    let fits = path(107);
    listen(&fits).unwrap();
    assert!(ask_at(&fits).is_ok() && UnixStream::connect(&fits).is_ok());
    for len in [109, 300] {
        let long = path(len);
        for error in [listen(&long).unwrap_err(), ask_at(&long).unwrap_err()] {
            let kinds = [ErrorKind::InvalidInput, ErrorKind::InvalidFilename];
            assert!(kinds.contains(&error.kind()), "{len} bytes: {error:?}");
        }
    }
    for inner in ["a\0b", "\0name"] {
        assert_eq!(listen(inner).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(ask_at(inner).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(listen("/no/such/folder/socket").unwrap_err().kind(), ErrorKind::NotFound);
    // What is there and is no socket, and a socket's file whose owner is gone, refuse.
    let file = folder.join(unique("file"));
    std::fs::write(&file, "").unwrap();
    assert_eq!(ask_at(file.to_str().unwrap()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    std::fs::remove_file(&file).unwrap();
    drop(blocking::UnixListener::bind(&file).unwrap());
    assert_eq!(ask_at(file.to_str().unwrap()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let stale = file.clone();
    let tasks = s.events.block_on(Stream::connect(&*stale)).unwrap().unwrap_err();
    assert_eq!(tasks.kind(), ErrorKind::ConnectionRefused);
    std::fs::remove_file(&file).unwrap();
    // A socket of another type listens there.
    let _datagrams = std::os::unix::net::UnixDatagram::bind(&file).unwrap();
    let wrong = s.pool.connect(&*file, &ConnectOptions::default(), Probe::new()).unwrap_err();
    assert_eq!(wrong.raw_os_error(), Some(libc::EPROTOTYPE));
    std::fs::remove_file(&file).unwrap();
    s.turns(3);
}

fn a_port_is_shared_by_listeners(backend: Backend) {
    let mut s = Server::new(backend);
    let mut options = ListenOptions::default();
    options.reuse_port = true;
    let counts: [Rc<Cell<u32>>; 2] = Default::default();
    let listen = |at: SocketAddr, count: &Rc<Cell<u32>>| {
        let count = count.clone();
        let make = move |_: &_| {
            count.set(count.get() + 1);
            Probe::echo()
        };
        s.pool.listen(at, &options, make)
    };
    let first: ListenerId = listen("127.0.0.1:0".parse().unwrap(), &counts[0]).unwrap();
    let at = s.h.listener_addr(first).unwrap().socket_addr().unwrap();
    let second = listen(at, &counts[1]).unwrap();
    let alone = s.pool.listen(at, &ListenOptions::default(), |_| Probe::new());
    assert_eq!(alone.unwrap_err().kind(), ErrorKind::AddrInUse, "who does not share has to go elsewhere");
    let _peers: Vec<_> = (0..64).map(|_| connect(at)).collect();
    let sum = || counts[0].get() + counts[1].get();
    s.until("all are in", || sum() == 64);
    assert!(counts.iter().all(|count| count.get() > 0), "both have some: {counts:?}");
    // Whoever comes after one has closed finds the other.
    s.h.close_listener(second);
    s.turns(2);
    let _more: Vec<_> = (0..10).map(|_| connect(at)).collect();
    s.until("all found the first", || sum() == 74);
    assert!(s.h.close_listener(first));
}

fn i11_a_port_is_listened_at_again_at_once(backend: Backend) {
    let mut s = Server::new(backend);
    let (_kept, at) = bound("127.0.0.1:0");
    for round in 0..10 {
        let listener = s.pool.listen(at, &ListenOptions::default(), |_| Probe::echo()).unwrap();
        let got = s.serve(move |_| {
            let mut peer = connect(at);
            peer.write_all(b"again").unwrap();
            exactly(&mut peer, 5)
        });
        assert_eq!(got, b"again");
        // Whoever is open, closed or in the queue is no hindrance.
        let _open = connect(at);
        s.turns(2);
        let _late = connect(at);
        if round % 2 == 0 {
            s.pool.close_all();
        }
        assert!(s.h.close_listener(listener));
        s.turns(2);
    }
    assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// A connection's bytes and the newcomers are reported together, in either order.
fn i06_a_listener_that_is_closed_in_the_batch_of_its_newcomers(backend: Backend) {
    for bytes_first in [true, false] {
        let mut s = Server::new(backend);
        let closed = Rc::new(Cell::new(false));
        let (flag, made) = (closed.clone(), Rc::new(Cell::new(0)));
        let count = made.clone();
        let make = move |_: &_| {
            count.set(count.get() + 1);
            if flag.get() {
                broken("a listener that was closed has made a handler".into());
            }
            Probe::new()
        };
        let listener = s.pool.listen("127.0.0.1:0", &ListenOptions::default(), make).unwrap();
        let at = s.h.listener_addr(listener).unwrap().socket_addr().unwrap();
        let flag = closed.clone();
        let (mut peer, seen) = s.pair(Probe::new().on_data(move |conn, _| {
            assert!(conn.handle().close_listener(listener));
            flag.set(true);
        }));
        s.turns(3);
        let mut newcomers = Vec::new();
        if bytes_first {
            peer.write_all(b"close").unwrap();
        }
        newcomers.extend((0..5).map(|_| connect(at)));
        if !bytes_first {
            peer.write_all(b"close").unwrap();
        }
        s.until("it was closed", || seen.len() == 5);
        s.turns(3);
        assert_eq!((s.pool.len(), s.h.stats().panics), (1 + made.get(), 0));
        for mut peer in newcomers.into_iter().skip(made.get()) {
            assert!(read_all(&mut peer).1.is_err(), "those that nobody took were reset");
        }
    }
}

fn many_connect_to_one_path(backend: Backend) {
    let mut s = Server::new(backend);
    let path = std::env::temp_dir().join(unique("many"));
    let listener = s.pool.listen(&*path, &ListenOptions::default(), |_| Probe::echo()).unwrap();
    let mut raw: Vec<_> = (0..12).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let ours: Vec<_> = (0..12).map(|_| ask(&s, &*path, Probe::new())).collect();
    for (i, peer) in raw.iter_mut().enumerate() {
        peer.set_read_timeout(Some(PEER)).unwrap();
        peer.write_all(&[i as u8; 100]).unwrap();
    }
    for (i, (id, _)) in ours.iter().enumerate() {
        s.h.write(*id.as_ref().unwrap(), &[100 + i as u8; 100]).unwrap();
    }
    s.until("all were answered", || ours.iter().all(|(_, seen)| seen.len() == 100));
    for (i, (_, seen)) in ours.iter().enumerate() {
        assert_eq!(*seen.data.borrow(), [100 + i as u8; 100]);
    }
    s.turns(3);
    for (i, peer) in raw.iter_mut().enumerate() {
        assert_eq!(exactly(peer, 100), [i as u8; 100]);
    }
    // The listener goes before its connections, which stay.
    s.h.close_listener(listener);
    s.turns(2);
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
    raw[0].write_all(b"still").unwrap();
    s.turns(3);
    assert_eq!((exactly(&mut raw[0], 5), s.pool.len()), (b"still".to_vec(), 36));
}

fn options_are_the_kernels(backend: Backend) {
    let mut s = Server::new(backend);
    let mut options = ListenOptions::default();
    let keepalive = KeepAlive { idle: Duration::from_secs(77), interval: Duration::from_secs(7), probes: 3 };
    (options.keepalive, options.nodelay) = (Some(keepalive), false);
    let taken: Rc<RefCell<Vec<Stream>>> = Rc::default();
    let list = taken.clone();
    let make = move |_: &_| {
        let list = list.clone();
        Probe::new().on_open(move |conn| {
            conn.set_option(SocketOption::SendBuffer(40_000)).unwrap();
            list.borrow_mut().push(conn.detach(b"").unwrap());
        })
    };
    let listener = s.pool.listen("127.0.0.1:0", &options, make).unwrap();
    let at = s.h.listener_addr(listener).unwrap();
    let mut plain = ConnectOptions::default();
    plain.nodelay = false;
    let (ours, plain) = s
        .events
        .block_on(async {
            (Stream::connect(at.clone()).await.unwrap(), Stream::connect_with(at, &plain).await.unwrap())
        })
        .unwrap();
    s.until("both were accepted", || taken.borrow().len() == 2);
    ours.set_option(SocketOption::RecvBuffer(50_000)).unwrap();
    ours.set_option(SocketOption::KeepAlive(Some(keepalive))).unwrap();
    plain.set_option(SocketOption::KeepAlive(Some(keepalive))).unwrap();
    plain.set_option(SocketOption::KeepAlive(None)).unwrap();
    let accepted = taken.borrow_mut().pop().unwrap().into_fd().unwrap();
    let (ours, plain) = (ours.into_fd().unwrap(), plain.into_fd().unwrap());
    let flags = |fd: std::os::fd::BorrowedFd<'_>| {
        let socket = SockRef::from(&fd);
        (socket.tcp_nodelay().unwrap(), socket.keepalive().unwrap())
    };
    assert_eq!(flags(accepted.as_fd()), (false, true));
    assert_eq!((flags(ours.as_fd()), flags(plain.as_fd())), ((true, true), (false, false)));
    for fd in [accepted.as_fd(), ours.as_fd()] {
        let socket = SockRef::from(&fd);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
    // The kernel doubles what it is asked for.
    assert_eq!(SockRef::from(&accepted).send_buffer_size().unwrap(), 80_000);
    assert_eq!(SockRef::from(&ours).recv_buffer_size().unwrap(), 100_000);
    // One that a Unix socket does not have; and one that makes an end a reset.
    let (a, _b) = UnixStream::pair().unwrap();
    let unix = s.events.block_on(async { Stream::from_fd(a.into_fd().unwrap()).unwrap() }).unwrap();
    assert!(unix.set_option(SocketOption::NoDelay(true)).is_err());
    let (stream, mut peer) = pair(&mut s.events);
    stream.set_option(SocketOption::ResetOnClose).unwrap();
    drop(stream.into_fd().unwrap());
    assert_eq!(read_all(&mut peer).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
