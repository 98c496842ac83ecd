//! Datagrams and sequenced packets, and descriptors that travel with bytes, of simulated hosts.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::sys::{SimSys, unsupported};
use crate::net::UdpOption;
use crate::net::unix::Credentials;
use crate::sys::packet::Received;
use crate::sys::{Fd, PacketAddr, PacketKind, Packets};

impl Packets for SimSys {
    fn packet_socket(&self, _: PacketKind) -> io::Result<Fd> {
        unsupported("sockets for packets")
    }

    fn packet_pair(&self, _: PacketKind) -> io::Result<(Fd, Fd)> {
        unsupported("sockets for packets")
    }

    fn packet_import(&self, _: OwnedFd, _: PacketKind) -> io::Result<Fd> {
        unsupported("descriptors of the real one")
    }

    fn packet_bind(&self, _: Fd, _: &PacketAddr) -> io::Result<()> {
        unsupported("sockets for packets")
    }

    fn packet_listen(&self, _: Fd, _: i32) -> io::Result<()> {
        unsupported("sockets for packets")
    }

    fn packet_connect(&self, _: Fd, _: &PacketAddr) -> io::Result<()> {
        unsupported("sockets for packets")
    }

    fn packet_local(&self, _: Fd) -> io::Result<PacketAddr> {
        unsupported("sockets for packets")
    }

    fn packet_peer(&self, _: Fd) -> io::Result<PacketAddr> {
        unsupported("sockets for packets")
    }

    fn packet_recv(&self, _: Fd, _: &mut [u8]) -> io::Result<(usize, Option<PacketAddr>)> {
        unsupported("sockets for packets")
    }

    fn packet_send(&self, _: Fd, _: &[u8], _: Option<&PacketAddr>) -> io::Result<usize> {
        unsupported("sockets for packets")
    }

    fn recv_with_fds(&self, _: Fd, _: &mut [u8], _: usize) -> io::Result<Received> {
        unsupported("descriptors that travel")
    }

    fn send_with_fds(
        &self,
        _: Fd,
        _: &[u8],
        _: &[BorrowedFd<'_>],
        _: Option<&PacketAddr>,
    ) -> io::Result<usize> {
        unsupported("descriptors that travel")
    }

    fn packet_option(&self, _: Fd, _: UdpOption) -> io::Result<()> {
        unsupported("sockets for packets")
    }

    fn peer_credentials(&self, _: Fd) -> io::Result<Credentials> {
        unsupported("credentials")
    }

    #[cfg(feature = "udp-offload")]
    fn udp_offload(&self, _: Fd) -> io::Result<Box<dyn crate::sys::Offload>> {
        unsupported("segmentation offload")
    }
}
