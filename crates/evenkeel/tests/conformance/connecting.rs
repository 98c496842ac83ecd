//! Making connections: success, every failure, and what was written before.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{Addr, ConnectOptions, Stream};
use evenkeel::sim::blocking::{self, TcpListener, TcpStream, UnixListener};
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, Message, time};

use crate::support::{
    PEER, Probe, Seen, Server, assert_same, exactly, no_limits, pattern, read_all, reset_on_close, unique,
};

on_every_kernel! {
    i32_a_connection_is_made_and_used,
    i32_a_refused_connection_says_so,
    i32_a_connection_that_is_never_answered_meets_its_deadline,
    the_connect_deadline_ends_with_the_connect,
    a_connect_that_is_over_leaves_no_timer,
    closing_what_was_connected_waits_for_nobody,
    i32_a_reset_right_after_the_connect_is_an_error,
    i30_an_end_behind_data_right_after_the_connect_is_heard,
    i30_a_stream_hears_an_end_behind_data_right_after_the_connect,
    i32_what_was_written_before_is_sent_when_connected,
    unix_sockets_connect_or_say_why_not,
    closing_while_connecting_ends_it,
    dropping_a_connect_abandons_it,
    local_addresses_can_be_chosen,
}

/// Begins to connect and does not turn the loop.
fn begin(s: &Server, to: std::net::SocketAddr, probe: Probe) -> (evenkeel::ConnId, Rc<Seen>) {
    let seen = probe.seen.clone();
    (s.pool.connect(to, &ConnectOptions::default(), probe).unwrap(), seen)
}

fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(PEER)).unwrap();
    peer
}

/// An address at which nobody listens, and nobody will while what is returned with it is kept.
pub fn closed_port() -> (Option<socket2::Socket>, std::net::SocketAddr) {
    if is_simulated() {
        // Nobody else is in this world, and its ports come back late.
        return (None, listener().1);
    }
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (Some(socket), at)
}

/// An address whose backlog is full: the kernel answers no further attempt. Whatever fills it is kept.
pub fn full_backlog() -> (TcpListener, impl Sized, std::net::SocketAddr) {
    let (listener, at) = listener();
    listener.set_backlog(0).unwrap();
    let first = TcpStream::connect(at).unwrap();
    // The running kernel may not have queued the first one yet.
    let more = if is_simulated() { 0 } else { 2 };
    let fill = (0..more).map(|_| {
        let one = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        one.set_nonblocking(true).unwrap();
        let _ = one.connect(&at.into());
        one
    });
    let fill: Vec<_> = fill.collect();
    (listener, (first, fill), at)
}

fn i32_a_connection_is_made_and_used(backend: Backend) {
    let mut s = Server::new(backend);
    let (l, at) = listener();
    let got = {
        let (id, seen) = begin(&s, at, Probe::echo());
        assert!(s.h.is_open(id) && !seen.opened.get(), "never inside the call");
        s.serve(move |_| {
            let mut peer = accept(&l);
            peer.write_all(b"ping").unwrap();
            let got = exactly(&mut peer, 4);
            peer.shutdown(Shutdown::Write).unwrap();
            assert!(read_all(&mut peer).1.is_ok());
            got
        })
    };
    assert_eq!(got, b"ping");
}

fn i32_a_refused_connection_says_so(backend: Backend) {
    let mut s = Server::new(backend);
    let (_kept, at) = closed_port();
    let (id, seen) = begin(&s, at, Probe::new());
    s.h.write(id, b"never sent").unwrap();
    s.until("it failed", || seen.closed());
    assert_eq!((seen.why(), seen.error()), ("connect failed", Some(ErrorKind::ConnectionRefused)));
    assert!(!seen.opened.get());
    let error = s.events.block_on(Stream::connect(at)).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

fn i32_a_connection_that_is_never_answered_meets_its_deadline(backend: Backend) {
    let mut s = Server::new(backend);
    let (_kept, _fill, at) = full_backlog();
    let mut options = ConnectOptions::default();
    options.deadline = Some(Duration::from_millis(60));
    let probe = Probe::new();
    let seen = probe.seen.clone();
    let started = blocking::now();
    s.pool.connect(at, &options, probe).unwrap();
    s.until("it failed", || seen.closed());
    assert!(blocking::now() - started >= Duration::from_millis(60));
    assert_eq!((seen.why(), seen.error()), ("connect failed", Some(ErrorKind::TimedOut)));
    let error = s.events.block_on(Stream::connect_with(at, &options)).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(s.turns_in(Duration::from_millis(30)) < 20);
}

/// The deadline is for connecting: once connected, it must not cut the flush of a close short.
fn the_connect_deadline_ends_with_the_connect(backend: Backend) {
    let mut s = Server::new(backend);
    let (l, at) = listener();
    let mut options = ConnectOptions::default();
    options.deadline = Some(Duration::from_millis(400));
    let probe = Probe::new();
    let seen = probe.seen.clone();
    let id = s.pool.connect(at, &options, probe).unwrap();
    s.until("it is open", || seen.opened.get());
    let mut peer = accept(&l);
    // More than the kernel's buffers hold.
    let bytes = pattern(if is_simulated() { 900_000 } else { 9_000_000 });
    s.h.write(id, &bytes).unwrap();
    s.h.close(id).unwrap();
    let _ = s.turns_in(Duration::from_millis(500));
    assert_eq!(seen.why(), "open", "it is being flushed until its own deadline, which is far");
    let reader = blocking::spawn(move || read_all(&mut peer));
    s.until("it is over", || seen.closed());
    assert_eq!(seen.why(), "closed");
    assert_same(&reader.join().unwrap().0, &bytes);
}

/// However it ended. A proxy that connects often would have as many timers as it made connections in the last 30 s.
fn a_connect_that_is_over_leaves_no_timer(backend: Backend) {
    let mut s = Server::new(backend);
    let (l, at) = listener();
    let (_kept, refused) = closed_port();
    let (_full, _fill, unanswered) = full_backlog();
    let before = s.h.stats().armed;
    let (_, open) = begin(&s, at, Probe::new());
    let (_, failed) = begin(&s, refused, Probe::new());
    let (closed, closing) = begin(&s, unanswered, Probe::new());
    let (written, sent) = begin(&s, at, Probe::new());
    s.h.write(written, b"queued until then").unwrap();
    assert!(s.h.stats().armed > before, "while they are being made");
    s.until("it is open", || open.opened.get() && sent.opened.get());
    s.until("it has failed", || failed.closed());
    s.h.close(closed).unwrap();
    s.until("it is closed", || closing.closed());
    assert_eq!(s.h.stats().armed, before, "handlers' connections");
    let (made, _peers) = (s.events.block_on(Stream::connect(at)).unwrap(), [accept(&l), accept(&l)]);
    assert!(made.is_ok() && s.events.block_on(Stream::connect(refused)).unwrap().is_err());
    let given_up = s.events.block_on(time::timeout(Duration::from_millis(5), Stream::connect(unanswered)));
    assert!(given_up.unwrap().is_err());
    s.turns(2);
    assert_eq!(s.h.stats().armed, before, "tasks' connections");
}

/// Its peer has nothing to say, and stays.
fn closing_what_was_connected_waits_for_nobody(backend: Backend) {
    let mut s = Server::new(backend);
    let (l, at) = listener();
    let (id, seen) = begin(&s, at, Probe::new());
    let mut peer = accept(&l);
    s.until("it is open", || seen.opened.get());
    s.h.write(id, b"goodbye").unwrap();
    s.h.close(id).unwrap();
    s.until("it is over", || seen.closed());
    assert!(read_all(&mut peer).1.is_ok());
    assert_eq!((seen.why(), s.h.stats().armed), ("closed", 0));
}

fn i32_a_reset_right_after_the_connect_is_an_error(backend: Backend) {
    let mut s = Server::new(backend);
    let (l, at) = listener();
    let (_, seen) = begin(&s, at, Probe::new());
    reset_on_close(&accept(&l));
    s.until("it is over", || seen.closed());
    assert_eq!(seen.error(), Some(ErrorKind::ConnectionReset));
}

/// The data and the end are both there when the loop first looks.
fn i30_an_end_behind_data_right_after_the_connect_is_heard(backend: Backend) {
    let mut s = Server::new(backend);
    let (l, at) = listener();
    let (_, seen) = begin(&s, at, Probe::new());
    accept(&l).write_all(b"bye").unwrap();
    s.until("the end was heard", || seen.closed());
    assert_eq!((seen.text().as_str(), seen.eof.get(), seen.why()), ("bye", 1, "closed"));
}

fn i30_a_stream_hears_an_end_behind_data_right_after_the_connect(backend: Backend) {
    let mut s = Server::new(backend);
    let (l, at) = listener();
    let thread = blocking::spawn(move || accept(&l).write_all(b"bye").unwrap());
    let all = s.events.block_on(async {
        let mut stream = Stream::connect(at).await.unwrap();
        let mut all = Vec::new();
        while let Some(bytes) = stream.read_with(|bytes, _| bytes.to_vec()).await.unwrap() {
            all.extend(bytes);
        }
        all
    });
    assert_eq!(all.unwrap(), b"bye");
    thread.join().unwrap();
}

fn i32_what_was_written_before_is_sent_when_connected(backend: Backend) {
    let mut s = Server::new(backend);
    let (l, at) = listener();
    let (id, seen) = begin(
        &s,
        at,
        Probe::new().on_open(|conn| {
            conn.write(b" and after");
        }),
    );
    s.h.write(id, b"before").unwrap();
    s.h.send(id, &Message::from(pattern(3_000_000))).unwrap();
    let got = s.serve(move |_| exactly(&mut accept(&l), 3_000_016));
    assert_same(&got, &[b"before", &pattern(3_000_000)[..], b" and after"].concat());
    assert!(seen.opened.get());
}

fn unix_sockets_connect_or_say_why_not(backend: Backend) {
    let mut s = Server::new(backend);
    let path = std::env::temp_dir().join(unique("connect"));
    let _ = std::fs::remove_file(&path);
    let connect = |probe| s.pool.connect(&*path, &ConnectOptions::default(), probe);
    assert_eq!(connect(Probe::new()).unwrap_err().kind(), ErrorKind::NotFound);
    let l = UnixListener::bind(&path).unwrap();
    let probe = Probe::echo();
    let seen = probe.seen.clone();
    connect(probe).unwrap();
    // The rest of the backlog is taken, and the one after is refused at once: Unix sockets do not wait.
    l.set_backlog(1).unwrap();
    let refused = (0..10).find_map(|_| connect(Probe::new()).err()).expect("the backlog has an end");
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    let (mut peer, _) = l.accept().unwrap();
    peer.set_read_timeout(Some(PEER)).unwrap();
    peer.write_all(b"ping").unwrap();
    s.until("it was heard", || seen.len() == 4);
    s.turns(2);
    assert_eq!(exactly(&mut peer, 4), b"ping");
    drop(l);
    let _ = std::fs::remove_file(&path);
    let nowhere = std::env::temp_dir().join(unique("nowhere"));
    let missing = s.events.block_on(Stream::connect(&*nowhere)).unwrap().unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let unnamed = s.pool.connect(Addr::Unix(None), &ConnectOptions::default(), Probe::new());
    assert_eq!(unnamed.unwrap_err().kind(), ErrorKind::InvalidInput);
}

fn closing_while_connecting_ends_it(backend: Backend) {
    let mut s = Server::new(backend);
    let (_kept, _fill, at) = full_backlog();
    let ids: Vec<_> = (0..2).map(|_| begin(&s, at, Probe::new())).collect();
    s.turns(2);
    s.h.close(ids[0].0).unwrap();
    s.h.abort(ids[1].0).unwrap();
    s.turns(2);
    assert_eq!((ids[0].1.why(), ids[1].1.why()), ("closed", "aborted"));
    assert!(ids.iter().all(|(_, seen)| !seen.opened.get()));
}

fn dropping_a_connect_abandons_it(backend: Backend) {
    let mut s = Server::new(backend);
    let (_kept, _fill, at) = full_backlog();
    let before = s.h.stats().sources;
    let waited = s.events.block_on(time::timeout(Duration::from_millis(5), Stream::connect(at)));
    assert!(waited.unwrap().is_err());
    s.turns(2);
    assert_eq!(s.h.stats().sources, before);
}

fn local_addresses_can_be_chosen(backend: Backend) {
    let mut s = Server::with_limits(backend, no_limits());
    let mut options = ConnectOptions::default();
    options.bind = Some("127.0.0.77:0".parse().unwrap());
    let (l, at) = listener();
    let stream = s.events.block_on(Stream::connect_with(at, &options)).unwrap().unwrap();
    let (mut peer, from) = l.accept().unwrap();
    assert_eq!(stream.local_addr().unwrap(), Addr::Ip(from));
    assert_eq!(stream.peer_addr().unwrap(), Addr::Ip(at));
    assert_eq!(from.ip().to_string(), "127.0.0.77");
    drop(stream);
    s.turns(2);
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
}
