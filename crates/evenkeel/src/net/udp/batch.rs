//! UDP in batches, with what the kernel has to make many datagrams cheap.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::UdpSocket;
use crate::core::async_io::Half;
use crate::sys::Offload;

/// A UDP socket whose datagrams leave and come in batches: for QUIC and other protocols that send many of one size.
///
/// The kernel cuts one large write into datagrams (segmentation offload), puts datagrams of one sender that follow each other
/// into one buffer (receive offload), and takes several buffers in one call. What the running kernel does not have is done
/// without: [`max_gso_segments`](Self::max_gso_segments) and [`gro_segments`](Self::gro_segments) are 1 then.
///
/// A type of its own, since it changes the socket: datagrams come joined, which a plain `recv` would take for one, and none is
/// cut into fragments on its way, so that one which is too long for the path is an error.
///
/// ```
/// use std::io::IoSliceMut;
/// use evenkeel::{EventLoop, net::{RecvMeta, Transmit, UdpSocket}};
/// let mut events = EventLoop::new()?;
/// let total = events.block_on(async {
///     let from = UdpSocket::bind("127.0.0.1:0")?.into_batches()?;
///     let to = UdpSocket::bind("127.0.0.1:0")?.into_batches()?;
///     let segments = from.max_gso_segments().min(10);
///     let contents = vec![7; 1200 * segments];
///     from.send_batch(&Transmit::new(to.local_addr()?, &contents).segments(1200)).await?;
///     let mut memory = vec![0; 2048 * to.gro_segments()];
///     let (mut total, mut meta) = (0, [RecvMeta::default()]);
///     while total < contents.len() {
///         let n = to.recv_batch(&mut [IoSliceMut::new(&mut memory)], &mut meta).await?;
///         for datagrams in &meta[..n] {
///             total += memory[..datagrams.len].chunks(datagrams.stride).map(<[u8]>::len).sum::<usize>();
///         }
///     }
///     Ok::<_, std::io::Error>(total / segments)
/// })??;
/// assert_eq!(total, 1200);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdpBatches {
    socket: UdpSocket,
    offload: Box<dyn Offload>,
}

/// Congestion marks of a datagram (RFC 3168).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// ECT(1): the sender can take marks.
    Ect1 = 1,
    /// ECT(0): the sender can take marks.
    Ect0 = 2,
    /// There was congestion on the way.
    Ce = 3,
}

impl Ecn {
    pub(crate) fn from_bits(bits: u8) -> Option<Ecn> {
        match bits & 3 {
            1 => Some(Ecn::Ect1),
            2 => Some(Ecn::Ect0),
            3 => Some(Ecn::Ce),
            _ => None,
        }
    }
}

/// One or more datagrams to the same address.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Where they go.
    pub destination: SocketAddr,
    /// Their congestion marks; none: not able to take any.
    pub ecn: Option<Ecn>,
    /// The datagrams, one behind the other.
    pub contents: &'a [u8],
    /// The length of each but the last, which may be shorter; none: there is one.
    pub segment_size: Option<usize>,
    /// The address of this machine that they come from; none: the kernel's choice.
    pub src_ip: Option<IpAddr>,
}

impl<'a> Transmit<'a> {
    /// One datagram.
    pub fn new(destination: SocketAddr, contents: &'a [u8]) -> Self {
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    /// The same contents as datagrams of `size` bytes each; the last may be shorter.
    pub fn segments(self, size: usize) -> Self {
        Transmit { segment_size: Some(size), ..self }
    }
}

/// What came into one buffer: one or more datagrams of one sender.
#[derive(Clone, Copy, Debug)]
pub struct RecvMeta {
    /// Who sent them.
    pub addr: SocketAddr,
    /// Their length together.
    pub len: usize,
    /// The length of each but the last, which may be shorter.
    pub stride: usize,
    /// Their congestion marks.
    pub ecn: Option<Ecn>,
    /// The address of this machine that they were sent to.
    pub dst_ip: Option<IpAddr>,
}

impl Default for RecvMeta {
    /// A value to be overwritten.
    fn default() -> Self {
        let addr = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        RecvMeta { addr, len: 0, stride: 0, ecn: None, dst_ip: None }
    }
}

impl UdpSocket {
    /// Makes it a socket whose datagrams leave and come in batches. There is no way back.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended; the kernel's.
    pub fn into_batches(self) -> io::Result<UdpBatches> {
        let offload = self.watched.sys().udp_offload(self.watched.fd()?)?;
        Ok(UdpBatches { socket: self, offload })
    }
}

impl UdpBatches {
    /// Sends datagrams, all of them or none.
    ///
    /// If a network device turns out to have no use for segments, this call fails and
    /// [`max_gso_segments`](Self::max_gso_segments) is 1 from then on; the datagrams are lost like any others.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// `InvalidInput` for a segment size of 0, or more segments than [`max_gso_segments`](Self::max_gso_segments); the
    /// kernel's, such as `EMSGSIZE` for what is too long for the path.
    pub async fn send_batch(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.check(transmit)?;
        self.socket.watched.io(Half::Write, |_, fd| self.offload.send(fd, transmit)).await
    }

    fn check(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(size) = transmit.segment_size else { return Ok(()) };
        let (len, most) = (transmit.contents.len(), self.max_gso_segments());
        if size == 0 || len.div_ceil(size) > most {
            let what = format!("{len} bytes cannot leave as at most {most} datagrams of {size} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(())
    }

    /// Receives into at least one of the buffers, and says into how many. For each of these an entry of `meta` tells what it
    /// holds. At most 32 buffers are filled. Each should have room for [`gro_segments`](Self::gro_segments) datagrams: what
    /// does not fit is lost.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// `InvalidInput` if there is no buffer, or no `meta`; the kernel's.
    pub async fn recv_batch(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        if bufs.is_empty() || meta.is_empty() {
            let what = "nothing can be received without a buffer and a place for what is to be known of it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.socket.watched.io(Half::Read, |_, fd| self.offload.recv(fd, bufs, meta)).await
    }

    /// Datagrams that can be sent by one [`Transmit`]: 1 where there is no segmentation offload. It can fall to 1.
    pub fn max_gso_segments(&self) -> usize {
        self.offload.max_gso_segments().max(1)
    }

    /// Datagrams that can come in one buffer: 1 where there is no receive offload.
    pub fn gro_segments(&self) -> usize {
        self.offload.gro_segments().max(1)
    }

    /// Whether datagrams may be cut into fragments on their way after all, since this kernel cannot forbid it.
    pub fn may_fragment(&self) -> bool {
        self.offload.may_fragment()
    }

    /// Sets an option.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_option(&self, option: super::UdpOption) -> io::Result<()> {
        self.socket.set_option(option)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl fmt::Debug for UdpBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpBatches").field("socket", &self.socket).finish_non_exhaustive()
    }
}
