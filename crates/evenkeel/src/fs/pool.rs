//! A few threads that run what would block, for one loop.
//!
//! The pool is the loop's own, not the process's: loops share nothing, so one whose file system hangs does not take the
//! threads of another, and what a thread opens is in the loop's descriptor table even when that is not the process's,
//! since a thread has the table of the thread that started it. That is why only the loop's thread starts threads.
//!
//! Threads are started when there is more to do than idle threads to do it, and end after some idle seconds or with the
//! loop. The loop does not wait for those that are in a call then: nothing can end a call that blocks in the kernel.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::core::caught;
use crate::sys::{WakeFn, table};

/// Threads of one loop, or of the kernel for the rings of one thread. Disks and file systems serve a few calls at once well, and a page that is in memory takes
/// microseconds: more threads would only take time from the loops.
pub(crate) const MOST_THREADS: usize = 4;
/// How long a thread waits for more to do.
const IDLE: Duration = Duration::from_secs(5);

/// Something to do on a thread of the pool.
pub(super) type Job<R> = Box<dyn FnOnce() -> R + Send>;

/// Starts a thread.
type Spawn = fn(Box<dyn FnOnce() + Send>) -> io::Result<()>;

fn spawn(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    // The thread has the descriptor table of this one; where that is known, waking the loop costs less.
    let table = table::here();
    let work = move || {
        table::inherit(table);
        work();
    };
    thread::Builder::new().name("evenkeel-files".into()).spawn(work).map(drop)
}

/// The threads, as the loop sees them. Its owner bounds the jobs that it holds, by admitting no more than so many.
pub(super) struct Pool<R> {
    threads: Arc<Threads<R>>,
    spawn: Spawn,
}

struct Threads<R> {
    state: Mutex<State<R>>,
    /// Notified once for each job that an idle thread is to take.
    work: Condvar,
    idle_for: Duration,
}

struct State<R> {
    queue: VecDeque<(u64, Job<R>)>,
    /// None for a job that panicked.
    done: Vec<(u64, Option<R>)>,
    /// Threads that were started and have not ended.
    threads: usize,
    /// Those of them that wait for a job. A thread that was notified counts until it runs.
    idle: usize,
    /// Tells the loop of what is done. None when the loop has ended: nothing of it is kept then, however long a job
    /// takes.
    notify: Option<WakeFn>,
}

impl<R: Send + 'static> Pool<R> {
    /// A pool without threads, as yet. `notify` is called on a thread after each job that is done.
    pub(super) fn new(notify: WakeFn) -> Self {
        Self::with(notify, spawn, IDLE)
    }

    fn with(notify: WakeFn, spawn: Spawn, idle_for: Duration) -> Self {
        let (queue, done) = (VecDeque::new(), Vec::new());
        let state = State { queue, done, threads: 0, idle: 0, notify: Some(notify) };
        let threads = Threads { state: Mutex::new(state), work: Condvar::new(), idle_for };
        Pool { threads: Arc::new(threads), spawn }
    }

    /// Queues a job. Called on the loop's thread only.
    ///
    /// # Errors
    /// When there is no thread and none can be started; the job is dropped then.
    pub(super) fn submit(&self, id: u64, job: Job<R>) -> io::Result<()> {
        let threads = &self.threads;
        let mut state = threads.lock();
        if state.notify.is_none() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the loop has ended"));
        }
        state.queue.push_back((id, job));
        if state.queue.len() <= state.idle {
            drop(state);
            threads.work.notify_one();
            return Ok(());
        }
        if state.threads == MOST_THREADS {
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let started = threads.clone();
        let Err(error) = (self.spawn)(Box::new(move || started.work())) else { return Ok(()) };
        let mut state = threads.lock();
        state.threads -= 1;
        if state.threads > 0 {
            // No thread ends while something is queued, so those that there are will come to it.
            return Ok(());
        }
        // Nothing else is queued, since there is nobody to take it.
        let job = state.queue.pop_back();
        drop(state);
        drop(job);
        Err(io::Error::other(format!("no thread can be started for what would block: {error}")))
    }

    /// What has been done since the last call.
    pub(super) fn take_done(&self) -> Vec<(u64, Option<R>)> {
        std::mem::take(&mut self.threads.lock().done)
    }

    /// The loop has ended: jobs that wait are dropped here, and those that run, with their results, on their threads.
    pub(super) fn end(&self) {
        let mut state = self.threads.lock();
        state.notify = None;
        let left = (std::mem::take(&mut state.queue), std::mem::take(&mut state.done));
        drop(state);
        self.threads.work.notify_all();
        drop(left);
    }
}

impl<R> Threads<R> {
    /// No job runs under the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self) {
        let mut state = self.lock();
        while state.notify.is_some() {
            if let Some((id, job)) = state.queue.pop_front() {
                drop(state);
                self.run(id, job);
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, self.idle_for);
            let timed_out;
            (state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            if timed_out.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    fn run(&self, id: u64, job: Job<R>) {
        let result = caught(job);
        let mut state = self.lock();
        // After the loop's end the result is dropped at the end of this call, when nothing is locked.
        let Some(notify) = state.notify.clone() else { return drop(state) };
        state.done.push((id, result));
        drop(state);
        notify();
    }
}

impl<R> Drop for Pool<R> {
    fn drop(&mut self) {
        self.threads.lock().notify = None;
        self.threads.work.notify_all();
    }
}

#[cfg(test)]
mod tests;
