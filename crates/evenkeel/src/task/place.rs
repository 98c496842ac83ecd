//! One place for one result, which another thread may leave and a task or a thread waits for.

use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sync::{Condvar, Mutex, MutexGuard};

/// Left once, taken once.
pub(crate) struct Place<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
}

enum State<R> {
    Waiting(Option<Waker>),
    Ready(R),
    Taken,
}

impl<R> Place<R> {
    pub(crate) fn new() -> Self {
        Place { state: Mutex::new(State::Waiting(None)), changed: Condvar::new() }
    }

    /// No code of a user runs under the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the result and wakes who waits for it.
    pub(crate) fn leave(&self, result: R) {
        let before = std::mem::replace(&mut *self.lock(), State::Ready(result));
        self.changed.notify_all();
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Nobody will come for the result: the waker is dropped, so that nothing is kept for it.
    pub(crate) fn forsake(&self) {
        let mut state = self.lock();
        let waker = match &mut *state {
            State::Waiting(waker) => waker.take(),
            State::Ready(_) | State::Taken => None,
        };
        drop(state);
        drop(waker);
    }

    pub(crate) fn is_ready(&self) -> bool {
        !matches!(*self.lock(), State::Waiting(_))
    }

    /// Takes the result, or leaves a waker.
    ///
    /// # Panics
    /// When the result was taken already.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<R> {
        // Cloned, and the old one dropped, when nothing is locked: wakers may be a user's.
        let waker = cx.waker().clone();
        let mut state = self.lock();
        if let Some(result) = state.take() {
            return Poll::Ready(result);
        }
        let before = std::mem::replace(&mut *state, State::Waiting(Some(waker)));
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Blocks this thread until the result has come, and takes it.
    ///
    /// # Panics
    /// On a thread whose loop is running, which would stand still meanwhile; when the result was taken already.
    pub(crate) fn wait(&self) -> R {
        assert!(
            crate::event_loop::current().is_none(),
            "this would block the thread's loop: await the answer instead"
        );
        let mut state = self.lock();
        loop {
            if let Some(result) = state.take() {
                return result;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<R> State<R> {
    /// Takes the result, if it has come.
    fn take(&mut self) -> Option<R> {
        match std::mem::replace(self, State::Taken) {
            State::Ready(result) => Some(result),
            State::Taken => panic!("an answer is given once"),
            waiting => {
                *self = waiting;
                None
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models;
