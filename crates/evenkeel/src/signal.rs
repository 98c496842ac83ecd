//! The operating system's signals, as events of a loop.
//!
//! A [`Signals`] counts what arrives, so that a second SIGTERM during a drain is told from the first. Signal
//! dispositions belong to the process: every loop that asked hears of a signal.
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

/// A signal that a process can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM: end, in an orderly way.
    Terminate,
    /// SIGINT: end, as asked from the terminal.
    Interrupt,
    /// SIGHUP: read the configuration anew.
    Hangup,
    /// SIGQUIT: end, as asked from the terminal.
    Quit,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

impl Signal {
    fn number(self) -> i32 {
        use rustix::process::Signal as S;
        match self {
            Signal::Terminate => S::TERM,
            Signal::Interrupt => S::INT,
            Signal::Hangup => S::HUP,
            Signal::Quit => S::QUIT,
            Signal::User1 => S::USR1,
            Signal::User2 => S::USR2,
        }
        .as_raw()
    }
}

struct Listened {
    signal: Signal,
    arrived: Arc<AtomicU64>,
    seen: u64,
    _registration: Registration,
}

/// Listens for signals until it is dropped. Meanwhile they do not have their default effect.
pub struct Signals {
    shared: Rc<Shared>,
    listened: Vec<Listened>,
    waiter: SignalWaiter,
}

impl Signals {
    /// Listens on the current loop.
    ///
    /// # Errors
    /// The kernel's, when it refuses a handler.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        Self::new_on(&Handle::current(), signals)
    }

    /// Listens on the given loop, whether it is running or not.
    ///
    /// # Errors
    /// The kernel's, when it refuses a handler.
    pub fn new_on(handle: &Handle, signals: &[Signal]) -> io::Result<Self> {
        let mut listened = Vec::new();
        for &signal in signals {
            let arrived = Arc::new(AtomicU64::new(0));
            let wake = handle.shared.driver.waker();
            let _registration = register(signal.number(), arrived.clone(), wake)?;
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
