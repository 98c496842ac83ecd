//! The operating system's signals, as events of a loop.
//!
//! A [`Signals`] counts what arrives, so that a second SIGTERM during a drain is told from the first. Signal
//! dispositions belong to the process: every loop that asked hears of a signal. Callbacks are called by
//! [`Handle::on_signal`].
//!
//! Once a signal was listened for, it never has its default effect again in this process: not either when nobody listens
//! any more. Children get the default back.
//!
//! SIGPIPE cannot be listened for. Threads block it while they run a loop, so that writing to a pipe or a socket whose
//! reader has gone is an error value and nothing else; children that [`process::Command`](crate::process::Command) starts
//! get it back, at its default.
//!
//! ```no_run
//! use evenkeel::signal::{Signal, Signals};
//! # async fn serve() -> std::io::Result<()> {
//! let mut signals = Signals::new(&[Signal::Terminate, Signal::Interrupt])?;
//! let first = signals.recv().await;
//! println!("{first:?}: draining");
//! # Ok(()) }
//! ```

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use crate::core::Shared;
use crate::core::shared::SignalWaiter;
use crate::handle::Handle;
use crate::sys::signal::{Registration, register};

mod callback;
mod number;

pub use callback::SignalGuard;
pub use number::Signal;

struct Listened {
    signal: Signal,
    arrived: Arc<AtomicU64>,
    seen: u64,
    _registration: Registration,
}

/// Listens for signals until it is dropped.
pub struct Signals {
    shared: Rc<Shared>,
    listened: Vec<Listened>,
    waiter: SignalWaiter,
}

impl Signals {
    /// Listens on the current loop.
    ///
    /// # Errors
    /// `InvalidInput` for a signal that cannot be listened for; the kernel's, when it refuses a handler.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        Self::new_on(&Handle::current(), signals)
    }

    /// Listens on the given loop, whether it is running or not.
    ///
    /// # Errors
    /// `InvalidInput` for a signal that cannot be listened for; the kernel's, when it refuses a handler.
    pub fn new_on(handle: &Handle, signals: &[Signal]) -> io::Result<Self> {
        let mut listened = Vec::new();
        for &signal in signals {
            let arrived = Arc::new(AtomicU64::new(0));
            let wake = handle.shared.driver.waker();
            let _registration = register(signal.listenable()?, arrived.clone(), wake)?;
            listened.push(Listened { signal, arrived, seen: 0, _registration });
        }
        let waiter = SignalWaiter::default();
        handle.shared.core.borrow_mut().signal_waiters.push(waiter.clone());
        Ok(Signals { shared: handle.shared.clone(), listened, waiter })
    }

    /// Waits for the next signal. Signals of one kind that arrive faster than they are taken may be one to the
    /// kernel; those that reached the process are all returned.
    ///
    /// Cancel safe.
    pub async fn recv(&mut self) -> Signal {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv), for those who write their own futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        for one in &mut self.listened {
            if one.arrived.load(Ordering::Acquire) > one.seen {
                if !self.shared.executor.spend() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                one.seen += 1;
                return Poll::Ready(one.signal);
            }
        }
        // A task that waits for other things too polls this again and again.
        match self.waiter.take() {
            Some(left) if left.will_wake(cx.waker()) => self.waiter.set(Some(left)),
            left => {
                self.waiter.set(Some(cx.waker().clone()));
                drop(left);
            }
        }
        Poll::Pending
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut core = self.shared.core.borrow_mut();
        core.signal_waiters.retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.listened.iter().map(|l| l.signal)).finish()
    }
}
