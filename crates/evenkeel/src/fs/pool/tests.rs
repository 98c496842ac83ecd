//! Threads that start, fail to start, panic, idle and outlive their loop.

#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::*;

const LONG: Duration = Duration::from_secs(60);

thread_local! {
    /// Threads that may still be started by this test, and those that were.
    static ALLOWED: Cell<usize> = const { Cell::new(usize::MAX) };
    static STARTED: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
}

fn counted(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    if ALLOWED.get() == 0 {
        return Err(io::Error::from(rustix::io::Errno::AGAIN));
    }
    ALLOWED.set(ALLOWED.get() - 1);
    STARTED.with_borrow_mut(|all| all.push(thread::spawn(work)));
    Ok(())
}

fn started() -> usize {
    STARTED.with_borrow(Vec::len)
}

fn join_all() {
    STARTED.take().into_iter().for_each(|thread| thread.join().unwrap());
}

/// A pool, and what is heard of each job that it has done.
fn pool(idle_for: Duration) -> (Pool<u32>, Receiver<()>) {
    let (told, hears) = channel();
    let notify: WakeFn = Arc::new(move || told.send(()).unwrap());
    (Pool::with(notify, counted, idle_for), hears)
}

/// A job that runs until it is told its result.
fn waiting() -> (Job<u32>, Sender<u32>) {
    let (tell, told) = channel();
    (Box::new(move || told.recv().unwrap()), tell)
}

fn results(pool: &Pool<u32>, hears: &Receiver<()>, n: usize) -> Vec<(u64, Option<u32>)> {
    (0..n).for_each(|_| hears.recv_timeout(LONG).unwrap());
    let mut done = pool.take_done();
    done.sort();
    done
}

#[test]
fn i26_a_panic_is_a_result_and_the_thread_goes_on() {
    ALLOWED.set(1);
    let (pool, hears) = pool(LONG);
    pool.submit(1, Box::new(|| panic!("as the test wants it"))).unwrap();
    assert_eq!(results(&pool, &hears, 1), [(1, None)]);
    pool.submit(2, Box::new(|| 22)).unwrap();
    assert_eq!(results(&pool, &hears, 1), [(2, Some(22))]);
    pool.end();
    join_all();
}

#[test]
fn i26_without_any_thread_the_caller_hears_why() {
    ALLOWED.set(0);
    let (pool, hears) = pool(LONG);
    let held = Arc::new(());
    let share = held.clone();
    let job = Box::new(move || Arc::strong_count(&share) as u32);
    let error = pool.submit(1, job).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert!(error.to_string().starts_with("no thread can be started"), "{error}");
    assert_eq!(Arc::strong_count(&held), 1, "the job is dropped");
    ALLOWED.set(1);
    pool.submit(2, Box::new(|| 22)).unwrap();
    assert_eq!(results(&pool, &hears, 1), [(2, Some(22))], "and the job that failed does not run later");
    pool.end();
    join_all();
}

#[test]
fn i26_the_threads_that_there_are_serve_when_no_more_can_be_started() {
    ALLOWED.set(1);
    let (pool, hears) = pool(LONG);
    let (job, tell) = waiting();
    pool.submit(1, job).unwrap();
    for id in 2..10 {
        pool.submit(id, Box::new(move || id as u32)).unwrap();
    }
    assert_eq!(started(), 1);
    tell.send(1).unwrap();
    assert!(results(&pool, &hears, 9).into_iter().eq((1..10).map(|id| (id, Some(id as u32)))));
    pool.end();
    join_all();
}

#[test]
fn i41_threads_are_few_and_all_of_them_serve() {
    ALLOWED.set(100);
    let (pool, hears) = pool(LONG);
    let tell: Vec<_> = (0..20)
        .map(|id| {
            let (job, tell) = waiting();
            pool.submit(id, job).unwrap();
            tell
        })
        .collect();
    assert_eq!(started(), MOST_THREADS);
    for (id, tell) in tell.iter().enumerate() {
        tell.send(id as u32).unwrap();
    }
    assert!(results(&pool, &hears, 20).into_iter().eq((0..20).map(|id| (id, Some(id as u32)))));
    pool.end();
    join_all();
}

#[test]
fn idle_threads_end_and_others_are_started_when_needed() {
    ALLOWED.set(100);
    let (pool, hears) = pool(Duration::from_millis(1));
    for round in 0..3 {
        pool.submit(round, Box::new(|| 7)).unwrap();
        assert_eq!(results(&pool, &hears, 1), [(round, Some(7))]);
        assert!(started() > 0);
        join_all();
        assert_eq!(pool.threads.lock().threads, 0);
    }
}

#[test]
fn i28_the_end_keeps_nothing_but_what_runs() {
    struct Result(#[allow(dead_code, reason = "it is there to be dropped")] Arc<()>);
    ALLOWED.set(1);
    let held = Arc::new(());
    let noted = held.clone();
    let notify: WakeFn = Arc::new(move || drop(noted.clone()));
    let pool: Pool<Result> = Pool::with(notify, counted, LONG);
    let (tell, told) = channel::<()>();
    let (begun, begins) = channel();
    let share = held.clone();
    let running = move || {
        begun.send(()).unwrap();
        told.recv().unwrap();
        Result(share)
    };
    pool.submit(1, Box::new(running)).unwrap();
    begins.recv_timeout(LONG).unwrap();
    let share = held.clone();
    pool.submit(2, Box::new(move || Result(share))).unwrap();
    pool.end();
    assert_eq!(Arc::strong_count(&held), 2, "of the loop and of what waits nothing is kept");
    let share = held.clone();
    let late = pool.submit(3, Box::new(move || Result(share))).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::NotConnected);
    tell.send(()).unwrap();
    join_all();
    assert_eq!(Arc::strong_count(&held), 1, "and the last result is dropped on its thread");
    assert!(pool.take_done().is_empty());
}
