//! Streams that carry descriptors.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use super::{Credentials, ReceivedFds};
use crate::core::async_io::Half;
use crate::core::watch::Watched;
use crate::net::Stream;
use crate::sys::{PacketAddr, PacketKind};

/// A Unix stream that sends and receives descriptors along with bytes.
///
/// A type beside [`Stream`], since that cannot do it and be what it is: it receives ahead of its task, into memory of the loop,
/// and on io_uring before anybody has said whether descriptors are wanted; the kernel closes what comes with bytes that are
/// received in that way. This one reads when it is told to, into the caller's buffer, by one system call on every backend,
/// and its writes are not put together.
///
/// Descriptors arrive with the first byte that was sent with them, in a read that may begin with bytes from before it. No read
/// goes on from there to other descriptors.
///
/// One task at a time should read, and one write, or their bytes mix. All methods are cancel safe but where they say otherwise.
pub struct FdStream {
    watched: Watched,
}

impl FdStream {
    /// Connects to a Unix listener at a path, on the current loop.
    ///
    /// # Errors
    /// `WouldBlock` when the listener has a full backlog: nobody is told when it has room, so it is to be tried later. Otherwise
    /// the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<FdStream> {
        let to = PacketAddr::Unix(super::at_path(path)?);
        let watched = super::open(PacketKind::UnixStream, |sys, fd| sys.packet_connect(fd, &to))?;
        Ok(FdStream { watched })
    }

    /// Both ends of a connection.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn pair() -> io::Result<(FdStream, FdStream)> {
        let (a, b) = super::pair(PacketKind::UnixStream)?;
        Ok((FdStream { watched: a }, FdStream { watched: b }))
    }

    /// Takes over a connection that a [`Listener`](crate::net::Listener) has accepted. Nothing may have been read from it, not
    /// even by an attempt that was given up: descriptors would be lost.
    ///
    /// # Errors
    /// `InvalidInput` if it is no Unix socket, or if bytes were received that nobody has read; otherwise as for
    /// [`Stream::into_parts`]. The connection is closed then.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn from_stream(stream: Stream) -> io::Result<FdStream> {
        let parts = stream.into_parts()?;
        if !parts.unread.is_empty() {
            let what =
                "bytes of this stream were received already, and with them descriptors may have been lost";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Self::from_fd(parts.fd)
    }

    /// Takes over a Unix stream of the standard library or any other owner, on the current loop; it becomes non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is none; the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<FdStream> {
        Ok(FdStream { watched: super::import(fd.into(), PacketKind::UnixStream)? })
    }

    /// Gives the socket away, non-blocking as it is.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended; the kernel's.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        super::export(self.watched)
    }

    /// Sends some of `bytes`, at least one, and says how many; descriptors, all of them, go with the first.
    ///
    /// # Errors
    /// `InvalidInput` without a byte, or for more than 253 descriptors; the kernel's.
    pub async fn send_with_fds(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        super::send(&self.watched, bytes, fds).await
    }

    /// Sends some of `bytes`, and says how many.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        super::send(&self.watched, bytes, &[]).await
    }

    /// Sends all of `bytes`. Not cancel safe: a part may have been sent.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = self.write(bytes).await?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Receives what there is: 0 at the end. Descriptors that came with it are closed.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.watched.io(Half::Read, |sys, fd| sys.recv(fd, into)).await
    }

    /// Receives what there is, with at most `most` descriptors.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn recv_with_fds(&self, into: &mut [u8], most: usize) -> io::Result<ReceivedFds> {
        super::recv_with_fds(&self.watched, into, most).await
    }

    /// Ends one or both halves.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.watched.sys().shutdown(self.watched.fd()?, how)
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        super::credentials(&self.watched)
    }
}

impl fmt::Debug for FdStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdStream").finish_non_exhaustive()
    }
}
