//! Draining all loops of a group.

use std::io;

use super::Group;
use crate::handle::Handle;
use crate::net::{Drain, Drained};
use crate::task::Answer;

impl Group {
    /// Closes all listeners of callback connections on all loops, and then these connections, as `drain` says; see
    /// [`Handle::drain`]. The loops go on running: [`stop`](Self::stop) comes next.
    ///
    /// A task awaits this; a thread without a loop calls [`wait_drain`](Self::wait_drain).
    ///
    /// # Errors
    /// When a loop's mailbox is full, or a loop has ended.
    pub async fn drain(&self, drain: &Drain) -> io::Result<Drained> {
        for stopped in self.stop_listening(drain)? {
            stopped.await.map_err(io::Error::other)?;
        }
        let mut all = Drained::default();
        for drained in self.drain_loops(drain)? {
            all += drained.await.map_err(io::Error::other)?;
        }
        Ok(all)
    }

    /// As [`drain`](Self::drain), blocking the thread until it is over.
    ///
    /// # Errors
    /// As for [`drain`](Self::drain).
    ///
    /// # Panics
    /// On a thread whose loop is running.
    pub fn wait_drain(&self, drain: &Drain) -> io::Result<Drained> {
        for stopped in self.stop_listening(drain)? {
            stopped.wait().map_err(io::Error::other)?;
        }
        let mut all = Drained::default();
        for drained in self.drain_loops(drain)? {
            all += drained.wait().map_err(io::Error::other)?;
        }
        Ok(all)
    }

    /// First on all loops: what one of them accepts it may hand to another, which is not to be done by then.
    fn stop_listening(&self, drain: &Drain) -> io::Result<Vec<Answer<()>>> {
        let closing = drain.listeners;
        let stop = move || async move { Handle::current().stop_listening(closing).await };
        (0..self.len()).map(|index| Ok(self.spawn_on(index, stop)?)).collect()
    }

    fn drain_loops(&self, drain: &Drain) -> io::Result<Vec<Answer<Drained>>> {
        let each = |index| {
            let drain = drain.of_loop(index);
            Ok(self.spawn_on(index, move || async move { Handle::current().drain(&drain).await })?)
        };
        (0..self.len()).map(each).collect()
    }
}
