//! A thread that holds connections in a descriptor table of its own, so that the limit of descriptors is each thread's.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use evenkeel::Descriptors;

use super::tables::private;

/// Descriptors that a loop or a holder has beside its connections, with room for those that are on their way to others.
const ASIDE: usize = 1_000;

/// What one table allows.
pub(super) fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

/// Connections in one table.
pub(super) fn held_by_one() -> usize {
    descriptors().saturating_sub(ASIDE).max(1)
}

/// Holds connections until it is dropped, and reports an `R` of each thing that is done with them.
pub(super) struct Holder<R> {
    go: Option<Sender<()>>,
    opened: Receiver<io::Result<()>>,
    done: Receiver<io::Result<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<R: Send + 'static> Holder<R> {
    /// Begins to open connections. `open` returns what is to be done with them at each [`go`](Self::go).
    pub(super) fn start<D>(open: impl FnOnce() -> io::Result<D> + Send + 'static) -> io::Result<Self>
    where
        D: FnMut() -> io::Result<R>,
    {
        let (go, begin) = channel();
        let (tell_opened, opened) = channel();
        let (tell_done, done) = channel();
        let hold = move || {
            // The connections are closed before their table ends.
            let (_table, mut act) = match own_table().and_then(|table| Ok((table, open()?))) {
                Ok(both) => both,
                Err(error) => {
                    let _ = tell_opened.send(Err(error));
                    return;
                }
            };
            let _ = tell_opened.send(Ok(()));
            while let Ok(()) = begin.recv() {
                let _ = tell_done.send(act());
            }
        };
        let thread = thread::Builder::new().spawn(hold)?;
        Ok(Holder { go: Some(go), opened, done, thread: Some(thread) })
    }

    /// Waits until all connections are open.
    pub(super) fn opened(&self) -> io::Result<()> {
        self.opened.recv().map_err(|_| ended())?
    }

    /// Tells it to do once what it does with its connections.
    pub(super) fn go(&self) -> io::Result<()> {
        self.go.as_ref().and_then(|go| go.send(()).ok()).ok_or_else(ended)
    }

    /// Waits until that is done.
    pub(super) fn done(&self) -> io::Result<R> {
        self.done.recv().map_err(|_| ended())?
    }
}

impl<R> Drop for Holder<R> {
    fn drop(&mut self) {
        // It ends when nobody can tell it to go; then its connections are closed.
        self.go.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives this thread a table of its own as long as the loop lives, which does nothing else.
fn own_table() -> io::Result<evenkeel::EventLoop> {
    let table = private().build()?;
    match table.handle().descriptors() {
        Descriptors::Refused(why) => Err(io::Error::other(why.to_string())),
        _ => Ok(table),
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread that held connections has ended")
}
