//! What a join handle can do with its task.

use std::marker::PhantomData;
use std::task::{Context, Poll, Waker};

use super::core::cancel;
use super::{ABORTED, CLOSED, DONE, HANDLE, Header, LIVE, RUNNING, TaskPtr, disown, waker};
use crate::task::JoinError;

/// The raw half of a join handle. Bound to the owner thread by the pointer in it.
pub(in crate::task) struct Handle<T> {
    task: TaskPtr,
    result: PhantomData<T>,
}

impl<T> Handle<T> {
    /// Takes the `HANDLE` bit of a task whose result is `Result<T, JoinError>`.
    pub(super) fn new(task: TaskPtr) -> Self {
        Handle { task, result: PhantomData }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: `HANDLE` keeps the task, and the handle never leaves the owner thread.
        unsafe { self.task.as_ref() }
    }

    pub(in crate::task) fn is_finished(&self) -> bool {
        self.header().has(DONE)
    }

    /// The result if it is there; else `cx` is woken when it is.
    ///
    /// # Panics
    /// If the result was taken before.
    pub(in crate::task) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        let header = self.header();
        if header.has(DONE) {
            let mut result: Option<Result<T, JoinError>> = None;
            // SAFETY: the task is done, the handle is on the owner thread, and the option has the type of the
            // task's result.
            unsafe { (header.vtable.take)(self.task, (&raw mut result).cast()) };
            return Poll::Ready(result.expect("a JoinHandle was polled after it had returned the result"));
        }
        // The cell is empty while a foreign waker's code runs.
        match header.joiner.take() {
            Some(old) if old.will_wake(cx.waker()) => header.joiner.set(Some(old)),
            old => {
                let new = cx.waker().clone();
                header.joiner.set(Some(new));
                drop(old);
            }
        }
        Poll::Pending
    }

    /// Has the task cancelled when its turn comes.
    pub(in crate::task) fn abort(&self) {
        let header = self.header();
        if !header.has(CLOSED) {
            header.add(ABORTED);
            // SAFETY: the task is alive and so is its executor, because it is not closed; the handle is on
            // the owner thread.
            unsafe { waker::wake_own(self.task) };
        }
    }

    /// Cancels the task now if it is not running, else when its turn comes.
    pub(in crate::task) fn cancel(&self) {
        if self.header().has(RUNNING) {
            self.abort();
        } else if self.header().has(LIVE) {
            // SAFETY: it is live, so the executor is alive; it is not running.
            unsafe { cancel(self.task) };
        }
    }

    /// A waker of the task, which must not have finished.
    pub(in crate::task) fn waker(&self) -> Waker {
        assert!(!self.header().has(CLOSED), "a waker is asked of a finished task");
        // SAFETY: the handle keeps the task for the length of the call; the clone counts a reference of its
        // own.
        unsafe { Waker::clone(&waker::borrowed(self.task)) }
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        /// Gives the bit back, even if the result's destructor or a foreign waker's panics.
        struct Owner(TaskPtr);
        impl Drop for Owner {
            fn drop(&mut self) {
                // SAFETY: the handle gives up its own bit, on the owner thread.
                unsafe { disown(self.0, HANDLE) }
            }
        }
        let owner = Owner(self.task);
        let joiner = self.header().joiner.take();
        if self.header().has(DONE) {
            // SAFETY: the task is done and its result belongs to the handle.
            unsafe { (self.header().vtable.discard)(self.task) };
        }
        drop(joiner);
        drop(owner);
    }
}
