//! The way to a task's result.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::raw::Handle;
use crate::core::Payload;

/// The result of a task, as a future.
///
/// It resolves to the task's output, or to a [`JoinError`] if the task panicked or was cancelled.
///
/// **Dropping the handle detaches the task**: it goes on, its output is dropped when it ends, and its panic
/// is counted. To tie a task's life to a scope, put it in a [`TaskSet`](super::TaskSet).
///
/// # Cancel safety
/// Awaiting by reference (`(&mut handle).await`) is cancel safe: the result stays with the task until a poll
/// has returned it.
///
/// # Panics
/// Polling again after the result was returned panics.
pub struct JoinHandle<T> {
    handle: Handle<T>,
}

impl<T> JoinHandle<T> {
    pub(super) fn new(handle: Handle<T>) -> Self {
        JoinHandle { handle }
    }

    /// Asks for the task to be cancelled.
    ///
    /// The future is not dropped inside this call but by the loop, when the task's turn comes, so that its
    /// destructors never run inside the caller's code. It is not polled again before that. If the task is
    /// running right now (it aborts itself), its poll goes on to its end; should that poll return the output,
    /// the task has finished and is not cancelled. On a finished task this does nothing.
    ///
    /// The handle then resolves to a [`JoinError`] with [`is_cancelled`](JoinError::is_cancelled), or with
    /// [`is_panic`](JoinError::is_panic) if a destructor panicked.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Whether the task has finished, one way or another: the handle would resolve at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Lets the task go on by itself. The same as dropping the handle, said aloud.
    pub fn detach(self) {}
}

impl<T> Unpin for JoinHandle<T> {}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.handle.poll(cx)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// Why a task has no output.
pub struct JoinError {
    reason: Reason,
}

enum Reason {
    Cancelled,
    /// Boxed so that a result is small.
    Panicked(Box<Payload>),
}

impl JoinError {
    pub(super) fn cancelled() -> JoinError {
        JoinError { reason: Reason::Cancelled }
    }

    #[cold]
    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> JoinError {
        JoinError { reason: Reason::Panicked(Box::new(Payload::new(payload))) }
    }

    /// Whether the task was cancelled: by [`JoinHandle::abort`], by the end of its
    /// [`TaskSet`](super::TaskSet) or of the loop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.reason, Reason::Cancelled)
    }

    /// Whether the task, or a destructor in it, panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.reason, Reason::Panicked(_))
    }

    /// What the task panicked with, for [`std::panic::resume_unwind`].
    ///
    /// # Errors
    /// Gives the error back if the task did not panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.reason {
            Reason::Panicked(payload) => Ok(payload.into_inner()),
            Reason::Cancelled => Err(self),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Cancelled => f.write_str("the task was cancelled"),
            Reason::Panicked(payload) => payload.with_message(|message| match message {
                Some(message) => write!(f, "the task panicked: {message}"),
                None => f.write_str("the task panicked"),
            }),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Cancelled => f.write_str("JoinError::Cancelled"),
            Reason::Panicked(payload) => {
                payload.with_message(|message| f.debug_tuple("JoinError::Panicked").field(&message).finish())
            }
        }
    }
}

impl Error for JoinError {}
