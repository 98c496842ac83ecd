//! The end of a pipe that is written.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::fs::OFlags;

use crate::core::Shared;
use crate::core::async_io::Half;
use crate::core::watch::{Interest, Watched};
use crate::core::whole;
use crate::handle::Handle;
use crate::sys::Fd;

/// The kernel's most for one vectored write.
const MOST_SLICES: usize = 1024;

/// The end of a pipe that is written. It stays on its loop's thread; dropping it closes it, after which the reader
/// reads the end. Bytes are handed to the kernel at once, so there is nothing to flush.
pub struct Sender {
    /// None once it is closed.
    watched: Option<Watched>,
}

impl Sender {
    /// Takes over a non-blocking descriptor.
    pub(crate) fn of(shared: &Rc<Shared>, fd: Fd) -> io::Result<Self> {
        Ok(Sender { watched: Some(Watched::new(shared.clone(), fd, Interest::WRITABLE, true)?) })
    }

    fn import(fd: OwnedFd) -> io::Result<Self> {
        let shared = Handle::current().shared;
        let fd = shared.driver.sys().import(fd)?;
        Self::of(&shared, fd)
    }

    /// Opens a named pipe on the current loop.
    ///
    /// The path is looked up on this thread.
    ///
    /// # Errors
    /// The kernel's, among them `ENXIO` if nobody has it open for reading; `InvalidInput` if it is no pipe.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn open(path: impl AsRef<Path>) -> io::Result<Sender> {
        Self::import(super::open(path.as_ref(), OFlags::WRONLY, OFlags::RDONLY, "writing")?)
    }

    /// Takes over the writing end of a pipe, on the current loop. It becomes non-blocking, for all who share its open
    /// file description: for the process's standard output see [`stdio`](crate::stdio).
    ///
    /// # Errors
    /// `InvalidInput` if it is something else; the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Sender> {
        let fd = fd.into();
        super::check(fd.as_fd(), OFlags::RDONLY, "writing")?;
        Self::import(fd)
    }

    /// Gives the descriptor away, non-blocking as it is.
    ///
    /// # Errors
    /// `NotConnected` when it is closed or the loop has ended.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        let watched = self.watched.ok_or(io::ErrorKind::NotConnected)?;
        let shared = watched.shared().clone();
        shared.driver.sys().export(watched.into_fd()?)
    }

    /// Gives the descriptor away as other programs expect one, which blocks: a child's standard output, for instance.
    ///
    /// # Errors
    /// `NotConnected` when it is closed or the loop has ended; the kernel's.
    pub fn into_blocking_fd(self) -> io::Result<OwnedFd> {
        super::blocking(self.into_fd()?)
    }

    /// Writes some of `from`, at least one byte unless it is empty.
    ///
    /// Cancel safe: dropped before it is ready, nothing was written.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody reads any more; the kernel's.
    pub fn write(&mut self, from: &[u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| self.poll_write(cx, from))
    }

    /// Writes some of what `from` has, in order, at least one byte unless all are empty.
    ///
    /// Cancel safe: dropped before it is ready, nothing was written.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn write_vectored(&mut self, from: &[io::IoSlice<'_>]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write_vectored(cx, from)).await
    }

    /// Writes all of `from`.
    ///
    /// Not cancel safe: a part may have been written when the future is dropped.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn write_all(&mut self, from: &[u8]) -> impl Future<Output = io::Result<()>> {
        whole::write_all(from, |cx, rest| self.poll_write(cx, rest))
    }

    /// Closes it, as dropping it does: the reader reads the end after what was written. Writing is `BrokenPipe` then.
    pub fn close(&mut self) {
        self.watched = None;
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if from.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(watched) = &self.watched else { return closed() };
        watched.poll_io(cx, Half::Write, |sys, fd| sys.write(fd, from))
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Empty slices must not be all that the kernel sees.
        let first = from.iter().position(|slice| !slice.is_empty());
        let Some(from) = first.map(|first| &from[first..]) else { return Poll::Ready(Ok(0)) };
        let from = &from[..from.len().min(MOST_SLICES)];
        let Some(watched) = &self.watched else { return closed() };
        watched.poll_io(cx, Half::Write, |sys, fd| sys.write_vectored(fd, from))
    }
}

fn closed<R>() -> Poll<io::Result<R>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.watched.is_none()).finish_non_exhaustive()
    }
}
