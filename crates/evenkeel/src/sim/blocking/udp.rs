//! UDP, for code that blocks.

use std::io;
use std::net::{self, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::socket::{self, Socket};
use super::stream::Either;
use crate::sim::kernel::{Kind, Udp};

/// A socket for datagrams: one of the world that it was made in, or outside of one that of the standard library.
#[derive(Debug)]
pub struct UdpSocket(Either<net::UdpSocket>);

fn one(to: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "there is no address");
    to.to_socket_addrs()?.next().ok_or_else(none)
}

impl UdpSocket {
    /// Opens one at an address.
    ///
    /// # Errors
    /// The kernel's: it is taken, for instance.
    pub fn bind(at: impl ToSocketAddrs) -> io::Result<Self> {
        let Some(desk) = socket::desk() else { return Ok(UdpSocket(Either::Std(net::UdpSocket::bind(at)?))) };
        let at = one(at)?;
        let socket =
            Socket::open(desk, move |kernel, host| kernel.open(host, Kind::Udp(Udp::new(at.is_ipv6()))))?;
        socket.quick(move |kernel, host, fd| {
            let id = kernel.lookup(host, fd)?;
            kernel.udp_bind(host, id, at)
        })?;
        Ok(UdpSocket(Either::Simulated(socket)))
    }

    /// The socket behind a descriptor that a loop of the same kernel has given away: non-blocking, as it was there.
    ///
    /// # Errors
    /// The kernel's: it is no descriptor of this world, for instance.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(UdpSocket(match socket::desk() {
            Some(desk) => Either::Simulated(Socket::redeem(desk, fd)?),
            None => Either::Std(fd.into()),
        }))
    }

    /// Chooses whom [`send`](Self::send) sends to, and of whom [`recv`](Self::recv) hears.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(&self, to: impl ToSocketAddrs) -> io::Result<()> {
        match &self.0 {
            Either::Std(socket) => socket.connect(to),
            Either::Simulated(socket) => {
                let to = one(to)?;
                socket.quick(move |kernel, host, fd| {
                    let id = kernel.lookup(host, fd)?;
                    kernel.udp_connect(host, id, to)
                })
            }
        }
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send_to(&self, datagram: &[u8], to: impl ToSocketAddrs) -> io::Result<usize> {
        match &self.0 {
            Either::Std(socket) => socket.send_to(datagram, to),
            Either::Simulated(socket) => transmit(socket, datagram, Some(one(to)?)),
        }
    }

    /// Sends a datagram to the one that was chosen by [`connect`](Self::connect).
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Either::Std(socket) => socket.send(datagram),
            Either::Simulated(socket) => transmit(socket, datagram, None),
        }
    }

    /// Waits for the next datagram. What of it has no room is lost.
    ///
    /// # Errors
    /// The kernel's.
    pub fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match &self.0 {
            Either::Std(socket) => socket.recv_from(into),
            Either::Simulated(socket) => {
                let most = into.len();
                let (got, from) = socket.reading(move |kernel, host, fd| {
                    let id = kernel.lookup(host, fd)?;
                    let mut bytes = vec![0; most];
                    let (len, from) = kernel.udp_recv(id, &mut bytes)?;
                    bytes.truncate(len);
                    Ok((bytes, from))
                })?;
                into[..got.len()].copy_from_slice(&got);
                Ok((got.len(), from))
            }
        }
    }

    /// Waits for the next datagram of the one that was chosen by [`connect`](Self::connect).
    ///
    /// # Errors
    /// The kernel's.
    pub fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        self.recv_from(into).map(|(len, _)| len)
    }

    /// Where it is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Either::Std(socket) => socket.local_addr(),
            Either::Simulated(socket) => socket.quick(|kernel, host, fd| {
                let id = kernel.lookup(host, fd)?;
                kernel.udp_address(id, false)
            }),
        }
    }

    /// Whether calls return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.0 {
            Either::Std(socket) => socket.set_nonblocking(nonblocking)?,
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
            Either::Std(socket) => socket.set_read_timeout(time),
            Either::Simulated(socket) => socket.set_read_timeout(time),
        }
    }

    /// The standard library's, if it is that: for what a model has not.
    pub fn std(&self) -> Option<&net::UdpSocket> {
        match &self.0 {
            Either::Std(socket) => Some(socket),
            Either::Simulated(_) => None,
        }
    }

    /// The descriptor, for a loop of the same kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self.0 {
            Either::Std(socket) => Ok(socket.into()),
            Either::Simulated(socket) => socket.ticket(),
        }
    }
}

fn transmit(socket: &Socket, datagram: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
    let datagram = datagram.to_vec();
    socket.sending(move |kernel, host, fd| {
        let id = kernel.lookup(host, fd)?;
        kernel.udp_send(host, id, &datagram, to)
    })
}
