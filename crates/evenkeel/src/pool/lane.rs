//! One lane: a bounded queue, and the few threads that serve it and nothing else.
//!
//! Threads are started when there is more to do than idle threads to do it, and end after some idle seconds or with the
//! lane. Nobody waits for those that are in a call then: nothing can end a call that blocks in the kernel.

use std::collections::BTreeMap;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use super::workers::Processors;
use super::{FEW_THREADS, FILES, LaneOptions, LaneStats};
use crate::core::caught;
use crate::stand_in::{Host, StandIn};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard};
use crate::sys::{processors, sigpipe, table};

/// How long a thread waits for more to do.
const IDLE: Duration = Duration::from_secs(10);

/// Something to do on a thread of a lane. Dropped before it ran, it tells whoever waits for it, if anybody does.
pub(crate) trait Job: Send {
    /// Does it, once. False if it panicked, which does not leave this call.
    fn run(&mut self) -> bool;
    /// Hands over what came of it, which the lane has counted by now.
    fn deliver(self: Box<Self>);
    /// Is over without having run, as whoever waits for it wished.
    fn cancel(self: Box<Self>);
}

/// Starts a thread of this name.
pub(super) type Spawn = fn(&'static str, Box<dyn FnOnce() + Send>) -> io::Result<()>;

/// A thread for the runtime's own calls. It has the descriptor table of the thread that starts it, and its mask of signals:
/// what a running loop starts blocks SIGPIPE, as the loop does.
fn spawn(name: &'static str, life: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    // Where it is known that both have one table, waking the loop costs less.
    let table = table::here();
    let life = move || {
        table::inherit(table);
        life();
    };
    thread::Builder::new().name(name.into()).spawn(life).map(drop)
}

/// A thread for code of the user's. That a loop blocks SIGPIPE does not concern it, nor the processes that it starts, which
/// inherit its mask.
fn spawn_for_users(name: &'static str, life: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    sigpipe::unblocked(|| spawn(name, life))
}

/// Why a lane did not take a job.
#[derive(Debug)]
pub(crate) enum Refused {
    /// As many wait as may.
    Full,
    /// There is no thread, and none can be started.
    NoThread(io::Error),
    Ended,
}

/// A lane, as those see it who give it jobs. Its copies are the same lane, which lives until it is ended.
#[derive(Clone)]
pub(crate) struct Lane {
    inner: Arc<Inner>,
}

struct Inner {
    name: &'static str,
    /// Jobs that wait for a thread, at most.
    most_queued: usize,
    spawn: Spawn,
    /// A simulated host, whose threads are virtual ones.
    host: Option<Host>,
    /// Where the threads run; none: where the thread does that starts them.
    processors: Option<Processors>,
    idle_for: Duration,
    state: Mutex<State>,
    /// Notified once for each job that an idle thread is to take.
    work: Condvar,
    /// Notified when a thread ends.
    gone: Condvar,
    /// For those who look without the lock; set under it.
    ended: Arc<AtomicBool>,
}

struct State {
    /// By number, so in the order in which they came. Not empty only if there is a thread, which will come to it.
    queue: BTreeMap<u64, Box<dyn Job>>,
    /// Those who wait for a place in the queue, first come first served.
    line: BTreeMap<u64, Waker>,
    /// The next number of a job, or of one in the line.
    next: u64,
    /// Places of those who were in the line and have not come for them yet.
    reserved: usize,
    /// Threads at most; none before anybody had to know.
    most: Option<usize>,
    /// Threads that were started and have not ended.
    threads: usize,
    /// Those of them that wait for a job. A thread that was notified counts until it runs.
    idle: usize,
    /// Of virtual threads that wait for a job, when they began, by number.
    waits: Vec<u64>,
    running: usize,
    done: u64,
    panicked: u64,
    cancelled: u64,
    refused: u64,
}

impl Lane {
    /// The lane of files, without threads, as yet.
    pub(crate) fn of_files(options: &LaneOptions) -> Self {
        Self::with(FILES, options, Some(FEW_THREADS), spawn, IDLE)
    }

    /// A lane in which code of the user's runs. `default` is how many threads there are at most if the options do not say.
    pub(super) fn of_users(name: &'static str, options: &LaneOptions, default: Option<usize>) -> Self {
        Self::with(name, options, default, spawn_for_users, IDLE)
    }

    pub(super) fn with(
        name: &'static str,
        options: &LaneOptions,
        default: Option<usize>,
        spawn: Spawn,
        idle_for: Duration,
    ) -> Self {
        let state = State {
            queue: BTreeMap::new(),
            line: BTreeMap::new(),
            next: 0,
            reserved: 0,
            most: options.threads.or(default).map(|most| most.max(1)),
            threads: 0,
            idle: 0,
            waits: Vec::new(),
            running: 0,
            done: 0,
            panicked: 0,
            cancelled: 0,
            refused: 0,
        };
        let inner = Inner {
            name,
            most_queued: options.queue.max(1),
            spawn,
            host: None,
            processors: None,
            idle_for,
            state: Mutex::new(state),
            work: Condvar::new(),
            gone: Condvar::new(),
            ended: Arc::default(),
        };
        Lane { inner: Arc::new(inner) }
    }

    /// The same, not used yet, with threads that run on these processors.
    pub(super) fn on(mut self, processors: Option<Processors>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.processors = processors;
        }
        self
    }

    /// The same, not used yet, with the virtual threads of a simulated host, if it is in one.
    pub(crate) fn of_host(mut self, host: Option<Host>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.host = host;
        }
        self
    }

    /// Queues a job, if there is a place and nobody waits for one. Returns its number. A refused job is dropped.
    pub(crate) fn submit(&self, job: Box<dyn Job>) -> Result<u64, Refused> {
        let mut state = self.inner.lock();
        let taken = if self.has_ended() {
            Err((Refused::Ended, job))
        } else if state.has_place(self.inner.most_queued) {
            Inner::queue(&self.inner, &mut state, job)
        } else {
            Err((Refused::Full, job))
        };
        self.inner.taken(state, taken)
    }

    /// Queues `job`, which is there, when there is a place: until then it stays, and `ticket` is its number in the line,
    /// for [`leave_line`](Self::leave_line).
    pub(crate) fn poll_submit(
        &self,
        cx: &mut Context<'_>,
        ticket: &mut Option<u64>,
        job: &mut Option<Box<dyn Job>>,
    ) -> Poll<Result<u64, Refused>> {
        // Cloned, and the old one dropped, when nothing is locked: wakers may be a user's.
        let waker = cx.waker().clone();
        let mut state = self.inner.lock();
        let has_place = match *ticket {
            _ if self.has_ended() => true,
            None => state.has_place(self.inner.most_queued),
            Some(ticket) => !state.line.contains_key(&ticket),
        };
        if !has_place {
            let number = *ticket.get_or_insert_with(|| state.number());
            let left = state.line.insert(number, waker);
            drop(state);
            drop(left);
            return Poll::Pending;
        }
        let Some(job) = job.take() else { unreachable!("a job is queued once") };
        let reserved = ticket.take().is_some();
        if self.has_ended() {
            return Poll::Ready(self.inner.taken(state, Err((Refused::Ended, job))));
        }
        state.reserved -= usize::from(reserved);
        let taken = Inner::queue(&self.inner, &mut state, job);
        Poll::Ready(self.inner.taken(state, taken))
    }

    /// Gives up waiting for a place, or the place.
    pub(crate) fn leave_line(&self, ticket: u64) {
        let mut state = self.inner.lock();
        let waker = state.line.remove(&ticket);
        let mut next = None;
        if waker.is_none() && !self.has_ended() {
            // It had a place, and nobody to use it.
            state.reserved -= 1;
            next = state.grant(self.inner.most_queued);
        }
        drop(state);
        drop(waker);
        wake(next);
    }

    /// Takes a job back that no thread has begun.
    pub(crate) fn remove(&self, number: u64) -> Option<Box<dyn Job>> {
        let mut state = self.inner.lock();
        let job = state.queue.remove(&number)?;
        state.cancelled += 1;
        let next = state.grant(self.inner.most_queued);
        drop(state);
        wake(next);
        Some(job)
    }

    /// Ends the lane: jobs that wait are dropped here, those that run go on. Whoever waits for a place is told.
    pub(crate) fn end(&self) {
        let mut state = self.inner.lock();
        self.inner.ended.store(true, Ordering::Release);
        let (queue, line) = (std::mem::take(&mut state.queue), std::mem::take(&mut state.line));
        state.cancelled += queue.len() as u64;
        drop(state);
        self.inner.work.notify_all();
        self.inner.end_virtual();
        for job in queue.into_values() {
            caught(|| drop(job));
        }
        line.into_values().for_each(|waker| wake(Some(waker)));
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.inner.has_ended()
    }

    /// Becomes true when the lane has ended.
    pub(crate) fn ended(&self) -> Arc<AtomicBool> {
        self.inner.ended.clone()
    }

    /// Waits, after the end, until there is no thread, or the time has come. True if there is none.
    pub(crate) fn wait_until(&self, deadline: Deadline) -> bool {
        if let Some(host) = &self.inner.host {
            return self.inner.wait_virtual(&**host, deadline);
        }
        let left = deadline.0.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let state = self.inner.lock();
        let waited = self.inner.gone.wait_timeout_while(state, left, |state| state.threads > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.threads == 0
    }

    pub(crate) fn stats(&self) -> LaneStats {
        let state = self.inner.lock();
        LaneStats {
            threads: state.threads,
            idle: state.idle,
            running: state.running,
            queued: state.queue.len(),
            waiting: state.line.len(),
            done: state.done,
            panicked: state.panicked,
            cancelled: state.cancelled,
            refused: state.refused,
        }
    }
}

/// When to wait no longer; none: never.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// By the clock of a simulated host, if it is in one.
    pub(crate) fn after(time: Duration, host: Option<&dyn StandIn>) -> Self {
        let now = host.map_or_else(|| Some(Instant::now()), StandIn::clock);
        Deadline(now.and_then(|now| now.checked_add(time)))
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether a newcomer has a place: not before those who wait.
    fn has_place(&self, most: usize) -> bool {
        self.line.is_empty() && self.queue.len() + self.reserved < most
    }

    /// Gives a place that has become free to the first in the line, who is to be woken.
    fn grant(&mut self, most: usize) -> Option<Waker> {
        if self.queue.len() + self.reserved >= most {
            return None;
        }
        let (_, waker) = self.line.pop_first()?;
        self.reserved += 1;
        Some(waker)
    }
}

/// Wakers may be a user's: nothing is locked.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        caught(|| waker.wake());
    }
}

impl Inner {
    /// No job runs under the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn start_thread(this: &Arc<Self>) -> io::Result<()> {
        let inner = this.clone();
        let Some(host) = &this.host else {
            return (this.spawn)(this.name, Box::new(move || inner.live()));
        };
        let there = host.clone();
        host.start_thread(this.name, Box::new(move || Self::step(&inner, &there)))
    }

    /// Has an idle thread take a job.
    fn wake_thread(this: &Arc<Self>) {
        match &this.host {
            None => this.work.notify_one(),
            Some(host) => Self::wake_virtual(this, host),
        }
    }

    /// Threads at most, if nobody has said.
    fn processors(&self) -> usize {
        match &self.host {
            None => available_parallelism().map_or(1, usize::from),
            Some(host) => host.processors(),
        }
    }

    /// Queues a job, and sees that a thread takes it. A thread is started under the lock: so nobody else relies on one
    /// that may turn out not to be.
    fn queue(this: &Arc<Self>, state: &mut State, job: Box<dyn Job>) -> Result<u64, (Refused, Box<dyn Job>)> {
        if let Some(Err(error)) = this.host.as_ref().map(|host| host.check()) {
            return Err((Refused::NoThread(error), job));
        }
        let number = state.number();
        if state.queue.len() < state.idle {
            state.queue.insert(number, job);
            Self::wake_thread(this);
            return Ok(number);
        }
        let most = *state.most.get_or_insert_with(|| this.processors());
        if state.threads < most {
            match Self::start_thread(this) {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err((Refused::NoThread(error), job)),
                // No thread ends while something is queued, so those that there are will come to it.
                Err(_) => {}
            }
        }
        state.queue.insert(number, job);
        Ok(number)
    }

    /// Counts a refusal, and drops the job when nothing is locked.
    fn taken(
        &self,
        mut state: MutexGuard<'_, State>,
        taken: Result<u64, (Refused, Box<dyn Job>)>,
    ) -> Result<u64, Refused> {
        let (refused, job) = match taken {
            Ok(number) => return Ok(number),
            Err(refused) => refused,
        };
        state.refused += 1;
        // If it had a place, that is free again.
        let next = state.grant(self.most_queued);
        drop(state);
        caught(|| drop(job));
        wake(next);
        Err(refused)
    }

    /// The life of a thread.
    fn live(&self) {
        if let Some(processors) = &self.processors {
            // Where it is refused they run where the loop does, which is slower and no worse.
            let _ = processors::keep_on(processors);
        }
        let mut state = self.lock();
        while !self.has_ended() {
            if let Some((_, job)) = state.queue.pop_first() {
                state.running += 1;
                let next = state.grant(self.most_queued);
                drop(state);
                wake(next);
                self.run(job);
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
        drop(state);
        self.gone.notify_all();
    }

    fn run(&self, mut job: Box<dyn Job>) {
        let fine = job.run();
        self.finished(fine);
        // It may drop what nobody waits for any more, and wake: the user's code.
        caught(|| job.deliver());
    }

    fn finished(&self, fine: bool) {
        let mut state = self.lock();
        state.running -= 1;
        *(if fine { &mut state.done } else { &mut state.panicked }) += 1;
    }
}

#[cfg(all(test, loom))]
mod models;
mod virtual_threads;

#[cfg(all(test, not(loom)))]
mod tests;
