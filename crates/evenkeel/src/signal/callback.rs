//! Signals for callbacks.

use std::fmt;
use std::io;

use super::{Signal, Signals};
use crate::handle::Handle;
use crate::task::JoinHandle;

impl Handle {
    /// Calls `call` on the loop for each of these signals that arrives, until the guard is dropped.
    ///
    /// It runs as a task does: never inside another call. A panic in it is counted, and it is called again for the next
    /// signal. [`Signals`] tells which are counted and which are refused.
    ///
    /// ```no_run
    /// use evenkeel::signal::Signal;
    /// # let mut events = evenkeel::EventLoop::new()?;
    /// let _guard = events.handle().on_signal(&[Signal::Terminate], |h, _| h.stop())?;
    /// events.run()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Signals::new`]; `NotConnected` when the loop has ended.
    pub fn on_signal(
        &self,
        signals: &[Signal],
        mut call: impl FnMut(&Handle, Signal) + 'static,
    ) -> io::Result<SignalGuard> {
        if self.shared.ended.get() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the loop has ended"));
        }
        let mut signals = Signals::new_on(self, signals)?;
        let handle = self.clone();
        let task = self.spawn(async move {
            loop {
                let signal = signals.recv().await;
                handle.shared.guard(|| call(&handle, signal));
            }
        });
        Ok(SignalGuard { task: Some(task) })
    }
}

/// Listens for signals, for a callback, until it is dropped. Made by [`Handle::on_signal`].
#[must_use = "the callback is not called any more when this is dropped"]
pub struct SignalGuard {
    task: Option<JoinHandle<()>>,
}

impl SignalGuard {
    /// Listens for as long as the loop lives.
    pub fn detach(mut self) {
        self.task = None;
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl fmt::Debug for SignalGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalGuard").finish_non_exhaustive()
    }
}
