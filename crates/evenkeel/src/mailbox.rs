//! A bounded queue into a loop, with one wake-up for any number of messages. It knows neither loops nor descriptors, so that a
//! model can run all of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::remote::RemoteError;
use crate::sync::{AtomicBool, Mutex, MutexGuard};
use crate::sys::WakeFn;

/// Messages of any thread, for the loop's. Each is taken by the loop, or dropped by [`close`](Self::close), or comes back to
/// its sender.
pub(crate) struct Mailbox<M> {
    messages: Mutex<VecDeque<M>>,
    most: usize,
    /// Set by whoever wakes the loop, cleared by the loop when it looks: wakes between the two are one (I2).
    woken: AtomicBool,
    /// The loop is to stop, whatever else waits.
    stopping: AtomicBool,
    closed: AtomicBool,
    wake: WakeFn,
}

impl<M> Mailbox<M> {
    /// One for at most so many messages. `wake` ends the loop's wait, or the next one if it does not wait.
    pub(crate) fn new(most: usize, wake: WakeFn) -> Self {
        let no = || AtomicBool::new(false);
        Mailbox { messages: Mutex::default(), most, woken: no(), stopping: no(), closed: no(), wake }
    }

    /// No code of a user's runs under the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, VecDeque<M>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- any thread ----

    /// Wakes the loop, unless it has been woken and has not looked yet.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Leaves what `into_message` makes of `what`, which comes back if it is not taken.
    pub(crate) fn push<T>(&self, what: T, into_message: impl FnOnce(T) -> M) -> Result<(), (T, RemoteError)> {
        let first = |_: &T| Ok::<_, Infallible>(());
        self.push_after(what, first, into_message).map_err(|(what, Ok(error))| (what, error))
    }

    /// As `push`, once `first` has succeeded, which runs under the lock, and only if there is room: what it does has the
    /// same order as the messages.
    pub(crate) fn push_after<T, E>(
        &self,
        what: T,
        first: impl FnOnce(&T) -> Result<(), E>,
        into_message: impl FnOnce(T) -> M,
    ) -> Result<(), (T, Result<RemoteError, E>)> {
        let mut messages = self.lock();
        if self.is_closed() {
            return Err((what, Ok(RemoteError::LoopEnded)));
        }
        if messages.len() >= self.most {
            return Err((what, Ok(RemoteError::Full)));
        }
        if let Err(error) = first(&what) {
            return Err((what, Err(error)));
        }
        messages.push_back(into_message(what));
        drop(messages);
        self.wake();
        Ok(())
    }

    /// Has the loop stop, however many messages wait.
    pub(crate) fn stop(&self) {
        // An exchange although a store would do: the model checker does not know that an exchange of the loop's, which read
        // what was before a store, comes before it.
        self.stopping.swap(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    // ---- the loop's thread ----

    /// A wake is pending: the loop must not sleep.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Takes back the pending wake, before the loop looks at anything that it may have announced. False if none was pending,
    /// which costs one load.
    pub(crate) fn take_wake(&self) -> bool {
        // A message sent from here on wakes the loop again (I2). An exchange, not a store: it reads the wake that found the
        // mark set, so that what that wake announced is seen.
        self.is_woken() && self.woken.swap(false, Ordering::AcqRel)
    }

    /// Whether the loop was asked to stop since this was last asked.
    pub(crate) fn take_stop(&self) -> bool {
        self.stopping.swap(false, Ordering::Acquire)
    }

    /// Takes messages in the order in which they came, at most so many. If others may be left, a wake is pending again. Nothing is
    /// locked during `each`.
    pub(crate) fn take(&self, most: usize, mut each: impl FnMut(M)) {
        for _ in 0..most {
            let Some(message) = self.pop() else { return };
            each(message);
        }
        self.woken.store(true, Ordering::Release);
    }

    fn pop(&self) -> Option<M> {
        self.lock().pop_front()
    }

    /// The loop has ended: messages are refused, and those that wait are dropped here.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let left = std::mem::take(&mut *self.lock());
        drop(left);
    }
}

#[cfg(all(test, loom))]
mod models;
