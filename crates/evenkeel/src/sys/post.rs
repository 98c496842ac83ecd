//! Descriptors that go from one table to another: a socket carries each (`SCM_RIGHTS`), and gives it a number at its arrival.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

use super::Fd;

/// Asked for as a socket's room, of which the kernel gives at most `net.core.wmem_max`: a few hundred descriptors.
const ROOM: usize = 4 << 20;

/// Two ends: where descriptors arrive, and where they are sent to.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (arrival, way) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    sockopt::set_socket_send_buffer_size(&way, ROOM)?;
    Ok((arrival, way))
}

/// Descriptors that one message carries at most.
pub(crate) const MOST: usize = 128;

/// Sends copies of descriptors, at most [`MOST`]. They are on their way when this returns.
pub(crate) fn send(way: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    rustix::net::sendmsg(way, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Takes what the next message has brought. If not enough numbers are free all of it is closed.
pub(crate) fn receive(arrival: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut byte)];
    let got = rustix::net::recvmsg(arrival, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE.into());
    }
    if fds.is_empty() { Err(io::ErrorKind::NotConnected.into()) } else { Ok(fds) }
}

/// Lets a connection be reset by whoever closes it last, be it the kernel on its way. Returns what it had been set to.
pub(crate) fn doom(fd: impl AsFd) -> Option<Duration> {
    // Fails for what is no socket, which nothing is lost of.
    let before = sockopt::socket_linger(&fd).unwrap_or(None);
    let _ = sockopt::set_socket_linger(&fd, Some(Duration::ZERO));
    before
}

/// Takes it back, at the arrival.
pub(crate) fn pardon(fd: impl AsFd, before: Option<Duration>) {
    let _ = sockopt::set_socket_linger(&fd, before);
}

/// The ends that the loops of a group use, as numbers of the table of the thread that made them.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    arrival: Fd,
    ways: Vec<Fd>,
}

impl Ends {
    /// Of the member with this index.
    pub(crate) fn of(pairs: &[(OwnedFd, OwnedFd)], index: usize) -> Self {
        let ways = pairs.iter().map(|(_, way)| way.as_raw_fd()).collect();
        Ends { arrival: pairs[index].0.as_raw_fd(), ways }
    }

    /// The numbers that a split is to keep.
    pub(crate) fn numbers(&self) -> Vec<Fd> {
        self.ways.iter().copied().chain([self.arrival]).collect()
    }

    /// The ends, for the loop on the calling thread: its own already if the thread has left the table in which they were
    /// made and kept [`numbers`](Self::numbers) (`own`), else copies. The pairs are open until this returns.
    pub(crate) fn take(self, own: bool) -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
        let take = |fd: Fd| -> io::Result<OwnedFd> {
            if own {
                // SAFETY: a copy of this number came with the table, for this loop, which consumes the list of them.
                return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
            }
            // SAFETY: the number of an open end, of which whoever builds the group waits for this.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            Ok(rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 0)?)
        };
        let ways = self.ways.into_iter().map(take).collect::<io::Result<_>>()?;
        Ok((take(self.arrival)?, ways))
    }
}
