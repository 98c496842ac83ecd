//! Results of jobs on their way to the loop, which fetches them, and ends.

#![allow(clippy::unwrap_used)]

use loom::thread;

use super::*;
use crate::fs::Output;
use crate::sync::{Bell, model};

fn job(threads: &Threads, id: u64) -> Box<FileJob<impl FnOnce() -> FileDone + Send + use<>>> {
    let work = move || Ok(Output::Written(id as usize));
    Box::new(FileJob { id, work: Some(work), done: None, back: threads.back.clone() })
}

/// Runs a job as a lane's thread does.
fn perform(threads: &Threads, id: u64) -> thread::JoinHandle<()> {
    let mut job = job(threads, id);
    thread::spawn(move || {
        assert!(job.run());
        job.deliver();
    })
}

/// The loop waits for results and fetches them: each comes once, however the notifications fall together.
#[test]
fn i02_each_result_is_fetched_once() {
    model(|| {
        let (bell, notify) = Bell::new();
        let threads = Threads::new(notify, &LaneOptions::default(), None);
        let jobs = [0, 1].map(|id| perform(&threads, id));
        let mut got = Vec::new();
        while got.len() < 2 {
            bell.wait();
            got.extend(threads.take_done().into_iter().map(|(id, done)| {
                assert!(matches!(done, Some(Ok(Output::Written(n))) if n as u64 == id));
                id
            }));
        }
        got.sort_unstable();
        assert_eq!(got, [0, 1]);
        jobs.into_iter().for_each(|job| job.join().unwrap());
        assert!(threads.take_done().is_empty());
    });
}

/// The loop ends while jobs do: nothing of it is kept by what comes later.
#[test]
fn i39_a_result_meets_the_end_of_its_loop() {
    model(|| {
        let (bell, notify) = Bell::new();
        let threads = Threads::new(notify, &LaneOptions::default(), None);
        let jobs = [0, 1].map(|id| perform(&threads, id));
        threads.end();
        jobs.into_iter().for_each(|job| job.join().unwrap());
        assert!(threads.take_done().is_empty(), "nobody would drop it on the right thread");
        assert_eq!(std::sync::Arc::strong_count(&bell), 1);
    });
}
