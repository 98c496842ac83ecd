//! Timers at their borders: those of the wheel, those of the same time, those of nobody, and a process that is stopped.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::sim::{blocking, is_simulated};
use evenkeel::{Backend, Handle, TimerId, time};

use crate::support::{Probe, Server, event_loop, exactly, until};

on_every_kernel! {
    i18_timers_of_one_time_fire_in_the_order_in_which_they_were_armed,
    i18_i19_the_borders_of_the_wheel,
    i19_long_ones_beside_short_ones,
    i19_a_delay_of_almost_nothing_is_soon_over,
    i20_cancelled_timers_wake_nobody,
    i20_a_turn_that_is_not_to_wait_does_not_wait,
    i22_a_timer_that_arms_itself_at_once_fires_once_in_a_turn,
    i22_a_flood_of_bytes_keeps_no_timer_waiting,
    i23_sleeps_are_set_anew_and_dropped_in_each_others_calls,
    i23_a_timer_that_fires_is_no_longer_there,
    i07_timers_that_never_fire_are_dropped_with_the_loop,
}

in_processes! {
    i21_a_process_that_was_stopped_goes_on,
}

fn i18_timers_of_one_time_fire_in_the_order_in_which_they_were_armed(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let fired: Rc<RefCell<Vec<(u64, usize)>>> = Rc::default();
    // Most of them share a millisecond, wherever the borders are; who was armed later is not due before.
    let (handle, log) = (h.clone(), fired.clone());
    h.defer(move || {
        for i in 0..200 {
            let (ms, log) = ([0, 3, 3, 7][i % 4], log.clone());
            handle.after(Duration::from_millis(ms), move || log.borrow_mut().push((ms, i)));
        }
    });
    until(&mut events, "all fired", || fired.borrow().len() == 200);
    for ms in [0, 3, 7] {
        let order: Vec<_> = fired.borrow().iter().filter(|(of, _)| *of == ms).map(|(_, i)| *i).collect();
        assert!(order.is_sorted(), "{ms} ms: {order:?}");
    }
}

/// Around each power of two that can be waited for. Which slot a timer gets depends on when it is armed.
fn i18_i19_the_borders_of_the_wheel(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let (left, early) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    for round in 0..4 {
        for bits in 0..9 {
            for ms in [(1 << bits) - 1, 1 << bits, (1 << bits) + 1_u64] {
                for off in [0, 1, 999_999] {
                    let delay = Duration::from_millis(ms) + Duration::from_nanos(off);
                    let (armed, left, early) = (blocking::now(), left.clone(), early.clone());
                    left.set(left.get() + 1);
                    h.after(delay, move || {
                        left.set(left.get() - 1);
                        let took = blocking::now() - armed;
                        if took < delay {
                            early.borrow_mut().push((round, delay, took));
                        }
                    });
                }
            }
        }
        events.block_on(async { time::sleep(Duration::from_millis(17)).await }).unwrap();
    }
    until(&mut events, "all fired", || left.get() == 0);
    assert!(early.borrow().is_empty(), "{:?}", early.borrow());
    assert_eq!(h.stats().armed, 0);
}

/// A timer at the end of time must not keep those before it, whatever the order in which they are armed.
fn i19_long_ones_beside_short_ones(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let fired = Rc::new(Cell::new(0));
    let mut far: Vec<TimerId> = Vec::new();
    for round in 0..64 {
        let delay = if round % 2 == 0 { Duration::MAX } else { Duration::from_millis(1 << round) };
        far.push(h.after(delay, || panic!("the end of time has come")));
        let count = fired.clone();
        h.after(Duration::from_millis(round % 5), move || count.set(count.get() + 1));
        if round >= 16 && round % 2 == 1 {
            continue;
        }
        // Those that are short all the same are taken back before they are due.
        assert!(round % 2 == 0 || h.cancel(far.pop().unwrap()));
    }
    events
        .block_on(async {
            let mut ticks = time::interval(Duration::MAX);
            assert!(time::timeout(Duration::from_millis(3), ticks.tick()).await.is_err());
            let mut sleep = time::sleep(Duration::MAX);
            assert!(time::timeout(Duration::from_millis(1), &mut sleep).await.is_err());
            sleep.reset(blocking::now() + Duration::from_millis(2));
            sleep.await;
        })
        .unwrap();
    until(&mut events, "the short ones fired", || fired.get() == 64);
    assert!(far.into_iter().all(|timer| h.cancel(timer)), "none of the others did");
    assert_eq!((h.stats().panics, h.stats().armed), (0, 0));
}

/// A time is rounded up to the loop's milliseconds, one of nothing like any other; and never is it over in the same call.
fn i19_a_delay_of_almost_nothing_is_soon_over(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    for delay in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(999)] {
        let fired = Rc::new(Cell::new(0));
        let count = fired.clone();
        h.after(delay, move || count.set(count.get() + 1));
        assert_eq!(fired.get(), 0, "never inside the call");
        let armed = blocking::now();
        while blocking::now() - armed < Duration::from_millis(2) {
            events.poll().unwrap();
        }
        events.poll().unwrap();
        assert_eq!(fired.get(), 1, "once, by the end of the next millisecond");
    }
}

fn i20_cancelled_timers_wake_nobody(backend: Backend) {
    let mut s = Server::new(backend);
    let early: Vec<_> = (0..100)
        .map(|i| s.h.after(Duration::from_millis(2 + i % 40), || panic!("it was cancelled")))
        .collect();
    let count = early.iter().filter(|timer| s.h.cancel(**timer)).count();
    assert_eq!((count, s.h.stats().armed), (100, 0));
    let turns = s.turns_in(Duration::from_millis(60));
    assert!(turns < 30, "{turns} turns for timers that nobody waits for");
    assert_eq!(s.h.stats().panics, 0);
}

/// Whatever there is to wait for.
fn i20_a_turn_that_is_not_to_wait_does_not_wait(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::echo());
    s.h.after(Duration::from_secs(3600), || ());
    let task = s.h.spawn(async { time::sleep(Duration::MAX).await });
    // With the watchdog's help: one that waited would wait for an hour.
    s.turns(100);
    peer.write_all(b"ping").unwrap();
    s.turns(3);
    assert_eq!((seen.len(), exactly(&mut peer, 4)), (4, b"ping".to_vec()));
    assert_eq!(s.events.block_on(async { 5 }).unwrap(), 5, "nor does one whose future is ready");
    s.h.stop();
    s.events.run().unwrap();
    assert!(!task.is_finished());
}

fn i22_a_timer_that_arms_itself_at_once_fires_once_in_a_turn(backend: Backend) {
    fn again(h: &Handle, fired: &Rc<Cell<u64>>) {
        let (handle, count) = (h.clone(), fired.clone());
        h.after(Duration::ZERO, move || {
            count.set(count.get() + 1);
            again(&handle, &count);
        });
    }
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::echo());
    let fired = Rc::new(Cell::new(0));
    again(&s.h, &fired);
    for round in 1..=50 {
        let before = fired.get();
        peer.write_all(b"x").unwrap();
        s.turns(2);
        assert!(fired.get() - before <= 2, "{} calls in two turns", fired.get() - before);
        assert_eq!(seen.len(), round, "the socket has its turn each time");
    }
    let before = fired.get();
    s.until("it goes on", || fired.get() > before + 3);
}

/// The socket always has more than the loop reads in a turn.
fn i22_a_flood_of_bytes_keeps_no_timer_waiting(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut hose, flood) = s.pair(Probe::new());
    hose.set_nonblocking(true).unwrap();
    let more = vec![7; 1 << 20];
    let mut fill = move || while hose.write(&more).is_ok() {};
    fill();
    for round in 0..if is_simulated() { 4 } else { 20 } {
        let before = flood.len();
        let (fired, task) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (flag, done) = (fired.clone(), task.clone());
        s.h.after(Duration::from_millis(round % 2), move || flag.set(true));
        let due = blocking::now() + Duration::from_millis(1 + round % 2);
        s.h.spawn(async move { done.set(true) }).detach();
        s.turns(1);
        assert!(task.get(), "a task waited for the flood in round {round}");
        while blocking::now() < due {
            fill();
            s.turns(1);
        }
        for _ in 0..2 {
            fill();
            s.turns(1);
        }
        assert!(fired.get(), "a timer waited for the flood in round {round}");
        assert!(flood.len() > before, "and the flood was served");
    }
}

fn i23_sleeps_are_set_anew_and_dropped_in_each_others_calls(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let sleeps: Rc<RefCell<Vec<Option<time::Sleep>>>> = Rc::default();
    events
        .block_on(async {
            for _ in 0..30 {
                let mut sleep = time::sleep(Duration::from_millis(3));
                let _ = time::timeout(Duration::ZERO, &mut sleep).await;
                sleeps.borrow_mut().push(Some(sleep));
            }
        })
        .unwrap();
    // Due at the same time as the sleeps, which it sets anew, drops and replaces.
    let (all, handle) = (sleeps.clone(), h.clone());
    let ran = Rc::new(Cell::new(false));
    let flag = ran.clone();
    h.after(Duration::from_millis(3), move || {
        for (i, sleep) in all.borrow_mut().iter_mut().enumerate() {
            match i % 3 {
                0 => drop(sleep.take()),
                1 => sleep.as_mut().unwrap().reset(blocking::now() + Duration::from_millis(4)),
                _ => *sleep = Some(time::sleep(Duration::from_millis(1))),
            }
        }
        assert!(handle.stats().armed <= 30);
        flag.set(true);
    });
    until(&mut events, "it ran", || ran.get());
    events
        .block_on(async {
            for sleep in sleeps.take().into_iter().flatten() {
                let at = sleep.deadline().unwrap();
                sleep.await;
                assert!(blocking::now() >= at);
            }
        })
        .unwrap();
    assert_eq!((h.stats().armed, h.stats().panics), (0, 0));
}

/// Its id names nothing while it is called, and no later timer that has its place.
fn i23_a_timer_that_fires_is_no_longer_there(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let own: Rc<Cell<Option<TimerId>>> = Rc::default();
    let next: Rc<Cell<Option<TimerId>>> = Rc::default();
    let fired = Rc::new(Cell::new(0));
    let (handle, id, later, count) = (h.clone(), own.clone(), next.clone(), fired.clone());
    let first = h.after(Duration::from_millis(1), move || {
        assert!(!handle.cancel(id.get().unwrap()), "itself");
        let count = count.clone();
        later.set(Some(handle.after(Duration::from_millis(1), move || count.set(count.get() + 1))));
        assert!(!handle.cancel(id.get().unwrap()), "nor the one that may have its place");
    });
    own.set(Some(first));
    until(&mut events, "the second one fired", || fired.get() == 1);
    assert!(!h.cancel(first) && !h.cancel(next.get().unwrap()));
    assert_eq!((h.stats().panics, h.stats().timers >= 2), (0, true));
}

fn i07_timers_that_never_fire_are_dropped_with_the_loop(backend: Backend) {
    let events = event_loop(backend);
    let h = events.handle();
    let held = Rc::new(());
    for delay in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
        let own = held.clone();
        h.after(delay, move || panic!("{own:?}"));
        let own = held.clone();
        h.defer(move || panic!("{own:?}"));
    }
    let (own, handle) = (held.clone(), h.clone());
    // One that arms another when it is dropped.
    struct OnDrop(Handle);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.after(Duration::ZERO, || panic!("after the end"));
        }
    }
    let last = OnDrop(handle);
    h.after(Duration::from_secs(1), move || drop((own, last)));
    drop(events);
    assert_eq!((Rc::strong_count(&held), h.stats().panics), (1, 0));
}

/// The wait is interrupted, and time has passed when the process goes on.
fn i21_a_process_that_was_stopped_goes_on(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    let script = "i=0; while [ $i -lt 5 ]; do kill -STOP $1; \
                  until grep -q '^State:.T' /proc/$1/status; do :; done; \
                  kill -CONT $1; i=$((i+1)); done";
    let mut stopper =
        Command::new("sh").args(["-c", script, "sh", &std::process::id().to_string()]).spawn().unwrap();
    let h = s.h.clone();
    let early = Rc::new(Cell::new(0));
    let count = early.clone();
    // A task that sleeps again and again, and bytes that go back and forth, until the other process has stopped us often.
    let sleeping = h.spawn(async move {
        loop {
            let due = blocking::now() + Duration::from_millis(1);
            time::sleep(Duration::from_millis(1)).await;
            count.set(count.get() + u32::from(blocking::now() < due));
        }
    });
    let status = s.serve(move |_| {
        loop {
            peer.write_all(b"ping").unwrap();
            assert_eq!(exactly(&mut peer, 4), b"ping");
            if let Some(status) = stopper.try_wait().unwrap() {
                return status;
            }
        }
    });
    assert!(status.success(), "{status}");
    assert!(!sleeping.is_finished());
    assert_eq!(early.get(), 0);
    let timers = s.h.stats().timers;
    let h = s.h.clone();
    s.until("timers fire", || h.stats().timers > timers + 2);
}
