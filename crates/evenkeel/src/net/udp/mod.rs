//! Datagrams over UDP.

#[cfg(feature = "udp-offload")]
mod batch;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

#[cfg(feature = "udp-offload")]
pub use batch::{Ecn, RecvMeta, Transmit, UdpBatches};

use super::{Addr, IntoAddr};
use crate::core::Shared;
use crate::core::async_io::Half;
use crate::core::watch::{Interest, Watched};
use crate::handle::Handle;
use crate::sys::{Fd, PacketAddr, PacketKind, Sys};

/// A UDP socket.
///
/// A datagram is sent and received whole, in one call of the kernel; what does not fit into the caller's buffer is lost. Any
/// number of tasks may send and receive: methods take `&self`, and are cancel safe, since a datagram is taken by the same
/// poll that returns it.
///
/// ```
/// use evenkeel::{EventLoop, net::UdpSocket};
/// let mut events = EventLoop::new()?;
/// let reply = events.block_on(async {
///     let server = UdpSocket::bind("127.0.0.1:0")?;
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.connect(server.local_addr()?)?;
///     client.send(b"ping").await?;
///     let mut bytes = [0; 1500];
///     let (n, from) = server.recv_from(&mut bytes).await?;
///     server.send_to(&bytes[..n], from).await?;
///     let n = client.recv(&mut bytes).await?;
///     Ok::<_, std::io::Error>(bytes[..n].to_vec())
/// })??;
/// assert_eq!(reply, b"ping");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors of the network
///
/// A connected socket hears that its peer's port is closed (`ConnectionRefused`): the operation that comes next reports it,
/// once, whichever it is.
pub struct UdpSocket {
    watched: Watched,
}

/// How a UDP socket is made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UdpOptions {
    /// `SO_REUSEADDR`: others may bind the same address; needed for several listeners of one multicast group. Default
    /// false.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`: the kernel spreads datagrams over all sockets of this address, by the peer's. Default false.
    pub reuse_port: bool,
    /// Whether a socket on an IPv6 address takes no IPv4. Default false: one on `[::]` takes both.
    pub only_v6: bool,
    /// `SO_RCVBUF` in bytes. Default: the kernel's.
    pub recv_buffer: Option<usize>,
    /// `SO_SNDBUF` in bytes. Default: the kernel's.
    pub send_buffer: Option<usize>,
}

/// An option of an open UDP socket. Those with `V6` in their names, and the hop limits, are for sockets on IPv6 addresses.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum UdpOption {
    /// `SO_BROADCAST`: whether broadcast addresses may be sent to.
    Broadcast(bool),
    /// `SO_REUSEADDR`.
    ReuseAddr(bool),
    /// `SO_REUSEPORT`.
    ReusePort(bool),
    /// `IPV6_V6ONLY`; before the socket is bound.
    OnlyV6(bool),
    /// `IP_TTL`.
    Ttl(u32),
    /// `IPV6_UNICAST_HOPS`.
    HopLimit(u8),
    /// `IP_MULTICAST_TTL`. The kernel's default is 1, the own network.
    MulticastTtl(u32),
    /// `IPV6_MULTICAST_HOPS`.
    MulticastHopLimit(u32),
    /// `IP_MULTICAST_LOOP`: whether members on this machine hear what is sent.
    MulticastLoop(bool),
    /// `IPV6_MULTICAST_LOOP`.
    MulticastLoopV6(bool),
    /// `IP_MULTICAST_IF`: by its address, the interface that sends to groups.
    MulticastInterface(Ipv4Addr),
    /// `IPV6_MULTICAST_IF`, by its index.
    MulticastInterfaceV6(u32),
    /// Becomes a member of a group, on the interface with that address; unspecified: the kernel's choice.
    Join(Ipv4Addr, Ipv4Addr),
    /// Leaves a group.
    Leave(Ipv4Addr, Ipv4Addr),
    /// Becomes a member of a group, on the interface with that index; 0: the kernel's choice.
    JoinV6(Ipv6Addr, u32),
    /// Leaves a group.
    LeaveV6(Ipv6Addr, u32),
    /// `SO_SNDBUF`, in bytes.
    SendBuffer(usize),
    /// `SO_RCVBUF`, in bytes.
    RecvBuffer(usize),
}

fn internet(addr: impl IntoAddr) -> io::Result<SocketAddr> {
    match addr.into_addr()? {
        Addr::Ip(ip) => Ok(ip),
        Addr::Unix(_) => {
            let what = "UDP has internet addresses only; for Unix sockets there is net::unix";
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }
}

/// A kernel gives a UDP socket no other address.
fn is_ip(addr: Option<PacketAddr>) -> io::Result<SocketAddr> {
    match addr {
        Some(PacketAddr::Ip(ip)) => Ok(ip),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no UDP socket")),
    }
}

impl UdpSocket {
    /// A socket on an address of this machine, on the current loop, with default options. Port 0 lets the kernel choose.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is not of the internet; the kernel's, such as an address in use.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn bind(at: impl IntoAddr) -> io::Result<UdpSocket> {
        Self::bind_with(at, &UdpOptions::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn bind_with(at: impl IntoAddr, options: &UdpOptions) -> io::Result<UdpSocket> {
        let at = internet(at)?;
        let shared = Handle::current().shared;
        let sys = shared.driver.sys();
        let fd = sys.packet_socket(if at.is_ipv4() { PacketKind::Udp4 } else { PacketKind::Udp6 })?;
        if let Err(e) = prepare(sys, fd, at, options) {
            sys.close(fd);
            return Err(e);
        }
        Self::over(shared, fd)
    }

    /// Takes over a UDP socket of the standard library or any other owner, on the current loop; it becomes non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it has no internet address; the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<UdpSocket> {
        let shared = Handle::current().shared;
        let sys = shared.driver.sys();
        let fd = sys.import(fd.into())?;
        if let Err(e) = sys.packet_local(fd).and_then(|at| is_ip(Some(at))) {
            sys.close(fd);
            return Err(e);
        }
        Self::over(shared, fd)
    }

    fn over(shared: Rc<Shared>, fd: Fd) -> io::Result<UdpSocket> {
        Ok(UdpSocket { watched: Watched::new(shared, fd, Interest::BOTH, true)? })
    }

    /// Gives the socket away, non-blocking as it is.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended; the kernel's.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        let shared = self.watched.shared().clone();
        shared.driver.sys().export(self.watched.into_fd()?)
    }

    /// Sets where [`send`](Self::send) sends to, and from where alone datagrams are taken.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    pub fn connect(&self, to: impl IntoAddr) -> io::Result<()> {
        self.watched.sys().packet_connect(self.watched.fd()?, &PacketAddr::Ip(internet(to)?))
    }

    /// Sends a datagram to the peer that the socket is connected to.
    ///
    /// # Errors
    /// The kernel's: `EMSGSIZE` for one that is too long, and what was heard of earlier ones.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.watched.io(Half::Write, |sys, fd| sys.packet_send(fd, datagram, None)).await
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// As for [`send`](Self::send), and `InvalidInput` for an address that is not of the internet.
    pub async fn send_to(&self, datagram: &[u8], to: impl IntoAddr) -> io::Result<usize> {
        let to = PacketAddr::Ip(internet(to)?);
        self.watched.io(Half::Write, |sys, fd| sys.packet_send(fd, datagram, Some(&to))).await
    }

    /// Receives a datagram, and says how long it was; what did not fit into the buffer is lost.
    ///
    /// # Errors
    /// The kernel's, such as `ConnectionRefused` for what was sent before.
    pub async fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        self.watched.io(Half::Read, |sys, fd| sys.recv(fd, into)).await
    }

    /// Receives a datagram, and says how long it was and who sent it.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.watched.io(Half::Read, |sys, fd| receive(sys, fd, into)).await
    }

    /// As [`recv_from`](Self::recv_from), for those who write their own futures. Of the tasks that poll, the last one is
    /// woken.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.watched.poll_io(cx, Half::Read, |sys, fd| receive(sys, fd, into))
    }

    /// As [`send_to`](Self::send_to), for those who write their own futures. Of the tasks that poll, the last one is woken.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        datagram: &[u8],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let to = PacketAddr::Ip(to);
        self.watched.poll_io(cx, Half::Write, |sys, fd| sys.packet_send(fd, datagram, Some(&to)))
    }

    /// Sets an option.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_option(&self, option: UdpOption) -> io::Result<()> {
        self.watched.sys().packet_option(self.watched.fd()?, option)
    }

    /// The address that it is bound to, with the port that the kernel chose.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        is_ip(Some(self.watched.sys().packet_local(self.watched.fd()?)?))
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    /// `NotConnected` if it is not; the kernel's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        is_ip(Some(self.watched.sys().packet_peer(self.watched.fd()?)?))
    }
}

/// Sets what must be set before a socket is bound, and binds it.
fn prepare(sys: &dyn Sys, fd: Fd, at: SocketAddr, options: &UdpOptions) -> io::Result<()> {
    if options.reuse_addr {
        sys.packet_option(fd, UdpOption::ReuseAddr(true))?;
    }
    if options.reuse_port {
        sys.packet_option(fd, UdpOption::ReusePort(true))?;
    }
    if at.is_ipv6() {
        sys.packet_option(fd, UdpOption::OnlyV6(options.only_v6))?;
    }
    if let Some(size) = options.recv_buffer {
        sys.packet_option(fd, UdpOption::RecvBuffer(size))?;
    }
    if let Some(size) = options.send_buffer {
        sys.packet_option(fd, UdpOption::SendBuffer(size))?;
    }
    sys.packet_bind(fd, &PacketAddr::Ip(at))
}

fn receive(sys: &dyn Sys, fd: Fd, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (n, from) = sys.packet_recv(fd, into)?;
    Ok((n, is_ip(from)?))
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("local_addr", &self.local_addr().ok()).finish_non_exhaustive()
    }
}
