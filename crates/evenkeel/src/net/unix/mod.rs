//! Unix sockets that carry more than a stream of bytes: messages with their boundaries, descriptors, and who the peer is.
//!
//! Between processes of one machine a descriptor can be handed over: a server's successor gets its listeners, a worker the
//! connection that it is to serve, a sandboxed process the one file that it may read. [`UnixDatagram`], [`Seqpacket`] and
//! [`FdStream`] do that, and [`Credentials`] say who is at the other end, as the kernel has noted it.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::fd::AsFd;
//! use evenkeel::{EventLoop, net::unix::Seqpacket};
//! let mut events = EventLoop::new()?;
//! let text = events.block_on(async {
//!     let (ours, theirs) = Seqpacket::pair()?;
//!     let (from, mut to) = std::io::pipe()?;
//!     ours.send_with_fds(b"a pipe", &[from.as_fd()]).await?;
//!     drop(from);
//!     let mut bytes = [0; 64];
//!     let got = theirs.recv_with_fds(&mut bytes, 1).await?;
//!     assert_eq!(&bytes[..got.len], b"a pipe");
//!     to.write_all(b"through the pipe")?;
//!     drop(to);
//!     let mut text = String::new();
//!     for fd in got.fds {
//!         std::fs::File::from(fd).read_to_string(&mut text)?;
//!     }
//!     Ok::<_, std::io::Error>(text)
//! })??;
//! assert_eq!(text, "through the pipe");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | type | boundaries | connection | order, and nothing lost |
//! |---|---|---|---|
//! | [`UnixDatagram`] | kept | optional | yes; many may send to one |
//! | [`Seqpacket`] | kept | yes, so the peer's end is heard | yes |
//! | [`FdStream`] | none | yes | yes |
//!
//! # Descriptors
//!
//! One message carries at most 253. Received ones are close-on-exec from the start. Who receives says how many it takes; if
//! more come, or the process may have no more, the rest is closed and
//! [`fds_truncated`](ReceivedFds::fds_truncated) is set. Nothing is left open that the caller was not given.
//!
//! A receiver trusts nobody for sending what it expects: a descriptor can be anything.

mod datagram;
mod fd_stream;
mod seqpacket;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

pub use datagram::UnixDatagram;
pub use fd_stream::FdStream;
pub use seqpacket::{Seqpacket, SeqpacketListener};

use crate::core::Shared;
use crate::core::async_io::Half;
use crate::core::watch::{Interest, Watched};
use crate::handle::Handle;
use crate::sys::{Fd, MOST_FDS, PacketAddr, PacketKind, SocketFile, Sys};

/// Who is at the other end of a Unix socket, as the kernel noted it when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The process; none if it is in a namespace that is not seen from here. Its number may be another's by now.
    pub pid: Option<i32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// What came in one message.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReceivedFds {
    /// The bytes in the caller's buffer.
    pub len: usize,
    /// The descriptors, close-on-exec, in the sender's order.
    pub fds: Vec<OwnedFd>,
    /// The sender of a datagram.
    pub from: Option<SocketAddr>,
    /// The message was longer than the buffer; the rest is lost. Never for a stream.
    pub truncated: bool,
    /// More descriptors came than were to be taken, or than the process may have; the rest is closed.
    pub fds_truncated: bool,
}

/// A new socket on the current loop, made ready by `prepare`.
fn open(kind: PacketKind, prepare: impl FnOnce(&dyn Sys, Fd) -> io::Result<()>) -> io::Result<Watched> {
    let shared = Handle::current().shared;
    let sys = shared.driver.sys();
    let fd = sys.packet_socket(kind)?;
    if let Err(e) = prepare(sys, fd) {
        sys.close(fd);
        return Err(e);
    }
    watch(shared, fd)
}

fn pair(kind: PacketKind) -> io::Result<(Watched, Watched)> {
    let shared = Handle::current().shared;
    let (a, b) = shared.driver.sys().packet_pair(kind)?;
    let a = watch(shared.clone(), a);
    let b = watch(shared, b);
    Ok((a?, b?))
}

/// Takes over somebody else's socket, on the current loop.
fn import(fd: OwnedFd, kind: PacketKind) -> io::Result<Watched> {
    let shared = Handle::current().shared;
    let fd = shared.driver.sys().packet_import(fd, kind)?;
    watch(shared, fd)
}

fn watch(shared: Rc<Shared>, fd: Fd) -> io::Result<Watched> {
    Watched::new(shared, fd, Interest::BOTH, true)
}

fn export(watched: Watched) -> io::Result<OwnedFd> {
    let shared = watched.shared().clone();
    shared.driver.sys().export(watched.into_fd()?)
}

/// Binds a socket; the file of an earlier one at the same path is removed.
fn bind(sys: &dyn Sys, fd: Fd, at: &SocketAddr) -> io::Result<()> {
    if let Some(path) = at.as_pathname() {
        sys.remove_socket_file(path, None);
    }
    sys.packet_bind(fd, &PacketAddr::Unix(at.clone()))
}

/// The file of a socket that has just been bound, if it has one.
fn file_of(watched: &Watched, at: &SocketAddr) -> Option<SocketFile> {
    watched.sys().socket_file(at.as_pathname()?)
}

/// Removes the file of a socket, if it is still its own.
fn unbind(watched: &Watched, file: Option<SocketFile>) {
    if file.is_some()
        && let Ok(fd) = watched.fd()
        && let Ok(PacketAddr::Unix(at)) = watched.sys().packet_local(fd)
        && let Some(path) = at.as_pathname()
    {
        watched.sys().remove_socket_file(path, file);
    }
}

fn at_path(path: impl AsRef<Path>) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(path)
}

/// A kernel gives a Unix socket no other address.
fn is_unix(addr: PacketAddr) -> io::Result<SocketAddr> {
    match addr {
        PacketAddr::Unix(addr) => Ok(addr),
        PacketAddr::Ip(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no Unix socket")),
    }
}

fn local_addr(watched: &Watched) -> io::Result<SocketAddr> {
    is_unix(watched.sys().packet_local(watched.fd()?)?)
}

fn credentials(watched: &Watched) -> io::Result<Credentials> {
    watched.sys().peer_credentials(watched.fd()?)
}

async fn send(watched: &Watched, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if bytes.is_empty() {
        let what =
            "a message without bytes could not be told from the end, and carries no descriptors on a stream";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    check(fds)?;
    if fds.is_empty() {
        return watched.io(Half::Write, |sys, fd| sys.packet_send(fd, bytes, None)).await;
    }
    watched.io(Half::Write, |sys, fd| sys.send_with_fds(fd, bytes, fds, None)).await
}

fn check(fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > MOST_FDS {
        let what = format!("a message carries at most {MOST_FDS} descriptors, and not {}", fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

async fn recv_with_fds(watched: &Watched, into: &mut [u8], most: usize) -> io::Result<ReceivedFds> {
    let got = watched.io(Half::Read, |sys, fd| sys.recv_with_fds(fd, into, most)).await?;
    Ok(ReceivedFds {
        len: got.len,
        fds: got.fds,
        from: got.from.map(is_unix).transpose()?,
        truncated: got.truncated,
        fds_truncated: got.fds_truncated,
    })
}
