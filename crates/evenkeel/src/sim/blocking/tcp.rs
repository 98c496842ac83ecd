//! TCP, for code that blocks.

use std::io::{self, Read, Write};
use std::net::{self, Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::socket::{self, Socket, internet};
use super::stream::{Either, StdStream, Stream, sealed};
use crate::net::{Addr, SocketOption};

/// A connection.
pub type TcpStream = Stream<net::TcpStream>;

impl sealed::Sealed for net::TcpStream {}

impl StdStream for net::TcpStream {
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

/// The first address that works, as the standard library takes them.
fn first<T>(to: impl ToSocketAddrs, mut make: impl FnMut(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address");
    for addr in to.to_socket_addrs()? {
        match make(addr) {
            Ok(made) => return Ok(made),
            Err(e) => last = e,
        }
    }
    Err(last)
}

impl TcpStream {
    /// Connects, and waits until that is done.
    ///
    /// # Errors
    /// The kernel's: nobody listens there, or nobody answers.
    pub fn connect(to: impl ToSocketAddrs) -> io::Result<Self> {
        match socket::desk() {
            Some(desk) => first(to, |to| Socket::connect(desk.clone(), Addr::Ip(to))).map(Self::simulated),
            None => net::TcpStream::connect(to).map(Into::into),
        }
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.set_option(SocketOption::NoDelay(nodelay))
    }

    /// The address of this end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Either::Std(stream) => stream.local_addr(),
            Either::Simulated(socket) => internet(&socket.address(false)?),
        }
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Either::Std(stream) => stream.peer_addr(),
            Either::Simulated(socket) => internet(&socket.address(true)?),
        }
    }
}

/// Accepts connections: one of the world that it was made in, or outside of one that of the standard library.
#[derive(Debug)]
pub struct TcpListener(Either<net::TcpListener>);

impl TcpListener {
    /// Listens at an address.
    ///
    /// # Errors
    /// The kernel's: it is taken, for instance.
    pub fn bind(at: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(TcpListener(match socket::desk() {
            Some(desk) => Either::Simulated(first(at, |at| Socket::listen(desk.clone(), Addr::Ip(at)))?),
            None => Either::Std(net::TcpListener::bind(at)?),
        }))
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Either::Std(listener) => listener.accept().map(|(stream, from)| (stream.into(), from)),
            Either::Simulated(socket) => {
                let (stream, from) = socket.accept()?;
                Ok((Stream::simulated(stream), internet(&from)?))
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Either::Std(listener) => listener.local_addr(),
            Either::Simulated(socket) => internet(&socket.address(false)?),
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

    /// Whether [`accept`](Self::accept) returns `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.0 {
            Either::Std(listener) => listener.set_nonblocking(nonblocking)?,
            Either::Simulated(socket) => socket.set_nonblocking(nonblocking),
        }
        Ok(())
    }

    /// The descriptor, for a loop of the same kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self.0 {
            Either::Std(listener) => Ok(listener.into()),
            Either::Simulated(socket) => socket.ticket(),
        }
    }
}
