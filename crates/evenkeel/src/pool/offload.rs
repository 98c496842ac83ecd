//! Work on its way to a lane, and its result on its way back.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use super::WorkError;
use super::lane::{Job, Lane};
use crate::core::caught;
use crate::sync::{Arc, AtomicBool};
use crate::task::place::Place;

type Outcome<T> = Result<T, WorkError>;

/// Work that is done on a thread of the pool, as a future of its result: see [`Handle::offload`](crate::Handle::offload).
///
/// **The work begins when this is first polled** and there is a place in the lane's queue; otherwise it waits for one, first
/// come first served, over all loops of the pool.
///
/// **Dropping this gives the work up.** What waits does not happen, and is dropped here with all that it holds. What runs goes
/// on, since nothing can end it from outside; it can ask its [`CancelToken`], and its result is dropped on the pool's thread.
///
/// It is a future for any loop and any thread, if the result is `Send`.
///
/// # Cancel safety
/// Awaiting by reference is cancel safe: the result stays until a poll has returned it.
///
/// # Panics
/// Polling again after the result was returned panics.
#[must_use = "the work begins when this is polled, and is given up when it is dropped"]
pub struct Offload<T> {
    /// None: it was refused before it could reach a lane.
    lane: Option<Lane>,
    place: Arc<Place<Outcome<T>>>,
    given_up: Arc<AtomicBool>,
    at: At,
}

/// How far the work has come.
enum At {
    /// It is here, and has this ticket if it stands in line for a place.
    Here { ticket: Option<u64>, job: Option<Box<dyn Job>> },
    /// The lane has it, under this number.
    Sent(u64),
    /// The result is in its place, or on its way there, or was taken; nothing is to be given up.
    Over,
}

impl<T: Send + 'static> Offload<T> {
    pub(super) fn new<F>(lane: &Lane, work: F) -> Self
    where
        F: FnOnce(&CancelToken) -> T + Send + 'static,
    {
        let place = Arc::new(Place::new());
        let given_up = Arc::<AtomicBool>::default();
        let token = CancelToken { given_up: given_up.clone(), ended: lane.ended() };
        let job = Work { work: Some(work), outcome: None, place: Some(place.clone()), token };
        let at = At::Here { ticket: None, job: Some(Box::new(job)) };
        Offload { lane: Some(lane.clone()), place, given_up, at }
    }

    /// One without a pool.
    pub(crate) fn refused(error: WorkError) -> Self {
        let place = Arc::new(Place::new());
        place.leave(Err(error));
        Offload { lane: None, place, given_up: Arc::default(), at: At::Over }
    }
}

impl<T> Offload<T> {
    /// Gives the work to its lane, or says why that does not take it. In place of the first poll.
    pub(crate) fn send(&mut self) -> Result<(), WorkError> {
        let (Some(lane), At::Here { job, .. }) = (&self.lane, &mut self.at) else {
            return Err(WorkError::Ended);
        };
        let Some(job) = job.take() else { return Err(WorkError::Cancelled) };
        self.at = At::Over;
        self.at = At::Sent(lane.submit(job)?);
        Ok(())
    }

    /// Asks for the work not to be done. True if it has not begun: it is dropped here, and this resolves to
    /// [`WorkError::Cancelled`]. If it runs, its [`CancelToken`] says so, and its result comes as ever.
    pub fn cancel(&mut self) -> bool {
        self.given_up.store(true, Ordering::Relaxed);
        let Some(lane) = &self.lane else { return false };
        let job = match std::mem::replace(&mut self.at, At::Over) {
            At::Here { ticket, job } => {
                if let Some(ticket) = ticket {
                    lane.leave_line(ticket);
                }
                job
            }
            At::Sent(number) => lane.remove(number),
            At::Over => None,
        };
        let Some(job) = job else { return false };
        job.cancel();
        true
    }

    /// Whether the result is there.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.place.is_ready()
    }
}

impl<T> Unpin for Offload<T> {}

impl<T> Future for Offload<T> {
    type Output = Result<T, WorkError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let (Some(lane), At::Here { ticket, job }) = (&this.lane, &mut this.at) {
            let sent = ready!(lane.poll_submit(cx, ticket, job));
            this.at = At::Over;
            match sent {
                Ok(number) => this.at = At::Sent(number),
                Err(refused) => {
                    // The work was dropped, and has left that it was: taken out in favour of the reason.
                    let _dropped = this.place.poll(cx);
                    return Poll::Ready(Err(refused.into()));
                }
            }
        }
        this.place.poll(cx)
    }
}

impl<T> Drop for Offload<T> {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        // Before the work is dropped: nobody is to be woken for it.
        self.place.forsake();
        let Some(lane) = &self.lane else { return };
        match std::mem::replace(&mut self.at, At::Over) {
            At::Here { ticket: Some(ticket), .. } => lane.leave_line(ticket),
            At::Sent(number) => drop(lane.remove(number)),
            At::Here { .. } | At::Over => {}
        }
    }
}

impl<T> fmt::Debug for Offload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// Tells work that runs whether anybody still wants its result; see [`Handle::offload_with`](crate::Handle::offload_with).
/// Asking costs two loads.
#[derive(Clone)]
pub struct CancelToken {
    given_up: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl CancelToken {
    /// Whether the future was dropped or cancelled, or the pool has ended. It stays true.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// The work, as a lane knows it.
struct Work<T, F> {
    work: Option<F>,
    outcome: Option<Outcome<T>>,
    /// None when the outcome is there.
    place: Option<Arc<Place<Outcome<T>>>>,
    token: CancelToken,
}

impl<T, F> Work<T, F> {
    fn leave(&mut self, outcome: Outcome<T>) {
        if let Some(place) = self.place.take() {
            place.leave(outcome);
        }
    }
}

impl<T, F> Job for Work<T, F>
where
    T: Send + 'static,
    F: FnOnce(&CancelToken) -> T + Send + 'static,
{
    fn run(&mut self) -> bool {
        let Some(work) = self.work.take() else { return true };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&self.token)));
        self.outcome = Some(outcome.map_err(WorkError::panicked));
        self.outcome.as_ref().is_some_and(Result::is_ok)
    }

    fn deliver(mut self: Box<Self>) {
        if let Some(outcome) = self.outcome.take() {
            self.leave(outcome);
        }
    }

    fn cancel(mut self: Box<Self>) {
        self.leave(Err(WorkError::Cancelled));
        caught(|| drop(self));
    }
}

impl<T, F> Drop for Work<T, F> {
    fn drop(&mut self) {
        self.leave(Err(WorkError::Ended));
    }
}

#[cfg(all(test, loom))]
mod models;
