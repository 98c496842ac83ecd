//! UDP: datagrams that arrive whole, late, in another order, twice, or not at all.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;

use super::bind::{Binding, Protocol};
use super::{Event, HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::net::UdpOption;
use crate::sim::fault::Fault;

/// Bytes of the longest datagrams.
const LONGEST_V4: usize = 65_507;
const LONGEST_V6: usize = 65_527;
/// What a datagram takes of a buffer beside its bytes.
const OVERHEAD: usize = 768;
/// Linux's default buffers.
const BUFFER: usize = 212_992;

/// A socket.
#[derive(Debug)]
pub(crate) struct Udp {
    pub(crate) v6: bool,
    only_v6: bool,
    /// Others may have its address, of whom each one gets some datagrams.
    shared: bool,
    broadcast: bool,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    queued: usize,
    recv_room: usize,
    /// Sent, and not arrived anywhere.
    in_flight: usize,
    send_room: usize,
    error: Option<Errno>,
}

/// A datagram on its way.
#[derive(Debug)]
pub(crate) struct Datagram {
    sender: ObjectId,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Udp {
    pub(crate) fn new(v6: bool) -> Self {
        Udp {
            v6,
            only_v6: false,
            shared: false,
            broadcast: false,
            local: None,
            peer: None,
            queue: VecDeque::new(),
            queued: 0,
            recv_room: BUFFER,
            in_flight: 0,
            send_room: BUFFER,
            error: None,
        }
    }

    pub(super) fn mask(&self) -> u32 {
        let mut mask = if self.queue.is_empty() { 0 } else { bits::IN };
        if self.error.is_some() {
            mask |= bits::ERR;
        }
        if self.in_flight * 2 <= self.send_room {
            mask |= bits::OUT;
        }
        mask
    }

    /// Bytes of the next datagram.
    pub(super) fn unread(&self) -> usize {
        self.queue.front().map_or(0, |(_, bytes)| bytes.len())
    }

    /// An address as this socket's program knows it.
    fn seen(&self, addr: SocketAddr) -> SocketAddr {
        match addr.ip() {
            IpAddr::V4(ip) if self.v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
            _ => addr,
        }
    }

    fn unspecified(&self) -> SocketAddr {
        let ip: IpAddr = if self.v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        SocketAddr::new(ip, 0)
    }

    pub(super) fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }
}

/// Whether it is everybody's of a network: of any, of a host's own, or of that of all hosts.
fn is_broadcast(ip: IpAddr) -> bool {
    const ALL: [Ipv4Addr; 3] =
        [Ipv4Addr::BROADCAST, Ipv4Addr::new(127, 255, 255, 255), Ipv4Addr::new(10, 255, 255, 255)];
    matches!(ip, IpAddr::V4(ip) if ALL.contains(&ip))
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Kernel {
    fn udp(&mut self, id: ObjectId) -> Result<&mut Udp, Errno> {
        match self.objects.get_mut(id) {
            Some(Object { kind: Kind::Udp(udp), .. }) => Ok(udp),
            _ => Err(Errno::NOTSOCK),
        }
    }

    pub(crate) fn udp_option(&mut self, id: ObjectId, option: UdpOption) -> Result<(), Errno> {
        let udp = self.udp(id)?;
        match option {
            UdpOption::Broadcast(on) => udp.broadcast = on,
            UdpOption::ReuseAddr(on) | UdpOption::ReusePort(on) => udp.shared |= on,
            UdpOption::OnlyV6(_) if udp.local.is_some() || !udp.v6 => return Err(Errno::INVAL),
            UdpOption::OnlyV6(on) => udp.only_v6 = on,
            UdpOption::SendBuffer(size) => udp.send_room = size.saturating_mul(2).clamp(4608, 16 << 20),
            UdpOption::RecvBuffer(size) => udp.recv_room = size.saturating_mul(2).clamp(2304, 16 << 20),
            UdpOption::Ttl(ttl) if !(1..=255).contains(&ttl) => return Err(Errno::INVAL),
            // How far a datagram may go changes nothing in a network without routers.
            UdpOption::Ttl(_) | UdpOption::HopLimit(_) => {}
            _ => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }

    pub(crate) fn udp_bind(&mut self, host: HostId, id: ObjectId, to: SocketAddr) -> Result<(), Errno> {
        let udp = self.udp(id)?;
        if udp.v6 != to.is_ipv6() {
            return Err(if udp.v6 { Errno::INVAL } else { Errno::AFNOSUPPORT });
        }
        if udp.local.is_some() {
            return Err(Errno::INVAL);
        }
        let (shared, only_v6) = (udp.shared, udp.only_v6);
        let addr = self.bind(host, Protocol::Udp, to, shared, only_v6)?;
        // An address of IPv6 has nothing to do with IPv4.
        self.udp(id)?.only_v6 |= canonical(addr).is_ipv6() && !addr.ip().is_unspecified();
        self.udp_bound(host, id, addr, shared)
    }

    fn udp_bound(&mut self, host: HostId, id: ObjectId, addr: SocketAddr, shared: bool) -> Result<(), Errno> {
        let udp = self.udp(id)?;
        udp.local = Some(addr);
        let only_v6 = udp.only_v6;
        self.remove_binding(host, id);
        self.add_binding(
            host,
            Binding { addr: canonical(addr), protocol: Protocol::Udp, object: id, shared, only_v6 },
        );
        Ok(())
    }

    /// Its address; it gets a port if it has none.
    fn udp_local(&mut self, host: HostId, id: ObjectId) -> Result<SocketAddr, Errno> {
        let udp = self.udp(id)?;
        let (local, mut any, shared) = (udp.local, udp.unspecified(), udp.shared);
        if let Some(local) = local {
            return Ok(local);
        }
        any.set_port(self.ephemeral_port(host, Protocol::Udp)?);
        self.udp_bound(host, id, any, shared)?;
        Ok(any)
    }

    /// Where a datagram of this socket goes that its program sends to `to`.
    fn udp_reaches(&mut self, id: ObjectId, to: SocketAddr) -> Result<SocketAddr, Errno> {
        let udp = self.udp(id)?;
        if !udp.v6 && to.is_ipv6() {
            return Err(Errno::AFNOSUPPORT);
        }
        if udp.only_v6 && canonical(to).is_ipv4() {
            return Err(Errno::NETUNREACH);
        }
        let own = udp.local.map(|local| local.ip().to_canonical()).filter(|ip| !ip.is_unspecified());
        if udp.v6 && canonical(to).is_ipv6() && own.is_some_and(|own| own.is_ipv4()) {
            return Err(Errno::AFNOSUPPORT);
        }
        if to.port() == 0 {
            return Err(Errno::INVAL);
        }
        let mut to = canonical(to);
        if to.ip().is_unspecified() {
            to.set_ip(if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        if is_broadcast(to.ip()) && !udp.broadcast {
            return Err(Errno::ACCESS);
        }
        Ok(to)
    }

    pub(crate) fn udp_connect(&mut self, host: HostId, id: ObjectId, to: SocketAddr) -> Result<(), Errno> {
        // It has a port from then on, whatever comes of it.
        let mut local = self.udp_local(host, id)?;
        if self.udp(id)?.only_v6 && to.is_ipv4() {
            return Err(Errno::AFNOSUPPORT);
        }
        let to = if to.port() > 0 { self.udp_reaches(id, to)? } else { canonical(to) };
        let udp = self.udp(id)?;
        udp.peer = Some(to);
        let (shared, v6) = (udp.shared, udp.v6);
        if local.ip().is_unspecified() {
            let source = self.source_address(host, to.ip());
            local.set_ip(match source {
                IpAddr::V4(ip) if v6 => ip.to_ipv6_mapped().into(),
                other => other,
            });
            self.udp_bound(host, id, local, shared)?;
        }
        Ok(())
    }

    pub(crate) fn udp_address(&mut self, id: ObjectId, peer: bool) -> Result<SocketAddr, Errno> {
        let udp = self.udp(id)?;
        let there = if peer { Some(udp.peer.ok_or(Errno::NOTCONN)?) } else { udp.local };
        Ok(udp.seen(there.unwrap_or_else(|| udp.unspecified())))
    }

    pub(crate) fn udp_send(
        &mut self,
        host: HostId,
        id: ObjectId,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<usize, Errno> {
        // It has a port from then on, whatever comes of it.
        let local = self.udp_local(host, id)?;
        let udp = self.udp(id)?;
        let longest = if udp.v6 { LONGEST_V6 } else { LONGEST_V4 };
        if !udp.v6 && bytes.len() > 0xffff {
            return Err(Errno::MSGSIZE);
        }
        let to = match (to, udp.peer) {
            (Some(to), _) => self.udp_reaches(id, to)?,
            (None, Some(peer)) => peer,
            (None, None) => return Err(Errno::DESTADDRREQ),
        };
        if bytes.len() > longest {
            return Err(Errno::MSGSIZE);
        }
        let udp = self.udp(id)?;
        if let Some(error) = udp.error.take() {
            return Err(error);
        }
        let full = udp.in_flight + bytes.len() + OVERHEAD > udp.send_room;
        if full || self.strikes(Fault::WouldBlock) {
            if !full {
                self.notify_soon(id, bits::OUT);
            }
            return Err(Errno::AGAIN);
        }
        if self.strikes(Fault::NoBuffers) {
            return Err(Errno::NOBUFS);
        }
        let from = match canonical(local) {
            // One for IPv6 that has an address by being connected reaches IPv4 as well.
            any if any.ip().is_unspecified() || any.is_ipv6() && to.is_ipv4() => {
                SocketAddr::new(self.source_address(host, to.ip()), any.port())
            }
            own => own,
        };
        self.log(format_args!("datagram of {} from {from} to {to}", bytes.len()));
        self.udp_transmit(host, Datagram { sender: id, from, to, bytes: bytes.to_vec() });
        Ok(bytes.len())
    }

    fn udp_transmit(&mut self, host: HostId, datagram: Datagram) {
        let there = self.host_at(host, datagram.to.ip());
        // Within a host nothing is lost on the way.
        let far = there.is_none_or(|there| there != host);
        if far && self.strikes(Fault::Loss) {
            return;
        }
        let copies = if far && self.strikes(Fault::Duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.delay_between(host, there.unwrap_or(host));
            if let Ok(udp) = self.udp(datagram.sender) {
                udp.in_flight += datagram.bytes.len() + OVERHEAD;
            }
            let Datagram { sender, from, to, ref bytes } = datagram;
            let copy = Datagram { sender, from, to, bytes: bytes.clone() };
            if delay == 0 {
                self.udp_arrives(host, copy);
            } else {
                self.after(delay, Event::Datagram(host, copy));
            }
        }
    }

    /// A datagram reaches the host that it was sent to, if there is one and nothing is in the way.
    pub(super) fn udp_arrives(&mut self, from_host: HostId, datagram: Datagram) {
        let Datagram { sender, from, to, bytes } = datagram;
        if let Ok(udp) = self.udp(sender) {
            udp.in_flight = udp.in_flight.saturating_sub(bytes.len() + OVERHEAD);
            // Each datagram that leaves is news to its sender.
            if udp.mask() & bits::OUT != 0 {
                self.notify(sender, bits::OUT);
            }
        }
        let Some(host) = self.host_at(from_host, to.ip()) else { return };
        if self.net.is_cut(from_host, host, self.now).is_some() {
            return self.faults.hit(Fault::Loss);
        }
        let Some(taker) = self.udp_taker(host, from, to) else {
            // The host says that nobody is there.
            let delay = self.delay_between(host, from_host);
            if delay == 0 {
                self.udp_refused(sender, to);
            } else {
                self.after(delay, Event::PortUnreachable { sender, to });
            }
            return;
        };
        let Ok(udp) = self.udp(taker) else { return };
        // As Linux: one that comes while there is any room at all is taken.
        if udp.queued > udp.recv_room {
            return self.log(format_args!("no room for a datagram to {to}"));
        }
        udp.queued += bytes.len() + OVERHEAD;
        let from = udp.seen(from);
        udp.queue.push_back((from, bytes));
        self.notify(taker, bits::ARRIVED);
    }

    /// Who gets a datagram: who is connected to its sender goes first, and an address of its own before all addresses.
    fn udp_taker(&mut self, host: HostId, from: SocketAddr, to: SocketAddr) -> Option<ObjectId> {
        let mut best: Vec<ObjectId> = Vec::new();
        let mut score = 0;
        for binding in self.takers(host, Protocol::Udp, to) {
            let Ok(udp) = self.udp(binding.object) else { continue };
            let wrong_peer = udp.peer.is_some_and(|peer| peer != from);
            if wrong_peer || (udp.only_v6 && to.is_ipv4()) {
                continue;
            }
            let this =
                1 + usize::from(!binding.addr.ip().is_unspecified()) + 2 * usize::from(udp.peer.is_some());
            if this > score {
                (best, score) = (Vec::new(), this);
            }
            if this == score {
                best.push(binding.object);
            }
        }
        // Those who share an address get always the same senders' datagrams.
        let spread = usize::from(from.port()).wrapping_mul(31);
        (!best.is_empty()).then(|| best[spread % best.len()])
    }

    /// Nobody is where a socket has sent to. Only one that is connected there is told.
    pub(super) fn udp_refused(&mut self, sender: ObjectId, to: SocketAddr) {
        let Ok(udp) = self.udp(sender) else { return };
        if udp.peer == Some(to) {
            udp.error = Some(Errno::CONNREFUSED);
            self.notify(sender, bits::ERR);
        }
    }

    pub(crate) fn udp_recv(&mut self, id: ObjectId, into: &mut [u8]) -> Result<(usize, SocketAddr), Errno> {
        let udp = self.udp(id)?;
        if let Some(error) = udp.error.take() {
            return Err(error);
        }
        if udp.queue.is_empty() {
            return Err(Errno::AGAIN);
        }
        if self.strikes(Fault::WouldBlock) {
            self.notify_soon(id, bits::IN);
            return Err(Errno::AGAIN);
        }
        let udp = self.udp(id)?;
        let (from, bytes) = udp.queue.pop_front().ok_or(Errno::AGAIN)?;
        udp.queued = udp.queued.saturating_sub(bytes.len() + OVERHEAD);
        let n = bytes.len().min(into.len());
        into[..n].copy_from_slice(&bytes[..n]);
        self.log(format_args!("datagram of {n} from {from} is read"));
        Ok((n, from))
    }
}
