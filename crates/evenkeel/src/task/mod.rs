//! Tasks: futures that live on one event loop and never leave its thread.
//!
//! A task need not be `Send`, because the loop that spawned it is the only one that ever polls or drops it.
//! Its wakers are `Send`: any thread may wake it, at any time, also after the task, the loop or the loop's
//! thread has ended (then a wake does nothing). A wake on the loop's own thread is a push on a list, without
//! atomics.
//!
//! - A task ends exactly once: with its output, with a panic (which is caught, counted, and reaches its
//!   [`JoinHandle`]), or cancelled.
//! - Dropping a [`JoinHandle`] detaches the task. A [`TaskSet`] cancels its tasks when it is dropped.
//! - Tasks are polled in the order in which they were woken; a task woken twice before its turn is polled
//!   once.
//! - A task that wakes itself goes to the back of the queue, and a turn of the loop polls a bounded number of
//!   tasks. One that reads, writes or accepts without ever having to wait gives up its turn after 128 such
//!   operations: they answer `Pending` once. So none can keep the others or the sockets from their turn.
//!   [`yield_now`] is the way to give up the turn in a long computation.

pub(crate) mod answer;
mod join;
#[cfg(all(test, loom))]
mod models;
pub(crate) mod place;
mod raw;
mod set;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use self::raw::Core;

pub use self::answer::Answer;
pub use self::join::{JoinError, JoinHandle};
pub use self::set::TaskSet;

/// Spawns a task on the current loop. It is polled first in the next turn, never inside this call.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    crate::Handle::current().spawn(future)
}

/// The tasks of one loop. The loop calls it; it blocks nowhere and knows no clock.
///
/// All methods take `&self`, and every one of them but `run` and `cancel_all` may be called from a task, a
/// destructor or a waker that this executor runs. Dropping the executor is `cancel_all`.
pub(crate) struct Executor {
    core: Core,
    /// Roots, which are tasks to the core but not to the users.
    roots: Rc<Cell<usize>>,
}

impl Executor {
    /// An executor of the calling thread.
    ///
    /// `notify` must end the loop's wait. Other threads call it when the inbox of their wake-ups goes from
    /// empty to non-empty, that is, at most once between two calls of
    /// [`drain_remote`](Executor::drain_remote). It is never called on the loop's own thread by a wake.
    pub(crate) fn new(notify: Arc<dyn Fn() + Send + Sync>) -> Executor {
        Executor { core: Core::new(notify), roots: Rc::default() }
    }

    /// Starts a task at the back of the ready queue. After `cancel_all` the future is dropped at once,
    /// unpolled, and the handle resolves to a cancellation.
    #[inline]
    pub(crate) fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        JoinHandle::new(self.core.spawn(future))
    }

    /// Polls ready tasks, at most `budget` of them, first woken first; tasks woken meanwhile go to the back
    /// and count too. Returns whether ready tasks are left. For a pass over none but the present ones, the
    /// budget is [`ready_len`](Executor::ready_len).
    ///
    /// # Panics
    /// If it is called from within itself.
    #[inline]
    pub(crate) fn run(&self, budget: usize) -> bool {
        self.core.run(budget)
    }

    /// Wakes a task of this executor: a push on its queue, which runs no code of a user. False, and nothing is
    /// woken, if the waker is of anything else.
    #[inline]
    pub(crate) fn wake(&self, waker: &Waker) -> bool {
        self.core.wake(waker)
    }

    /// Begins a poll of the future behind a [`Root`].
    pub(crate) fn refill(&self) {
        self.core.refill();
    }

    /// Takes one operation from those that the present poll may do. False if none is left: whoever polls is to
    /// wake itself and to give up the turn.
    #[inline]
    pub(crate) fn spend(&self) -> bool {
        self.core.spend()
    }

    /// Moves the wake-ups of other threads into the ready queue. Cheap when there are none.
    ///
    /// To lose no wake-up, the loop first consumes the notification, then drains, then decides whether to
    /// wait.
    pub(crate) fn drain_remote(&self) {
        self.core.drain_remote(false);
    }

    /// Whether [`run`](Executor::run) has something to do. Wake-ups of other threads count once they were
    /// drained.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready_len() > 0
    }

    /// The length of the ready queue.
    pub(crate) fn ready_len(&self) -> usize {
        self.core.ready_len()
    }

    /// The number of tasks that have not finished.
    pub(crate) fn len(&self) -> usize {
        self.core.live_len().saturating_sub(self.roots.get())
    }

    /// The number of panics caught so far in tasks, in their destructors and in the wakers of those who join
    /// them.
    pub(crate) fn panics(&self) -> u64 {
        self.core.panics()
    }

    /// The shutdown: drops every future, here and now, and all that their destructors spawn. Their handles
    /// resolve to a cancellation. If the destructors spawn without end, the futures beyond a limit are leaked
    /// instead of dropped.
    ///
    /// # Panics
    /// If it is called from within [`run`](Executor::run).
    pub(crate) fn cancel_all(&self) {
        self.core.cancel_all();
    }

    /// A waker for a future that is not a task, as that of `block_on`.
    pub(crate) fn root(&self) -> Root {
        let woken = Rc::new(Cell::new(false));
        self.roots.set(self.roots.get() + 1);
        let handle = self.core.spawn(Signal { woken: Rc::clone(&woken), roots: Rc::clone(&self.roots) });
        let waker = if handle.is_finished() { Waker::noop().clone() } else { handle.waker() };
        Root { woken, waker, handle }
    }
}

/// A future outside of the executor, with a place in its ready queue.
///
/// It is woken at its start. When it is woken later, its place in the queue comes up in a call of
/// [`Executor::run`], after which [`take_woken`](Root::take_woken) is true: the loop asks after each `run`,
/// and polls its root future with [`waker`](Root::waker). It ends when it is dropped; a shutdown ends it too,
/// after which its wakers do nothing.
pub(crate) struct Root {
    woken: Rc<Cell<bool>>,
    waker: Waker,
    handle: raw::Handle<()>,
}

impl Root {
    /// The waker to poll the root future with.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether the root future is to be polled; asking resets it.
    pub(crate) fn take_woken(&self) -> bool {
        self.woken.take()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}

/// The task behind a [`Root`].
struct Signal {
    woken: Rc<Cell<bool>>,
    roots: Rc<Cell<usize>>,
}

impl Future for Signal {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.woken.set(true);
        Poll::Pending
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        self.roots.set(self.roots.get() - 1);
    }
}

/// Gives up the turn: the other ready tasks, and sooner or later the sockets and timers, come first.
///
/// # Cancel safety
/// Cancel safe; dropping it has no effect.
#[must_use = "futures do nothing unless awaited"]
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
