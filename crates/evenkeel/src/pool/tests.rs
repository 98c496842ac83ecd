//! Lanes beside one another, futures of work, and the pool's end.

#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;

use super::*;
use crate::EventLoop;

const LONG: Duration = Duration::from_secs(60);

fn small(threads: usize, queue: usize) -> PoolOptions {
    let lane = LaneOptions { threads: Some(threads), queue };
    PoolOptions { files: lane.clone(), names: lane.clone(), work: lane }
}

/// Work that is held at a gate: what tells that it has begun, and what opens the gate.
fn gate() -> (impl FnOnce() -> &'static str + Send + 'static, Receiver<()>, Sender<()>) {
    let (begun, begins) = channel();
    let (open, opened) = channel();
    let work = move || {
        begun.send(()).unwrap();
        opened.recv().unwrap();
        "through"
    };
    (work, begins, open)
}

/// Polls a future once.
async fn once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Fills a lane: its only thread and its only place. The queued work and the gate are kept by the caller.
macro_rules! filled {
    ($give:expr) => {{
        let (work, begins, open) = gate();
        let mut running = Box::pin($give(Box::new(work) as Box<dyn FnOnce() -> &'static str + Send>));
        assert!(once(running.as_mut()).await.is_pending());
        begins.recv_timeout(LONG).unwrap();
        let mut queued = Box::pin($give(Box::new(|| "queued")));
        assert!(once(queued.as_mut()).await.is_pending());
        (running, queued, open)
    }};
}

#[test]
fn i26_no_lane_keeps_another_waiting() {
    let here = |_: &str, port: u16| Ok(vec![([127, 0, 0, 1], port).into()]);
    let mut events = EventLoop::builder().pool_options(small(1, 1)).resolver(here).build().unwrap();
    let h = events.handle();
    let file = || async { crate::fs::metadata("/").await.is_ok_and(|found| found.is_dir()) };
    events
        .block_on(async {
            let pool = h.work_pool().unwrap();
            // A full lane of work, and names and files pass.
            let (running, queued, open) = filled!(|work| h.offload(work));
            assert!(file().await);
            assert!(crate::dns::resolve("one.example", 1).await.is_ok());
            assert_eq!((pool.stats().work.running, pool.stats().work.queued), (1, 1));
            open.send(()).unwrap();
            assert!(matches!((running.await, queued.await), (Ok("through"), Ok("queued"))));
            // A full lane of names, and work and files pass.
            let (running, queued, open) = filled!(|work| pool.look_up(work));
            assert!(file().await);
            assert!(matches!(h.offload(|| 7).await, Ok(7)));
            assert_eq!((pool.stats().names.running, pool.stats().names.queued), (1, 1));
            open.send(()).unwrap();
            assert!(matches!((running.await, queued.await), (Ok("through"), Ok("queued"))));
        })
        .unwrap();
}

#[test]
fn i26_a_panic_reaches_who_awaits_it() {
    let mut events = EventLoop::new().unwrap();
    let h = events.handle();
    let error = events.block_on(h.offload(|| panic!("number seven"))).unwrap().map(|(): ()| ()).unwrap_err();
    assert_eq!(error.to_string(), "the work panicked: number seven");
    let WorkError::Panicked(panic) = error else { panic!("{error:?}") };
    assert_eq!(panic.into_payload().downcast_ref::<&str>().unwrap(), &"number seven");
    assert_eq!(h.work_pool().unwrap().stats().work.panicked, 1);
    assert_eq!(h.stats().panics, 0, "it is the caller's to count");
}

#[test]
fn i26_a_thread_that_cannot_be_started_is_an_error_of_the_future() {
    let refuses = |_: &'static str, _: Box<dyn FnOnce() + Send>| Err(io::ErrorKind::OutOfMemory.into());
    let lane = Lane::with("test", &LaneOptions::default(), Some(1), refuses, LONG);
    let mut events = EventLoop::new().unwrap();
    let held = Arc::new(());
    let share = held.clone();
    let error = events.block_on(Offload::new(&lane, move |_| drop(share))).unwrap().unwrap_err();
    assert!(matches!(&error, WorkError::NoThread(e) if e.kind() == io::ErrorKind::OutOfMemory), "{error}");
    assert_eq!((Arc::strong_count(&held), lane.stats().refused), (1, 1));
    assert!(matches!(Offload::new(&lane, |_| 7).send(), Err(WorkError::NoThread(_))));
}

#[test]
fn dropped_work_does_not_happen_unless_it_has_begun() {
    let mut events = EventLoop::builder().pool_options(small(1, 4)).build().unwrap();
    let h = events.handle();
    events
        .block_on(async {
            let (work, begins, open) = gate();
            let (ends, ended) = channel();
            let mut running = Box::pin(h.offload_with(move |token| {
                let through = work();
                ends.send((through, token.is_cancelled())).unwrap();
            }));
            assert!(once(running.as_mut()).await.is_pending());
            begins.recv_timeout(LONG).unwrap();
            let held = Arc::new(());
            let share = held.clone();
            let mut queued = Box::pin(h.offload(move || drop(share)));
            assert!(once(queued.as_mut()).await.is_pending());
            drop(queued);
            assert_eq!(Arc::strong_count(&held), 1, "all that it held is dropped with it");
            let share = held.clone();
            drop(h.offload(move || drop(share)));
            assert_eq!(Arc::strong_count(&held), 1, "so is what was never polled");
            let mut cancelled = h.offload(|| 7);
            assert!(once(pin!(&mut cancelled)).await.is_pending());
            assert!(cancelled.cancel() && !cancelled.cancel());
            assert!(matches!(cancelled.await, Err(WorkError::Cancelled)));
            let mut early = h.offload(|| 7);
            assert!(early.cancel());
            assert!(matches!(early.await, Err(WorkError::Cancelled)));
            drop(running);
            open.send(()).unwrap();
            assert_eq!(ended.recv_timeout(LONG).unwrap(), ("through", true));
        })
        .unwrap();
    assert_eq!(h.work_pool().unwrap().stats().work.cancelled, 2);
}

#[test]
fn cancelling_what_runs_leaves_its_result() {
    let mut events = EventLoop::new().unwrap();
    let h = events.handle();
    let (work, begins, open) = gate();
    let mut running = h.offload_with(|token| {
        work();
        token.is_cancelled()
    });
    events
        .block_on(async {
            assert!(once(pin!(&mut running)).await.is_pending());
            begins.recv_timeout(LONG).unwrap();
            assert!(!running.cancel(), "it has begun");
            open.send(()).unwrap();
            assert!(matches!(running.await, Ok(true)));
        })
        .unwrap();
}

#[test]
fn i41_futures_wait_for_a_place_and_callbacks_are_refused() {
    let mut events = EventLoop::builder().pool_options(small(1, 1)).build().unwrap();
    let h = events.handle();
    events
        .block_on(async {
            let (running, queued, open) = filled!(|work| h.offload(work));
            let mut waits = h.offload(|| "waited");
            assert!(once(pin!(&mut waits)).await.is_pending());
            let refused = h.offload_then(|| "refused", |_, _| unreachable!("it was refused"));
            assert!(matches!(refused, Err(WorkError::QueueFull)));
            let stats = h.work_pool().unwrap().stats().work;
            assert_eq!((stats.running, stats.queued, stats.waiting, stats.refused), (1, 1, 1, 1));
            open.send(()).unwrap();
            assert!(matches!(waits.await, Ok("waited")));
            assert!(matches!((running.await, queued.await), (Ok("through"), Ok("queued"))));
        })
        .unwrap();
}

#[test]
fn loops_share_a_pool_that_ends_with_the_last_of_them() {
    let pool = WorkPool::new(&small(1, 8));
    let make = || EventLoop::builder().work_pool(&pool).build().unwrap();
    let (mut one, mut two) = (make(), make());
    let (h1, h2) = (one.handle(), two.handle());
    let (work, begins, open) = gate();
    let running = h1.spawn(h1.offload(work));
    one.poll().unwrap();
    begins.recv_timeout(LONG).unwrap();
    let queued = h1.spawn(h1.offload(|| 7));
    one.poll().unwrap();
    assert_eq!(pool.stats().work.queued, 1);
    drop(one);
    assert_eq!(pool.stats().work.queued, 0, "what a loop's tasks have given away goes with it");
    assert!(running.is_finished() && queued.is_finished());
    open.send(()).unwrap();
    assert!(matches!(two.block_on(h2.offload(|| 8)).unwrap(), Ok(8)), "the other loop goes on");
    assert!(matches!(two.block_on(h1.offload(|| 9)).unwrap(), Err(WorkError::Ended)));
    assert!(h1.offload_then(|| 9, |_, _| ()).is_err());
    let token_of = pool.lanes.work.ended();
    drop(pool);
    assert!(!token_of.load(std::sync::atomic::Ordering::Relaxed));
    drop(two);
    assert!(token_of.load(std::sync::atomic::Ordering::Relaxed), "nobody shares it any more");
}

#[test]
fn a_pool_shuts_down_in_time() {
    let pool = WorkPool::new(&small(1, 8));
    let mut events = EventLoop::builder().work_pool(&pool).build().unwrap();
    let h = events.handle();
    let (work, begins, open) = gate();
    let (ends, ended) = channel();
    let running = h.offload_with(move |token| {
        work();
        ends.send(token.is_cancelled()).unwrap();
        "done"
    });
    let running = h.spawn(running);
    events.poll().unwrap();
    begins.recv_timeout(LONG).unwrap();
    let waits = h.spawn(h.offload(|| 7));
    events.poll().unwrap();
    assert!(!pool.shut_down(Duration::ZERO));
    open.send(()).unwrap();
    assert!(pool.shut_down(LONG));
    assert!(ended.recv_timeout(LONG).unwrap(), "what runs can know");
    assert!(matches!(events.block_on(running).unwrap(), Ok(Ok("done"))), "and its result comes");
    assert!(matches!(events.block_on(waits).unwrap(), Ok(Err(WorkError::Ended))));
    assert!(matches!(events.block_on(h.offload(|| 8)).unwrap(), Err(WorkError::Ended)));
}

#[test]
fn errors_say_what_and_become_errors_of_io() {
    let no_thread = WorkError::NoThread(io::ErrorKind::OutOfMemory.into());
    assert!(no_thread.to_string().starts_with("no thread can be started"), "{no_thread}");
    let all =
        [(WorkError::QueueFull, io::ErrorKind::WouldBlock), (WorkError::Ended, io::ErrorKind::NotConnected)];
    for (error, kind) in all.into_iter().chain([(no_thread, io::ErrorKind::OutOfMemory)]) {
        assert_eq!(io::Error::from(error).kind(), kind);
    }
}
