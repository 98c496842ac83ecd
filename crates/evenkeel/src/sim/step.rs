//! What a world does with the loops of its hosts.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::event_loop::{EventLoop, Running, turn};
use crate::task::{JoinError, JoinHandle};

impl EventLoop {
    /// One turn. Its wait ends at once, and the kernel knows until when it would have taken.
    pub(super) fn step(&mut self) -> io::Result<()> {
        let _running = Running::new(&self.shared)?;
        turn(&self.shared, None, &mut || false)?;
        self.shared.driver.flush(&self.shared);
        Ok(())
    }

    /// Whether code outside of it has left something to do since it went to sleep: another loop of the same thread may wake its
    /// tasks without waking it. What comes to its mailbox is not asked for: that has to wake it by way of its kernel (I2).
    pub(super) fn is_owed_a_turn(&self) -> bool {
        let lp = &self.shared;
        lp.core.borrow().is_owed() || lp.executor.has_ready()
    }

    /// The result of a task that has finished.
    pub(super) fn take_output<T>(&mut self, task: JoinHandle<T>) -> Option<Result<T, JoinError>> {
        match pin!(task).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
