//! Work, the future of its result, and either that gives up.

#![allow(clippy::unwrap_used)]

use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Wake, Waker};
use std::time::Duration;

use loom::thread;

use super::*;
use crate::pool::LaneOptions;
use crate::pool::lane::Deadline;
use crate::sync::{Bell, model};

fn spawn(_: &'static str, life: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    drop(thread::spawn(life));
    Ok(())
}

fn lane() -> Lane {
    let options = LaneOptions { threads: Some(1), queue: 1 };
    Lane::with("model", &options, None, spawn, Duration::ZERO)
}

/// Ends the lane and waits for its thread.
fn end(lane: &Lane) {
    lane.end();
    assert!(lane.wait_until(Deadline::after(Duration::MAX, None)));
}

struct Rings(std::sync::Arc<Bell>);

impl Wake for Rings {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.ring();
    }
}

/// Somebody who awaits. What it is woken by is counted by its shares.
struct Asker {
    bell: std::sync::Arc<Bell>,
    rings: std::sync::Arc<Rings>,
}

impl Asker {
    fn new() -> Self {
        let (bell, _) = Bell::new();
        let rings = std::sync::Arc::new(Rings(bell.clone()));
        Asker { bell, rings }
    }

    fn poll<F: Future + Unpin>(&self, future: &mut F) -> Poll<F::Output> {
        let waker = Waker::from(self.rings.clone());
        pin!(future).poll(&mut Context::from_waker(&waker))
    }

    fn wait<F: Future + Unpin>(&self, mut future: F) -> F::Output {
        loop {
            if let Poll::Ready(output) = self.poll(&mut future) {
                return output;
            }
            self.bell.wait();
        }
    }

    /// Nothing keeps its waker any more.
    fn is_free(&self) -> bool {
        std::sync::Arc::strong_count(&self.rings) == 1
    }
}

/// How often the work ran, and what it holds: no part of the program.
#[derive(Default)]
struct Seen {
    runs: std::sync::atomic::AtomicUsize,
}

fn work(lane: &Lane) -> (std::sync::Arc<Seen>, Offload<std::sync::Arc<Seen>>) {
    let seen = std::sync::Arc::<Seen>::default();
    let sees = seen.clone();
    let offload = Offload::new(lane, move |_: &CancelToken| {
        sees.runs.fetch_add(1, Relaxed);
        sees
    });
    (seen, offload)
}

/// A result comes while it is awaited, and the lane ends at any time: the result, or that there was no time for it.
#[test]
fn i23_a_result_meets_the_end_of_its_lane() {
    model(|| {
        let lane = lane();
        let ends = lane.clone();
        let ender = thread::spawn(move || ends.end());
        let asker = Asker::new();
        let (seen, offload) = work(&lane);
        let came = match asker.wait(offload) {
            Ok(_) => 1,
            Err(WorkError::Ended) => 0,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(seen.runs.load(Relaxed), came);
        ender.join().unwrap();
        end(&lane);
        assert!(asker.is_free());
        assert_eq!(std::sync::Arc::strong_count(&seen), 1);
    });
}

/// Work is cancelled as it begins: it did not run and says so, or its result comes.
#[test]
fn i23_work_runs_or_is_cancelled() {
    model(|| {
        let lane = lane();
        let asker = Asker::new();
        let (seen, mut offload) = work(&lane);
        let early = asker.poll(&mut offload);
        let cancelled = offload.cancel();
        let result = match early {
            Poll::Ready(result) => result,
            Poll::Pending => asker.wait(offload),
        };
        match result {
            Ok(_) => assert!(!cancelled && seen.runs.load(Relaxed) == 1),
            Err(WorkError::Cancelled) => assert!(cancelled && seen.runs.load(Relaxed) == 0),
            Err(other) => panic!("{other}"),
        }
        end(&lane);
    });
}

/// Whoever awaits goes, at any time: the work runs once at most, what it holds is dropped, and nobody's waker is kept.
#[test]
fn i23_work_meets_the_drop_of_its_future() {
    model(|| {
        let lane = lane();
        let asker = Asker::new();
        let (seen, mut offload) = work(&lane);
        let early = asker.poll(&mut offload);
        drop(offload);
        assert!(asker.is_free());
        drop(early);
        end(&lane);
        assert!(seen.runs.load(Relaxed) <= 1);
        assert_eq!(std::sync::Arc::strong_count(&seen), 1);
    });
}

/// Work for a full queue waits for a place; the future that has, or is about to have, it goes.
#[test]
fn i23_work_in_line_meets_the_drop_of_its_future() {
    model(|| {
        let lane = lane();
        let asker = Asker::new();
        let (first, mut one) = work(&lane);
        let (second, mut two) = work(&lane);
        let (third, three) = work(&lane);
        one.send().unwrap();
        let early = asker.poll(&mut two);
        drop((early, two));
        // The one whom the place goes to.
        assert!(asker.wait(three).is_ok());
        assert!(asker.wait(one).is_ok());
        end(&lane);
        assert!(second.runs.load(Relaxed) <= 1);
        for seen in [first, second, third] {
            assert_eq!(std::sync::Arc::strong_count(&seen), 1);
        }
    });
}

/// A panic is a result, and the thread goes on to what comes next.
#[test]
fn i26_a_panic_is_brought_back() {
    model(|| {
        let lane = lane();
        let asker = Asker::new();
        // Without the hook, which would print each.
        let panics = Offload::<()>::new(&lane, |_: &CancelToken| resume_unwind(Box::new("wanted")));
        assert!(matches!(asker.wait(panics), Err(WorkError::Panicked(_))));
        let (_, next) = work(&lane);
        assert!(asker.wait(next).is_ok());
        end(&lane);
        assert_eq!(lane.stats().panicked, 1);
    });
}
