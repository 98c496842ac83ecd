//! Standard output and standard error.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::open::Way;
use crate::core::async_io::Half;
use crate::core::whole;

/// Standard output or standard error, made by [`stdout`](super::stdout) and [`stderr`](super::stderr). It stays on its loop's
/// thread.
///
/// [`flush`](Self::flush) before the program ends: what a thread has yet to write may be lost otherwise.
pub struct Writer {
    way: Way,
}

impl Writer {
    pub(super) fn new(way: Way) -> Self {
        Writer { way }
    }

    /// Writes some of `from`, at least one byte unless it is empty.
    ///
    /// Cancel safe: dropped before it is ready, nothing was written.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody reads any more; the kernel's, perhaps for bytes that were taken before.
    pub fn write(&mut self, from: &[u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| self.poll_write(cx, from))
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

    /// Waits until everything written has been handed to the kernel.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// What went wrong with bytes that were taken before.
    pub fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        poll_fn(move |cx| self.poll_flush(cx))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if from.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match &mut self.way {
            Way::Own(watched) => watched.poll_io(cx, Half::Write, |sys, fd| sys.write(fd, from)),
            Way::Socket(watched) => watched.poll_io(cx, Half::Write, |sys, fd| sys.send(fd, from)),
            Way::Threads(threads) => threads.poll_write(cx, from),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Own(_) | Way::Socket(_) => Poll::Ready(Ok(())),
            Way::Threads(threads) => threads.poll_flush(cx),
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("way", &self.way.name()).finish_non_exhaustive()
    }
}
