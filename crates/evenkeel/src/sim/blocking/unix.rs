//! Unix streams, for code that blocks.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net;
use std::path::Path;
use std::time::Duration;

use super::socket::{self, Socket};
use super::stream::{Either, StdStream, Stream, sealed};
use crate::net::Addr;

/// A connection.
pub type UnixStream = Stream<net::UnixStream>;

impl sealed::Sealed for net::UnixStream {}

impl StdStream for net::UnixStream {
    fn again(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }

    fn block(&self, blocking: bool) -> io::Result<()> {
        self.set_nonblocking(!blocking)
    }

    fn limit_reads(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(time)
    }

    fn limit_writes(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_write_timeout(time)
    }

    fn error(&self) -> io::Result<Option<io::Error>> {
        self.take_error()
    }

    fn read_shared(&self, into: &mut [u8]) -> io::Result<usize> {
        (&*self).read(into)
    }

    fn write_shared(&self, from: &[u8]) -> io::Result<usize> {
        (&*self).write(from)
    }
}

impl UnixStream {
    /// Connects to a socket's file.
    ///
    /// # Errors
    /// The kernel's: there is no such file, or nobody listens there.
    pub fn connect(to: impl AsRef<Path>) -> io::Result<Self> {
        match socket::desk() {
            Some(desk) => {
                Socket::connect(desk, Addr::Unix(Some(to.as_ref().to_owned()))).map(Self::simulated)
            }
            None => net::UnixStream::connect(to).map(Into::into),
        }
    }

    /// Two ends that are connected to each other.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pair() -> io::Result<(Self, Self)> {
        match socket::desk() {
            Some(desk) => Socket::pair(desk).map(|(a, b)| (Self::simulated(a), Self::simulated(b))),
            None => net::UnixStream::pair().map(|(a, b)| (a.into(), b.into())),
        }
    }
}

/// Accepts connections: one of the world that it was made in, or outside of one that of the standard library.
#[derive(Debug)]
pub struct UnixListener(Either<net::UnixListener>);

impl UnixListener {
    /// Listens at a file, which it makes.
    ///
    /// # Errors
    /// The kernel's: it is there already, for instance.
    pub fn bind(at: impl AsRef<Path>) -> io::Result<Self> {
        Ok(UnixListener(match socket::desk() {
            Some(desk) => Either::Simulated(Socket::listen(desk, Addr::Unix(Some(at.as_ref().to_owned())))?),
            None => Either::Std(net::UnixListener::bind(at)?),
        }))
    }

    /// Waits for the next connection, and tells from where it is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn accept(&self) -> io::Result<(UnixStream, Addr)> {
        match &self.0 {
            Either::Std(listener) => {
                let (stream, from) = listener.accept()?;
                Ok((stream.into(), Addr::Unix(from.as_pathname().map(Path::to_owned))))
            }
            Either::Simulated(socket) => {
                let (stream, from) = socket.accept()?;
                Ok((Stream::simulated(stream), from))
            }
        }
    }

    /// How many connections may wait to be accepted, from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_backlog(&self, backlog: u16) -> io::Result<()> {
        match &self.0 {
            Either::Std(listener) => Ok(rustix::net::listen(listener, backlog.into())?),
            Either::Simulated(socket) => socket.set_backlog(backlog),
        }
    }

    /// The standard library's, if it is that: for what a model has not.
    pub fn std(&self) -> Option<&net::UnixListener> {
        match &self.0 {
            Either::Std(listener) => Some(listener),
            Either::Simulated(_) => None,
        }
    }
}
