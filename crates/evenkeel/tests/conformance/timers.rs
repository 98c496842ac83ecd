//! Timers: never early, never lost, never in the way of sockets.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::sim::blocking;
use evenkeel::{Backend, Handle, TimerId, time};

use crate::support::{Probe, Server, event_loop, exactly, until};

on_every_kernel! {
    i18_no_timer_fires_early,
    i18_no_timer_fires_early_after_a_slow_call,
    i18_timers_fire_in_the_order_of_their_times,
    i19_every_duration_is_legal,
    i20_a_wait_for_a_timer_does_not_spin,
    i22_a_thousand_timers_of_zero_starve_nobody,
    i22_a_deferred_call_that_defers_itself_starves_nobody,
    i22_a_task_that_never_rests_starves_nobody,
    i23_timers_are_cancelled_and_armed_inside_each_others_calls,
    sleeps_can_be_set_anew,
    intervals_pass_over_what_was_missed,
    a_timeout_drops_what_it_waited_for,
}

fn i18_no_timer_fires_early(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let left = Rc::new(Cell::new(0));
    let early: Rc<RefCell<Vec<_>>> = Rc::default();
    let mut rng = fastrand::Rng::with_seed(18);
    for _ in 0..300 {
        let delay = Duration::from_micros(rng.u64(0..60_000));
        let (armed, left, early) = (blocking::now(), left.clone(), early.clone());
        left.set(left.get() + 1);
        h.after(delay, move || {
            left.set(left.get() - 1);
            let took = blocking::now() - armed;
            if took < delay {
                early.borrow_mut().push((delay, took));
            }
        });
    }
    until(&mut events, "all fired", || left.get() == 0);
    assert!(early.borrow().is_empty(), "{early:?}");
}

/// The loop's time is as old as its turn; a delay counts from now.
fn i18_no_timer_fires_early_after_a_slow_call(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let took: Rc<Cell<Option<Duration>>> = Rc::default();
    let (inner, result) = (h.clone(), took.clone());
    h.defer(move || {
        blocking::sleep(Duration::from_millis(30));
        let armed = blocking::now();
        inner.after(Duration::from_millis(20), move || result.set(Some(blocking::now() - armed)));
    });
    until(&mut events, "it fired", || took.get().is_some());
    assert!(took.get().unwrap() >= Duration::from_millis(20));
}

fn i18_timers_fire_in_the_order_of_their_times(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let fired: Rc<RefCell<Vec<u64>>> = Rc::default();
    for ms in [30, 5, 20, 10, 25, 15] {
        let fired = fired.clone();
        h.after(Duration::from_millis(ms), move || fired.borrow_mut().push(ms));
    }
    until(&mut events, "all fired", || fired.borrow().len() == 6);
    assert_eq!(*fired.borrow(), [5, 10, 15, 20, 25, 30]);
}

fn i19_every_duration_is_legal(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let fired = Rc::new(Cell::new(0));
    let count = |fired: &Rc<Cell<u32>>| {
        let fired = fired.clone();
        move || fired.set(fired.get() + 1)
    };
    let far: Vec<_> = (20..64)
        .map(|bits| Duration::from_millis(1 << bits))
        .chain([Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_millis(u64::MAX)])
        .map(|delay| h.after(delay, count(&fired)))
        .collect();
    for near in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(999)] {
        h.after(near, count(&fired));
    }
    until(&mut events, "the near ones fired", || fired.get() == 3);
    events
        .block_on(async {
            let longest = time::timeout(Duration::MAX, time::sleep(Duration::from_millis(3)));
            longest.await.unwrap();
            assert!(time::timeout(Duration::ZERO, time::sleep(Duration::MAX)).await.is_err());
            time::sleep_until(blocking::now() - Duration::from_millis(1)).await;
            assert_eq!(time::timeout(Duration::ZERO, async { 5 }).await, Ok(5), "who is ready wins");
        })
        .unwrap();
    assert_eq!(fired.get(), 3);
    assert!(far.into_iter().all(|timer| h.cancel(timer)));
    assert_eq!(h.stats().armed, 0);
}

fn i20_a_wait_for_a_timer_does_not_spin(backend: Backend) {
    let mut s = Server::new(backend);
    for ms in [1, 7, 40] {
        let turns = s.turns_in(Duration::from_millis(ms));
        assert!(turns <= 5, "{turns} turns for one sleep of {ms} ms");
    }
}

fn i22_a_thousand_timers_of_zero_starve_nobody(backend: Backend) {
    fn again(h: &Handle, fired: &Rc<Cell<u64>>) {
        fired.set(fired.get() + 1);
        let (handle, count) = (h.clone(), fired.clone());
        h.after(Duration::ZERO, move || again(&handle, &count));
    }
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    let fired = Rc::new(Cell::new(0));
    (0..1000).for_each(|_| again(&s.h, &fired));
    s.serve(move |_| {
        for _ in 0..20 {
            peer.write_all(b"ping").unwrap();
            assert_eq!(exactly(&mut peer, 4), b"ping");
        }
    });
    let before = s.h.stats().turns;
    let count = fired.get();
    s.turns(10);
    let per_turn = (fired.get() - count) / (s.h.stats().turns - before);
    assert!(per_turn <= 5000, "{per_turn} timers in a turn");
}

fn i22_a_deferred_call_that_defers_itself_starves_nobody(backend: Backend) {
    fn again(h: &Handle, ran: &Rc<Cell<u64>>) {
        ran.set(ran.get() + 1);
        let (handle, count) = (h.clone(), ran.clone());
        h.defer(move || again(&handle, &count));
    }
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    let ran = Rc::new(Cell::new(0));
    again(&s.h, &ran);
    s.turns(10);
    assert_eq!(ran.get(), 11, "a call that is deferred runs in the next turn");
    s.serve(move |_| {
        peer.write_all(b"ping").unwrap();
        assert_eq!(exactly(&mut peer, 4), b"ping");
    });
}

fn i22_a_task_that_never_rests_starves_nobody(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            s.h.spawn(async {
                loop {
                    evenkeel::task::yield_now().await;
                }
            })
        })
        .collect();
    let fired = Rc::new(Cell::new(false));
    let flag = fired.clone();
    s.h.after(Duration::from_millis(1), move || flag.set(true));
    s.serve(move |_| {
        for _ in 0..20 {
            peer.write_all(b"ping").unwrap();
            assert_eq!(exactly(&mut peer, 4), b"ping");
        }
    });
    s.until("the timer fired", || fired.get());
    tasks.iter().for_each(evenkeel::task::JoinHandle::<()>::abort);
    let h = s.h.clone();
    s.until("they are gone", || h.stats().tasks == 0);
}

fn i23_timers_are_cancelled_and_armed_inside_each_others_calls(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let ids: Rc<RefCell<Vec<TimerId>>> = Rc::default();
    let fired: Rc<RefCell<Vec<usize>>> = Rc::default();
    for i in 0..20 {
        let (handle, all, log) = (h.clone(), ids.clone(), fired.clone());
        // All are due at once; the first that fires cancels the others, itself included, and arms one more.
        let id = h.after(Duration::from_millis(2), move || {
            log.borrow_mut().push(i);
            let cancelled = all.borrow().iter().filter(|id| handle.cancel(**id)).count();
            assert_eq!(cancelled, 19);
            let log = log.clone();
            handle.after(Duration::ZERO, move || log.borrow_mut().push(100));
        });
        ids.borrow_mut().push(id);
    }
    until(&mut events, "the last one fired", || fired.borrow().contains(&100));
    (0..5).for_each(|_| events.poll().unwrap());
    assert_eq!(fired.borrow().len(), 2);
    assert_eq!((h.stats().panics, h.stats().armed), (0, 0));
}

fn sleeps_can_be_set_anew(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    events
        .block_on(async {
            let started = blocking::now();
            let mut sleep = time::sleep(Duration::from_secs(3600));
            assert!(time::timeout(Duration::from_millis(1), &mut sleep).await.is_err());
            sleep.reset(started + Duration::from_millis(10));
            (&mut sleep).await;
            assert!(blocking::now() - started >= Duration::from_millis(10));
            // After it was ready, too, and to a later time.
            let again = blocking::now() + Duration::from_millis(10);
            sleep.reset(again);
            (&mut sleep).await;
            assert!(blocking::now() >= again);
            let mut long = time::sleep(Duration::from_millis(5));
            let _ = time::timeout(Duration::ZERO, &mut long).await;
            let later = blocking::now() + Duration::from_millis(30);
            long.reset(later);
            long.await;
            assert!(blocking::now() >= later);
        })
        .unwrap();
    assert_eq!(h.stats().armed, 0, "a sleep that is dropped leaves no timer");
}

fn intervals_pass_over_what_was_missed(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let period = Duration::from_millis(10);
            let started = time::now();
            let mut ticks = time::interval(period);
            let first = ticks.tick().await;
            assert!(first - started >= period && time::now() >= first);
            time::sleep(Duration::from_millis(45)).await;
            let before = time::now();
            let second = ticks.tick().await;
            assert!(second > first && second <= before, "the first missed one is told of");
            let third = ticks.tick().await;
            assert!(third > before, "the others are passed over");
            for time in [second, third] {
                assert_eq!((time - first).as_nanos() % period.as_nanos(), 0, "the beat is kept");
            }
            // A tick that was waited for in vain is not lost.
            for _ in 0..3 {
                let _ = time::timeout(Duration::from_millis(1), ticks.tick()).await;
            }
            assert!(ticks.tick().await > third);
        })
        .unwrap();
}

fn a_timeout_drops_what_it_waited_for(backend: Backend) {
    let mut events = event_loop(backend);
    let kept = Rc::new(());
    let own = kept.clone();
    let result = events.block_on(time::timeout(Duration::from_millis(2), async move {
        let _own = own;
        std::future::pending::<()>().await;
    }));
    assert_eq!(result.unwrap(), Err(time::Elapsed));
    assert_eq!(Rc::strong_count(&kept), 1);
    assert_eq!(events.handle().stats().armed, 0);
}
