//! The way of a result from a loop to another thread.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::JoinError;

/// What a task on another loop comes to: made by [`Remote::spawn`](crate::Remote::spawn) and
/// [`Group::spawn_on`](crate::group::Group::spawn_on).
///
/// A task of another loop awaits it; a thread without a loop [`wait`](Self::wait)s. It resolves to the task's output, or to a
/// [`JoinError`] if the task panicked, or was cancelled because its loop ended first. Dropping it lets the task go on by
/// itself.
///
/// # Cancel safety
/// Awaiting by reference is cancel safe: the result stays until a poll has returned it.
///
/// # Panics
/// Polling again after the result was returned panics.
#[must_use = "the task goes on without it, but a panic in it goes unheard"]
pub struct Answer<T> {
    place: Arc<Place<T>>,
}

/// Where the result is left; dropped without one, it says that the task was cancelled.
pub(crate) struct Sender<T> {
    place: Option<Arc<Place<T>>>,
}

struct Place<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    Waiting(Option<Waker>),
    Ready(Result<T, JoinError>),
    Taken,
}

pub(crate) fn channel<T>() -> (Sender<T>, Answer<T>) {
    let place = Arc::new(Place { state: Mutex::new(State::Waiting(None)), changed: Condvar::new() });
    (Sender { place: Some(place.clone()) }, Answer { place })
}

impl<T> Place<T> {
    /// No code of a user runs under the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, result: Result<T, JoinError>) {
        let before = std::mem::replace(&mut *self.lock(), State::Ready(result));
        self.changed.notify_all();
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Sender<T> {
    pub(crate) fn send(mut self, result: Result<T, JoinError>) {
        if let Some(place) = self.place.take() {
            place.leave(result);
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.leave(Err(JoinError::cancelled()));
        }
    }
}

impl<T> State<T> {
    /// Takes the result, if it has come.
    fn take(&mut self) -> Option<Result<T, JoinError>> {
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

impl<T> Answer<T> {
    /// Blocks this thread until the answer has come.
    ///
    /// # Errors
    /// When the task panicked, or its loop ended first.
    ///
    /// # Panics
    /// On a thread whose loop is running, which would stand still meanwhile: a task awaits the answer. Also after the answer
    /// was given to an await.
    pub fn wait(self) -> Result<T, JoinError> {
        assert!(
            crate::event_loop::current().is_none(),
            "this would block the thread's loop: await the answer instead"
        );
        let mut state = self.place.lock();
        loop {
            if let Some(result) = state.take() {
                return result;
            }
            state = self.place.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the answer has come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !matches!(*self.place.lock(), State::Waiting(_))
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloned, and the old one dropped, when nothing is locked: wakers may be a user's.
        let waker = cx.waker().clone();
        let mut state = self.place.lock();
        if let Some(result) = state.take() {
            return Poll::Ready(result);
        }
        let before = std::mem::replace(&mut *state, State::Waiting(Some(waker)));
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
