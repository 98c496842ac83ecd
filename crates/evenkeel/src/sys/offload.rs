//! UDP in batches: segmentation by the kernel when sending, and many datagrams in one call when receiving.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;

use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta as Meta, UdpSockRef, UdpSocketState};

use super::Fd;
use super::real::at;
use crate::net::{Ecn, RecvMeta, Transmit};

/// What a kernel, or a model of it, does with batches of one socket.
pub(crate) trait Offload {
    fn send(&self, fd: Fd, transmit: &Transmit<'_>) -> io::Result<()>;
    fn recv(&self, fd: Fd, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize>;
    fn max_gso_segments(&self) -> usize;
    fn gro_segments(&self) -> usize;
    fn may_fragment(&self) -> bool;
}

pub(super) fn prepare(fd: Fd) -> io::Result<Box<dyn Offload>> {
    let state = UdpSocketState::new(UdpSockRef::from(&at(fd)))?;
    without_times(fd)?;
    Ok(Box::new(state))
}

/// Takes back that each datagram comes with its time, which quinn-udp 0.6 asks for and nobody reads here. Its memory for what
/// comes beside a datagram has no room for all of it: from joined ones the congestion marks would be missing.
fn without_times(fd: Fd) -> io::Result<()> {
    let off: libc::c_int = 0;
    // SAFETY: the option's value is one number, which outlives the call.
    let done = unsafe {
        let value = (&raw const off).cast();
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(at(fd).as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, value, size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Offload for UdpSocketState {
    fn send(&self, fd: Fd, transmit: &Transmit<'_>) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.try_send(UdpSockRef::from(&at(fd)), &transmit)
    }

    fn recv(&self, fd: Fd, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        let most = bufs.len().min(meta.len()).min(BATCH_SIZE);
        let mut came = [Meta::default(); BATCH_SIZE];
        let n = UdpSocketState::recv(self, UdpSockRef::from(&at(fd)), &mut bufs[..most], &mut came[..most])?;
        for (to, from) in meta.iter_mut().zip(&came[..n]) {
            *to = RecvMeta {
                addr: from.addr,
                len: from.len,
                stride: from.stride,
                ecn: from.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
                dst_ip: from.dst_ip,
            };
        }
        Ok(n)
    }

    fn max_gso_segments(&self) -> usize {
        UdpSocketState::max_gso_segments(self)
    }

    fn gro_segments(&self) -> usize {
        UdpSocketState::gro_segments(self)
    }

    fn may_fragment(&self) -> bool {
        UdpSocketState::may_fragment(self)
    }
}
