//! Threads that start, fail to start, panic, idle and outlive their lane; queues that are full.

#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Wake;
use std::thread::JoinHandle;

use super::*;

const LONG: Duration = Duration::from_secs(60);

thread_local! {
    /// Threads that may still be started by this test, and those that were.
    static ALLOWED: Cell<usize> = const { Cell::new(usize::MAX) };
    static STARTED: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
}

fn counted(_: &'static str, life: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    if ALLOWED.get() == 0 {
        return Err(io::Error::from(rustix::io::Errno::AGAIN));
    }
    ALLOWED.set(ALLOWED.get() - 1);
    STARTED.with_borrow_mut(|all| all.push(thread::spawn(life)));
    Ok(())
}

fn started() -> usize {
    STARTED.with_borrow(Vec::len)
}

fn join_all() {
    STARTED.take().into_iter().for_each(|thread| thread.join().unwrap());
}

/// What became of a job: its result, or that it panicked, was cancelled, or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Came(u32),
    Panicked,
    Cancelled,
    Dropped,
}

struct Tells {
    id: u32,
    work: Option<Box<dyn FnOnce() -> u32 + Send>>,
    fate: Option<Fate>,
    told: Sender<(u32, Fate)>,
}

impl Job for Tells {
    fn run(&mut self) -> bool {
        self.fate = Some(caught(self.work.take().unwrap()).map_or(Fate::Panicked, Fate::Came));
        self.fate != Some(Fate::Panicked)
    }

    fn deliver(self: Box<Self>) {}

    fn cancel(mut self: Box<Self>) {
        self.fate = Some(Fate::Cancelled);
    }
}

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.told.send((self.id, self.fate.unwrap_or(Fate::Dropped)));
    }
}

/// A lane, and what is heard of its jobs.
struct Tried {
    lane: Lane,
    told: Sender<(u32, Fate)>,
    hears: Receiver<(u32, Fate)>,
}

impl Tried {
    fn new(threads: usize, queue: usize, idle_for: Duration) -> Self {
        let (told, hears) = channel();
        let options = LaneOptions { threads: Some(threads), queue };
        Tried { lane: Lane::with("test", &options, None, counted, idle_for), told, hears }
    }

    fn job(&self, id: u32, work: impl FnOnce() -> u32 + Send + 'static) -> Box<dyn Job> {
        Box::new(Tells { id, work: Some(Box::new(work)), fate: None, told: self.told.clone() })
    }

    fn submit(&self, id: u32, work: impl FnOnce() -> u32 + Send + 'static) -> Result<u64, Refused> {
        self.lane.submit(self.job(id, work))
    }

    /// A job that runs until it is told its result. Returns when a thread is in it.
    fn occupy(&self, id: u32) -> Sender<u32> {
        let (tell, told) = channel();
        let (begun, begins) = channel();
        let work = move || {
            begun.send(()).unwrap();
            told.recv().unwrap()
        };
        self.submit(id, work).unwrap();
        begins.recv_timeout(LONG).unwrap();
        tell
    }

    fn hear(&self) -> (u32, Fate) {
        self.hears.recv_timeout(LONG).unwrap()
    }

    fn hear_all(&self, n: usize) -> Vec<(u32, Fate)> {
        let mut all: Vec<_> = (0..n).map(|_| self.hear()).collect();
        all.sort();
        all
    }

    fn end(&self) {
        self.lane.end();
        join_all();
        assert_eq!(self.lane.stats().threads, 0);
    }
}

#[test]
fn i26_a_panic_is_a_result_and_the_thread_goes_on() {
    ALLOWED.set(1);
    let t = Tried::new(4, 10, LONG);
    t.submit(1, || panic!("as the test wants it")).unwrap();
    assert_eq!(t.hear(), (1, Fate::Panicked));
    t.submit(2, || 22).unwrap();
    assert_eq!(t.hear(), (2, Fate::Came(22)));
    let stats = t.lane.stats();
    assert_eq!((stats.threads, stats.running, stats.done, stats.panicked), (1, 0, 1, 1));
    t.end();
}

#[test]
fn i26_without_any_thread_the_caller_hears_why() {
    ALLOWED.set(0);
    let t = Tried::new(4, 10, LONG);
    let Err(Refused::NoThread(error)) = t.submit(1, || 11) else { panic!("it was taken") };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(t.hear(), (1, Fate::Dropped));
    // One who waits for a place hears it too.
    let (mut ticket, mut job) = (None, Some(t.job(2, || 22)));
    let polled = t.lane.poll_submit(&mut Context::from_waker(Waker::noop()), &mut ticket, &mut job);
    assert!(matches!(polled, Poll::Ready(Err(Refused::NoThread(_)))), "{polled:?}");
    assert_eq!(t.hear(), (2, Fate::Dropped));
    ALLOWED.set(1);
    t.submit(3, || 33).unwrap();
    assert_eq!(t.hear(), (3, Fate::Came(33)), "and what failed does not run later");
    assert_eq!(t.lane.stats().refused, 2);
    t.end();
}

#[test]
fn i26_the_threads_that_there_are_serve_when_no_more_can_be_started() {
    ALLOWED.set(1);
    let t = Tried::new(4, 10, LONG);
    let tell = t.occupy(1);
    for id in 2..10 {
        t.submit(id, move || id).unwrap();
    }
    assert_eq!((started(), t.lane.stats().queued), (1, 8));
    tell.send(1).unwrap();
    assert!(t.hear_all(9).into_iter().eq((1..10).map(|id| (id, Fate::Came(id)))));
    t.end();
}

#[test]
fn i41_threads_are_few_and_all_of_them_serve() {
    ALLOWED.set(100);
    let t = Tried::new(4, 20, LONG);
    let mut tell: Vec<_> = (0..4).map(|id| t.occupy(id)).collect();
    tell.extend((4..20).map(|id| {
        let (tell, told) = channel();
        t.submit(id, move || told.recv().unwrap()).unwrap();
        tell
    }));
    let stats = t.lane.stats();
    assert_eq!((started(), stats.threads, stats.running, stats.queued), (4, 4, 4, 16));
    for (id, tell) in (0..).zip(&tell) {
        tell.send(id).unwrap();
    }
    assert!(t.hear_all(20).into_iter().eq((0..20).map(|id| (id, Fate::Came(id)))));
    t.end();
}

#[test]
fn idle_threads_end_and_others_are_started_when_needed() {
    ALLOWED.set(100);
    let t = Tried::new(4, 10, Duration::from_millis(1));
    for round in 0..3 {
        t.submit(round, || 7).unwrap();
        assert_eq!(t.hear(), (round, Fate::Came(7)));
        assert!(started() > 0);
        join_all();
        assert_eq!(t.lane.stats().threads, 0);
    }
}

#[test]
fn i28_the_end_keeps_nothing_but_what_runs() {
    ALLOWED.set(1);
    let t = Tried::new(1, 10, LONG);
    let held = Arc::new(());
    let tell = t.occupy(1);
    let share = held.clone();
    t.submit(2, move || Arc::strong_count(&share) as u32).unwrap();
    t.lane.end();
    assert_eq!(t.hear(), (2, Fate::Dropped));
    assert_eq!(Arc::strong_count(&held), 1, "of what waits nothing is kept");
    assert!(matches!(t.submit(3, || 33), Err(Refused::Ended)));
    assert_eq!(t.hear(), (3, Fate::Dropped));
    assert!(!t.lane.wait_until(Deadline::after(Duration::ZERO, None)), "one is in a call");
    tell.send(1).unwrap();
    assert!(t.lane.wait_until(Deadline::after(LONG, None)));
    assert_eq!(t.hear(), (1, Fate::Came(1)));
    assert_eq!(t.lane.stats().cancelled, 1);
    join_all();
}

#[test]
fn i41_a_full_queue_refuses_and_goes_on() {
    ALLOWED.set(1);
    let t = Tried::new(1, 2, LONG);
    let tell = t.occupy(1);
    t.submit(2, || 22).unwrap();
    let third = t.submit(3, || 33).unwrap();
    assert!(matches!(t.submit(4, || 44), Err(Refused::Full)));
    assert_eq!(t.hear(), (4, Fate::Dropped));
    t.lane.remove(third).unwrap().cancel();
    assert_eq!(t.hear(), (3, Fate::Cancelled));
    assert!(t.lane.remove(third).is_none());
    t.submit(5, || 55).unwrap();
    tell.send(11).unwrap();
    assert_eq!(t.hear_all(3), [(1, Fate::Came(11)), (2, Fate::Came(22)), (5, Fate::Came(55))]);
    let stats = t.lane.stats();
    assert_eq!((stats.refused, stats.cancelled, stats.done), (1, 1, 3));
    t.end();
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One who waits for a place, and how often it was woken.
struct Waits {
    ticket: Option<u64>,
    job: Option<Box<dyn Job>>,
    count: Arc<Count>,
}

impl Waits {
    fn new(t: &Tried, id: u32) -> Self {
        Waits { ticket: None, job: Some(t.job(id, move || id)), count: Arc::default() }
    }

    fn poll(&mut self, t: &Tried) -> Option<Result<u64, Refused>> {
        let waker = Waker::from(self.count.clone());
        match t.lane.poll_submit(&mut Context::from_waker(&waker), &mut self.ticket, &mut self.job) {
            Poll::Ready(sent) => Some(sent),
            Poll::Pending => None,
        }
    }

    fn woken(&self) -> usize {
        self.count.0.load(Ordering::Relaxed)
    }
}

#[test]
fn i41_places_go_to_those_who_wait_first() {
    ALLOWED.set(1);
    let t = Tried::new(1, 1, LONG);
    let tell = t.occupy(1);
    let second = t.submit(2, || 2).unwrap();
    let (mut third, mut fourth) = (Waits::new(&t, 3), Waits::new(&t, 4));
    assert!(third.poll(&t).is_none() && fourth.poll(&t).is_none());
    assert!(third.poll(&t).is_none(), "asking again does not change the order");
    assert_eq!(t.lane.stats().waiting, 2);
    drop(t.lane.remove(second));
    assert_eq!((third.woken(), fourth.woken()), (1, 0));
    assert!(matches!(t.submit(5, || 5), Err(Refused::Full)), "a newcomer does not pass those who wait");
    assert!(fourth.poll(&t).is_none());
    let third = third.poll(&t).unwrap().unwrap();
    assert_eq!(fourth.woken(), 0);
    drop(t.lane.remove(third));
    assert_eq!(fourth.woken(), 1);
    fourth.poll(&t).unwrap().unwrap();
    tell.send(1).unwrap();
    let came = t.hear_all(5);
    let dropped = [2, 3, 5].map(|id| (id, Fate::Dropped));
    assert!(dropped.iter().all(|fate| came.contains(fate)), "{came:?}");
    assert!(came.contains(&(1, Fate::Came(1))) && came.contains(&(4, Fate::Came(4))), "{came:?}");
    t.end();
}

#[test]
fn i02_a_place_of_one_who_went_away_goes_to_the_next() {
    ALLOWED.set(1);
    let t = Tried::new(1, 1, LONG);
    let tell = t.occupy(1);
    let second = t.submit(2, || 2).unwrap();
    let (mut gone, mut left, mut next) = (Waits::new(&t, 3), Waits::new(&t, 4), Waits::new(&t, 5));
    assert!(gone.poll(&t).is_none() && left.poll(&t).is_none() && next.poll(&t).is_none());
    t.lane.leave_line(left.ticket.take().unwrap());
    drop(t.lane.remove(second));
    assert_eq!(gone.woken(), 1);
    // It has a place, and does not come for it.
    t.lane.leave_line(gone.ticket.take().unwrap());
    assert_eq!((left.woken(), next.woken()), (0, 1));
    next.poll(&t).unwrap().unwrap();
    tell.send(1).unwrap();
    drop((gone, left));
    let stats = t.hear_all(5);
    assert!(stats.contains(&(5, Fate::Came(5))), "{stats:?}");
    t.end();
}

#[test]
fn i02_a_thread_that_takes_a_job_gives_its_place_to_the_line() {
    ALLOWED.set(1);
    let t = Tried::new(1, 1, LONG);
    let tell = t.occupy(1);
    let (go, wait) = channel::<()>();
    t.submit(2, move || wait.recv().map_or(0, |()| 2)).unwrap();
    let mut third = Waits::new(&t, 3);
    assert!(third.poll(&t).is_none());
    tell.send(1).unwrap();
    assert_eq!(t.hear(), (1, Fate::Came(1)));
    go.send(()).unwrap();
    assert_eq!(t.hear(), (2, Fate::Came(2)), "taken, so its place was given");
    assert_eq!(third.woken(), 1);
    third.poll(&t).unwrap().unwrap();
    assert_eq!(t.hear(), (3, Fate::Came(3)));
    t.end();
}

#[test]
fn i28_the_end_tells_those_who_wait() {
    ALLOWED.set(1);
    let t = Tried::new(1, 1, LONG);
    let tell = t.occupy(1);
    t.submit(2, || 2).unwrap();
    let mut third = Waits::new(&t, 3);
    assert!(third.poll(&t).is_none());
    t.lane.end();
    assert_eq!(third.woken(), 1);
    assert!(matches!(third.poll(&t), Some(Err(Refused::Ended))));
    tell.send(1).unwrap();
    assert_eq!(t.hear_all(3), [(1, Fate::Came(1)), (2, Fate::Dropped), (3, Fate::Dropped)]);
    join_all();
}

#[test]
fn i26_a_waker_or_a_result_that_panics_does_not_end_the_thread() {
    struct Panics;
    impl Job for Panics {
        fn run(&mut self) -> bool {
            true
        }
        fn deliver(self: Box<Self>) {
            panic!("as the test wants it");
        }
        fn cancel(self: Box<Self>) {}
    }
    ALLOWED.set(1);
    let t = Tried::new(1, 10, LONG);
    t.lane.submit(Box::new(Panics)).unwrap();
    t.submit(2, || 22).unwrap();
    assert_eq!(t.hear(), (2, Fate::Came(22)));
    t.end();
}
