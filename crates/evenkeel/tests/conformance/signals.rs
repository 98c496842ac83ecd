//! Signals as events: for tasks and callbacks, of several loops at once. Each test has a process to itself.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use evenkeel::signal::{Signal, Signals};
use evenkeel::{Backend, time};

use crate::support::{PEER, event_loop, serve, until};

in_processes! {
    a_sleeping_loop_hears_each_signal,
    a_callback_is_called_until_its_guard_is_dropped,
    a_callback_that_panics_is_called_again,
    every_loop_that_asked_hears_of_it,
    real_time_signals_are_queued,
    what_cannot_be_listened_for_is_refused,
    a_flood_of_signals_leaves_turns_to_others,
    i06_a_signal_that_waits_when_nobody_listens_any_more,
    signals_that_come_while_the_loop_is_busy_are_counted,
}

/// Sends a signal to this process.
fn send(signal: Signal) {
    // SAFETY: sends a signal that the test handles.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal.as_raw().unwrap()) }, 0);
}

const MANY: [Signal; 8] = [
    Signal::Alarm,
    Signal::WindowChange,
    Signal::Child,
    Signal::Continue,
    Signal::Io,
    Signal::Urgent,
    Signal::RealTime(0),
    Signal::RealTime(30),
];

fn a_sleeping_loop_hears_each_signal(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let mut signals = Signals::new_on(&h, &MANY).unwrap();
    serve(&mut events, move |remote| {
        for signal in MANY {
            let (tell, told) = channel();
            // The loop has nothing else to do, so mostly it sleeps when the signal comes.
            remote.run(move |_| tell.send(()).unwrap()).unwrap();
            told.recv().unwrap();
            send(signal);
        }
    });
    for _ in 0..MANY.len() {
        let signal = events.block_on(signals.recv()).unwrap();
        assert!(MANY.contains(&signal), "{signal}");
    }
    let (tell, told) = channel();
    let sender = thread::spawn(move || {
        for _ in 0..20 {
            send(Signal::Alarm);
            told.recv().unwrap();
        }
    });
    for _ in 0..20 {
        assert_eq!(events.block_on(signals.recv()).unwrap(), Signal::Alarm);
        tell.send(()).unwrap();
    }
    sender.join().unwrap();
}

fn a_callback_is_called_until_its_guard_is_dropped(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let heard: Rc<RefCell<Vec<Signal>>> = Rc::default();
    let list = heard.clone();
    let signals = [Signal::User1, Signal::Child];
    let guard = h.on_signal(&signals, move |_, signal| list.borrow_mut().push(signal)).unwrap();
    let kept = Rc::new(Cell::new(0));
    let count = kept.clone();
    h.on_signal(&[Signal::User1], move |_, _| count.set(count.get() + 1)).unwrap().detach();
    // A callback may drop its own guard.
    let own: Rc<RefCell<Option<_>>> = Rc::default();
    let (mine, once) = (own.clone(), Rc::new(Cell::new(0)));
    let times = once.clone();
    let made = h.on_signal(&[Signal::User1], move |_, _| {
        times.set(times.get() + 1);
        drop(mine.borrow_mut().take());
    });
    *own.borrow_mut() = Some(made.unwrap());
    send(Signal::User1);
    until(&mut events, "all have heard", || heard.borrow().len() + kept.get() + once.get() == 3);
    send(Signal::Child);
    until(&mut events, "the next is heard", || heard.borrow().len() == 2);
    assert_eq!(*heard.borrow(), signals);
    drop(guard);
    send(Signal::User1);
    until(&mut events, "the one that was kept has heard", || kept.get() == 2);
    assert_eq!((heard.borrow().len(), once.get()), (2, 1));
    assert_eq!(Rc::strong_count(&heard), 1, "the callback is gone with its guard");
    drop(events);
    assert_eq!(Rc::strong_count(&kept), 1, "and the others with the loop");
    let late = h.on_signal(&signals, |_, _| ());
    assert_eq!(late.unwrap_err().kind(), ErrorKind::NotConnected);
}

fn a_callback_that_panics_is_called_again(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let seen = Rc::new(Cell::new(0));
    let count = seen.clone();
    let guard = h.on_signal(&[Signal::User2], move |h, _| {
        count.set(count.get() + 1);
        if count.get() == 1 {
            panic!("as the test wants it");
        }
        h.stop();
    });
    let _guard = guard.unwrap();
    send(Signal::User2);
    until(&mut events, "it has panicked", || seen.get() == 1);
    assert_eq!(h.stats().panics, 1);
    send(Signal::User2);
    events.run().unwrap();
    assert_eq!(seen.get(), 2);
}

fn every_loop_that_asked_hears_of_it(backend: Backend) {
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (ready, is_ready) = channel();
            let thread = thread::spawn(move || {
                let mut events = event_loop(backend);
                let mut signals = Signals::new_on(&events.handle(), &[Signal::User1]).unwrap();
                ready.send(()).unwrap();
                events.block_on(signals.recv()).unwrap()
            });
            is_ready.recv().unwrap();
            thread
        })
        .collect();
    let mut here = event_loop(backend);
    let mut signals = Signals::new_on(&here.handle(), &[Signal::User1]).unwrap();
    // One that has come and gone keeps nobody from hearing.
    drop(Signals::new_on(&event_loop(backend).handle(), &[Signal::User1]).unwrap());
    send(Signal::User1);
    assert_eq!(here.block_on(signals.recv()).unwrap(), Signal::User1);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Signal::User1);
    }
}

fn real_time_signals_are_queued(backend: Backend) {
    let mut events = event_loop(backend);
    let mut signals = Signals::new_on(&events.handle(), &[Signal::RealTime(3)]).unwrap();
    for _ in 0..50 {
        send(Signal::RealTime(3));
    }
    for _ in 0..50 {
        assert_eq!(events.block_on(signals.recv()).unwrap(), Signal::RealTime(3));
    }
    let none = events.block_on(time::timeout(Duration::from_millis(2), signals.recv())).unwrap();
    assert!(none.is_err());
}

fn what_cannot_be_listened_for_is_refused(backend: Backend) {
    let events = event_loop(backend);
    let h = events.handle();
    use Signal as S;
    for signal in [S::Kill, S::Stop, S::Segmentation, S::Bus, S::Arithmetic, S::IllegalInstruction, S::Pipe] {
        let refused = Signals::new_on(&h, &[Signal::User1, signal]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains(&signal.to_string()), "{refused}");
        assert!(h.on_signal(&[signal], |_, _| ()).is_err());
    }
    assert!(Signals::new_on(&h, &[Signal::RealTime(200)]).is_err());
}

fn a_flood_of_signals_leaves_turns_to_others(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let seen = Rc::new(Cell::new(0));
    let count = seen.clone();
    // Each call makes the next.
    let call = move |_: &_, _| {
        count.set(count.get() + 1);
        send(Signal::User1);
    };
    h.on_signal(&[Signal::User1], call).unwrap().detach();
    send(Signal::User1);
    until(&mut events, "it goes on and on", || seen.get() > 1000);
    events.block_on(async { time::sleep(Duration::from_millis(1)).await }).unwrap();
}

/// Sends a signal to this thread, which has handled it by the time that this returns.
fn raise(signal: Signal) {
    // SAFETY: sends a signal that the test handles, to this thread.
    assert_eq!(unsafe { libc::raise(signal.as_raw().unwrap()) }, 0);
}

fn i06_a_signal_that_waits_when_nobody_listens_any_more(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let guard = h.on_signal(&[Signal::User1], |_, _| panic!("nobody listens")).unwrap();
    let mut kept = Signals::new_on(&h, &[Signal::User1]).unwrap();
    let dropped = Signals::new_on(&h, &[Signal::User1]).unwrap();
    // It has come, and the loop has not looked.
    raise(Signal::User1);
    drop((guard, dropped));
    (0..5).for_each(|_| events.poll().unwrap());
    assert_eq!(events.block_on(time::timeout(PEER, kept.recv())).unwrap(), Ok(Signal::User1));
    assert_eq!(h.stats().panics, 0);
    // The next one to listen does not hear of what came before.
    let mut late = Signals::new_on(&h, &[Signal::User1]).unwrap();
    assert!(events.block_on(time::timeout(Duration::from_millis(2), late.recv())).unwrap().is_err());
    drop((kept, late));
    raise(Signal::User1);
    assert!(events.block_on(async { 7 }).is_ok(), "with nobody left it has no effect");
}

fn signals_that_come_while_the_loop_is_busy_are_counted(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let mut signals = Signals::new_on(&h, &[Signal::User1, Signal::User2]).unwrap();
    let called = Rc::new(Cell::new(0));
    let count = called.clone();
    let _guard = h.on_signal(&[Signal::User2], move |_, _| count.set(count.get() + 1)).unwrap();
    h.defer(|| {
        for i in 0..30 {
            raise(if i % 3 == 0 { Signal::User2 } else { Signal::User1 });
        }
    });
    until(&mut events, "the callback was called for each", || called.get() == 10);
    let mut heard = [0, 0];
    for _ in 0..30 {
        let signal = events.block_on(time::timeout(PEER, signals.recv())).unwrap().unwrap();
        heard[usize::from(signal == Signal::User2)] += 1;
    }
    assert_eq!(heard, [20, 10]);
    assert!(events.block_on(time::timeout(Duration::from_millis(2), signals.recv())).unwrap().is_err());
}
