//! Who has which port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::io::Errno;

use super::{HostId, Kernel, ObjectId};

/// A socket that is bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) object: ObjectId,
    /// Others may be bound there too that have asked for it.
    pub(crate) shared: bool,
    /// An IPv6 socket that takes nothing from IPv4.
    pub(crate) only_v6: bool,
}

/// Ports of one protocol mean nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Binding {
    fn takes(&self, to: SocketAddr) -> bool {
        let (ip, here) = (to.ip().to_canonical(), self.addr.ip());
        // An unspecified IPv6 address takes IPv4 too, unless it was asked not to.
        let family = if here.is_ipv6() { ip.is_ipv6() || !self.only_v6 } else { ip.is_ipv4() };
        let all = here.is_unspecified() && family;
        self.addr.port() == to.port() && (all || here == ip || here == to.ip())
    }
}

const EPHEMERAL: u16 = 32_768;

impl Kernel {
    /// A port that nobody has.
    pub(crate) fn ephemeral_port(&mut self, host: HostId, protocol: Protocol) -> Result<u16, Errno> {
        for _ in EPHEMERAL..=u16::MAX {
            let host = self.host(host);
            let port = host.next_port;
            host.next_port = port.checked_add(1).unwrap_or(EPHEMERAL);
            if !host.bindings.iter().any(|b| b.protocol == protocol && b.addr.port() == port) {
                return Ok(port);
            }
        }
        Err(Errno::ADDRINUSE)
    }

    /// The address that a socket gets that asks for `wanted`; port 0 stands for any.
    ///
    /// # Errors
    /// `EADDRINUSE` if somebody has it who does not share, `EADDRNOTAVAIL` if it is no address of this host, `EINVAL` if it is an
    /// address of a link that is not said.
    pub(crate) fn bind(
        &mut self,
        host: HostId,
        protocol: Protocol,
        wanted: SocketAddr,
        shared: bool,
        only_v6: bool,
    ) -> Result<SocketAddr, Errno> {
        if let SocketAddr::V6(of_link) = wanted
            && of_link.ip().is_unicast_link_local()
            && of_link.scope_id() == 0
        {
            return Err(Errno::INVAL);
        }
        if self.host_at(host, wanted.ip()) != Some(host) {
            return Err(Errno::ADDRNOTAVAIL);
        }
        let mut addr = wanted;
        if addr.port() == 0 {
            addr.set_port(self.ephemeral_port(host, protocol)?);
            return Ok(addr);
        }
        let overlaps = |b: &&Binding| {
            let unspecified = b.addr.ip().is_unspecified() || addr.ip().is_unspecified();
            b.protocol == protocol
                && b.addr.port() == addr.port()
                && (unspecified || b.addr.ip() == addr.ip())
                && !(b.only_v6 && addr.is_ipv4() || only_v6 && b.addr.is_ipv4())
        };
        match self.host(host).bindings.iter().find(overlaps) {
            Some(taken) if !(taken.shared && shared) => Err(Errno::ADDRINUSE),
            _ => Ok(addr),
        }
    }

    pub(crate) fn add_binding(&mut self, host: HostId, binding: Binding) {
        self.host(host).bindings.push(binding);
    }

    pub(crate) fn remove_binding(&mut self, host: HostId, object: ObjectId) {
        self.host(host).bindings.retain(|b| b.object != object);
    }

    /// Who takes what is sent to an address; among several who share it, one by chance.
    pub(crate) fn bound_to(&mut self, host: HostId, protocol: Protocol, to: SocketAddr) -> Option<ObjectId> {
        let mut takers = self.takers(host, protocol, to);
        // An address of its own goes before the unspecified one.
        let exact = |b: &&Binding| !b.addr.ip().is_unspecified();
        if takers.iter().any(|b| exact(&b)) {
            takers.retain(|b| exact(&b));
        }
        self.dice.choice(&takers).map(|b| b.object)
    }

    /// All who are bound where something is sent to.
    pub(crate) fn takers(&self, host: HostId, protocol: Protocol, to: SocketAddr) -> Vec<Binding> {
        let bindings = &self.hosts[host.0 as usize].bindings;
        bindings.iter().filter(|b| b.protocol == protocol && b.takes(to)).copied().collect()
    }

    /// The address from which a host reaches another address.
    pub(crate) fn source_address(&self, host: HostId, to: IpAddr) -> IpAddr {
        match to {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V4(_) => self.ip(host).into(),
            IpAddr::V6(_) => self.ip6(host).into(),
        }
    }
}
