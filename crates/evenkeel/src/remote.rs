//! Reaching a loop from other threads.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::core::Shared;
use crate::handle::Handle;
use crate::handover::Circle;
use crate::sys::WakeFn;
use crate::sys::table::{self, Table};
use crate::task::answer::{self, Answer};

pub(crate) type Call = Box<dyn FnOnce(&Handle) + Send>;

/// Calls that an inbox holds at most.
const CAPACITY: usize = 65_536;

/// A loop's mailbox for other threads: bounded, and with one wake-up for any number of messages.
pub(crate) struct Inbox {
    calls: Mutex<VecDeque<Call>>,
    /// Set by whoever wakes the loop, cleared by the loop when it looks: wakes between the two are one (I2).
    woken: AtomicBool,
    /// The loop is to stop, whatever else waits.
    stopping: AtomicBool,
    closed: AtomicBool,
    wake: WakeFn,
    /// Where numbers of descriptors mean what they mean to the loop.
    pub(crate) table: Table,
    /// The group whose loops can hand descriptors to this one, and its index there, if their tables differ.
    pub(crate) member: OnceLock<(Circle, usize)>,
}

impl Inbox {
    /// Made on the loop's thread.
    pub(crate) fn new(wake: WakeFn) -> Self {
        let no = || AtomicBool::new(false);
        let (table, member) = (table::here(), OnceLock::new());
        Inbox { calls: Mutex::default(), woken: no(), stopping: no(), closed: no(), wake, table, member }
    }

    /// No call runs under the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the loop, unless it has been woken and has not looked yet.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// A wake is pending: the loop must not sleep.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Queues what `into_call` makes of `what`, which comes back if it is not taken.
    fn push<T>(&self, what: T, into_call: impl FnOnce(T) -> Call) -> Result<(), (T, RemoteError)> {
        let first = |_: &T| Ok::<_, Infallible>(());
        self.push_after(what, first, into_call).map_err(|(what, Ok(error))| (what, error))
    }

    /// As `push`, once `first` has succeeded, which runs under the lock, and only if there is room: what it does has the
    /// same order as the calls.
    pub(crate) fn push_after<T, E>(
        &self,
        what: T,
        first: impl FnOnce(&T) -> Result<(), E>,
        into_call: impl FnOnce(T) -> Call,
    ) -> Result<(), (T, Result<RemoteError, E>)> {
        let mut calls = self.lock();
        if self.is_closed() {
            return Err((what, Ok(RemoteError::LoopEnded)));
        }
        if calls.len() >= CAPACITY {
            return Err((what, Ok(RemoteError::Full)));
        }
        if let Err(error) = first(&what) {
            return Err((what, Err(error)));
        }
        calls.push_back(into_call(what));
        drop(calls);
        self.wake();
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes back the pending wake and runs at most `most` calls on the loop's thread. False if none was
    /// pending, which costs one load.
    pub(crate) fn run(&self, lp: &Rc<Shared>, most: usize) -> bool {
        if !self.is_woken() {
            return false;
        }
        // Cleared before looking, so that a message sent from here on wakes the loop again (I2). An exchange, not a
        // store: it reads the wake that found the mark set, so that what that wake announced is seen below.
        self.woken.swap(false, Ordering::AcqRel);
        table::sweep();
        let handle = Handle::from_shared(lp.clone());
        if self.stopping.swap(false, Ordering::Acquire) {
            handle.stop();
        }
        for _ in 0..most {
            let Some(call) = self.lock().pop_front() else { return true };
            lp.guard(|| call(&handle));
        }
        self.woken.store(true, Ordering::Release);
        true
    }

    /// The loop has ended: calls are refused, and those that wait are dropped here, on its thread.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let left = std::mem::take(&mut *self.lock());
        drop(left);
    }
}

/// A loop as other threads see it: it can be woken, stopped and given work. `Send`, `Sync` and cheap to clone.
///
/// ```
/// use evenkeel::EventLoop;
/// let mut events = EventLoop::new()?;
/// let remote = events.handle().remote();
/// let thread = std::thread::spawn(move || remote.run(|handle| handle.stop()));
/// events.run()?;
/// assert!(thread.join().is_ok_and(|sent| sent.is_ok()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Remote {
    pub(crate) inbox: Arc<Inbox>,
}

/// Why a loop did not take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteError {
    /// 65,536 calls wait already: the loop is overloaded or stuck.
    Full,
    /// The loop has ended.
    LoopEnded,
    /// Only where a descriptor is to go along, as with [`Handle::hand_over`]: the loop has another descriptor table, and is in no
    /// group with this one.
    NoWay,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoteError::Full => "the loop's inbox is full: it is overloaded or stuck",
            RemoteError::LoopEnded => "the loop has ended",
            RemoteError::NoWay => {
                "no descriptor can go to that loop from here: it has another table, and is of no common group"
            }
        })
    }
}

impl std::error::Error for RemoteError {}

impl From<RemoteError> for io::Error {
    fn from(error: RemoteError) -> Self {
        let kind = match error {
            RemoteError::Full => io::ErrorKind::WouldBlock,
            RemoteError::LoopEnded => io::ErrorKind::NotConnected,
            RemoteError::NoWay => io::ErrorKind::Unsupported,
        };
        io::Error::new(kind, error)
    }
}

impl Remote {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Remote { inbox }
    }

    /// Runs `call` on the loop's thread, in the order of sending. A panic in it is counted there.
    ///
    /// # Errors
    /// When the inbox is full or the loop has ended; the call is dropped on this thread then.
    pub fn run(&self, call: impl FnOnce(&Handle) + Send + 'static) -> Result<(), RemoteError> {
        let call: Call = Box::new(call);
        self.inbox.push(call, |call| call).map_err(|(_, error)| error)
    }

    /// As [`run`](Self::run), for what is not to be dropped by a refusal.
    pub(crate) fn offer<T>(
        &self,
        what: T,
        into_call: impl FnOnce(T) -> Box<dyn FnOnce(&Handle) + Send>,
    ) -> Result<(), (T, RemoteError)> {
        self.inbox.push(what, into_call)
    }

    /// Runs a task on the loop: `make` is called there, so that only it need be `Send`, and not the future. What the future
    /// comes to, or a panic of either, is the [`Answer`].
    ///
    /// ```
    /// use evenkeel::EventLoop;
    /// let mut events = EventLoop::new()?;
    /// let remote = events.handle().remote();
    /// let thread = std::thread::spawn(move || {
    ///     let sum = remote.spawn(|| async { 2 + 3 }).map(|answer| answer.wait());
    ///     remote.stop();
    ///     sum
    /// });
    /// events.run()?;
    /// assert!(matches!(thread.join(), Ok(Ok(Ok(5)))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn spawn<T, F>(&self, make: impl FnOnce() -> F + Send + 'static) -> Result<Answer<T>, RemoteError>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (sender, answer) = answer::channel();
        self.run(move |handle| {
            // Made in the task, so that a panic is the task's.
            let task = handle.spawn(async move { make().await });
            handle.spawn(async move { sender.send(task.await) }).detach();
        })?;
        Ok(answer)
    }

    /// As [`Handle::stop`]: the loop's present turn is its last, or the first of its next run. Unlike a call, this finds
    /// room however many wait; after the loop's end it does nothing.
    pub fn stop(&self) {
        self.inbox.stopping.store(true, Ordering::Release);
        self.inbox.wake();
    }

    /// Lets the loop take a turn if it is waiting.
    pub fn wake(&self) {
        self.inbox.wake();
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
