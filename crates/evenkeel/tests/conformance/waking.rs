//! Wake-ups: from many threads at once, from within calls, and while the loop has no end of other things to do.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel::sim::blocking;
use evenkeel::{Backend, fs, time};

use crate::files::Folder;
use crate::support::{Probe, Server, connect, event_loop, exactly, serve};

on_every_kernel! {
    i02_wakes_of_many_threads_coalesce,
    i02_a_wake_without_a_reason_is_soon_over,
    i02_i37_a_call_that_is_sent_from_a_call_runs_after_it,
    i02_wakes_that_come_while_the_loop_is_busy_are_not_lost,
    i24_a_flood_leaves_turns_to_everybody_else,
    i24_several_floods_share_the_loop,
    i28_a_wake_races_with_the_end_of_the_loop,
}

fn add(to: &AtomicU64, n: u64) {
    to.fetch_add(n, Ordering::Relaxed);
}

/// However many there are, a loop that did not look is woken once.
fn i02_wakes_of_many_threads_coalesce(backend: Backend) {
    let mut s = Server::new(backend);
    s.turns(2);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let remote = s.h.remote();
            blocking::spawn(move || (0..2000).for_each(|_| remote.wake()))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let turns = s.turns_in(Duration::from_millis(20));
    assert!(turns < 20, "{turns} turns for wakes that were all there before");
    // With something to do, each call runs once and in the order of its thread.
    let ran = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (remote, ran) = (s.h.remote(), ran.clone());
            blocking::spawn(move || {
                for i in 0..500 {
                    let ran = ran.clone();
                    remote.run(move |_| add(&ran, i)).unwrap();
                    remote.wake();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let before = s.h.stats().turns;
    s.until("all ran", || ran.load(Ordering::Relaxed) == 8 * 499 * 500 / 2);
    assert!(s.h.stats().turns - before < 100, "{} turns", s.h.stats().turns - before);
}

/// A turn; or two, where the threads have different descriptor tables and a signal cuts the wait short.
fn i02_a_wake_without_a_reason_is_soon_over(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let turns = h.stats().turns;
    serve(&mut events, |remote| {
        for _ in 0..50 {
            remote.wake();
            blocking::yield_now();
        }
    });
    assert!(h.stats().turns - turns <= 110, "{} turns for 50 wakes", h.stats().turns - turns);
    assert_eq!(h.stats().panics, 0);
}

/// From the loop's own thread, as another thread would: in order, never inside the call, and without waiting for anything.
fn i02_i37_a_call_that_is_sent_from_a_call_runs_after_it(backend: Backend) {
    let mut s = Server::new(backend);
    let log: Arc<std::sync::Mutex<Vec<u32>>> = Arc::default();
    let (remote, all) = (s.h.remote(), log.clone());
    let (mut peer, seen) = s.pair(Probe::new().on_data(move |conn, _| {
        let (inner, id) = (remote.clone(), conn.id());
        for i in 0..3 {
            let (log, inner) = (all.clone(), inner.clone());
            let call = move |h: &evenkeel::Handle| {
                log.lock().unwrap().push(i);
                let again = log.clone();
                inner.run(move |_| again.lock().unwrap().push(10 + i)).unwrap();
                h.write(id, b".").unwrap();
            };
            remote.run(call).unwrap();
        }
        remote.wake();
        all.lock().unwrap().push(100);
    }));
    let got = s.serve(move |_| {
        peer.write_all(b"go").unwrap();
        exactly(&mut peer, 3)
    });
    assert_eq!(got, b"...");
    s.until("all ran", || log.lock().unwrap().len() == 7);
    assert_eq!(*log.lock().unwrap(), [100, 0, 1, 2, 10, 11, 12]);
    assert_eq!((seen.len(), s.h.stats().panics), (2, 0));
}

/// Each call of the loop's own takes longer than the other thread takes to send the next.
fn i02_wakes_that_come_while_the_loop_is_busy_are_not_lost(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let rounds = serve(&mut events, |remote| {
        let (tell, told) = std::sync::mpsc::channel();
        for round in 0..300_u32 {
            let (tell, beside) = (tell.clone(), remote.clone());
            remote
                .run(move |h| {
                    // Woken while it runs a call, by itself and by the timer that it arms.
                    beside.wake();
                    let later = beside.clone();
                    h.after(Duration::ZERO, move || {
                        later.run(move |_| tell.send(round).unwrap()).unwrap();
                    });
                })
                .unwrap();
            let heard = blocking::aside(|| told.recv_timeout(Duration::from_secs(20)));
            assert_eq!(heard, Ok(round));
        }
        300
    });
    assert!(h.stats().turns < rounds * 12, "{} turns", h.stats().turns);
}

/// One peer floods the loop; everything else that a loop does goes on beside it.
fn i24_a_flood_leaves_turns_to_everybody_else(backend: Backend) {
    let mut s = Server::new(backend);
    let folder = Folder::new();
    let (mut hose, flood) = s.pair(Probe::new());
    hose.set_nonblocking(true).unwrap();
    let more = vec![7; 1 << 20];
    let mut fill = move || while hose.write(&more).is_ok() {};
    for round in 0..5 {
        fill();
        let (path, pipe) = (folder.path(&round.to_string()), evenkeel_pipe(&mut s));
        let done = Rc::new(RefCell::new(Vec::new()));
        let note = |what: &'static str| {
            let done = done.clone();
            move || done.borrow_mut().push(what)
        };
        s.h.after(Duration::from_millis(1), note("a timer"));
        s.h.defer(note("a deferred call"));
        let file = note("a file");
        s.h.spawn(async move {
            fs::write(&path, "x").await.unwrap();
            assert_eq!(fs::read(&path).await.unwrap(), b"x");
            file();
        })
        .detach();
        let work = note("work");
        let given = s.h.offload(|| 7);
        s.h.spawn(async move {
            assert_eq!(given.await.unwrap(), 7);
            work();
        })
        .detach();
        let piped = note("a pipe");
        let (mut to, mut from) = pipe;
        s.h.spawn(async move {
            to.write_all(b"through").await.unwrap();
            from.read_exact(&mut [0; 7]).await.unwrap();
            piped();
        })
        .detach();
        let called = Arc::new(AtomicU64::new(0));
        let (remote, count) = (s.h.remote(), called.clone());
        let caller = blocking::spawn(move || remote.run(move |_| add(&count, 1)));
        let newcomer = s.expect(Probe::echo());
        let mut peer = connect(s.addr);
        peer.write_all(b"ping").unwrap();
        let before = flood.len();
        s.until(&format!("everybody had a turn: {:?}", done.borrow()), || {
            fill();
            done.borrow().len() == 5 && newcomer.len() == 4 && called.load(Ordering::Relaxed) == 1
        });
        caller.join().unwrap().unwrap();
        assert_eq!(s.answer(&mut peer, 4), b"ping");
        assert!(flood.len() > before);
    }
}

fn evenkeel_pipe(s: &mut Server) -> (evenkeel::pipe::Sender, evenkeel::pipe::Receiver) {
    s.events.block_on(async { evenkeel::pipe::pipe() }).unwrap().unwrap()
}

/// More than one: none has to wait until another has nothing more, which is never.
fn i24_several_floods_share_the_loop(backend: Backend) {
    let mut s = Server::new(backend);
    let mut hoses: Vec<_> = (0..4).map(|_| s.pair(Probe::new())).collect();
    for (hose, _) in &hoses {
        hose.set_nonblocking(true).unwrap();
    }
    let more = vec![7; 1 << 18];
    let all: Vec<_> = hoses.iter().map(|(_, seen)| seen.clone()).collect();
    let mut turns = 0;
    while all.iter().any(|seen| seen.len() < 2 << 20) {
        for (hose, _) in &mut hoses {
            while hose.write(&more).is_ok() {}
        }
        s.turns(1);
        turns += 1;
        assert!(turns < 2000, "{:?}", all.iter().map(|seen| seen.len()).collect::<Vec<_>>());
    }
}

fn i28_a_wake_races_with_the_end_of_the_loop(backend: Backend) {
    for _ in 0..50 {
        let mut events = event_loop(backend);
        let remote = events.handle().remote();
        let held = Arc::new(());
        let own = held.clone();
        let thread = blocking::spawn(move || {
            let mut sent = 0;
            loop {
                let own = own.clone();
                remote.wake();
                if remote.run(move |_| drop(own)).is_err() {
                    return sent;
                }
                sent += 1;
            }
        });
        (0..3).for_each(|_| events.poll().unwrap());
        events.block_on(async { time::sleep(Duration::ZERO).await }).unwrap();
        drop(events);
        thread.join().unwrap();
        assert_eq!(Arc::strong_count(&held), 1, "every call ran or was dropped");
    }
}
