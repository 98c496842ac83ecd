//! Time: sleeping, deadlines, intervals. The clock is the loop's, to the millisecond; timers never fire early.
//!
//! ```
//! use evenkeel::{EventLoop, time};
//! use std::time::Duration;
//! let mut events = EventLoop::new()?;
//! let late = events.block_on(time::timeout(Duration::from_millis(1), std::future::pending::<()>()))?;
//! assert!(late.is_err());
//! # Ok::<(), std::io::Error>(())
//! ```

pub(crate) mod wheel;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::core::Shared;
use crate::core::shared::Timer;
use crate::handle::Handle;
use wheel::Key;

/// The time of the current loop, read afresh: under simulation, the virtual one.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn now() -> Instant {
    Handle::current().shared.driver.sys().clock()
}

/// Waits for `time`, at least.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn sleep(time: Duration) -> Sleep {
    let shared = Handle::current().shared;
    let deadline = shared.driver.sys().clock().checked_add(time);
    Sleep { shared, alarm: Alarm::at(deadline) }
}

/// Waits until `deadline`, at least.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { shared: Handle::current().shared, alarm: Alarm::at(Some(deadline)) }
}

/// A future that is ready at a time. Dropping it cancels its timer.
///
/// Cancel safe; it can be polled again after it was ready.
pub struct Sleep {
    shared: Rc<Shared>,
    alarm: Alarm,
}

impl Sleep {
    /// When it is ready; none for a time further away than the clock reaches.
    pub fn deadline(&self) -> Option<Instant> {
        self.alarm.deadline
    }

    /// Waits until `deadline` instead, whether it was ready or not.
    pub fn reset(&mut self, deadline: Instant) {
        self.alarm.reset(&self.shared, deadline);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Sleep { shared, alarm } = self.get_mut();
        alarm.poll(shared, cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.alarm.cancel(&self.shared);
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.alarm.deadline).finish_non_exhaustive()
    }
}

/// What a sleep is made of, beside the loop that keeps its timer: plain data. Its owner passes that loop in, and
/// no other.
pub(crate) struct Alarm {
    /// None: further away than the clock reaches, so never.
    pub(crate) deadline: Option<Instant>,
    timer: Option<Key>,
}

impl Alarm {
    pub(crate) fn at(deadline: Option<Instant>) -> Self {
        Alarm { deadline, timer: None }
    }

    pub(crate) fn reset(&mut self, shared: &Shared, deadline: Instant) {
        self.deadline = Some(deadline);
        if let Some(key) = self.timer
            && !shared.rearm(key, deadline)
        {
            self.timer = None;
        }
    }

    pub(crate) fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(key) = self.timer {
            let mut core = shared.core.borrow_mut();
            let Some(Timer::Wake(left)) = core.wheel.get_mut(key) else {
                // It fired, and a timer never fires early.
                drop(core);
                self.timer = None;
                return Poll::Ready(());
            };
            if !left.will_wake(cx.waker()) {
                drop(core);
                leave_waker(shared, key, cx);
            }
            return Poll::Pending;
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if deadline <= shared.driver.sys().clock() {
            return Poll::Ready(());
        }
        self.timer = Some(shared.timer_at(deadline, Timer::Wake(cx.waker().clone())));
        Poll::Pending
    }

    pub(crate) fn cancel(&mut self, shared: &Shared) {
        if let Some(key) = self.timer.take() {
            let timer = shared.core.borrow_mut().wheel.cancel(key);
            // A waker's drop is the user's code.
            drop(timer);
        }
    }

    /// Takes the timer out, to be cancelled by other means.
    #[cfg(feature = "hyper")]
    pub(crate) fn take(&mut self) -> Option<Self> {
        self.timer.take().map(|key| Alarm { deadline: None, timer: Some(key) })
    }
}

/// Cloning a waker and dropping the old one may run code of a user: nothing is borrowed meanwhile.
#[cold]
fn leave_waker(shared: &Shared, key: Key, cx: &Context<'_>) {
    let mut waker = cx.waker().clone();
    let mut core = shared.core.borrow_mut();
    if let Some(Timer::Wake(left)) = core.wheel.get_mut(key) {
        std::mem::swap(left, &mut waker);
    }
    drop(core);
    drop(waker);
}

/// The time given to a future was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time given was up")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(e: Elapsed) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, e)
    }
}

/// Waits for `future`, for `time` at most; it is dropped when the time is up. A future that is ready at the same
/// moment wins.
///
/// As cancel safe as `future`.
///
/// # Errors
/// [`Elapsed`] when the time is up.
///
/// # Panics
/// Outside of a running loop.
pub async fn timeout<F: Future>(time: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut sleep = sleep(time);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// Ticks every `period`, first after one period.
///
/// # Panics
/// For a period of zero, and outside of a running loop.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    assert!(period > Duration::ZERO, "an interval needs a period above zero");
    Interval { sleep: sleep(period), period }
}

/// Ticks at regular times. Ticks that nobody waited for are passed over, so that a late reader does not meet a
/// burst of them.
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: Duration,
}

impl Interval {
    /// Waits for the next tick and returns when it was due.
    ///
    /// Cancel safe: no tick is lost.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// As [`tick`](Self::tick), for those who write their own futures.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        if Pin::new(&mut self.sleep).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = self.sleep.shared.driver.sys().clock();
        let due = self.sleep.alarm.deadline.unwrap_or(now);
        let missed = now.saturating_duration_since(due).as_nanos() / self.period.as_nanos();
        let missed = u32::try_from(missed).unwrap_or(u32::MAX - 1);
        let next = self.period.checked_mul(missed + 1).and_then(|d| due.checked_add(d));
        match next {
            Some(next) => self.sleep.reset(next),
            None => self.sleep.alarm.deadline = None,
        }
        Poll::Ready(due)
    }
}
