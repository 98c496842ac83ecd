//! The part of the seam that is about messages: datagrams, sequenced packets, and descriptors that travel with bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrAny, SocketAddrUnix, SocketType, sockopt,
};

use super::Fd;
use super::real::{Real, SOCKET, at};
use crate::net::UdpOption;
use crate::net::unix::Credentials;

/// Descriptors that one message may carry, as many as kernels take.
pub(crate) const MOST_FDS: usize = 253;

/// What kind of socket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketKind {
    Udp4,
    Udp6,
    UnixDatagram,
    UnixSeqpacket,
    UnixStream,
}

impl PacketKind {
    fn parts(self) -> (AddressFamily, SocketType) {
        match self {
            PacketKind::Udp4 => (AddressFamily::INET, SocketType::DGRAM),
            PacketKind::Udp6 => (AddressFamily::INET6, SocketType::DGRAM),
            PacketKind::UnixDatagram => (AddressFamily::UNIX, SocketType::DGRAM),
            PacketKind::UnixSeqpacket => (AddressFamily::UNIX, SocketType::SEQPACKET),
            PacketKind::UnixStream => (AddressFamily::UNIX, SocketType::STREAM),
        }
    }
}

/// Where a message goes, or comes from.
#[derive(Clone, Debug)]
pub(crate) enum PacketAddr {
    Ip(SocketAddr),
    Unix(UnixAddr),
}

/// A message that came with descriptors, or might have.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) len: usize,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) from: Option<PacketAddr>,
    /// The message was longer than the buffer; the rest is lost.
    pub(crate) truncated: bool,
    /// More descriptors came than were to be taken, or than this process may have; the rest is closed.
    pub(crate) fds_truncated: bool,
}

/// The calls about messages. The rules are those of [`Sys`](super::Sys).
pub(crate) trait Packets: 'static {
    fn packet_socket(&self, kind: PacketKind) -> io::Result<Fd>;
    fn packet_pair(&self, kind: PacketKind) -> io::Result<(Fd, Fd)>;
    /// Takes over a socket from outside; it becomes non-blocking. `InvalidInput` if it is not of that kind.
    fn packet_import(&self, fd: OwnedFd, kind: PacketKind) -> io::Result<Fd>;
    fn packet_bind(&self, fd: Fd, to: &PacketAddr) -> io::Result<()>;
    fn packet_listen(&self, fd: Fd, backlog: i32) -> io::Result<()>;
    fn packet_connect(&self, fd: Fd, to: &PacketAddr) -> io::Result<()>;
    fn packet_local(&self, fd: Fd) -> io::Result<PacketAddr>;
    fn packet_peer(&self, fd: Fd) -> io::Result<PacketAddr>;
    /// Takes one message; what does not fit is lost.
    fn packet_recv(&self, fd: Fd, into: &mut [u8]) -> io::Result<(usize, Option<PacketAddr>)>;
    /// Sends one message, whole or not at all, unless the socket is a stream.
    fn packet_send(&self, fd: Fd, from: &[u8], to: Option<&PacketAddr>) -> io::Result<usize>;
    /// Takes a message with at most `most` descriptors, close-on-exec from the start.
    fn recv_with_fds(&self, fd: Fd, into: &mut [u8], most: usize) -> io::Result<Received>;
    /// Sends a message with at most [`MOST_FDS`] descriptors.
    fn send_with_fds(
        &self,
        fd: Fd,
        from: &[u8],
        fds: &[BorrowedFd<'_>],
        to: Option<&PacketAddr>,
    ) -> io::Result<usize>;
    fn packet_option(&self, fd: Fd, option: UdpOption) -> io::Result<()>;
    /// Who is at the other end of a Unix socket.
    fn peer_credentials(&self, fd: Fd) -> io::Result<Credentials>;
    /// Prepares a UDP socket for batches.
    #[cfg(feature = "udp-offload")]
    fn udp_offload(&self, fd: Fd) -> io::Result<Box<dyn super::offload::Offload>>;
}

fn to_unix(addr: &UnixAddr) -> io::Result<SocketAddrUnix> {
    if let Some(path) = addr.as_pathname() {
        Ok(SocketAddrUnix::new(path)?)
    } else if let Some(name) = addr.as_abstract_name() {
        Ok(SocketAddrUnix::new_abstract_name(name)?)
    } else {
        Ok(SocketAddrUnix::new_unnamed())
    }
}

fn from_unix(addr: &SocketAddrUnix) -> io::Result<UnixAddr> {
    if let Some(name) = addr.abstract_name() {
        return UnixAddr::from_abstract_name(name);
    }
    let path = addr.path_bytes().unwrap_or_default();
    let path = path.strip_suffix(&[0]).unwrap_or(path);
    // An empty path is an address without a name.
    UnixAddr::from_pathname(std::ffi::OsStr::from_bytes(path))
}

fn from_any(addr: SocketAddrAny) -> io::Result<PacketAddr> {
    // Without a name there is a family and nothing else; with rustix it would become an abstract name of no bytes.
    const NAMELESS: usize = size_of::<libc::sa_family_t>();
    if addr.address_family() == AddressFamily::UNIX && addr.addr_len() as usize <= NAMELESS {
        return Ok(PacketAddr::Unix(from_unix(&SocketAddrUnix::new_unnamed())?));
    }
    match SocketAddr::try_from(addr.clone()) {
        Ok(ip) => Ok(PacketAddr::Ip(ip)),
        Err(_) => Ok(PacketAddr::Unix(from_unix(&SocketAddrUnix::try_from(addr)?)?)),
    }
}

impl Packets for Real {
    fn packet_socket(&self, kind: PacketKind) -> io::Result<Fd> {
        let (family, kind) = kind.parts();
        Ok(rustix::net::socket_with(family, kind, SOCKET, None)?.into_raw_fd())
    }

    fn packet_pair(&self, kind: PacketKind) -> io::Result<(Fd, Fd)> {
        let (family, kind) = kind.parts();
        let (a, b) = rustix::net::socketpair(family, kind, SOCKET, None)?;
        Ok((a.into_raw_fd(), b.into_raw_fd()))
    }

    fn packet_import(&self, fd: OwnedFd, kind: PacketKind) -> io::Result<Fd> {
        let parts = (sockopt::socket_domain(&fd)?, sockopt::socket_type(&fd)?);
        if parts != kind.parts() {
            let what = format!("a socket of another kind was given than {kind:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if parts.0 == AddressFamily::UNIX {
            // Credentials with each message would take the place of descriptors, and nobody would read them.
            sockopt::set_socket_passcred(&fd, false)?;
        }
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(fd.into_raw_fd())
    }

    fn packet_bind(&self, fd: Fd, to: &PacketAddr) -> io::Result<()> {
        match to {
            PacketAddr::Ip(ip) => Ok(rustix::net::bind(at(fd), ip)?),
            PacketAddr::Unix(unix) => Ok(rustix::net::bind(at(fd), &to_unix(unix)?)?),
        }
    }

    fn packet_listen(&self, fd: Fd, backlog: i32) -> io::Result<()> {
        Ok(rustix::net::listen(at(fd), backlog)?)
    }

    fn packet_connect(&self, fd: Fd, to: &PacketAddr) -> io::Result<()> {
        match to {
            PacketAddr::Ip(ip) => Ok(rustix::net::connect(at(fd), ip)?),
            PacketAddr::Unix(unix) => Ok(rustix::net::connect(at(fd), &to_unix(unix)?)?),
        }
    }

    fn packet_local(&self, fd: Fd) -> io::Result<PacketAddr> {
        from_any(rustix::net::getsockname(at(fd))?)
    }

    fn packet_peer(&self, fd: Fd) -> io::Result<PacketAddr> {
        match rustix::net::getpeername(at(fd))? {
            Some(addr) => from_any(addr),
            None => Ok(PacketAddr::Unix(from_unix(&SocketAddrUnix::new_unnamed())?)),
        }
    }

    fn packet_recv(&self, fd: Fd, into: &mut [u8]) -> io::Result<(usize, Option<PacketAddr>)> {
        let (n, _, from) = rustix::net::recvfrom(at(fd), into, RecvFlags::empty())?;
        Ok((n, from.map(from_any).transpose()?))
    }

    fn packet_send(&self, fd: Fd, from: &[u8], to: Option<&PacketAddr>) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL;
        match to {
            None => Ok(rustix::net::send(at(fd), from, flags)?),
            Some(PacketAddr::Ip(ip)) => Ok(rustix::net::sendto(at(fd), from, flags, ip)?),
            Some(PacketAddr::Unix(unix)) => Ok(rustix::net::sendto(at(fd), from, flags, &to_unix(unix)?)?),
        }
    }

    fn recv_with_fds(&self, fd: Fd, into: &mut [u8], most: usize) -> io::Result<Received> {
        let most = most.min(MOST_FDS);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space[..rustix::cmsg_space!(ScmRights(most))]);
        let got = {
            let mut into = [IoSliceMut::new(into)];
            rustix::net::recvmsg(at(fd), &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?
        };
        let mut fds = Vec::new();
        let mut fds_truncated = got.flags.contains(ReturnFlags::CTRUNC);
        for message in control.drain() {
            // What is not taken is closed as it is passed by.
            if let RecvAncillaryMessage::ScmRights(came) = message {
                for fd in came {
                    if fds.len() < most {
                        fds.push(fd);
                    } else {
                        fds_truncated = true;
                    }
                }
            }
        }
        let truncated = got.flags.contains(ReturnFlags::TRUNC);
        let from = got.address.map(from_any).transpose()?;
        Ok(Received { len: got.bytes, fds, from, truncated, fds_truncated })
    }

    fn send_with_fds(
        &self,
        fd: Fd,
        from: &[u8],
        fds: &[BorrowedFd<'_>],
        to: Option<&PacketAddr>,
    ) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            let what = format!("a message carries at most {MOST_FDS} descriptors, and not {}", fds.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let (from, flags) = ([IoSlice::new(from)], SendFlags::NOSIGNAL);
        match to {
            Some(PacketAddr::Unix(unix)) => {
                Ok(rustix::net::sendmsg_addr(at(fd), &to_unix(unix)?, &from, &mut control, flags)?)
            }
            Some(PacketAddr::Ip(ip)) => {
                Ok(rustix::net::sendmsg_addr(at(fd), ip, &from, &mut control, flags)?)
            }
            None => Ok(rustix::net::sendmsg(at(fd), &from, &mut control, flags)?),
        }
    }

    fn packet_option(&self, fd: Fd, option: UdpOption) -> io::Result<()> {
        let fd = at(fd);
        match option {
            UdpOption::Broadcast(on) => sockopt::set_socket_broadcast(fd, on)?,
            UdpOption::ReuseAddr(on) => sockopt::set_socket_reuseaddr(fd, on)?,
            UdpOption::ReusePort(on) => sockopt::set_socket_reuseport(fd, on)?,
            UdpOption::OnlyV6(on) => sockopt::set_ipv6_v6only(fd, on)?,
            UdpOption::Ttl(hops) => sockopt::set_ip_ttl(fd, hops)?,
            UdpOption::HopLimit(hops) => sockopt::set_ipv6_unicast_hops(fd, Some(hops))?,
            UdpOption::MulticastTtl(hops) => sockopt::set_ip_multicast_ttl(fd, hops)?,
            UdpOption::MulticastHopLimit(hops) => sockopt::set_ipv6_multicast_hops(fd, hops)?,
            UdpOption::MulticastLoop(on) => sockopt::set_ip_multicast_loop(fd, on)?,
            UdpOption::MulticastLoopV6(on) => sockopt::set_ipv6_multicast_loop(fd, on)?,
            UdpOption::MulticastInterface(at) => sockopt::set_ip_multicast_if(fd, &at)?,
            UdpOption::MulticastInterfaceV6(index) => sockopt::set_ipv6_multicast_if(fd, index)?,
            UdpOption::Join(group, at) => sockopt::set_ip_add_membership(fd, &group, &at)?,
            UdpOption::Leave(group, at) => sockopt::set_ip_drop_membership(fd, &group, &at)?,
            UdpOption::JoinV6(group, index) => sockopt::set_ipv6_add_membership(fd, &group, index)?,
            UdpOption::LeaveV6(group, index) => sockopt::set_ipv6_drop_membership(fd, &group, index)?,
            UdpOption::SendBuffer(size) => sockopt::set_socket_send_buffer_size(fd, size)?,
            UdpOption::RecvBuffer(size) => sockopt::set_socket_recv_buffer_size(fd, size)?,
        }
        Ok(())
    }

    fn peer_credentials(&self, fd: Fd) -> io::Result<Credentials> {
        let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes into `who`, three numbers that may have any value. (So rustix's
        // struct, whose process is never zero, does not serve: it is zero for one of a namespace that is not seen.)
        let done = unsafe {
            let to = (&raw mut who).cast();
            libc::getsockopt(at(fd).as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &raw mut len)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        if who.pid == 0 && who.uid == u32::MAX {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the socket has no peer that is known"));
        }
        let pid = (who.pid != 0).then_some(who.pid);
        Ok(Credentials { pid, uid: who.uid, gid: who.gid })
    }

    #[cfg(feature = "udp-offload")]
    fn udp_offload(&self, fd: Fd) -> io::Result<Box<dyn super::offload::Offload>> {
        super::offload::prepare(fd)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sys::Sys;

    #[test]
    fn a_socket_without_a_name_has_none() {
        let (a, b) = Real.packet_pair(PacketKind::UnixDatagram).unwrap();
        for addr in [Real.packet_local(a).unwrap(), Real.packet_peer(a).unwrap()] {
            let PacketAddr::Unix(addr) = addr else { panic!("it is no address of Unix: {addr:?}") };
            assert!(addr.is_unnamed(), "{addr:?}");
        }
        Real.close(a);
        Real.close(b);
    }
}
