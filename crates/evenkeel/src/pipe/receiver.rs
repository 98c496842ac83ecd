//! The end of a pipe that is read.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::core::Shared;
use crate::core::async_io::Half;
use crate::core::watch::{Interest, Watched};
use crate::core::whole;
use crate::handle::Handle;
use crate::sys::{Fd, PollEntry, Sys, poll_bits};

/// The end of a pipe that is read. It stays on its loop's thread; dropping it closes it.
pub struct Receiver {
    watched: Watched,
}

impl Receiver {
    /// Takes over a non-blocking descriptor.
    pub(crate) fn of(shared: &Rc<Shared>, fd: Fd) -> io::Result<Self> {
        Ok(Receiver { watched: Watched::new(shared.clone(), fd, Interest::READABLE, true)? })
    }

    fn import(fd: OwnedFd) -> io::Result<Self> {
        let shared = Handle::current().shared;
        let fd = shared.driver.sys().import(fd)?;
        Self::of(&shared, fd)
    }

    /// Opens a named pipe on the current loop, whether somebody writes to it or not: reading waits for a writer, and
    /// ends when all writers have gone. Whoever wants to go on then opens it anew.
    ///
    /// The path is looked up on this thread.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` if it is no pipe.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn open(path: impl AsRef<Path>) -> io::Result<Receiver> {
        Self::import(super::open(path.as_ref(), OFlags::RDONLY, OFlags::WRONLY, "reading")?)
    }

    /// Takes over the reading end of a pipe, on the current loop. It becomes non-blocking, for all who share its open
    /// file description: for the process's standard input see [`stdio`](crate::stdio).
    ///
    /// # Errors
    /// `InvalidInput` if it is something else; the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Receiver> {
        let fd = fd.into();
        super::check(fd.as_fd(), OFlags::WRONLY, "reading")?;
        Self::import(fd)
    }

    /// Gives the descriptor away, non-blocking as it is.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        let shared = self.watched.shared().clone();
        shared.driver.sys().export(self.watched.into_fd()?)
    }

    /// Gives the descriptor away as other programs expect one, which blocks: a child's standard input, for instance.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended; the kernel's.
    pub fn into_blocking_fd(self) -> io::Result<OwnedFd> {
        super::blocking(self.into_fd()?)
    }

    /// Reads at least one byte into `into`; 0 is the end, or an empty `into`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self, into: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| self.poll_read(cx, into))
    }

    /// Fills `into`.
    ///
    /// Not cancel safe: what was read before the future is dropped is in `into`, but nobody knows how much.
    ///
    /// # Errors
    /// The kernel's, or `UnexpectedEof` at the end.
    pub async fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        whole::read_exact(into, |cx, rest| self.poll_read(cx, rest)).await
    }

    /// Appends everything up to the end to `into`, and returns how much that was. There is no bound: for a writer that is
    /// not trusted, use [`read_with`](Self::read_with).
    ///
    /// Cancel safe: what was read before the future is dropped is in `into`.
    ///
    /// # Errors
    /// The kernel's; what was read before is in `into`.
    pub async fn read_to_end(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let before = into.len();
        while self.read_with(|bytes| into.extend_from_slice(bytes)).await?.is_some() {}
        Ok(into.len() - before)
    }

    /// Lends the next bytes, at least one and in the loop's own memory, to `take`. None at the end. An idle pipe needs no
    /// buffer.
    ///
    /// Cancel safe: `take` has run and its result is returned, or it has not run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_with<R>(
        &mut self,
        take: impl FnOnce(&[u8]) -> R,
    ) -> impl Future<Output = io::Result<Option<R>>> {
        let mut take = Some(take);
        poll_fn(move |cx| {
            self.poll_lend(cx, usize::MAX, |bytes| match take.take() {
                Some(take) if !bytes.is_empty() => Some(take(bytes)),
                _ => None,
            })
        })
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if into.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.watched.poll_io(cx, Half::Read, |sys, fd| read(sys, fd, into))
    }

    /// Lends at most `most` bytes, which is above zero; an empty slice at the end.
    pub(crate) fn poll_lend<R>(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        lend: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        let (shared, mut lend) = (self.watched.shared(), Some(lend));
        self.watched.poll_io(cx, Half::Read, |sys, fd| {
            let mut memory = shared.take_scratch();
            let room = most.min(memory.len());
            let got = read(sys, fd, &mut memory[..room]);
            let result = got.and_then(|n| {
                // What is refused is tried again; what was read is lent, once.
                let lend = lend.take().ok_or(io::ErrorKind::WouldBlock)?;
                Ok(lend(&memory[..n]))
            });
            shared.put_scratch(memory);
            result
        })
    }
}

/// Reads once. A named pipe that no writer has opened yet reads as one at its end; here it blocks instead.
fn read(sys: &dyn Sys, fd: Fd, into: &mut [u8]) -> io::Result<usize> {
    loop {
        let n = sys.read(fd, into)?;
        if n > 0 {
            return Ok(n);
        }
        let mut now = [PollEntry { fd, events: poll_bits::IN, revents: 0 }];
        sys.poll(&mut now, Some(Duration::ZERO))?;
        if now[0].revents == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A writer may have come, written and gone just now.
        if now[0].revents & poll_bits::IN == 0 {
            return Ok(0);
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
