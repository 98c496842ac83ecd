//! Descriptors that cross the border of a process: taken from whoever started this one, kept open for one that this one
//! starts, and sent over a Unix socket.
//!
//! Free functions and not methods of [`Sys`](super::Sys): a process is started and replaced before and beside its loops, and
//! a model of the kernel has no other processes.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Descriptors in one message. The kernel takes 253.
pub(crate) const MOST_SENT: usize = 128;

const ROOM: usize = rustix::cmsg_space!(ScmRights(MOST_SENT));

/// Takes a descriptor that this process was started with, by its number, and keeps it from the programs that this process
/// starts.
///
/// Whatever a program opens by itself is close-on-exec, and whatever it was started with is not, or it would not be there.
/// So a number that is now something else than what was passed is told from one that is not, and is refused.
///
/// # Errors
/// The kernel's, when nothing is open at that number; `InvalidData` when this program has opened it itself, or when it is
/// not what has the inode `expected`.
pub(crate) fn take(number: RawFd, expected: Option<u64>) -> io::Result<OwnedFd> {
    if number < 3 {
        let what = "the standard streams are nothing that is passed on by number";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    // SAFETY: the number is not -1. The borrow is used for questions that do no harm to whatever is there, or to
    // nothing.
    let there = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(there)?;
    if flags.contains(FdFlags::CLOEXEC) {
        let what = "it was opened by this program, not passed to it";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    if expected.is_some() && expected != Some(inode(there)?) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is something else by now"));
    }
    rustix::io::fcntl_setfd(there, flags | FdFlags::CLOEXEC)?;
    // SAFETY: open, and not close-on-exec until the call above: it was passed by whoever started this program, for this
    // program to own, and nobody else has taken it, or it would have become close-on-exec by the same call.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets the program that `command` starts have `fd`, at the same number, and no other program that is started meanwhile.
pub(crate) fn keep(command: &mut Command, fd: OwnedFd) {
    let pass_on = move || {
        // Only in the child: here the descriptor stays close-on-exec, so that a program that another thread starts at
        // this moment does not get it.
        rustix::io::fcntl_setfd(&fd, FdFlags::empty())?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one system call, without `errno`, and neither allocates nor locks.
    unsafe { command.pre_exec(pass_on) };
}

/// Two Unix stream sockets that are connected to each other, close-on-exec and blocking.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Sends bytes and at most [`MOST_SENT`] descriptors in one message, without waiting.
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// Receives bytes, and the descriptors that came with them, close-on-exec. Waits at most `within`.
///
/// # Errors
/// `TimedOut`; `OutOfMemory` when this process has no room for the descriptors.
pub(crate) fn receive(
    socket: &OwnedFd,
    into: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    within: Duration,
) -> io::Result<usize> {
    // The kernel takes zero for ever.
    let within = within.max(Duration::from_millis(1));
    sockopt::set_socket_timeout(socket, Timeout::Recv, Some(within))?;
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let got =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let got = got.map_err(|e| match io::Error::from(e) {
        e if e.kind() == io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        e => e,
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        let what = "this process may not open as many descriptors as it was sent";
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, what));
    }
    Ok(got.bytes)
}

/// What tells an open socket from every other on this host.
pub(crate) fn inode(fd: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(fd)?.st_ino)
}

/// The kernel's monotonic clock, in microseconds, as service managers read it.
pub(crate) fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

/// Sends one datagram to a Unix socket, named by a path or, after `@`, in the abstract namespace. Does not wait.
pub(crate) fn send_datagram(to: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let to = match to.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddrUnix::new_abstract_name(name)?,
        Some((b'/', _)) => SocketAddrUnix::new(to.as_bytes())?,
        _ => {
            let what = format!("`{}` is no Unix socket's address", to.display());
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::sendto(&socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT, &to)?;
    Ok(())
}

/// The number by which the child knows what was [kept](keep) for it.
pub(crate) fn number(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}
