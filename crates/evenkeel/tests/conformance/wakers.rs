//! Wakers that are not of the loop's own tasks: their code is the user's, and may call anything.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::Write;
use std::mem::ManuallyDrop;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::thread::LocalKey;
use std::time::Duration;

use evenkeel::net::{ConnectOptions, Listener, Stream};
use evenkeel::signal::{Signal, Signals};
use evenkeel::sim::blocking;
use evenkeel::{Backend, EventLoop, Handle, time};

use crate::asynchronous::pair;
use crate::connecting::full_backlog;
use crate::support::{Probe, Server, event_loop, exactly, until};

on_every_kernel! {
    i39_wakers_may_call_the_loop_when_they_are_cloned_woken_and_dropped,
    i39_what_a_waker_writes_leaves_before_the_loop_waits,
    i39_a_panic_in_a_waker_is_counted_and_the_loop_goes_on,
    i41_those_who_waited_for_signals_are_forgotten,
}

type Call = Rc<dyn Fn()>;

thread_local! {
    static ON_CLONE: RefCell<Option<Call>> = const { RefCell::new(None) };
    static ON_WAKE: RefCell<Option<Call>> = const { RefCell::new(None) };
    static ON_DROP: RefCell<Option<Call>> = const { RefCell::new(None) };
}

fn call(which: &'static LocalKey<RefCell<Option<Call>>>) {
    // None at the end of the thread.
    if let Some(call) = which.try_with(|call| call.borrow().clone()).ok().flatten() {
        call();
    }
}

fn set(which: &'static LocalKey<RefCell<Option<Call>>>, call: impl Fn() + 'static) {
    which.set(Some(Rc::new(call)));
}

/// Lets go of what the calls of a body hold: a loop whose handle is kept keeps its descriptors.
fn forget() {
    for which in [&ON_CLONE, &ON_WAKE, &ON_DROP] {
        drop(which.take());
    }
}

/// A waker whose every function calls what the test has set. Each value of `id` is another waker.
fn waker(id: usize) -> Waker {
    static TABLE: RawWakerVTable = RawWakerVTable::new(
        |data| {
            call(&ON_CLONE);
            RawWaker::new(data, &TABLE)
        },
        |_| {
            call(&ON_WAKE);
            call(&ON_DROP);
        },
        |_| call(&ON_WAKE),
        |_| call(&ON_DROP),
    );
    // SAFETY: the functions use no data, keep no reference, and may be called on any thread.
    unsafe { Waker::new(std::ptr::without_provenance(id), &TABLE) }
}

/// Polls with a waker of the test's.
fn poll<F: Future>(id: usize, future: F) -> Poll<F::Output> {
    let waker = ManuallyDrop::new(waker(id));
    pin!(future).poll(&mut Context::from_waker(&waker))
}

/// Calls that borrow whatever the loop has.
fn busy(h: &Handle) -> impl Fn() + use<> {
    let h = h.clone();
    move || {
        h.stats();
        h.after(Duration::ZERO, || ());
        h.defer(|| ());
        h.spawn(async {}).detach();
    }
}

fn in_loop<R>(events: &mut EventLoop, body: impl FnOnce() -> R) -> R {
    let mut body = Some(body);
    events.block_on(poll_fn(move |_| Poll::Ready((body.take().unwrap())()))).unwrap()
}

fn i39_wakers_may_call_the_loop_when_they_are_cloned_woken_and_dropped(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let (mut stream, mut peer) = pair(&mut events);
    let woken = Rc::new(Cell::new(0));
    set(&ON_CLONE, busy(&h));
    set(&ON_DROP, busy(&h));
    let (count, calls) = (woken.clone(), busy(&h));
    set(&ON_WAKE, move || {
        count.set(count.get() + 1);
        calls();
    });
    let mut signals = Signals::new_on(&h, &[Signal::User2]).unwrap();
    let (mut listener, mut sleep) = in_loop(&mut events, || {
        (Listener::bind("127.0.0.1:0").unwrap(), time::sleep(Duration::from_millis(20)))
    });
    in_loop(&mut events, || {
        // Each is polled by one waker and then by another, which replaces the first.
        for id in 1..3 {
            assert!(poll(id, &mut sleep).is_pending());
            assert!(poll(id, stream.read(&mut [0; 8])).is_pending());
            assert!(poll(id, listener.accept()).is_pending());
            assert!(poll(id, signals.recv()).is_pending());
        }
    });
    peer.write_all(b"x").unwrap();
    let wake = h.remote();
    blocking::spawn(move || wake.wake()).join().unwrap();
    let seen = woken.clone();
    until(&mut events, "the timer, the stream and the signals have woken", || seen.get() >= 3);
    assert_eq!(h.stats().panics, 0);
    drop((sleep, stream, listener, signals));
    events.poll().unwrap();
    forget();
}

/// This waker is called late in a turn: a timer ends the attempt to connect, and nothing else happens.
fn i39_what_a_waker_writes_leaves_before_the_loop_waits(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut other, seen) = s.pair(Probe::new());
    let (_kept, _fill, at) = full_backlog();
    let mut options = ConnectOptions::default();
    options.deadline = Some(Duration::from_millis(20));
    let mut connect = Box::pin(Stream::connect_with(at, &options));
    let (h, id) = (s.h.clone(), seen.id());
    set(&ON_WAKE, move || assert!(h.write(id, b"woken").is_ok()));
    in_loop(&mut s.events, || assert!(poll(1, connect.as_mut()).is_pending()));
    assert_eq!(s.serve(move |_| exactly(&mut other, 5)), b"woken");
    drop(connect);
    forget();
}

fn i39_a_panic_in_a_waker_is_counted_and_the_loop_goes_on(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut stream, mut peer) = pair(&mut s.events);
    let mut signals = Signals::new_on(&s.h, &[Signal::User2]).unwrap();
    let mut sleep = in_loop(&mut s.events, || time::sleep(Duration::from_millis(5)));
    let woken = Rc::new(Cell::new(0));
    let count = woken.clone();
    set(&ON_WAKE, move || {
        count.set(count.get() + 1);
        panic!("a waker's");
    });
    in_loop(&mut s.events, || {
        assert!(poll(1, &mut sleep).is_pending());
        assert!(poll(1, stream.read(&mut [0; 8])).is_pending());
        assert!(poll(1, signals.recv()).is_pending());
    });
    peer.write_all(b"x").unwrap();
    s.h.remote().wake();
    s.until("each was woken", || woken.get() >= 3);
    assert_eq!(s.h.stats().panics, u64::from(woken.get() as u32));
    let (mut peer, _) = s.pair(Probe::echo());
    peer.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut peer, 4), b"ping");
}

fn i41_those_who_waited_for_signals_are_forgotten(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let kept = Rc::new(Cell::new(0));
    let (more, less) = (kept.clone(), kept.clone());
    set(&ON_CLONE, move || more.set(more.get() + 1));
    set(&ON_DROP, move || less.set(less.get() - 1));
    let mut signals = Signals::new_on(&h, &[Signal::User2]).unwrap();
    // Nothing wakes the loop meanwhile.
    for id in 1..1000 {
        assert!(poll(id, signals.recv()).is_pending());
    }
    assert_eq!(kept.get(), 1, "who polls last is woken");
    drop(signals);
    assert_eq!(kept.get(), 0);
    for id in 1..1000 {
        assert!(poll(id, Signals::new_on(&h, &[Signal::User2]).unwrap().recv()).is_pending());
    }
    assert_eq!(kept.get(), 0);
    events.poll().unwrap();
}
