//! The way of file operations to the loop's threads, and back.
//!
//! This lane is the loop's own, not the process's: loops share nothing, so one whose file system hangs does not take the
//! threads of another, and what a thread opens is in the loop's descriptor table even when that is not the process's, since
//! a thread has the table of the thread that started it. That is why only the loop's thread may start these threads: jobs
//! are submitted there and nowhere else, and this type stays there.

use std::io;
use std::sync::PoisonError;

use super::op::FileDone;
use crate::core::caught;
use crate::pool::{Job, Lane, LaneOptions, LaneStats, Refused};
use crate::stand_in::Host;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::sys::WakeFn;

/// The loop's threads for files, as the loop sees them. Its owner bounds the jobs, by admitting no more than so many.
pub(super) struct Threads {
    lane: Lane,
    back: Arc<Back>,
    /// Not `Send`, so that only the loop's thread submits.
    _stays: std::marker::PhantomData<std::rc::Rc<()>>,
}

/// What is done and not yet fetched.
struct Back(Mutex<State>);

struct State {
    /// None for a job that panicked.
    done: Vec<(u64, Option<FileDone>)>,
    /// Tells the loop of what is done. None when the loop has ended: nothing of it is kept then, however long a job
    /// takes.
    notify: Option<WakeFn>,
}

impl Threads {
    /// No thread, as yet. `notify` is called on a thread after each job that is done.
    pub(super) fn new(notify: WakeFn, options: &LaneOptions, host: Option<Host>) -> Self {
        let back = Back(Mutex::new(State { done: Vec::new(), notify: Some(notify) }));
        let lane = Lane::of_files(options).of_host(host);
        Threads { lane, back: Arc::new(back), _stays: std::marker::PhantomData }
    }

    /// Queues a job. `id` comes back with its result.
    ///
    /// # Errors
    /// When there is no thread and none can be started, or the loop has ended; the job is dropped then.
    pub(super) fn submit(&self, id: u64, work: impl FnOnce() -> FileDone + Send + 'static) -> io::Result<()> {
        let job = FileJob { id, work: Some(work), done: None, back: self.back.clone() };
        self.lane.submit(Box::new(job)).map(drop).map_err(|refused| match refused {
            Refused::Full => {
                io::Error::new(io::ErrorKind::WouldBlock, "too much waits for the loop's threads")
            }
            Refused::NoThread(error) => {
                io::Error::other(format!("no thread can be started for what would block: {error}"))
            }
            Refused::Ended => io::Error::new(io::ErrorKind::NotConnected, "the loop has ended"),
        })
    }

    /// What has been done since the last call.
    pub(super) fn take_done(&self) -> Vec<(u64, Option<FileDone>)> {
        std::mem::take(&mut self.back.lock().done)
    }

    /// The loop has ended: jobs that wait are dropped here, and those that run, with their results, on their threads.
    pub(super) fn end(&self) {
        self.lane.end();
        let mut state = self.back.lock();
        let left = (state.notify.take(), std::mem::take(&mut state.done));
        drop(state);
        drop(left);
    }

    pub(super) fn stats(&self) -> LaneStats {
        self.lane.stats()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

impl Back {
    /// No job runs under the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct FileJob<F> {
    id: u64,
    work: Option<F>,
    done: Option<FileDone>,
    back: Arc<Back>,
}

impl<F: FnOnce() -> FileDone + Send> Job for FileJob<F> {
    fn run(&mut self) -> bool {
        self.done = self.work.take().and_then(caught);
        self.done.is_some()
    }

    fn deliver(self: Box<Self>) {
        let FileJob { id, done, back, .. } = *self;
        let mut state = back.lock();
        // After the loop's end the result is dropped at the end of this call, when nothing is locked.
        let Some(notify) = state.notify.clone() else { return drop(state) };
        state.done.push((id, done));
        drop(state);
        notify();
    }

    fn cancel(self: Box<Self>) {}
}

#[cfg(all(test, loom))]
mod models;
