//! The way of a result from a loop to another thread.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::JoinError;
use super::place::Place;
use crate::sync::Arc;

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
    place: Arc<Place<Result<T, JoinError>>>,
}

/// Where the result is left; dropped without one, it says that the task was cancelled.
pub(crate) struct Sender<T> {
    place: Option<Arc<Place<Result<T, JoinError>>>>,
}

pub(crate) fn channel<T>() -> (Sender<T>, Answer<T>) {
    let place = Arc::new(Place::new());
    (Sender { place: Some(place.clone()) }, Answer { place })
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
        self.place.wait()
    }

    /// Whether the answer has come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.place.is_ready()
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.place.poll(cx)
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
