//! Jobs that come, run and are taken back, while threads start, idle and end, and the lane does.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering::Relaxed;
use std::task::Wake;

use loom::thread;

use super::*;
use crate::sync::{Bell, elapse, model};

fn spawn_modelled(_: &'static str, life: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    drop(thread::spawn(life));
    Ok(())
}

fn spawn_refused(_: &'static str, _: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// What became of a job. These counts are the model's, no part of the program.
#[derive(Default)]
struct Fate {
    ran: std::sync::atomic::AtomicUsize,
    delivered: std::sync::atomic::AtomicUsize,
    cancelled: std::sync::atomic::AtomicUsize,
    dropped: std::sync::atomic::AtomicUsize,
}

/// A job, as its sender sees it.
struct Sent {
    fate: std::sync::Arc<Fate>,
    over: std::sync::Arc<Bell>,
}

/// The job itself. It rings when it is over, one way or another.
struct Probe {
    fate: std::sync::Arc<Fate>,
    over: std::sync::Arc<Bell>,
    begun: bool,
}

impl Job for Probe {
    fn run(&mut self) -> bool {
        self.begun = true;
        self.fate.ran.fetch_add(1, Relaxed);
        true
    }

    fn deliver(self: Box<Self>) {
        self.fate.delivered.fetch_add(1, Relaxed);
    }

    fn cancel(mut self: Box<Self>) {
        self.begun = true;
        self.fate.cancelled.fetch_add(1, Relaxed);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.begun {
            self.fate.dropped.fetch_add(1, Relaxed);
        }
        self.over.ring();
    }
}

fn job() -> (Sent, Box<dyn Job>) {
    let (fate, (over, _)) = (std::sync::Arc::<Fate>::default(), Bell::new());
    let probe = Probe { fate: fate.clone(), over: over.clone(), begun: false };
    (Sent { fate, over }, Box::new(probe))
}

impl Sent {
    /// How often it ran, was cancelled, and was dropped before it ran.
    fn fates(&self) -> [usize; 3] {
        let fate = &self.fate;
        assert_eq!(fate.ran.load(Relaxed), fate.delivered.load(Relaxed), "what ran is handed over");
        [&fate.ran, &fate.cancelled, &fate.dropped].map(|count| count.load(Relaxed))
    }
}

const RAN: [usize; 3] = [1, 0, 0];
const CANCELLED: [usize; 3] = [0, 1, 0];
const DROPPED: [usize; 3] = [0, 0, 1];

fn lane(threads: usize, queue: usize, spawn: Spawn) -> Lane {
    Lane::with("model", &LaneOptions { threads: Some(threads), queue }, None, spawn, IDLE)
}

fn end(lane: &Lane) {
    lane.end();
    assert_over(lane);
}

/// Waits for the threads of a lane that has ended. Nothing is left in it.
fn assert_over(lane: &Lane) {
    assert!(lane.wait_until(Deadline(None)));
    let stats = lane.stats();
    assert_eq!((stats.threads, stats.idle, stats.running, stats.queued, stats.waiting), (0, 0, 0, 0, 0));
}

/// A waker of a user's, which looks at the very lane that wakes, and drops, it: that must not be locked then.
struct Nosy {
    lane: Lane,
    bell: std::sync::Arc<Bell>,
}

impl Wake for Nosy {
    fn wake(self: std::sync::Arc<Self>) {
        self.lane.stats();
        self.bell.ring();
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.lane.stats();
    }
}

/// Somebody who waits for a place in the queue.
struct InLine {
    sent: Sent,
    job: Option<Box<dyn Job>>,
    ticket: Option<u64>,
    bell: std::sync::Arc<Bell>,
}

impl InLine {
    fn new() -> Self {
        let ((sent, job), (bell, _)) = (job(), Bell::new());
        InLine { sent, job: Some(job), ticket: None, bell }
    }

    /// With another waker each time, of which nobody but the lane keeps any.
    fn poll(&mut self, lane: &Lane) -> Poll<Result<u64, Refused>> {
        let waker = Waker::from(std::sync::Arc::new(Nosy { lane: lane.clone(), bell: self.bell.clone() }));
        lane.poll_submit(&mut Context::from_waker(&waker), &mut self.ticket, &mut self.job)
    }

    fn wait(&mut self, lane: &Lane) -> Result<u64, Refused> {
        loop {
            if let Poll::Ready(result) = self.poll(lane) {
                return result;
            }
            self.bell.wait();
        }
    }
}

/// A job is taken back while a thread comes to it: it runs, or comes back, and not both.
#[test]
fn i23_a_job_runs_or_is_taken_back() {
    model(|| {
        let lane = lane(1, 2, spawn_modelled);
        let (sent, job) = job();
        let number = lane.submit(job).unwrap();
        let taken = lane.remove(number).map(Job::cancel).is_some();
        end(&lane);
        assert_eq!(
            sent.fates(),
            match (taken, sent.fates() == RAN) {
                (true, _) => CANCELLED,
                (false, true) => RAN,
                (false, false) => DROPPED,
            }
        );
        let stats = lane.stats();
        assert_eq!(stats.done + stats.cancelled, 1);
    });
}

/// Two give jobs, and one of them takes its own back: the other one's is not touched.
#[test]
fn i23_a_job_is_taken_back_beside_another() {
    model(|| {
        let lane = lane(1, 2, spawn_modelled);
        let ((kept, one), (tried, other)) = (job(), job());
        let gives = lane.clone();
        let giver = thread::spawn(move || gives.submit(one).is_ok());
        let number = lane.submit(other).unwrap();
        let taken = lane.remove(number).map(Job::cancel).is_some();
        kept.over.wait();
        assert!(giver.join().unwrap());
        tried.over.wait();
        assert_eq!(kept.fates(), RAN);
        assert_eq!(tried.fates(), if taken { CANCELLED } else { RAN });
        end(&lane);
    });
}

/// A job comes as the only thread has idled for long enough: that one does it, or another one is started.
#[test]
fn i02_a_job_meets_a_thread_that_stops_idling() {
    model(|| {
        let lane = lane(1, 2, spawn_modelled);
        let (first, job_of_first) = job();
        lane.submit(job_of_first).unwrap();
        let clock = thread::spawn(elapse);
        first.over.wait();
        let (second, job_of_second) = job();
        lane.submit(job_of_second).unwrap();
        second.over.wait();
        assert_eq!((first.fates(), second.fates()), (RAN, RAN));
        clock.join().unwrap();
        end(&lane);
    });
}

/// Two jobs for two threads, one of which has something to idle after: none is left to a thread that does not come.
#[test]
fn i02_jobs_meet_threads_that_stop_idling() {
    model(|| {
        let lane = lane(2, 2, spawn_modelled);
        let (first, job_of_first) = job();
        lane.submit(job_of_first).unwrap();
        let clock = thread::spawn(elapse);
        let (second, job_of_second) = job();
        lane.submit(job_of_second).unwrap();
        second.over.wait();
        clock.join().unwrap();
        end(&lane);
        assert!([RAN, DROPPED].contains(&first.fates()));
        assert_eq!(second.fates(), RAN);
    });
}

/// A job comes as the lane ends: it runs, or is dropped, by the end or because it is refused; and no thread is left.
#[test]
fn i23_a_job_meets_the_end_of_its_lane() {
    model(|| {
        let lane = lane(1, 2, spawn_modelled);
        let ((early, one), (late, other)) = (job(), job());
        lane.submit(one).unwrap();
        let gives = lane.clone();
        let giver = thread::spawn(move || gives.submit(other).is_ok());
        lane.end();
        let taken = giver.join().unwrap();
        assert_over(&lane);
        for sent in [early, late] {
            assert!([RAN, DROPPED].contains(&sent.fates()), "{:?}", sent.fates());
        }
        assert_eq!(lane.stats().refused, u64::from(!taken));
    });
}

/// The lane ends as a thread idles for the last time.
#[test]
fn i02_a_lane_ends_as_its_thread_stops_idling() {
    model(|| {
        let lane = lane(1, 2, spawn_modelled);
        let (sent, job) = job();
        lane.submit(job).unwrap();
        let clock = thread::spawn(elapse);
        sent.over.wait();
        lane.end();
        clock.join().unwrap();
        assert_over(&lane);
        assert_eq!(sent.fates(), RAN);
    });
}

/// Places in a full queue: whoever gives up waiting, or a place that was just granted, leaves it to the next in line.
#[test]
fn i02_a_place_that_nobody_takes_goes_to_the_next() {
    model(|| {
        let lane = lane(1, 1, spawn_modelled);
        let (first, job) = job();
        lane.submit(job).unwrap();
        let mut one = InLine::new();
        let mut two = InLine::new();
        let came = one.poll(&lane).is_ready();
        let waits = two.poll(&lane).is_pending();
        if let Some(ticket) = one.ticket.take() {
            lane.leave_line(ticket);
        }
        if waits {
            two.wait(&lane).unwrap();
        }
        two.sent.over.wait();
        assert_eq!(two.sent.fates(), RAN);
        first.over.wait();
        drop(one.job.take());
        one.sent.over.wait();
        assert_eq!(one.sent.fates(), if came { RAN } else { DROPPED });
        end(&lane);
    });
}

/// A job that is taken back leaves its place to whoever waits for one.
#[test]
fn i02_the_place_of_a_job_taken_back_goes_to_the_next() {
    model(|| {
        let lane = lane(1, 1, spawn_modelled);
        let (first, job) = job();
        let number = lane.submit(job).unwrap();
        let mut one = InLine::new();
        let came = one.poll(&lane).is_ready();
        let taken = lane.remove(number).map(Job::cancel).is_some();
        if !came {
            one.wait(&lane).unwrap();
        }
        one.sent.over.wait();
        first.over.wait();
        assert_eq!((first.fates(), one.sent.fates()), (if taken { CANCELLED } else { RAN }, RAN));
        end(&lane);
    });
}

/// Whoever waits for a place as the lane ends hears of it.
#[test]
fn i02_the_line_hears_of_the_end() {
    model(|| {
        let lane = lane(1, 1, spawn_modelled);
        let (first, job) = job();
        lane.submit(job).unwrap();
        let ends = lane.clone();
        let ender = thread::spawn(move || ends.end());
        let mut one = InLine::new();
        let taken = one.wait(&lane).is_ok();
        ender.join().unwrap();
        assert_over(&lane);
        assert!([RAN, DROPPED].contains(&first.fates()));
        assert!(taken && one.sent.fates() == RAN || one.sent.fates() == DROPPED);
    });
}

/// Where no thread can be started, each of those who give hears it, and nothing stays in the queue.
#[test]
fn i26_without_a_thread_every_giver_hears_it() {
    model(|| {
        let lane = lane(1, 2, spawn_refused);
        let gives = lane.clone();
        let giver = thread::spawn(move || {
            let (sent, job) = job();
            assert!(matches!(gives.submit(job), Err(Refused::NoThread(_))));
            assert_eq!(sent.fates(), DROPPED);
        });
        let mut one = InLine::new();
        assert!(matches!(one.wait(&lane), Err(Refused::NoThread(_))));
        assert_eq!(one.sent.fates(), DROPPED);
        giver.join().unwrap();
        end(&lane);
    });
}
