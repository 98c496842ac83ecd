//! Other threads: calls in order, no lost wake, bounded inboxes; and loops beside loops.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use evenkeel::sim::blocking;
use evenkeel::{Backend, RemoteError};

use crate::support::{Server, event_loop, serve};

on_every_kernel! {
    i02_no_wake_is_lost,
    i02_calls_from_many_threads_arrive_in_order,
    i02_a_task_woken_from_another_thread_runs,
    i24_a_flood_of_calls_keeps_no_timer_waiting,
    i41_the_inbox_is_bounded,
    stop_ends_the_run,
    a_stop_ends_block_on_with_an_error,
    calls_after_the_end_are_refused,
    i26_calls_that_wait_are_dropped_with_the_loop,
}

/// Each call is sent only after the one before ran, at a loop that mostly sleeps.
fn i02_no_wake_is_lost(backend: Backend) {
    let mut events = event_loop(backend);
    serve(&mut events, |remote| {
        let (done, wait) = channel();
        for i in 0..3000 {
            let done = done.clone();
            remote.run(move |_| done.send(i).unwrap()).unwrap();
            assert_eq!(wait.recv_timeout(Duration::from_secs(20)), Ok(i));
        }
    });
}

fn i02_calls_from_many_threads_arrive_in_order(backend: Backend) {
    let mut events = event_loop(backend);
    let got: Arc<std::sync::Mutex<Vec<(usize, u32)>>> = Arc::default();
    let log = got.clone();
    serve(&mut events, move |remote| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (remote, log) = (remote.clone(), log.clone());
                scope.spawn(move || {
                    for i in 0..2000 {
                        let log = log.clone();
                        remote.run(move |_| log.lock().unwrap().push((thread, i))).unwrap();
                        if i % 64 == 0 {
                            remote.wake();
                        }
                    }
                });
            }
        });
    });
    let got = got.lock().unwrap();
    assert_eq!(got.len(), 8000);
    for thread in 0..4 {
        assert!(got.iter().filter(|(t, _)| *t == thread).map(|(_, i)| *i).eq(0..2000));
    }
}

fn i02_a_task_woken_from_another_thread_runs(backend: Backend) {
    let mut events = event_loop(backend);
    let count = Arc::new(AtomicU64::new(0));
    let waker: Arc<std::sync::Mutex<Option<std::task::Waker>>> = Arc::default();
    let end = Arc::new(AtomicBool::new(false));
    let (seen, slot, over) = (count.clone(), waker.clone(), end.clone());
    let thread = blocking::spawn(move || {
        while !over.load(Ordering::Acquire) {
            let waker = slot.lock().unwrap().take();
            if let Some(waker) = waker {
                seen.fetch_add(1, Ordering::Release);
                waker.wake();
            } else {
                blocking::yield_now();
            }
        }
    });
    events
        .block_on(async {
            for round in 1..=2000 {
                std::future::poll_fn(|cx| {
                    if count.load(Ordering::Acquire) >= round {
                        return std::task::Poll::Ready(());
                    }
                    *waker.lock().unwrap() = Some(cx.waker().clone());
                    std::task::Poll::Pending
                })
                .await;
            }
        })
        .unwrap();
    end.store(true, Ordering::Release);
    thread.join().unwrap();
}

fn i24_a_flood_of_calls_keeps_no_timer_waiting(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let remote = h.remote();
    for _ in 0..20_000 {
        remote.run(|_| ()).unwrap();
    }
    let fired = Rc::new(RefCell::new(false));
    let flag = fired.clone();
    h.defer(move || *flag.borrow_mut() = true);
    events.poll().unwrap();
    assert!(*fired.borrow(), "the deferred call ran in the first turn");
}

fn i41_the_inbox_is_bounded(backend: Backend) {
    let mut events = event_loop(backend);
    let remote = events.handle().remote();
    let ran = Arc::new(AtomicU64::new(0));
    let mut taken = 0;
    loop {
        let count = ran.clone();
        match remote.run(move |_| assert!(count.fetch_add(1, Ordering::Relaxed) < taken + 65_536)) {
            Ok(()) => taken += 1,
            Err(e) => {
                assert_eq!(e, RemoteError::Full);
                break;
            }
        }
    }
    assert_eq!(taken, 65_536);
    crate::support::until(&mut events, "all ran", || ran.load(Ordering::Relaxed) == taken);
    assert!(remote.run(|_| ()).is_ok());
}

fn stop_ends_the_run(backend: Backend) {
    let mut s = Server::new(backend);
    for _ in 0..3 {
        let remote = s.h.remote();
        let thread = blocking::spawn(move || remote.run(|h| h.stop()).unwrap());
        s.events.run().unwrap();
        thread.join().unwrap();
    }
    // Before the run, from inside, and from a timer.
    s.h.stop();
    s.events.run().unwrap();
    let h = s.h.clone();
    s.h.defer(move || h.stop());
    s.events.run().unwrap();
    let h = s.h.clone();
    s.h.after(Duration::from_millis(2), move || h.stop());
    s.events.run().unwrap();
}

fn a_stop_ends_block_on_with_an_error(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    h.defer({
        let h = h.clone();
        move || h.stop()
    });
    let result = events.block_on(std::future::pending::<()>());
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::Interrupted);
    assert_eq!(events.block_on(async { 3 }).unwrap(), 3, "the loop can be used again");
}

fn calls_after_the_end_are_refused(backend: Backend) {
    let events = event_loop(backend);
    let remote = events.handle().remote();
    drop(events);
    assert_eq!(remote.run(|_| ()), Err(RemoteError::LoopEnded));
    remote.wake();
}

fn i26_calls_that_wait_are_dropped_with_the_loop(backend: Backend) {
    let events = event_loop(backend);
    let remote = events.handle().remote();
    let kept = Arc::new(());
    let (own, sent) = (kept.clone(), remote.clone());
    remote.run(move |_| drop(own)).unwrap();
    // One that holds the loop's own mailbox is no ring that keeps both alive.
    remote.run(move |_| drop(sent)).unwrap();
    drop(events);
    assert_eq!(Arc::strong_count(&kept), 1);
}
