//! The model of the kernels of all hosts, and of the network between them.
//!
//! It is plain data on one thread: descriptors, the open objects behind them, and a queue of what is on its way. Nothing in it
//! calls code of the runtime or of a user; what changes an object tells those who watch it, and whoever waits looks afresh.
//!
//! With no delays and no faults it answers as Linux does, which random sequences of calls check against the running kernel.

mod bind;
pub(crate) mod bits;
mod connect;
mod epoll;
mod listener;
mod news;
mod object;
mod pipe;
mod poll;
pub(crate) mod ring;
mod stream;
mod table;
mod ticket;
mod udp;
mod unix_packet;
mod wake;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use fastrand::Rng;
use rustix::io::Errno;

pub(crate) use bind::Binding;
pub(crate) use object::{Kind, Object, ObjectId, Objects, Watcher};
pub(crate) use stream::Stream;
pub(crate) use table::Table;
pub(crate) use udp::Udp;
pub(crate) use unix_packet::{Name, UnixPacket};
pub(crate) use wake::{Call, Doings, Doorbell};

use super::fault::{Fault, Faults};
use super::net::Network;
use super::trace::Trace;

/// A simulated machine with one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostId(pub(crate) u32);

/// What the kernel of one host knows.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) table: Table,
    /// Who listens or is bound, by protocol and port.
    pub(super) bindings: Vec<Binding>,
    next_port: u16,
    /// Files of Unix sockets, and who listens there.
    pub(super) socket_files: BTreeMap<PathBuf, (u64, Option<ObjectId>)>,
    pub(super) next_inode: u64,
    /// Something changed since it was last looked at.
    pub(crate) stirred: bool,
    /// How many processes this host has had before the one that runs.
    pub(crate) life: u32,
    /// What its io_uring is like, once it was asked for.
    pub(super) rings: Option<ring::Offer>,
}

/// Something that will happen.
pub(crate) enum Event {
    /// What is on its way to a socket may have arrived.
    Arrive(ObjectId),
    /// A client's first packet reaches the host that it connects to.
    Connecting { client: ObjectId, attempt: u32 },
    /// The answer reaches the client.
    Connected { client: ObjectId, answer: Result<ObjectId, Errno> },
    /// A datagram that was sent from this host reaches another one.
    Datagram(HostId, udp::Datagram),
    /// A sender learns that nobody takes what it sends there.
    PortUnreachable { sender: ObjectId, to: SocketAddr },
    /// Those who watch an object are told to look again.
    Notify(ObjectId, u32),
    /// Code outside the model.
    Call(Box<dyn FnOnce()>),
}

struct Due {
    at: u64,
    /// Decides between equals, by chance.
    tie: u32,
    number: u64,
    what: Event,
}

impl Due {
    fn key(&self) -> (u64, u32, u64) {
        (self.at, self.tie, self.number)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// All hosts, and what is between them.
pub(crate) struct Kernel {
    /// Nanoseconds since the world began.
    pub(crate) now: u64,
    due: BinaryHeap<Reverse<Due>>,
    next_number: u64,
    pub(crate) objects: Objects,
    pub(crate) hosts: Vec<Host>,
    pub(crate) net: Network,
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    /// Order among equals.
    pub(crate) dice: Rng,
    /// Numbers for programs.
    pub(crate) user_dice: Rng,
    pub(crate) doorbell: Arc<Doorbell>,
    /// Whose call is being answered.
    pub(crate) acting: Option<HostId>,
    /// Waits of all loops.
    pub(crate) waits: u64,
    /// How often those who watch something were told of it.
    pub(crate) changes: u64,
    pub(crate) rings: ring::Rings,
    tickets: ticket::Tickets,
    /// What loops are to look at, by their numbers.
    news: Vec<BTreeSet<ObjectId>>,
}

impl Kernel {
    pub(crate) fn new(seed: u64, net: Network, verbose: bool) -> Self {
        Kernel {
            now: 0,
            due: BinaryHeap::new(),
            next_number: 0,
            objects: Objects::default(),
            hosts: Vec::new(),
            net,
            faults: Faults::new(seed),
            trace: Trace::new(verbose),
            dice: Rng::with_seed(seed ^ 0x6b65_726e_656c),
            user_dice: Rng::with_seed(seed ^ 0x7573_6572),
            doorbell: Arc::default(),
            acting: None,
            waits: 0,
            changes: 0,
            rings: ring::Rings::new(seed),
            tickets: ticket::Tickets::default(),
            news: Vec::new(),
        }
    }

    pub(crate) fn add_host(&mut self, name: &str) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        self.hosts.push(Host {
            name: name.to_owned(),
            table: Table::default(),
            bindings: Vec::new(),
            next_port: 32_768,
            socket_files: BTreeMap::new(),
            next_inode: 1,
            stirred: false,
            life: 0,
            rings: None,
        });
        id
    }

    pub(crate) fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    /// Ends a host's process without warning. Its kernel closes what it had open.
    pub(crate) fn kill(&mut self, id: HostId) {
        self.close_all(id);
        self.host(id).life += 1;
        let name = self.hosts[id.0 as usize].name.clone();
        self.log(format_args!("{name} is killed"));
    }

    /// Its address in the network that all hosts share.
    pub(crate) fn ip(&self, id: HostId) -> Ipv4Addr {
        let [_, a, b, c] = (id.0 + 1).to_be_bytes();
        Ipv4Addr::new(10, a, b, c)
    }

    pub(crate) fn ip6(&self, id: HostId) -> Ipv6Addr {
        Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(id.0 + 1))
    }

    /// Whom `from` reaches at an address.
    pub(crate) fn host_at(&self, from: HostId, ip: IpAddr) -> Option<HostId> {
        let ip = ip.to_canonical();
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(from);
        }
        (0..self.hosts.len() as u32).map(HostId).find(|host| match ip {
            IpAddr::V4(ip) => self.ip(*host) == ip,
            IpAddr::V6(ip) => self.ip6(*host) == ip,
        })
    }

    // ---- time ----

    pub(crate) fn at(&mut self, at: u64, what: Event) {
        let tie = self.dice.u32(..);
        let number = self.next_number;
        self.next_number += 1;
        self.due.push(Reverse(Due { at, tie, number, what }));
    }

    pub(crate) fn after(&mut self, delay: u64, what: Event) {
        self.at(self.now.saturating_add(delay), what);
    }

    /// When the next thing happens.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.peek().map(|Reverse(due)| due.at)
    }

    /// Lets everything happen that is due by now. Calls of code outside are returned, to be made when nothing is borrowed.
    pub(crate) fn settle(&mut self) -> Vec<Box<dyn FnOnce()>> {
        let mut calls = Vec::new();
        self.ring_doorbell();
        self.run_undeferred();
        self.collect_tickets();
        while self.next_due().is_some_and(|at| at <= self.now) {
            let Some(Reverse(due)) = self.due.pop() else { break };
            match due.what {
                Event::Arrive(to) => self.arrive(to),
                Event::Connecting { client, attempt } => self.connecting(client, attempt),
                Event::Connected { client, answer } => self.connected(client, answer),
                Event::Datagram(from, datagram) => self.udp_arrives(from, datagram),
                Event::PortUnreachable { sender, to } => self.udp_refused(sender, to),
                Event::Notify(object, mask) => self.notify(object, mask),
                Event::Call(call) => calls.push(call),
            }
        }
        calls
    }

    pub(crate) fn log(&mut self, what: fmt::Arguments<'_>) {
        match self.acting {
            Some(host) => {
                let name = &self.hosts[host.0 as usize].name;
                self.trace.add(self.now, format_args!("{name}: {what}"));
            }
            None => self.trace.add(self.now, what),
        }
    }

    /// Whether a kind of fault strikes here; written down if it does.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.faults.strikes(fault);
        if strikes {
            self.log(format_args!("fault {fault}"));
        }
        strikes
    }

    // ---- watching ----

    /// Tells those who watch an object that something of `mask` is new; 0 stands for everything.
    pub(crate) fn notify(&mut self, id: ObjectId, mask: u32) {
        let Some(object) = self.objects.get(id) else { return };
        let host = object.host;
        self.changes += 1;
        self.host(host).stirred = true;
        let Some(object) = self.objects.get(id) else { return };
        let watchers = object.watchers.clone();
        // One of those who share it is enough: the first that somebody sleeps in. A new state is everybody's.
        let mut taken = false;
        for watcher in watchers {
            match watcher {
                Watcher::Ring { ring, request } => {
                    let exclusive = mask != bits::STATE && self.ring_is_exclusive(ring, request);
                    if !(exclusive && taken) {
                        taken |= self.ring_notify(ring, request, mask) && exclusive;
                    }
                }
                Watcher::Epoll { epoll, fd } => {
                    let exclusive = mask != bits::STATE && self.epoll_is_exclusive(epoll, fd, id);
                    if !(exclusive && taken) {
                        taken |= self.epoll_notify(epoll, fd, id, mask) && exclusive;
                    }
                }
                Watcher::Loop(reader) => self.tell_loop(reader, id),
            }
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("now", &self.now).finish_non_exhaustive()
    }
}
