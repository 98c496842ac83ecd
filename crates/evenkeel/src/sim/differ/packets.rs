//! Datagrams, sequenced packets and pipes in a program: the calls, and how they are made.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

use super::program::{Handle, Op};
use super::rings::Ask;
use super::side::{Answer, Side, Watched, pattern};
use crate::net::Addr;
use crate::sys::{PacketAddr, PacketKind};

/// What is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Udp4,
    Udp6,
    Datagram,
    Sequenced,
    Pipe,
}

impl Sort {
    fn kind(self) -> Option<PacketKind> {
        match self {
            Sort::Udp4 => Some(PacketKind::Udp4),
            Sort::Udp6 => Some(PacketKind::Udp6),
            Sort::Datagram => Some(PacketKind::UnixDatagram),
            Sort::Sequenced => Some(PacketKind::UnixSeqpacket),
            Sort::Pipe => None,
        }
    }

    pub(super) fn is_udp(self) -> bool {
        matches!(self, Sort::Udp4 | Sort::Udp6)
    }

    pub(super) fn is_unix(self) -> bool {
        matches!(self, Sort::Datagram | Sort::Sequenced)
    }
}

/// The address that a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// Of UDP: this host's, with a port that nobody has.
    Loopback,
    /// Of UDP: all addresses, with a port that nobody has.
    All,
    /// A name of the abstract namespace.
    Abstract(u8),
    File(u8),
    /// Where another one is bound, or was.
    Like(Handle),
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PacketOp {
    Socket {
        sort: Sort,
        into: Handle,
    },
    Pair {
        sort: Sort,
        into: [Handle; 2],
    },
    Bind {
        on: Handle,
        at: At,
    },
    Listen {
        on: Handle,
        backlog: i32,
    },
    /// To where another one is bound, or was.
    Connect {
        on: Handle,
        to: Handle,
    },
    Send {
        on: Handle,
        to: Option<Handle>,
        bytes: usize,
        tag: u8,
    },
    Recv {
        on: Handle,
        most: usize,
    },
    Local {
        on: Handle,
    },
    Peer {
        on: Handle,
    },
    /// The reading end first.
    Pipe {
        into: [Handle; 2],
    },
    Read {
        on: Handle,
        most: usize,
    },
    Write {
        on: Handle,
        parts: Vec<usize>,
        tag: u8,
    },
    Splice {
        from: Handle,
        to: Handle,
        most: usize,
    },
}

impl<Y: Watched> Side<Y> {
    /// What the number of a handle is now, if it is no stream.
    pub(super) fn sort(&self, on: Handle) -> Option<Sort> {
        self.sorts.get(&self.owner(on)?).copied()
    }

    /// Calls that are about streams, and mean something else, or nothing, elsewhere: nobody makes them there.
    pub(super) fn is_misplaced(&self, op: &Op) -> bool {
        match op {
            Op::Send { on, .. } | Op::SendVectored { on, .. } => self.sort(*on).is_some(),
            Op::Abort { on } | Op::LocalAddr { on } | Op::PeerAddr { on } | Op::Set { on, .. } => {
                self.sort(*on).is_some()
            }
            Op::Shutdown { on, .. } => self.sort(*on).is_some_and(|sort| !sort.is_unix()),
            Op::Ask { ask: Ask::Receive { .. } | Ask::Accept { .. } | Ask::Send { .. }, on, .. } => {
                self.sort(*on).is_some()
            }
            _ => false,
        }
    }

    /// Makes a call. None: it is not for what is there.
    pub(super) fn packet(&mut self, op: &PacketOp) -> Option<io::Result<Answer>> {
        match op {
            PacketOp::Socket { .. } | PacketOp::Pair { .. } | PacketOp::Pipe { .. } => self.make_packets(op),
            PacketOp::Read { .. } | PacketOp::Write { .. } | PacketOp::Splice { .. } => self.pipe(op),
            PacketOp::Bind { on, .. }
            | PacketOp::Listen { on, .. }
            | PacketOp::Connect { on, .. }
            | PacketOp::Send { on, .. }
            | PacketOp::Recv { on, .. }
            | PacketOp::Local { on }
            | PacketOp::Peer { on } => {
                let sort = self.sort(*on).filter(|sort| *sort != Sort::Pipe)?;
                let answer = self.packet_socket(op, *on, sort);
                self.learn_address(*on, sort);
                answer
            }
        }
    }

    fn make_packets(&mut self, op: &PacketOp) -> Option<io::Result<Answer>> {
        let (sort, into, made) = match op {
            PacketOp::Socket { sort, into } => {
                return Some(self.sys.packet_socket(sort.kind()?).map(|fd| {
                    self.sorts.insert(*into, *sort);
                    Answer::Number(self.opened(fd, *into))
                }));
            }
            PacketOp::Pair { sort, into } => (*sort, into, self.sys.packet_pair(sort.kind()?)),
            PacketOp::Pipe { into } => (Sort::Pipe, into, self.sys.pipe()),
            _ => return None,
        };
        Some(made.map(|(a, b)| {
            self.sorts.extend(into.map(|end| (end, sort)));
            Answer::Pair(self.opened(a, into[0]), self.opened(b, into[1]))
        }))
    }

    /// Notes where a socket is: one for UDP gets a port by sending, too.
    fn learn_address(&mut self, on: Handle, sort: Sort) {
        let (Some(owner), Some(fd)) = (self.owner(on), self.number(on)) else { return };
        let Ok(addr) = self.sys.packet_local(fd) else { return };
        match &addr {
            PacketAddr::Ip(ip) if ip.port() == 0 => return,
            PacketAddr::Ip(ip) => drop(self.udp_ports.insert(ip.port(), owner)),
            PacketAddr::Unix(unix) if unix.is_unnamed() => return,
            PacketAddr::Unix(_) => {}
        }
        debug_assert_eq!(sort.is_udp(), matches!(addr, PacketAddr::Ip(_)), "its address is of its kind");
        self.bound.insert(owner, addr);
    }

    /// Where to: an address of a kind that the socket could mean.
    fn target(&self, sort: Sort, to: Handle) -> Option<PacketAddr> {
        let addr = self.bound.get(&to)?;
        (matches!(addr, PacketAddr::Ip(_)) == sort.is_udp()).then(|| addr.clone())
    }

    /// An address in words: ports by whom they belong to, names without the folder.
    fn called(&self, addr: Option<&PacketAddr>) -> String {
        match addr {
            None => String::new(),
            Some(PacketAddr::Ip(ip)) => match self.udp_ports.get(&ip.port()) {
                _ if ip.port() == 0 => format!("{}", ip.ip()),
                Some(owner) => format!("{} of h{owner}", ip.ip()),
                None => format!("{} of nobody", ip.ip()),
            },
            Some(PacketAddr::Unix(unix)) => match (unix.as_pathname(), unix.as_abstract_name()) {
                (Some(path), _) => path.file_name().unwrap_or_default().to_string_lossy().into(),
                (_, Some(name)) => {
                    let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                    format!("@{}", String::from_utf8_lossy(last))
                }
                _ => String::new(),
            },
        }
    }

    fn bind_address(&self, sort: Sort, at: At) -> Option<PacketAddr> {
        let ip = |v4: Ipv4Addr, v6: Ipv6Addr| {
            let ip = if sort == Sort::Udp4 { v4.into() } else { v6.into() };
            sort.is_udp().then(|| PacketAddr::Ip(SocketAddr::new(ip, 0)))
        };
        let unix = |addr: io::Result<UnixAddr>| addr.ok().filter(|_| sort.is_unix()).map(PacketAddr::Unix);
        match at {
            At::Loopback => ip(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
            At::All => ip(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
            At::Abstract(n) => {
                let name = self.folder.join(n.to_string());
                unix(UnixAddr::from_abstract_name(name.as_os_str().as_encoded_bytes()))
            }
            At::File(n) => unix(UnixAddr::from_pathname(self.folder.join(format!("packets-{n}")))),
            At::Like(other) => self.target(sort, other),
        }
    }

    /// Calls on sockets for packets.
    fn packet_socket(&mut self, op: &PacketOp, on: Handle, sort: Sort) -> Option<io::Result<Answer>> {
        let (sys, fd) = (&self.sys, self.number(on)?);
        Some(match op {
            PacketOp::Bind { at, .. } => {
                let at = self.bind_address(sort, *at)?;
                let bound = sys.packet_bind(fd, &at);
                if let (Ok(()), PacketAddr::Unix(unix)) = (&bound, &at)
                    && let Some(path) = unix.as_pathname()
                {
                    // Its file is removed at the end.
                    self.places.insert(on, Addr::Unix(Some(path.to_owned())));
                }
                bound.map(|()| Answer::Done)
            }
            PacketOp::Listen { backlog, .. } => sys.packet_listen(fd, *backlog).map(|()| Answer::Done),
            PacketOp::Connect { to, .. } => {
                let to = self.target(sort, *to)?;
                // What one for IPv6 is after it was connected to IPv4 is not modelled.
                if sort == Sort::Udp6 && matches!(&to, PacketAddr::Ip(ip) if ip.ip().to_canonical().is_ipv4())
                {
                    return None;
                }
                sys.packet_connect(fd, &to).map(|()| Answer::Done)
            }
            PacketOp::Send { to, bytes, tag, .. } => {
                let to = match to {
                    Some(to) => Some(self.target(sort, *to)?),
                    None => None,
                };
                sys.packet_send(fd, &pattern(*tag, *bytes), to.as_ref()).map(Answer::Sent)
            }
            PacketOp::Recv { most, .. } => {
                let mut into = vec![0; *most];
                let received = if sort.is_udp() {
                    sys.packet_recv(fd, &mut into).map(|(n, from)| (n, false, from))
                } else {
                    sys.recv_with_fds(fd, &mut into, 0).map(|got| (got.len, got.truncated, got.from))
                };
                received.map(|(n, truncated, from)| Answer::Message {
                    bytes: into[..n].to_vec(),
                    truncated,
                    from: self.called(from.as_ref()),
                })
            }
            PacketOp::Local { .. } => sys.packet_local(fd).map(|at| Answer::Called(self.called(Some(&at)))),
            PacketOp::Peer { .. } => sys.packet_peer(fd).map(|at| Answer::Called(self.called(Some(&at)))),
            _ => return None,
        })
    }

    /// Calls on pipes.
    fn pipe(&mut self, op: &PacketOp) -> Option<io::Result<Answer>> {
        let is_pipe = |on: &Handle| self.sort(*on) == Some(Sort::Pipe);
        Some(match op {
            PacketOp::Read { on, most } if is_pipe(on) => {
                let mut into = vec![0; *most];
                self.sys.read(self.number(*on)?, &mut into).map(|n| Answer::Received(into[..n].to_vec()))
            }
            PacketOp::Write { on, parts, tag } if is_pipe(on) => {
                let parts: Vec<Vec<u8>> = parts.iter().map(|bytes| pattern(*tag, *bytes)).collect();
                let written = if let [one] = &parts[..] {
                    self.sys.write(self.number(*on)?, one)
                } else {
                    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
                    self.sys.write_vectored(self.number(*on)?, &parts)
                };
                written.map(Answer::Sent)
            }
            PacketOp::Splice { from, to, most } => {
                // Between a stream and a pipe, one way or the other.
                let sorts = (self.sort(*from), self.sort(*to));
                if !matches!(sorts, (Some(Sort::Pipe), None) | (None, Some(Sort::Pipe))) {
                    return None;
                }
                self.sys.splice(self.number(*from)?, self.number(*to)?, *most).map(Answer::Sent)
            }
            _ => return None,
        })
    }
}
