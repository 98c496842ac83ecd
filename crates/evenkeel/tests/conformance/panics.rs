//! A panic ends one thing and is counted; everything else goes on.

use std::cell::Cell;
use std::io::Write;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::sim::blocking;
use evenkeel::{Backend, Conn, ConnId, Handler};

use crate::support::{Probe, Server, connect, event_loop, pattern, read_all, until};

on_every_kernel! {
    i38_a_panic_in_each_call_ends_that_connection,
    i38_a_panic_in_on_close_is_counted,
    i38_a_panic_in_a_handlers_drop_is_counted,
    i38_a_panic_in_a_task_reaches_its_handle,
    i38_panics_in_deferred_calls_timers_and_messages_are_counted,
    i38_a_panic_while_bytes_are_lent_to_a_task,
    i38_a_panic_after_a_detach_closes_the_stream,
    i38_what_a_panic_carries_may_panic_too,
    i38_the_end_of_a_loop_survives_panics,
}

fn boom(_: &mut Conn<'_>) {
    panic!("as the test wants it");
}

fn i38_a_panic_in_each_call_ends_that_connection(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut friend, _) = s.pair(Probe::echo());
    let probes: [(&str, Probe); 5] = [
        ("on_open", Probe::new().on_open(boom)),
        ("on_data", Probe::new().on_data(|conn, _| boom(conn))),
        ("on_eof", Probe::new().on_eof(boom)),
        ("on_notify", Probe::new().on_notify(boom)),
        ("on_drained", Probe::new().on_drained(boom)),
    ];
    for (round, (call, probe)) in probes.into_iter().enumerate() {
        let (mut peer, seen) = s.pair(probe);
        match call {
            "on_data" => peer.write_all(&pattern(1000)).unwrap(),
            "on_eof" => peer.shutdown(Shutdown::Write).unwrap(),
            "on_notify" => s.h.notify(seen.id()).unwrap(),
            "on_drained" => drop(s.h.write(seen.id(), &pattern(9_000_000)).unwrap()),
            _ => {}
        }
        let reader = blocking::spawn(move || read_all(&mut peer));
        s.until("on_close was heard", || seen.closed());
        assert_eq!((seen.why(), seen.dropped.get()), ("handler panicked", true), "in {call}");
        assert_eq!(s.h.stats().panics, round as u64 + 1);
        assert!(reader.join().unwrap().1.is_err(), "in {call}: the peer is told by a reset");
        friend.write_all(b"ping").unwrap();
        assert_eq!(s.answer(&mut friend, 4), b"ping", "others go on");
    }
}

fn i38_a_panic_in_on_close_is_counted(backend: Backend) {
    let mut s = Server::new(backend);
    let (peer, seen) = s.pair(Probe::new().on_close(|_, _| panic!("at the very end")));
    drop(peer);
    s.until("it is over", || seen.dropped.get());
    assert_eq!((seen.why(), s.h.stats().panics, s.pool.len()), ("closed", 1, 0));
    let (mut peer, _) = s.pair(Probe::echo());
    peer.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut peer, 4), b"ping");
}

struct Bomb(Rc<Cell<u32>>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        panic!("in drop");
    }
}

impl Handler for Bomb {
    fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}
    fn on_close(&mut self, _: ConnId, _: &evenkeel::CloseReason) {}
}

fn i38_a_panic_in_a_handlers_drop_is_counted(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let drops: Rc<Cell<u32>> = Rc::default();
    let count = drops.clone();
    let listener = h.listen("127.0.0.1:0", move |_| Bomb(count.clone())).unwrap();
    let at = h.listener_addr(listener).unwrap().socket_addr().unwrap();
    for _ in 0..3 {
        drop(connect(at));
    }
    until(&mut events, "all are over", || drops.get() == 3);
    assert_eq!(h.stats().panics, 3);
    let _kept = connect(at);
    until(&mut events, "one more is in", || h.stats().accepted == 4);
    drop(events);
    assert_eq!((drops.get(), h.stats().panics), (4, 4), "the end of the loop survives it too");
}

fn i38_a_panic_in_a_task_reaches_its_handle(backend: Backend) {
    let mut events = event_loop(backend);
    let result = events.block_on(async {
        let task = evenkeel::spawn(async {
            evenkeel::task::yield_now().await;
            panic!("in the task");
        });
        let other = evenkeel::spawn(async { 7 });
        let result: Result<(), _> = task.await;
        (result, other.await.unwrap())
    });
    let (result, other) = result.unwrap();
    assert!(result.unwrap_err().is_panic());
    assert_eq!((other, events.handle().stats().panics), (7, 1));
}

fn i38_panics_in_deferred_calls_timers_and_messages_are_counted(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    h.defer(|| panic!("deferred"));
    h.after(Duration::ZERO, || panic!("timer"));
    h.remote().run(|_| panic!("message")).unwrap();
    h.spawn(async { panic!("detached task") }).detach();
    let ran = Rc::new(Cell::new(0));
    let (a, b) = (ran.clone(), ran.clone());
    h.defer(move || a.set(a.get() + 1));
    h.after(Duration::ZERO, move || b.set(b.get() + 1));
    until(&mut events, "everything ran", || ran.get() == 2 && h.stats().panics == 4);
}

fn i38_a_panic_while_bytes_are_lent_to_a_task(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut friend, _) = s.pair(Probe::echo());
    let (mut peer, ours) = blocking::UnixStream::pair().unwrap();
    let task = s.h.spawn(async move {
        let mut stream = evenkeel::net::Stream::from_fd(ours.into_fd().unwrap()).unwrap();
        stream.read_with(|_, _| panic!("with the loop's memory in hand")).await.unwrap();
    });
    peer.write_all(b"go").unwrap();
    assert!(s.events.block_on(task).unwrap().unwrap_err().is_panic());
    friend.write_all(&pattern(50_000)).unwrap();
    assert_eq!(s.answer(&mut friend, 50_000), pattern(50_000));
}

fn i38_a_panic_after_a_detach_closes_the_stream(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|conn, bytes| {
        let _stream = conn.detach(bytes).unwrap();
        panic!("with the stream in hand");
    }));
    peer.write_all(b"go").unwrap();
    s.until("the handler is gone", || seen.dropped.get());
    s.turns(3);
    assert!(!seen.closed(), "no call comes after a detach");
    assert_eq!((read_all(&mut peer).0, s.h.stats().panics, s.pool.len()), (vec![], 1, 0));
}

/// What is dropped with a panic is the user's, too.
fn i38_what_a_panic_carries_may_panic_too(backend: Backend) {
    struct Mine;
    impl Drop for Mine {
        fn drop(&mut self) {
            panic!("in the payload's drop");
        }
    }
    fn throw() {
        std::panic::panic_any(Mine);
    }
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(|_, _| throw()));
    peer.write_all(b"x").unwrap();
    s.until("on_close was heard", || seen.closed());
    assert_eq!((seen.why(), seen.dropped.get(), s.pool.len()), ("handler panicked", true, 0));
    s.h.defer(throw);
    s.h.after(Duration::ZERO, throw);
    s.h.remote().run(|_| throw()).unwrap();
    let h = s.h.clone();
    s.until("all have run", || h.stats().panics == 4);
    let pool = s.h.pool::<Probe>(crate::support::no_limits());
    let make = |_: &_| {
        throw();
        Probe::new()
    };
    let listener = pool.listen("127.0.0.1:0", &Default::default(), make).unwrap();
    let mut peer = connect(s.h.listener_addr(listener).unwrap().socket_addr().unwrap());
    s.until("the newcomer is refused", || h.stats().panics == 5);
    assert!(read_all(&mut peer).0.is_empty());
}

fn i38_the_end_of_a_loop_survives_panics(backend: Backend) {
    struct Loud(Rc<Cell<u32>>);
    impl Drop for Loud {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            panic!("in drop");
        }
    }
    let drops = Rc::new(Cell::new(0));
    let loud = || Loud(drops.clone());
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new());
    let (one, two) = (loud(), loud());
    s.h.defer(move || drop(one));
    s.h.after(Duration::from_secs(1000), move || drop(two));
    s.h.remote().run(|_| ()).unwrap();
    drop(s);
    assert_eq!(drops.get(), 2);
    assert_eq!(seen.why(), "loop ended");
    assert!(read_all(&mut peer).0.is_empty());
}
