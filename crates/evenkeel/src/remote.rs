//! Reaching a loop from other threads.

use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use crate::core::Shared;
use crate::handle::Handle;
use crate::handover::Circle;
use crate::mailbox::Mailbox;
use crate::sys::WakeFn;
use crate::sys::table::{self, Table};
use crate::task::answer::{self, Answer};

pub(crate) type Call = Box<dyn FnOnce(&Handle) + Send>;

/// Calls that an inbox holds at most.
const CAPACITY: usize = 65_536;

/// A loop's mailbox for other threads, and what they must know of the loop's descriptors.
pub(crate) struct Inbox {
    pub(crate) calls: Mailbox<Call>,
    /// Where numbers of descriptors mean what they mean to the loop.
    pub(crate) table: Table,
    /// The group whose loops can hand descriptors to this one, and its index there, if their tables differ.
    pub(crate) member: OnceLock<(Circle, usize)>,
}

impl Inbox {
    /// Made on the loop's thread.
    pub(crate) fn new(wake: WakeFn) -> Self {
        Inbox { calls: Mailbox::new(CAPACITY, wake), table: table::here(), member: OnceLock::new() }
    }

    /// Wakes the loop, unless it has been woken and has not looked yet.
    pub(crate) fn wake(&self) {
        self.calls.wake();
    }

    /// Takes back the pending wake and runs at most `most` calls on the loop's thread. False if none was pending.
    pub(crate) fn run(&self, lp: &Rc<Shared>, most: usize) -> bool {
        if !self.calls.take_wake() {
            return false;
        }
        table::sweep();
        let handle = Handle::from_shared(lp.clone());
        if self.calls.take_stop() {
            handle.stop();
        }
        self.calls.take(most, |call| lp.guard(|| call(&handle)));
        true
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
        self.inbox.calls.push(call, |call| call).map_err(|(_, error)| error)
    }

    /// As [`run`](Self::run), for what is not to be dropped by a refusal.
    pub(crate) fn offer<T>(
        &self,
        what: T,
        into_call: impl FnOnce(T) -> Box<dyn FnOnce(&Handle) + Send>,
    ) -> Result<(), (T, RemoteError)> {
        self.inbox.calls.push(what, into_call)
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
        self.inbox.calls.stop();
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
