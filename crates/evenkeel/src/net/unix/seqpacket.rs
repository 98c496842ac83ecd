//! Connections that keep the boundaries of messages.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;

use super::{Credentials, ReceivedFds};
use crate::core::accept::is_of_one_connection;
use crate::core::async_io::Half;
use crate::core::watch::Watched;
use crate::sys::{PacketAddr, PacketKind, SocketFile};

/// Connections that the kernel may hold before they are accepted; it has a limit of its own.
const BACKLOG: i32 = 4096;

/// A connection that carries messages, each whole and in order, with descriptors if need be. Messages have at least one
/// byte: one without any is the end.
///
/// Any number of tasks may send and receive; all methods are cancel safe.
pub struct Seqpacket {
    watched: Watched,
}

impl Seqpacket {
    /// Connects to a listener at a path, on the current loop.
    ///
    /// # Errors
    /// `WouldBlock` when the listener has a full backlog: nobody is told when it has room, so it is to be tried later. Otherwise
    /// the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Seqpacket> {
        Self::connect_addr(&super::at_path(path)?)
    }

    /// The same with an address, such as a name in the abstract namespace.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn connect_addr(to: &SocketAddr) -> io::Result<Seqpacket> {
        let to = PacketAddr::Unix(to.clone());
        let watched = super::open(PacketKind::UnixSeqpacket, |sys, fd| sys.packet_connect(fd, &to))?;
        Ok(Seqpacket { watched })
    }

    /// Both ends of a connection.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn pair() -> io::Result<(Seqpacket, Seqpacket)> {
        let (a, b) = super::pair(PacketKind::UnixSeqpacket)?;
        Ok((Seqpacket { watched: a }, Seqpacket { watched: b }))
    }

    /// Takes over a connected seqpacket socket of any owner, on the current loop; it becomes non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is none; the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Seqpacket> {
        Ok(Seqpacket { watched: super::import(fd.into(), PacketKind::UnixSeqpacket)? })
    }

    /// Gives the socket away, non-blocking as it is.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended; the kernel's.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        super::export(self.watched)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// `InvalidInput` for one without bytes; the kernel's: `BrokenPipe` when the peer has gone, `EMSGSIZE` for one that is
    /// larger than the send buffer.
    pub async fn send(&self, message: &[u8]) -> io::Result<usize> {
        super::send(&self.watched, message, &[]).await
    }

    /// The same with descriptors.
    ///
    /// # Errors
    /// As for [`send`](Self::send), and `InvalidInput` for more than 253 descriptors.
    pub async fn send_with_fds(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        super::send(&self.watched, message, fds).await
    }

    /// Receives a message, and says how long it was: 0 at the end. What did not fit is lost. Descriptors that came with it are
    /// closed.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        self.watched.io(Half::Read, |sys, fd| sys.recv(fd, into)).await
    }

    /// Receives a message with at most `most` descriptors.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn recv_with_fds(&self, into: &mut [u8], most: usize) -> io::Result<ReceivedFds> {
        super::recv_with_fds(&self.watched, into, most).await
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        super::credentials(&self.watched)
    }
}

impl fmt::Debug for Seqpacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seqpacket").finish_non_exhaustive()
    }
}

/// Accepts [`Seqpacket`] connections. Dropping it stops that, and removes its file if it has one.
pub struct SeqpacketListener {
    watched: Watched,
    /// The file to be removed with it.
    file: Option<SocketFile>,
}

impl SeqpacketListener {
    /// Listens at a path, on the current loop. The file of an earlier listener is removed.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is too long; the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<SeqpacketListener> {
        Self::bind_addr(&super::at_path(path)?)
    }

    /// The same with an address, such as a name in the abstract namespace.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn bind_addr(at: &SocketAddr) -> io::Result<SeqpacketListener> {
        let watched = super::open(PacketKind::UnixSeqpacket, |sys, fd| {
            super::bind(sys, fd, at)?;
            sys.packet_listen(fd, BACKLOG)
        })?;
        let file = super::file_of(&watched, at);
        Ok(SeqpacketListener { watched, file })
    }

    /// Takes the next connection.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The kernel's, such as that descriptors have run out: the connection stays in the backlog, and accepting at once again
    /// would meet the same.
    pub async fn accept(&self) -> io::Result<Seqpacket> {
        loop {
            let accepted = self.watched.io(Half::Read, |sys, fd| sys.accept(fd)).await;
            match accepted {
                Ok((fd, _)) => {
                    return Ok(Seqpacket { watched: super::watch(self.watched.shared().clone(), fd)? });
                }
                Err(e) if is_of_one_connection(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The address that it listens at.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        super::local_addr(&self.watched)
    }
}

impl Drop for SeqpacketListener {
    fn drop(&mut self) {
        super::unbind(&self.watched, self.file);
    }
}

impl fmt::Debug for SeqpacketListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeqpacketListener")
            .field("local_addr", &self.local_addr().ok())
            .finish_non_exhaustive()
    }
}
