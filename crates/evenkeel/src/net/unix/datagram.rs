//! Datagrams between processes of one machine.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::{Credentials, ReceivedFds};
use crate::core::async_io::Half;
use crate::core::watch::Watched;
use crate::sys::{Fd, PacketAddr, PacketKind, SocketFile, Sys};
use crate::time;

/// How long a sender first waits for room in the queue of a socket that it is not connected to, and how long at most.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(32);

/// A Unix datagram socket: at a path, at a name in the abstract namespace, or unnamed, as one of a pair.
///
/// Nothing is lost or reordered; a full receiver makes the sender wait. What does not fit into the caller's buffer is lost. Any
/// number of tasks may send and receive; all methods are cancel safe. Dropping a socket that has a path removes its file.
pub struct UnixDatagram {
    watched: Option<Watched>,
    /// The file to be removed with it.
    file: Option<SocketFile>,
}

impl UnixDatagram {
    /// A socket at a path, on the current loop. The file of an earlier one is removed.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is too long; the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        Self::bind_addr(&super::at_path(path)?)
    }

    /// A socket at a path, or at a name of the abstract namespace, for which see
    /// [`SocketAddrExt`](std::os::linux::net::SocketAddrExt).
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn bind_addr(at: &SocketAddr) -> io::Result<UnixDatagram> {
        let watched = super::open(PacketKind::UnixDatagram, |sys, fd| super::bind(sys, fd, at))?;
        let file = super::file_of(&watched, at);
        Ok(UnixDatagram { watched: Some(watched), file })
    }

    /// A socket without a name: it can send, and receive from the one that it is connected to.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(Self::unnamed(super::open(PacketKind::UnixDatagram, |_, _| Ok(()))?))
    }

    /// Two that are connected to each other, without names.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (a, b) = super::pair(PacketKind::UnixDatagram)?;
        Ok((Self::unnamed(a), Self::unnamed(b)))
    }

    /// Takes over a Unix datagram socket of the standard library or any other owner, on the current loop; it becomes
    /// non-blocking. Its file, if it has one, stays when it is dropped.
    ///
    /// # Errors
    /// `InvalidInput` if it is none; the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<UnixDatagram> {
        Ok(Self::unnamed(super::import(fd.into(), PacketKind::UnixDatagram)?))
    }

    fn unnamed(watched: Watched) -> UnixDatagram {
        UnixDatagram { watched: Some(watched), file: None }
    }

    fn watched(&self) -> io::Result<&Watched> {
        self.watched.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Gives the socket away, non-blocking as it is; its file stays.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended; the kernel's.
    pub fn into_fd(mut self) -> io::Result<OwnedFd> {
        super::export(self.watched.take().ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Sets where [`send`](Self::send) sends to, and from where alone datagrams are taken.
    ///
    /// # Errors
    /// The kernel's, such as that nobody is there.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.connect_addr(&super::at_path(path)?)
    }

    /// The same with an address.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_addr(&self, to: &SocketAddr) -> io::Result<()> {
        let watched = self.watched()?;
        watched.sys().packet_connect(watched.fd()?, &PacketAddr::Unix(to.clone()))
    }

    /// Sends a datagram to the peer that the socket is connected to, and waits if its queue is full.
    ///
    /// # Errors
    /// The kernel's, such as `ConnectionRefused` when the peer has gone.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.watched()?.io(Half::Write, |sys, fd| sys.packet_send(fd, datagram, None)).await
    }

    /// The same with descriptors.
    ///
    /// # Errors
    /// `InvalidInput` for more than 253 of them; the kernel's.
    pub async fn send_with_fds(&self, datagram: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        super::check(fds)?;
        self.watched()?.io(Half::Write, |sys, fd| sys.send_with_fds(fd, datagram, fds, None)).await
    }

    /// Sends a datagram to the socket at a path. If its queue is full this tries again, 30 times in a second or more: the
    /// kernel reports room only to those who are connected.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn send_to(&self, datagram: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        self.send_to_addr(datagram, &[], &super::at_path(path)?).await
    }

    /// The same with descriptors, and with an address.
    ///
    /// # Errors
    /// As for [`send_with_fds`](Self::send_with_fds).
    pub async fn send_to_addr(
        &self,
        datagram: &[u8],
        fds: &[BorrowedFd<'_>],
        to: &SocketAddr,
    ) -> io::Result<usize> {
        super::check(fds)?;
        let (watched, to) = (self.watched()?, PacketAddr::Unix(to.clone()));
        let mut wait = FIRST_WAIT;
        loop {
            // The kernel does not say whose queue is full, and reports room in the sender's only.
            let send = |sys: &dyn Sys, fd: Fd| match sys.send_with_fds(fd, datagram, fds, Some(&to)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                other => other.map(Some),
            };
            if let Some(n) = watched.io(Half::Write, send).await? {
                return Ok(n);
            }
            time::sleep(wait).await;
            wait = LONGEST_WAIT.min(wait * 2);
        }
    }

    /// Receives a datagram, and says how long it was; what did not fit is lost. Descriptors that came with it are closed.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        self.watched()?.io(Half::Read, |sys, fd| sys.recv(fd, into)).await
    }

    /// The same, with the sender's address.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, from) = self.watched()?.io(Half::Read, |sys, fd| sys.packet_recv(fd, into)).await?;
        match from {
            Some(from) => Ok((n, super::is_unix(from)?)),
            // The sender has no name.
            None => Ok((n, SocketAddr::from_pathname("")?)),
        }
    }

    /// Receives a datagram with at most `most` descriptors.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub async fn recv_with_fds(&self, into: &mut [u8], most: usize) -> io::Result<ReceivedFds> {
        super::recv_with_fds(self.watched()?, into, most).await
    }

    /// Who made the other end of a [`pair`](Self::pair).
    ///
    /// # Errors
    /// `NotConnected` for any other socket: the kernel does not note who sends datagrams.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        super::credentials(self.watched()?)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        super::local_addr(self.watched()?)
    }
}

impl Drop for UnixDatagram {
    fn drop(&mut self) {
        if let Some(watched) = &self.watched {
            super::unbind(watched, self.file);
        }
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixDatagram").field("local_addr", &self.local_addr().ok()).finish_non_exhaustive()
    }
}
