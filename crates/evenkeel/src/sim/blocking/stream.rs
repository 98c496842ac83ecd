//! What blocking streams of all kinds have in common.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::socket::{self, Socket};
use crate::net::SocketOption;
use crate::sys::{Real, Sys};

/// A stream of the standard library, behind [`Stream`].
pub trait StdStream: Read + Write + AsFd + Sized + sealed::Sealed {
    #[doc(hidden)]
    fn again(&self) -> io::Result<Self>;
    #[doc(hidden)]
    fn shut(&self, how: Shutdown) -> io::Result<()>;
    #[doc(hidden)]
    fn block(&self, blocking: bool) -> io::Result<()>;
    #[doc(hidden)]
    fn limit_reads(&self, time: Option<Duration>) -> io::Result<()>;
    #[doc(hidden)]
    fn limit_writes(&self, time: Option<Duration>) -> io::Result<()>;
    #[doc(hidden)]
    fn error(&self) -> io::Result<Option<io::Error>>;
    #[doc(hidden)]
    fn read_shared(&self, into: &mut [u8]) -> io::Result<usize>;
    #[doc(hidden)]
    fn write_shared(&self, from: &[u8]) -> io::Result<usize>;
}

pub(super) mod sealed {
    pub trait Sealed {}
}

/// A blocking stream: one of the world that it was made in, or outside of one that of the standard library. Its methods do what
/// those do, on virtual time in a world.
#[derive(Debug)]
pub struct Stream<S>(pub(super) Either<S>);

/// Which kernel has it.
#[derive(Debug)]
pub(super) enum Either<S> {
    Std(S),
    Simulated(Socket),
}

impl<S: StdStream> Stream<S> {
    pub(super) fn simulated(socket: Socket) -> Self {
        Stream(Either::Simulated(socket))
    }

    /// The standard library's, if it is that: for what a model has not.
    pub fn std(&self) -> Option<&S> {
        match &self.0 {
            Either::Std(stream) => Some(stream),
            Either::Simulated(_) => None,
        }
    }

    /// The socket behind a descriptor that a loop of the same kernel has given away: non-blocking, as it was there.
    ///
    /// # Errors
    /// The kernel's: it is no descriptor of this world, for instance.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self>
    where
        S: From<OwnedFd>,
    {
        Ok(match socket::desk() {
            Some(desk) => Self::simulated(Socket::redeem(desk, fd)?),
            None => Stream(Either::Std(S::from(fd))),
        })
    }

    /// One more descriptor of the same socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Stream(match &self.0 {
            Either::Std(stream) => Either::Std(stream.again()?),
            Either::Simulated(socket) => Either::Simulated(socket.duplicate()?),
        }))
    }

    /// Ends a half, or both.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.0 {
            Either::Std(stream) => stream.shut(how),
            Either::Simulated(socket) => socket.shutdown(how),
        }
    }

    /// Whether calls return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.0 {
            Either::Std(stream) => stream.block(!nonblocking)?,
            Either::Simulated(socket) => socket.set_nonblocking(nonblocking),
        }
        Ok(())
    }

    /// How long a read may wait. Default: for ever.
    ///
    /// # Errors
    /// A time of zero is refused.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match &self.0 {
            Either::Std(stream) => stream.limit_reads(time),
            Either::Simulated(socket) => socket.set_read_timeout(time),
        }
    }

    /// How long a write may wait. Default: for ever.
    ///
    /// # Errors
    /// A time of zero is refused.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match &self.0 {
            Either::Std(stream) => stream.limit_writes(time),
            Either::Simulated(socket) => socket.set_write_timeout(time),
        }
    }

    /// The pending error, which is taken by being asked for.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match &self.0 {
            Either::Std(stream) => stream.error(),
            Either::Simulated(socket) => socket.take_error(),
        }
    }

    /// Sets an option of the socket, such as that closing it resets the connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        match &self.0 {
            Either::Std(stream) => Real.set_option(stream.as_fd().as_raw_fd(), option),
            Either::Simulated(socket) => socket.set_option(option),
        }
    }

    /// The descriptor, for a loop of the same kernel: see [`net::Stream::from_fd`](crate::net::Stream::from_fd).
    ///
    /// # Errors
    /// The kernel's.
    pub fn into_fd(self) -> io::Result<OwnedFd>
    where
        S: Into<OwnedFd>,
    {
        match self.0 {
            Either::Std(stream) => Ok(stream.into()),
            Either::Simulated(socket) => socket.ticket(),
        }
    }
}

impl<S: StdStream> Read for Stream<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self).read(into)
    }
}

impl<S: StdStream> Read for &Stream<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Either::Std(stream) => stream.read_shared(into),
            Either::Simulated(socket) => socket.recv(into),
        }
    }
}

impl<S: StdStream> Write for Stream<S> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        (&*self).write(from)
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            Either::Std(stream) => stream.write_vectored(from),
            Either::Simulated(socket) => {
                let all: Vec<u8> = from.iter().flat_map(|part| part.iter().copied()).collect();
                socket.send(&all)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: StdStream> Write for &Stream<S> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Either::Std(stream) => stream.write_shared(from),
            Either::Simulated(socket) => socket.send(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: StdStream> From<S> for Stream<S> {
    fn from(stream: S) -> Self {
        Stream(Either::Std(stream))
    }
}
