//! Lookups that are joined, late, abandoned and refused; connections to what was found.

#![allow(clippy::unwrap_used)]

use std::io;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::EventLoop;
use crate::pool::{LaneOptions, PoolOptions};

const LONG: Duration = Duration::from_secs(60);

/// A resolver that tells what it is asked, and answers when it is told.
struct Gate {
    asked: Mutex<Sender<String>>,
    answers: Mutex<Receiver<io::Result<Vec<SocketAddr>>>>,
}

impl Resolver for Gate {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.send(format!("{host}:{port}")).unwrap();
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.recv().unwrap_or_else(|_| Ok(Vec::new()))
    }
}

struct Gated {
    events: EventLoop,
    asked: Receiver<String>,
    answer: Sender<io::Result<Vec<SocketAddr>>>,
}

impl Gated {
    /// A loop whose names are resolved by one thread, at a gate.
    fn new() -> Self {
        let ((tell, asked), (answer, answers)) = (channel(), channel());
        let gate = Gate { asked: Mutex::new(tell), answers: Mutex::new(answers) };
        let names = LaneOptions { threads: Some(1), ..LaneOptions::default() };
        let options = PoolOptions { names, ..PoolOptions::default() };
        let events = EventLoop::builder().pool_options(options).resolver(gate).build().unwrap();
        Gated { events, asked, answer }
    }

    fn asked(&self) -> String {
        self.asked.recv_timeout(LONG).unwrap()
    }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn equal_lookups_are_one_and_nothing_is_kept() {
    let Gated { mut events, asked, answer } = Gated::new();
    let h = events.handle();
    let all: Vec<_> = (0..10).map(|_| h.spawn(resolve("one.example", 80))).collect();
    let other = h.spawn(resolve("one.example", 81));
    events.poll().unwrap();
    assert_eq!(asked.recv_timeout(LONG).unwrap(), "one.example:80");
    let stats = h.stats();
    assert_eq!((stats.lookups, stats.lookups_joined, stats.lookups_in_flight), (2, 9, 2));
    answer.send(Ok(vec![at(80), at(8080)])).unwrap();
    for one in all {
        assert_eq!(events.block_on(one).unwrap().unwrap().unwrap(), [at(80), at(8080)]);
    }
    assert_eq!(asked.recv_timeout(LONG).unwrap(), "one.example:81");
    answer.send(Err(io::Error::other("as the test wants it"))).unwrap();
    let error = events.block_on(other).unwrap().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "`one.example` cannot be resolved: as the test wants it");
    assert_eq!(h.stats().lookups_in_flight, 0);
    // It is asked anew.
    let again = h.spawn(resolve("one.example", 80));
    events.poll().unwrap();
    assert_eq!(asked.recv_timeout(LONG).unwrap(), "one.example:80");
    answer.send(Ok(Vec::new())).unwrap();
    let error = events.block_on(again).unwrap().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.host()), (io::ErrorKind::NotFound, "one.example"));
}

#[test]
fn i26_a_lookup_that_hangs_keeps_one_thread_and_no_caller() {
    let mut g = Gated::new();
    let h = g.events.handle();
    // Only what a thread has begun is abandoned; a deadline that struck before would take it back.
    let first = h.spawn(resolve("hangs.example", 80));
    g.events.poll().unwrap();
    assert_eq!(g.asked(), "hangs.example:80");
    let within = h.spawn(resolve_within("hangs.example", 80, Duration::from_millis(5)));
    g.events.poll().unwrap();
    first.abort();
    let error = g.events.block_on(within).unwrap().unwrap().unwrap_err();
    g.events.poll().unwrap();
    assert_eq!((error.kind(), error.host()), (io::ErrorKind::TimedOut, "hangs.example"));
    let stats = h.stats();
    assert_eq!((stats.lookups_abandoned, stats.lookups_timed_out), (1, 1));
    // Whoever asks for it again waits for the same answer.
    let joins = h.spawn(resolve("hangs.example", 80));
    // What no thread has begun is taken back at its deadline.
    let queued = g.events.block_on(resolve_within("other.example", 80, Duration::from_millis(5))).unwrap();
    assert_eq!(queued.unwrap_err().kind(), io::ErrorKind::TimedOut);
    g.events.poll().unwrap();
    let stats = h.stats();
    assert_eq!((stats.lookups_in_flight, stats.lookups_abandoned, stats.lookups), (1, 0, 2));
    assert_eq!(h.work_pool().unwrap().stats().names.cancelled, 1);
    g.answer.send(Ok(vec![at(80)])).unwrap();
    assert_eq!(g.events.block_on(joins).unwrap().unwrap().unwrap(), [at(80)]);
    assert_eq!((h.stats().lookups_in_flight, g.asked.try_recv().is_err()), (0, true));
}

#[test]
fn a_lookup_that_is_dropped_before_it_begins_does_not_happen() {
    let mut g = Gated::new();
    let h = g.events.handle();
    let first = h.spawn(resolve("first.example", 80));
    g.events.poll().unwrap();
    assert_eq!(g.asked(), "first.example:80");
    let waits = h.spawn(resolve("second.example", 80));
    let beside = h.spawn(resolve("second.example", 80));
    g.events.poll().unwrap();
    waits.abort();
    g.events.poll().unwrap();
    assert_eq!(h.stats().lookups_in_flight, 2, "one still waits for it");
    beside.abort();
    g.events.poll().unwrap();
    g.events.poll().unwrap();
    assert_eq!((h.stats().lookups_in_flight, h.work_pool().unwrap().stats().names.queued), (1, 0));
    g.answer.send(Ok(vec![at(80)])).unwrap();
    g.events.block_on(first).unwrap().unwrap().unwrap();
    assert!(g.asked.try_recv().is_err());
}

#[test]
fn i09_a_lookup_that_outlives_its_loop_gets_an_error() {
    let mut g = Gated::new();
    let mut other = EventLoop::new().unwrap();
    let mut waits = pin!(resolve("hangs.example", 80));
    g.events
        .block_on(poll_fn(|cx| {
            assert!(waits.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        }))
        .unwrap();
    g.events.poll().unwrap();
    assert_eq!(g.asked(), "hangs.example:80");
    drop(g.events);
    let error = other.block_on(waits).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

#[test]
fn i26_a_resolver_that_panics_is_an_error() {
    let mut events =
        EventLoop::builder().resolver(|_: &str, _| panic!("as the test wants it")).build().unwrap();
    let error = events.block_on(resolve("one.example", 80)).unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`one.example` cannot be resolved: the work panicked: as the test wants it"
    );
}

#[test]
fn i50_what_is_no_name_is_refused_and_addresses_need_no_thread() {
    let mut events = EventLoop::builder().resolver(|_: &str, _| unreachable!()).build().unwrap();
    let h = events.handle();
    for host in ["", "a\0b", &"x".repeat(256)] {
        let error = events.block_on(resolve(host, 80)).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().len() < 400 && !error.to_string().contains('\0'), "{error}");
    }
    for to in ["localhost", "unix:/run/x:y", ":80", "a:99999"] {
        let error = events.block_on(Stream::connect_host(to)).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(events.block_on(resolve("127.0.0.1", 80)).unwrap().unwrap(), [at(80)]);
    assert_eq!((h.stats().lookups, h.work_pool().unwrap().stats().names.threads), (0, 0));
}

/// An address at which nobody listens, and nobody will while the socket is kept.
fn closed() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&at(0).into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, at)
}

#[test]
fn a_host_without_any_answer_tells_of_each_attempt() {
    let ((_one, one), (_two, two)) = (closed(), closed());
    let found = vec![one, two];
    let mut events = EventLoop::builder().resolver(move |_: &str, _| Ok(found.clone())).build().unwrap();
    let options = HostOptions::default();
    let error = events.block_on(connect("none.example", 1, &options)).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let text = error.to_string();
    assert!(text.starts_with("no connection to `none.example`: "), "{text}");
    assert!(text.contains(&one.to_string()) && text.contains(&two.to_string()), "{text}");
    let ConnectError::Failed { attempts, not_tried: 0, .. } = &error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 2);
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn i41_of_very_many_addresses_some_are_tried() {
    // Nobody can listen on the port zero: the kernel refuses at once, at each of its own addresses.
    let found: Vec<_> = (1..=100).map(|last| SocketAddr::from(([127, 0, 0, last], 0))).collect();
    let mut events = EventLoop::builder().resolver(move |_: &str, _| Ok(found.clone())).build().unwrap();
    let error = events.block_on(connect("many.example", 1, &HostOptions::default())).unwrap().unwrap_err();
    let ConnectError::Failed { attempts, not_tried, .. } = &error else { panic!("{error:?}") };
    assert_eq!((attempts.len(), *not_tried), (32, 68));
    assert!(error.to_string().ends_with("(68 more not tried)"), "{error}");
}
