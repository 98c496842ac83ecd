//! Descriptors of others: waiting until one is ready, without giving it to the loop.
//!
//! The loop reads and writes its own sockets and files. What another library has opened (an `inotify` or `timerfd`
//! descriptor, a database client's socket, a device, the descriptor of a tracing ring) it must not read: it can only say
//! when reading makes sense. [`AsyncFd`] does that, on every backend and with one meaning.
//!
//! ```
//! use std::io::{Read, Write};
//! use evenkeel::{EventLoop, fd::AsyncFd};
//! let mut events = EventLoop::new()?;
//! let heard = events.block_on(async {
//!     let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
//!     ours.set_nonblocking(true)?;
//!     let ours = AsyncFd::new(ours)?;
//!     let task = evenkeel::spawn(async move {
//!         let mut bytes = [0; 16];
//!         let n = ours.read_with(|mut socket| socket.read(&mut bytes)).await?;
//!         Ok::<_, std::io::Error>(bytes[..n].to_vec())
//!     });
//!     theirs.write_all(b"ready")?;
//!     task.await.map_err(std::io::Error::other)?
//! })??;
//! assert_eq!(heard, b"ready");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What is promised
//!
//! - **Readiness is never lost.** What the kernel has reported stays until an operation is refused with
//!   [`WouldBlock`](std::io::ErrorKind::WouldBlock); a report that comes while it is being tried is kept.
//! - **It may be spurious.** A report can be of something that another process, or another task, has taken meanwhile. So an
//!   operation must not block: the descriptor must be in non-blocking mode ([`AsyncFd::set_nonblocking`]), or the operation
//!   must be one that does not wait, such as `recv` with `MSG_DONTWAIT`.
//! - **The end and errors are readiness**, of both directions for a hang-up or an error, of reading for the end of the peer's
//!   half. The operation that is tried next says which.
//! - **Any number of tasks may wait** for the same direction. One report wakes them all; those that come too late are refused,
//!   and wait again. The `poll_` functions have one place for each direction: the last caller is woken.
//! - **Nobody waits, nothing happens.** A descriptor that is ready and of which nobody takes notice costs no turn of the
//!   loop on the level-triggered backends, and one for each change on the others.
//! - **Dropping it ends it at once**: the kernel has forgotten it when the drop returns, so closing the descriptor after
//!   that is seen by the peer at once, on io_uring too.
//!
//! A level-triggered backend reports a condition for as long as it lasts. If operations are refused all the same (the error
//! queue of a socket is unread, say), they are tried again every ten milliseconds.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use crate::core::async_io::Half;
pub use crate::core::watch::Interest;
use crate::core::watch::Watched;
use crate::handle::Handle;

/// A descriptor of `T`, which can be waited for. See the [module](self) for what that means.
///
/// The loop watches a duplicate of the descriptor (`F_DUPFD_CLOEXEC`), not the number that `T` has: whatever becomes of `T`
/// behind its back, it never watches or takes out a number that meanwhile means something else. So the same descriptor can be
/// watched several times, and each `AsyncFd` occupies one number more. It is closed before `T` is.
pub struct AsyncFd<T: AsFd> {
    // The first to be dropped.
    watched: Watched,
    inner: T,
}

impl<T: AsFd> AsyncFd<T> {
    /// Watches a descriptor on the current loop, in both directions. Its mode stays as it is.
    ///
    /// # Errors
    /// `Unsupported` for what cannot be waited for: files, directories and some devices (see [`fs`](crate::fs) for files), and
    /// descriptors past 1,023 on [`Backend::Select`](crate::Backend::Select). Otherwise the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn new(inner: T) -> io::Result<Self> {
        Self::with_interest(inner, Interest::BOTH)
    }

    /// The same, to be waited for only as `interest` says: what is not asked for costs nothing.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn with_interest(inner: T, interest: Interest) -> io::Result<Self> {
        let shared = Handle::current().shared;
        let sys = shared.driver.sys();
        let fd = sys.duplicate(inner.as_fd())?;
        let pollable = sys.is_pollable(fd).and_then(|pollable| {
            let what = "this descriptor cannot be waited for: files, directories and some devices count as ready at any \
                        time; for files there is evenkeel::fs";
            if pollable { Ok(()) } else { Err(io::Error::new(io::ErrorKind::Unsupported, what)) }
        });
        if let Err(e) = pollable {
            sys.close(fd);
            return Err(e);
        }
        Ok(AsyncFd { watched: Watched::new(shared, fd, interest, false)?, inner })
    }

    /// Sets or clears the non-blocking mode. It belongs to the open file, not to the descriptor: all copies of it, in other
    /// processes too, have the same.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(self.inner.as_fd(), on)?)
    }

    /// The descriptor's owner.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The descriptor's owner. If it is replaced, the old descriptor is the one that goes on being watched.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Ends watching, and gives the owner back.
    pub fn into_inner(self) -> T {
        let AsyncFd { watched, inner } = self;
        drop(watched);
        inner
    }

    /// Waits until something can be read: data, the end, an error, or, if it was asked for, something urgent.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// `InvalidInput` if reading was not asked for, `NotConnected` when the loop has ended; the kernel's, if it cannot watch any
    /// more.
    pub async fn readable(&self) -> io::Result<Ready<'_, T>> {
        self.ready(Half::Read).await
    }

    /// Waits until something can be written, or will fail at once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As for [`readable`](Self::readable).
    pub async fn writable(&self) -> io::Result<Ready<'_, T>> {
        self.ready(Half::Write).await
    }

    async fn ready(&self, half: Half) -> io::Result<Ready<'_, T>> {
        let reports = self.watched.ready(half).await?;
        Ok(Ready { fd: self, half, reports })
    }

    /// Performs an operation that reads, when it is not refused with `WouldBlock`. It is tried each time that the descriptor
    /// may be ready; `Interrupted` is tried again, too.
    ///
    /// Cancel safe: an operation that was performed is reported by the same poll.
    ///
    /// # Errors
    /// The operation's, and those of [`readable`](Self::readable).
    pub async fn read_with<R>(&self, mut read: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.watched.io(Half::Read, |_, _| read(&self.inner)).await
    }

    /// The same for an operation that writes.
    ///
    /// # Errors
    /// The operation's, and those of [`writable`](Self::writable).
    pub async fn write_with<R>(&self, mut write: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.watched.io(Half::Write, |_, _| write(&self.inner)).await
    }

    /// As [`read_with`](Self::read_with), for an owner that must be borrowed exclusively.
    ///
    /// # Errors
    /// As for [`read_with`](Self::read_with).
    pub async fn read_with_mut<R>(&mut self, mut read: impl FnMut(&mut T) -> io::Result<R>) -> io::Result<R> {
        let AsyncFd { watched, inner } = self;
        watched.io(Half::Read, |_, _| read(inner)).await
    }

    /// As [`write_with`](Self::write_with), for an owner that must be borrowed exclusively.
    ///
    /// # Errors
    /// As for [`write_with`](Self::write_with).
    pub async fn write_with_mut<R>(
        &mut self,
        mut write: impl FnMut(&mut T) -> io::Result<R>,
    ) -> io::Result<R> {
        let AsyncFd { watched, inner } = self;
        watched.io(Half::Write, |_, _| write(inner)).await
    }

    /// As [`readable`](Self::readable), for those who write their own futures. Of the tasks that poll, the last one is woken.
    ///
    /// # Errors
    /// As for [`readable`](Self::readable).
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready<'_, T>>> {
        let reports = ready!(self.watched.poll_ready(cx, Half::Read))?;
        Poll::Ready(Ok(Ready { fd: self, half: Half::Read, reports }))
    }

    /// As [`writable`](Self::writable), for those who write their own futures. Of the tasks that poll, the last one is woken.
    ///
    /// # Errors
    /// As for [`writable`](Self::writable).
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready<'_, T>>> {
        let reports = ready!(self.watched.poll_ready(cx, Half::Write))?;
        Poll::Ready(Ok(Ready { fd: self, half: Half::Write, reports }))
    }
}

impl<T: AsFd> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFd").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// One direction of a descriptor that may be ready. Dropping it changes nothing: the next wait is over at once.
pub struct Ready<'a, T: AsFd> {
    fd: &'a AsyncFd<T>,
    half: Half,
    reports: u32,
}

/// The descriptor was not ready after all, and is not taken for ready any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady;

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the descriptor is not ready")
    }
}

impl std::error::Error for NotReady {}

impl From<NotReady> for io::Error {
    fn from(not: NotReady) -> Self {
        io::Error::new(io::ErrorKind::WouldBlock, not)
    }
}

impl<'a, T: AsFd> Ready<'a, T> {
    /// Tries an operation of this direction. If it is refused with `WouldBlock`, the descriptor is not ready until the kernel
    /// reports it again; any other result leaves it ready.
    ///
    /// # Errors
    /// [`NotReady`] if it was refused.
    pub fn try_io<R>(
        &mut self,
        operation: impl FnOnce(&'a T) -> io::Result<R>,
    ) -> Result<io::Result<R>, NotReady> {
        // The operation is the newest that is known of the descriptor.
        self.reports = self.fd.watched.begin(self.half);
        match operation(&self.fd.inner) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.clear();
                Err(NotReady)
            }
            other => Ok(other),
        }
    }

    /// The descriptor has refused an operation that was begun with this readiness: it is not ready, unless the kernel has
    /// reported it since. Without such a refusal this must not be called: what is there to be read may never be reported
    /// again.
    pub fn clear(&mut self) {
        self.fd.watched.refused(self.half, self.reports);
    }

    /// The descriptor's owner.
    pub fn get_ref(&self) -> &'a T {
        &self.fd.inner
    }
}

impl<T: AsFd> fmt::Debug for Ready<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("half", &self.half).finish_non_exhaustive()
    }
}
