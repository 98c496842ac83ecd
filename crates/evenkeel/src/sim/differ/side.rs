//! One of the two kernels, and what a program has open in it: performs calls, and says what came of them in words that do not
//! depend on which kernel it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{FdSetIter, fd_set_insert};
use rustix::io::Errno;

use super::packets::Sort;
use super::program::{Flags, Handle, NEVER, Op, Place, Setting, Target};
use super::rings::{Ask, Completion, Rings};
use crate::net::{Addr, ConnectOptions, KeepAlive, ListenOptions, SocketOption};
use crate::sim::sys::SimSys;
use crate::sys::{EpollEvent, EpollFlags, EpollOp, Fd, PacketAddr, PollEntry, Sys, WakeFn, alone, poll_bits};

/// What a call gave. Numbers are counted from the first that was free when the program began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It names what there is not.
    Skipped,
    Done,
    Number(Fd),
    Pair(Fd, Fd),
    Connected {
        number: Fd,
        already: bool,
    },
    Accepted {
        number: Fd,
        from: Whence,
    },
    Sent(usize),
    Received(Vec<u8>),
    Message {
        bytes: Vec<u8>,
        truncated: bool,
        from: String,
    },
    /// An address of a socket for packets.
    Called(String),
    Pending(Option<i32>),
    Address(Whence),
    /// By epoll, in its order: the handle, and the mask.
    Reports(Vec<(Handle, Flags)>),
    Completions(Vec<Completion>),
    Ready(usize, Vec<i16>),
    Selected(usize, [Vec<Handle>; 3]),
    Failed(String),
}

/// An address, with the port by the handle of whoever got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whence {
    Of(Handle, std::net::IpAddr),
    Unknown(std::net::IpAddr),
    File(String),
    Nameless,
}

/// One number as `poll` and the queue of unread bytes show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) handle: Handle,
    pub(super) number: Fd,
    pub(super) mask: i16,
    pub(super) unread: Option<usize>,
}

/// What the comparison needs of a kernel beyond what the runtime does.
pub(super) trait Watched: Sys {
    /// Bytes that wait to be read. None if it is no stream.
    fn unread(&self, fd: Fd) -> Option<usize>;
    /// Lets happen what is due.
    fn settle(&self) {}
    /// How long an acknowledgement may be held back.
    fn held_back(&self) -> Duration {
        Duration::ZERO
    }
    /// Whether something that was sent on this is still under way.
    fn is_under_way(&self, _: Fd) -> bool {
        false
    }
}

/// A kernel with what is open in it.
pub(super) struct Side<Y> {
    pub(super) sys: Y,
    /// By count from the first.
    numbers: Vec<Fd>,
    named: BTreeMap<Handle, Fd>,
    /// Open numbers, by count, and whose they are.
    pub(super) live: BTreeMap<Fd, Handle>,
    wakes: BTreeMap<Handle, WakeFn>,
    pub(super) places: BTreeMap<Handle, Addr>,
    ports: BTreeMap<u16, Handle>,
    rings: BTreeMap<Handle, Rings>,
    epolls: BTreeSet<Handle>,
    /// What was shut down.
    shut: BTreeSet<Handle>,
    /// What is no stream, and where it is bound.
    pub(super) sorts: BTreeMap<Handle, Sort>,
    pub(super) bound: BTreeMap<Handle, PacketAddr>,
    pub(super) udp_ports: BTreeMap<u16, Handle>,
    pub(super) folder: PathBuf,
}

/// Numbers that a program may use. The last of them is never open.
const NUMBERS: usize = 56;

const ALL: i16 = poll_bits::IN | poll_bits::PRI | poll_bits::OUT | poll_bits::RDHUP;

impl<Y: Watched> Side<Y> {
    /// Files of sockets are made in `folder`.
    pub(super) fn new(sys: Y, folder: PathBuf) -> io::Result<Self> {
        let numbers = (0..NUMBERS).map(|_| sys.spare()).collect::<io::Result<Vec<Fd>>>()?;
        numbers.iter().for_each(|fd| sys.close(*fd));
        Ok(Side {
            sys,
            numbers,
            named: BTreeMap::new(),
            live: BTreeMap::new(),
            wakes: BTreeMap::new(),
            places: BTreeMap::new(),
            ports: BTreeMap::new(),
            rings: BTreeMap::new(),
            epolls: BTreeSet::new(),
            shut: BTreeSet::new(),
            sorts: BTreeMap::new(),
            bound: BTreeMap::new(),
            udp_ports: BTreeMap::new(),
            folder,
        })
    }

    /// Room for as many more descriptors.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.live.len() + more < NUMBERS - 1
    }

    pub(super) fn number(&self, handle: Handle) -> Option<Fd> {
        if handle == NEVER {
            return self.numbers.last().copied();
        }
        self.named.get(&handle).map(|at| self.numbers[*at as usize])
    }

    /// The number of a handle that is open, and its own.
    fn own(&self, handle: Handle) -> Option<Fd> {
        let at = self.named.get(&handle)?;
        (self.live.get(at) == Some(&handle)).then(|| self.numbers[*at as usize])
    }

    /// Whose the number of a handle is now.
    pub(super) fn owner(&self, handle: Handle) -> Option<Handle> {
        self.live.get(self.named.get(&handle)?).copied()
    }

    pub(super) fn is_open(&self, handle: Handle) -> bool {
        self.own(handle).is_some()
    }

    pub(super) fn opened(&mut self, fd: Fd, handle: Handle) -> Fd {
        let at = self.numbers.iter().position(|n| *n == fd);
        assert!(at.is_some(), "{fd} is none of the numbers that were free when the program began");
        let at = at.unwrap_or(0) as Fd;
        self.named.insert(handle, at);
        self.live.insert(at, handle);
        at
    }

    fn learn_port(&mut self, fd: Fd, handle: Handle) {
        if let Ok(addr) = self.sys.local_addr(fd) {
            if let Some(ip) = addr.socket_addr() {
                self.ports.insert(ip.port(), handle);
            }
            self.places.insert(handle, addr);
        }
    }

    fn whence(&self, addr: Addr) -> Whence {
        match addr {
            Addr::Ip(at) => match self.ports.get(&at.port()) {
                Some(handle) => Whence::Of(*handle, at.ip()),
                None => Whence::Unknown(at.ip()),
            },
            Addr::Unix(Some(path)) => {
                Whence::File(path.file_name().unwrap_or_default().to_string_lossy().into())
            }
            Addr::Unix(None) => Whence::Nameless,
        }
    }

    /// Every open number as it is now.
    pub(super) fn look(&self) -> Vec<Look> {
        // What a ring is ready for is asked of itself.
        let shown = || self.live.iter().filter(|(_, handle)| !self.rings.contains_key(handle));
        let fds: Vec<Fd> = shown().map(|(at, _)| self.numbers[*at as usize]).collect();
        let mut entries: Vec<PollEntry> =
            fds.iter().map(|fd| PollEntry { fd: *fd, events: ALL, revents: 0 }).collect();
        let polled = self.sys.poll(&mut entries, Some(Duration::ZERO));
        assert!(polled.is_ok(), "poll takes any numbers: {polled:?}");
        let shown = shown().zip(entries);
        let look = |((number, handle), entry): ((&Fd, &Handle), PollEntry)| Look {
            handle: *handle,
            number: *number,
            mask: entry.revents,
            unread: self.sys.unread(entry.fd),
        };
        shown.map(look).collect()
    }

    /// Whether everything that was sent has arrived, as far as anybody can be made to say so.
    pub(super) fn is_quiet(&self) -> bool {
        !self.live.keys().any(|at| self.sys.is_under_way(self.numbers[*at as usize]))
    }

    /// Has held-back acknowledgements sent.
    pub(super) fn hurry(&self) {
        for at in self.live.keys() {
            alone::acknowledge(self.numbers[*at as usize]);
        }
    }

    /// Closes everything, with resets, and removes the files.
    pub(super) fn end(mut self) {
        for (handle, ring) in std::mem::take(&mut self.rings) {
            self.live.retain(|_, open| *open != handle);
            for fd in ring.end(&self.sys) {
                self.sys.close(fd);
            }
        }
        for handle in self.live.values().copied().collect::<Vec<_>>() {
            let packets = self.sort(handle).is_some();
            self.run(&if packets { Op::Close { on: handle } } else { Op::Abort { on: handle } });
        }
        for addr in self.places.values() {
            if let Addr::Unix(Some(path)) = addr {
                self.sys.remove_socket_file(path, None);
            }
        }
    }

    /// Makes one call.
    pub(super) fn run(&mut self, op: &Op) -> Answer {
        let answer = match op {
            _ if self.is_misplaced(op) || self.is_left_out(op) => None,
            Op::Packet(op) => self.packet(op),
            Op::Listen { .. }
            | Op::ListenAgain { .. }
            | Op::Unlink { .. }
            | Op::Connect { .. }
            | Op::Accept { .. } => self.begin(op),
            Op::Pair { .. } | Op::Spare { .. } | Op::Bell { .. } | Op::Epoll { .. } => self.make(op),
            Op::Close { .. } | Op::Abort { .. } | Op::Wake { .. } | Op::ClearWake { .. } => self.owned(op),
            Op::Ring { .. } | Op::Ask { .. } | Op::Turn { .. } => self.ring(op),
            Op::Ctl { .. } | Op::Wait { .. } | Op::Poll { .. } | Op::Select { .. } => self.wait(op),
            _ => self.transfer(op),
        };
        match answer {
            None => Answer::Skipped,
            Some(Ok(answer)) => answer,
            Some(Err(e)) => Answer::Failed(failure(&e)),
        }
    }

    /// What `VARIANCE.md` says of rings: they watch no epoll, and accept nothing on its own from a Unix listener that was shut.
    fn is_left_out(&self, op: &Op) -> bool {
        let (Op::Ask { on, .. } | Op::Shutdown { on, .. }) = op else { return false };
        let (Some(owner), Some(fd)) = (self.owner(*on), self.number(*on)) else { return false };
        match op {
            Op::Ask { ask: Ask::Poll { .. }, .. } if self.epolls.contains(&owner) => true,
            Op::Ask { ask: Ask::Accept { multishot: false }, .. } => self.shut.contains(&owner),
            Op::Shutdown { .. } => {
                let is_unix = matches!(self.places.get(&owner), Some(Addr::Unix(_)));
                is_unix && self.rings.values().any(|ring| ring.accepts_one(fd))
            }
            _ => false,
        }
    }

    /// Calls that begin connections, or lead to them.
    fn begin(&mut self, op: &Op) -> Option<io::Result<Answer>> {
        Some(match op {
            Op::Listen { at, backlog, into } => {
                let addr = match at {
                    Place::Tcp4 => Addr::Ip(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)),
                    Place::Tcp6 => Addr::Ip(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0)),
                    Place::Unix(n) => Addr::Unix(Some(self.folder.join(n.to_string()))),
                };
                self.listen(&addr, *backlog, *into)
            }
            Op::ListenAgain { at, into } => {
                let addr = self.places.get(at)?.clone();
                self.listen(&addr, 16, *into)
            }
            Op::Unlink { at } => {
                let Addr::Unix(Some(path)) = self.places.get(at)? else { return None };
                self.sys.remove_socket_file(path, None);
                Ok(Answer::Done)
            }
            Op::Connect { to, into } => {
                let to = match to {
                    Target::Listener(at) => self.places.get(at)?.clone(),
                    Target::Nobody => Addr::Ip(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1)),
                    Target::NoFile => Addr::Unix(Some(self.folder.join("none"))),
                };
                self.sys.connect(&to, &ConnectOptions::default()).map(|(fd, already)| {
                    let number = self.opened(fd, *into);
                    self.learn_port(fd, *into);
                    Answer::Connected { number, already }
                })
            }
            Op::Accept { from, into } => {
                let from = *from;
                self.sys.accept(self.number(from)?).map(|(fd, addr)| {
                    // Small pieces travel at once, also while others are on their way.
                    let _ = self.sys.set_option(fd, SocketOption::NoDelay(true));
                    if self.sort(from) == Some(Sort::Sequenced) {
                        self.sorts.insert(*into, Sort::Sequenced);
                    }
                    let number = self.opened(fd, *into);
                    Answer::Accepted { number, from: self.whence(addr) }
                })
            }
            _ => return None,
        })
    }

    fn listen(&mut self, at: &Addr, backlog: u32, into: Handle) -> io::Result<Answer> {
        let fd = self.sys.listen(at, &ListenOptions { backlog, ..Default::default() })?;
        let number = self.opened(fd, into);
        self.learn_port(fd, into);
        Ok(Answer::Number(number))
    }

    /// Calls that make descriptors.
    fn make(&mut self, op: &Op) -> Option<io::Result<Answer>> {
        Some(match op {
            Op::Pair { into } => self
                .sys
                .socket_pair()
                .map(|(a, b)| Answer::Pair(self.opened(a, into[0]), self.opened(b, into[1]))),
            Op::Spare { into } => self.sys.spare().map(|fd| Answer::Number(self.opened(fd, *into))),
            Op::Bell { into } => self.sys.wake_pair().map(|(fd, wake)| {
                self.wakes.insert(*into, wake);
                Answer::Number(self.opened(fd, *into))
            }),
            Op::Epoll { into } => self.sys.epoll_create().map(|fd| {
                self.epolls.insert(*into);
                Answer::Number(self.opened(fd, *into))
            }),
            _ => return None,
        })
    }

    /// Calls that only the owner of a descriptor may make.
    fn owned(&mut self, op: &Op) -> Option<io::Result<Answer>> {
        let (Op::Close { on } | Op::Abort { on } | Op::Wake { on } | Op::ClearWake { on }) = op else {
            return None;
        };
        let fd = self.own(*on);
        Some(match op {
            Op::Wake { .. } => {
                // Also when it has ended.
                self.wakes.get(on)?();
                Ok(Answer::Done)
            }
            Op::ClearWake { .. } => {
                self.wakes.get(on)?;
                self.sys.clear_wake(fd?);
                Ok(Answer::Done)
            }
            _ => {
                let fd = fd?;
                // The runtime closes nothing that a request is in flight for (I11).
                if self.rings.contains_key(on) || self.rings.values().any(|ring| ring.uses(fd)) {
                    return None;
                }
                let reset = matches!(op, Op::Abort { .. });
                let set = if reset { self.sys.set_option(fd, SocketOption::ResetOnClose) } else { Ok(()) };
                self.live.remove(self.named.get(on)?);
                if self.wakes.contains_key(on) {
                    self.sys.end_wakes(fd);
                } else {
                    self.sys.close(fd);
                }
                set.map(|()| Answer::Done)
            }
        })
    }

    /// Calls on sockets.
    fn transfer(&mut self, op: &Op) -> Option<io::Result<Answer>> {
        let sys = &self.sys;
        Some(match op {
            Op::Send { on, bytes, tag } => {
                sys.send(self.number(*on)?, &pattern(*tag, *bytes)).map(Answer::Sent)
            }
            Op::SendVectored { on, parts, tag } => {
                let parts: Vec<Vec<u8>> = parts.iter().map(|bytes| pattern(*tag, *bytes)).collect();
                let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
                sys.send_vectored(self.number(*on)?, &parts).map(Answer::Sent)
            }
            Op::Recv { on, most } => {
                let mut into = vec![0; *most];
                sys.recv(self.number(*on)?, &mut into).map(|n| Answer::Received(into[..n].to_vec()))
            }
            Op::Shutdown { on, how } => {
                let shut = sys.shutdown(self.number(*on)?, *how);
                self.shut.extend(self.owner(*on));
                shut.map(|()| Answer::Done)
            }
            Op::TakeError { on } => sys
                .take_error(self.number(*on)?)
                .map(|error| Answer::Pending(error.and_then(|e| e.raw_os_error()))),
            Op::LocalAddr { on } => {
                sys.local_addr(self.number(*on)?).map(|addr| Answer::Address(self.whence(addr)))
            }
            Op::PeerAddr { on } => {
                sys.peer_addr(self.number(*on)?).map(|addr| Answer::Address(self.whence(addr)))
            }
            Op::Set { on, setting } => {
                let second = Duration::from_secs(1);
                let keep = KeepAlive { idle: second * 60, interval: second, probes: 3 };
                let option = match setting {
                    Setting::NoDelay(on) => SocketOption::NoDelay(*on),
                    Setting::KeepAlive(on) => SocketOption::KeepAlive(on.then_some(keep)),
                    Setting::ResetOnClose => SocketOption::ResetOnClose,
                };
                sys.set_option(self.number(*on)?, option).map(|()| Answer::Done)
            }
            _ => return None,
        })
    }

    /// Calls on rings.
    fn ring(&mut self, op: &Op) -> Option<io::Result<Answer>> {
        let (ring, into, completed) = match op {
            Op::Ring { into, incremental } => {
                return Some(Rings::new(&self.sys, *incremental).map(|ring| {
                    let number = self.opened(ring.number(), *into);
                    self.rings.insert(*into, ring);
                    Answer::Number(number)
                }));
            }
            Op::Ask { ring, ask, on, into } => {
                let fd = self.number(*on)?;
                if self.rings.get(ring)?.repeats(ask, fd) {
                    return None;
                }
                (ring, into, self.rings.get_mut(ring)?.ask(&self.sys, ask, fd, *into))
            }
            Op::Turn { ring, into } => (ring, into, self.rings.get_mut(ring)?.turn(&self.sys)),
            _ => return None,
        };
        let mut all = match completed {
            Ok(all) => all,
            Err(e) => return Some(Err(e)),
        };
        let mut into = *into;
        for done in &mut all {
            if self.rings.get_mut(ring)?.accepted(done) {
                done.result = self.opened(done.result, into);
                into += 1;
            }
        }
        Some(Ok(Answer::Completions(all)))
    }

    /// Calls about readiness. None waits.
    fn wait(&mut self, op: &Op) -> Option<io::Result<Answer>> {
        Some(match op {
            Op::Ctl { epoll, op, on, flags } => {
                let flags = EpollFlags::from_bits_retain(*flags);
                self.epoll_ctl(*epoll, *op, *on, flags)?
            }
            Op::Wait { epoll, most } => {
                let mut events: Vec<EpollEvent> = Vec::with_capacity(*most);
                let reports = |events: &[EpollEvent]| {
                    let report = |event: &EpollEvent| {
                        let EpollEvent { flags, data } = *event;
                        (data.u64() as Handle, Flags(flags.bits()))
                    };
                    Answer::Reports(events.iter().map(report).collect())
                };
                let waited = self.sys.epoll_wait(self.number(*epoll)?, &mut events, Some(Duration::ZERO));
                waited.map(|()| reports(&events))
            }
            Op::Poll { on } => {
                let mut entries = Vec::new();
                for (handle, events) in on {
                    entries.push(PollEntry { fd: self.number(*handle)?, events: *events, revents: 0 });
                }
                let found = self.sys.poll(&mut entries, Some(Duration::ZERO));
                found.map(|n| Answer::Ready(n, entries.iter().map(|entry| entry.revents).collect()))
            }
            Op::Select { on } => self.select(on)?,
            _ => return None,
        })
    }

    fn epoll_ctl(
        &self,
        epoll: Handle,
        op: EpollOp,
        on: Handle,
        flags: EpollFlags,
    ) -> Option<io::Result<Answer>> {
        let (ep, fd) = (self.number(epoll)?, self.number(on)?);
        Some(self.sys.epoll_ctl(ep, op, fd, u64::from(on), flags).map(|()| Answer::Done))
    }

    fn select(&self, on: &[(Handle, u8)]) -> Option<io::Result<Answer>> {
        let mut sets = [[Default::default(); 16]; 3];
        let mut bound = 0;
        for (handle, of) in on {
            let fd = self.number(*handle)?;
            bound = bound.max(fd + 1);
            for (i, set) in sets.iter_mut().enumerate() {
                if of & 1 << i != 0 {
                    fd_set_insert(set, fd);
                }
            }
        }
        Some(self.sys.select(bound, &mut sets, Some(Duration::ZERO)).map(|n| {
            let left = sets.map(|set| {
                let fds: Vec<Fd> = FdSetIter::new(&set).collect();
                let asked = on.iter().map(|(handle, _)| *handle);
                asked.filter(|handle| self.number(*handle).is_some_and(|fd| fds.contains(&fd))).collect()
            });
            Answer::Selected(n, left)
        }))
    }
}

/// An error by the name that the manuals have for it, as far as these calls know it.
fn failure(e: &io::Error) -> String {
    const NAMES: [(Errno, &str); 26] = [
        (Errno::ACCESS, "EACCES"),
        (Errno::ADDRINUSE, "EADDRINUSE"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::BADF, "EBADF"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::EXIST, "EEXIST"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::INTR, "EINTR"),
        (Errno::INVAL, "EINVAL"),
        (Errno::LOOP, "ELOOP"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NFILE, "ENFILE"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::NOENT, "ENOENT"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::NOTCONN, "ENOTCONN"),
        (Errno::NOTSOCK, "ENOTSOCK"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::PERM, "EPERM"),
        (Errno::PIPE, "EPIPE"),
        (Errno::PROTO, "EPROTO"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
    ];
    let number = e.raw_os_error();
    let named = NAMES.iter().find(|(errno, _)| Some(errno.raw_os_error()) == number);
    named.map_or_else(|| e.to_string(), |(_, name)| (*name).into())
}

/// Bytes that tell where they come from.
pub(super) fn pattern(tag: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| tag.wrapping_add((i % 251) as u8)).collect()
}

impl Watched for crate::sys::Real {
    fn unread(&self, fd: Fd) -> Option<usize> {
        alone::unread(fd)
    }

    fn held_back(&self) -> Duration {
        Duration::from_millis(60)
    }

    fn is_under_way(&self, fd: Fd) -> bool {
        // Of a Unix socket the same call tells what has not been read.
        alone::unacknowledged(fd) != 0
            && alone::acknowledge(fd)
            && alone::unacknowledged(fd) != 0
            // What was reset is over, whatever it had sent.
            && self.peer_addr(fd).is_ok()
    }
}

impl Side<SimSys> {
    /// In how many pieces bytes wait in a pipe, or at a Unix socket.
    pub(super) fn pieces(&self, handle: Handle) -> Option<usize> {
        self.sys.sim.kernel.borrow().pieces(self.sys.host, self.number(handle)?)
    }
}

impl Watched for SimSys {
    fn unread(&self, fd: Fd) -> Option<usize> {
        let kernel = self.sim.kernel.borrow();
        kernel.unread(self.host, fd)
    }

    fn settle(&self) {
        self.sim.settle();
    }
}
