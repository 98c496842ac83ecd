//! Datagrams and sequenced packets, and descriptors that travel with bytes, of simulated hosts.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::kernel::{Kernel, Kind, Name, ObjectId, Udp, UnixPacket};
use super::sys::{SimSys, unsupported};
use crate::net::UdpOption;
use crate::net::unix::Credentials;
use crate::sys::packet::Received;
use crate::sys::{Fd, PacketAddr, PacketKind, Packets, Sys};

fn to_name(addr: &UnixAddr) -> Result<Name, Errno> {
    match (addr.as_pathname(), addr.as_abstract_name()) {
        (Some(path), _) => Ok(path.to_owned()),
        (_, Some(name)) => Ok(PathBuf::from(OsStr::from_bytes(&[&[0], name].concat()))),
        // Linux chooses a name of the abstract namespace then, which nobody could know.
        _ => Err(Errno::INVAL),
    }
}

fn from_name(name: Option<&Path>) -> io::Result<UnixAddr> {
    let bytes = name.map(|name| name.as_os_str().as_bytes()).unwrap_or_default();
    match bytes {
        [0, name @ ..] => UnixAddr::from_abstract_name(name),
        path => UnixAddr::from_pathname(OsStr::from_bytes(path)),
    }
}

impl SimSys {
    /// A call about a socket for packets, by what it is.
    fn packets<T>(
        &self,
        fd: Fd,
        udp: impl FnOnce(&mut Kernel, ObjectId) -> Result<T, Errno>,
        unix: impl FnOnce(&mut Kernel, ObjectId) -> Result<T, Errno>,
    ) -> io::Result<T> {
        self.call(|kernel, host| {
            let id = kernel.lookup(host, fd)?;
            match kernel.object(host, fd)?.kind {
                Kind::Udp(_) => udp(kernel, id),
                _ => unix(kernel, id),
            }
        })
    }
}

impl Packets for SimSys {
    fn packet_socket(&self, kind: PacketKind) -> io::Result<Fd> {
        let kind = match kind {
            PacketKind::Udp4 => Kind::Udp(Udp::new(false)),
            PacketKind::Udp6 => Kind::Udp(Udp::new(true)),
            PacketKind::UnixDatagram => Kind::UnixPacket(UnixPacket::new(false)),
            PacketKind::UnixSeqpacket => Kind::UnixPacket(UnixPacket::new(true)),
            PacketKind::UnixStream => return unsupported("streams of descriptors"),
        };
        self.call(|kernel, host| kernel.open(host, kind))
    }

    fn packet_pair(&self, kind: PacketKind) -> io::Result<(Fd, Fd)> {
        match kind {
            PacketKind::UnixDatagram => self.call(|kernel, host| kernel.unix_pair(host, false)),
            PacketKind::UnixSeqpacket => self.call(|kernel, host| kernel.unix_pair(host, true)),
            PacketKind::UnixStream => unsupported("streams of descriptors"),
            PacketKind::Udp4 | PacketKind::Udp6 => Err(Errno::OPNOTSUPP.into()),
        }
    }

    fn packet_import(&self, ticket: OwnedFd, kind: PacketKind) -> io::Result<Fd> {
        let fd = self.import(ticket)?;
        let is_that = self.call(|kernel, host| {
            Ok(match &kernel.object(host, fd)?.kind {
                Kind::Udp(udp) => kind == if udp.v6 { PacketKind::Udp6 } else { PacketKind::Udp4 },
                Kind::UnixPacket(socket) if socket.sequenced => kind == PacketKind::UnixSeqpacket,
                Kind::UnixPacket(_) => kind == PacketKind::UnixDatagram,
                Kind::Listener(listener) if listener.of_packets => kind == PacketKind::UnixSeqpacket,
                _ => false,
            })
        })?;
        if is_that {
            return Ok(fd);
        }
        self.close(fd);
        let what = format!("a socket of another kind was given than {kind:?}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }

    fn packet_bind(&self, fd: Fd, to: &PacketAddr) -> io::Result<()> {
        self.packets(
            fd,
            |kernel, id| match to {
                PacketAddr::Ip(to) => kernel.udp_bind(self.host, id, *to),
                PacketAddr::Unix(_) => Err(Errno::AFNOSUPPORT),
            },
            |kernel, id| match to {
                PacketAddr::Unix(to) => kernel.unix_bind(self.host, id, to_name(to)?),
                PacketAddr::Ip(_) => Err(Errno::INVAL),
            },
        )
    }

    fn packet_listen(&self, fd: Fd, backlog: i32) -> io::Result<()> {
        self.packets(fd, |_, _| Err(Errno::OPNOTSUPP), |kernel, id| kernel.unix_listen(id, backlog))
    }

    fn packet_connect(&self, fd: Fd, to: &PacketAddr) -> io::Result<()> {
        self.packets(
            fd,
            |kernel, id| match to {
                PacketAddr::Ip(to) => kernel.udp_connect(self.host, id, *to),
                PacketAddr::Unix(_) => Err(Errno::AFNOSUPPORT),
            },
            |kernel, id| match to {
                PacketAddr::Unix(to) => kernel.unix_connect(self.host, id, &to_name(to)?),
                PacketAddr::Ip(_) => Err(Errno::INVAL),
            },
        )
    }

    fn packet_local(&self, fd: Fd) -> io::Result<PacketAddr> {
        self.packet_address(fd, false)
    }

    fn packet_peer(&self, fd: Fd) -> io::Result<PacketAddr> {
        self.packet_address(fd, true)
    }

    fn packet_recv(&self, fd: Fd, into: &mut [u8]) -> io::Result<(usize, Option<PacketAddr>)> {
        let received = self.recv_with_fds(fd, into, 0)?;
        Ok((received.len, received.from))
    }

    fn packet_send(&self, fd: Fd, from: &[u8], to: Option<&PacketAddr>) -> io::Result<usize> {
        self.slow(|_, _| Ok(()))?;
        self.packets(
            fd,
            |kernel, id| match to {
                None => kernel.udp_send(self.host, id, from, None),
                Some(PacketAddr::Ip(to)) => kernel.udp_send(self.host, id, from, Some(*to)),
                Some(PacketAddr::Unix(_)) => Err(Errno::AFNOSUPPORT),
            },
            |kernel, id| match to {
                None => kernel.unix_send(self.host, id, from, None),
                Some(PacketAddr::Unix(to)) => kernel.unix_send(self.host, id, from, Some(&to_name(to)?)),
                Some(PacketAddr::Ip(_)) => Err(Errno::INVAL),
            },
        )
    }

    fn recv_with_fds(&self, fd: Fd, into: &mut [u8], _: usize) -> io::Result<Received> {
        self.slow(|_, _| Ok(()))?;
        let is_udp = self.call(|kernel, host| Ok(matches!(kernel.object(host, fd)?.kind, Kind::Udp(_))))?;
        let id = self.call(|kernel, host| kernel.lookup(host, fd))?;
        let (len, truncated, from) = if is_udp {
            let (len, from) = self.call(|kernel, _| kernel.udp_recv(id, into))?;
            (len, false, Some(PacketAddr::Ip(from)))
        } else {
            let (len, sent, name) = self.call(|kernel, _| kernel.unix_recv(id, into))?;
            let from = name.map(|name| from_name(Some(&name))).transpose()?;
            (len, len < sent, from.map(PacketAddr::Unix))
        };
        Ok(Received { len, fds: Vec::new(), from, truncated, fds_truncated: false })
    }

    fn send_with_fds(
        &self,
        fd: Fd,
        from: &[u8],
        fds: &[BorrowedFd<'_>],
        to: Option<&PacketAddr>,
    ) -> io::Result<usize> {
        if fds.is_empty() { self.packet_send(fd, from, to) } else { unsupported("descriptors that travel") }
    }

    fn packet_option(&self, fd: Fd, option: UdpOption) -> io::Result<()> {
        self.packets(fd, |kernel, id| kernel.udp_option(id, option), |_, _| Err(Errno::OPNOTSUPP))
    }

    fn peer_credentials(&self, fd: Fd) -> io::Result<Credentials> {
        // All processes of a host are the one that it runs, as its only user.
        self.call(|kernel, host| {
            let id = kernel.lookup(host, fd)?;
            kernel.unix_name(id, true)
        })?;
        Ok(Credentials { pid: Some(1), uid: 0, gid: 0 })
    }

    #[cfg(feature = "udp-offload")]
    fn udp_offload(&self, _: Fd) -> io::Result<Box<dyn crate::sys::Offload>> {
        unsupported("segmentation offload")
    }
}

impl SimSys {
    fn packet_address(&self, fd: Fd, peer: bool) -> io::Result<PacketAddr> {
        let name = self.packets(
            fd,
            |kernel, id| kernel.udp_address(id, peer).map(Err),
            |kernel, id| kernel.unix_name(id, peer).map(Ok),
        )?;
        match name {
            Err(ip) => Ok(PacketAddr::Ip(ip)),
            Ok(name) => Ok(PacketAddr::Unix(from_name(name.as_deref())?)),
        }
    }
}

#[cfg(test)]
mod tests;
