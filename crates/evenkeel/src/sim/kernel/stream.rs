//! Stream sockets: bytes in order, bounded on the way and at their end, with the end and the reset among them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use super::{Event, HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::net::{Addr, SocketOption};
use crate::sim::fault::Fault;
use crate::sim::net::Network;
use crate::sys::Fd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Open,
    /// Reset, never connected, or ended by both sides.
    Closed,
}

/// What travels.
#[derive(Debug)]
enum Load {
    Bytes(VecDeque<u8>),
    /// The sender ends its half.
    Fin,
    Reset,
}

#[derive(Debug)]
struct Segment {
    /// When it arrives, if there is room.
    at: u64,
    load: Load,
}

/// What comes towards one end.
#[derive(Debug)]
struct Inbox {
    /// Arrived, and not read.
    ready: VecDeque<u8>,
    /// Of a Unix socket: what arrived, piece by piece as it was sent, and what is left of each. A piece takes its sender's room
    /// until all of it is read.
    pieces: VecDeque<(usize, usize)>,
    room: usize,
    /// In the order in which it was sent.
    transit: VecDeque<Segment>,
    transit_bytes: usize,
    /// Nothing arrives before.
    clogged_until: u64,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) state: State,
    pub(crate) unix: bool,
    pub(crate) local: Addr,
    pub(crate) remote: Addr,
    /// The other end, while it is open.
    pub(super) peer: Option<ObjectId>,
    inbox: Inbox,
    error: Option<Errno>,
    /// Nothing more can come, or is wanted.
    shut_read: bool,
    shut_write: bool,
    /// The other side's end has come.
    ended: bool,
    /// A write or a look found no room since it was last said that there is.
    no_space: Cell<bool>,
    send_room: usize,
    /// Closing resets.
    pub(crate) reset_on_close: bool,
    /// Its listener has ended before it was accepted.
    refused: bool,
}

impl Stream {
    fn new(state: State, unix: bool, local: Addr, remote: Addr, net: &Network) -> Self {
        let inbox = Inbox {
            ready: VecDeque::new(),
            pieces: VecDeque::new(),
            // A Unix socket has its sender's room only.
            room: if unix { usize::MAX } else { net.recv_buffer },
            transit: VecDeque::new(),
            transit_bytes: 0,
            clogged_until: 0,
        };
        Stream {
            state,
            unix,
            local,
            remote,
            peer: None,
            inbox,
            error: None,
            shut_read: false,
            shut_write: false,
            ended: false,
            no_space: Cell::new(false),
            send_room: net.send_buffer,
            reset_on_close: false,
            refused: false,
        }
    }

    pub(super) fn connecting(local: Addr, remote: Addr, net: &Network) -> Self {
        Self::new(State::Connecting, false, local, remote, net)
    }

    /// One for TCP that is bound, and neither listens nor connects.
    pub(super) fn closed(local: Addr, net: &Network) -> Self {
        Self::new(State::Closed, false, local, Addr::Unix(None), net)
    }

    /// The side of one who listens.
    pub(super) fn accepted(&mut self, recv: Option<usize>, send: Option<usize>) {
        self.state = State::Open;
        self.set_buffers(recv, send);
    }

    /// Sizes as they are asked for; Linux takes at least some 2 KiB, and twice what it is asked for.
    pub(crate) fn set_buffers(&mut self, recv: Option<usize>, send: Option<usize>) {
        const LEAST: usize = 2304;
        if let Some(recv) = recv.filter(|_| !self.unix) {
            self.inbox.room = recv.saturating_mul(2).clamp(LEAST, 16 << 20);
        }
        if let Some(send) = send {
            self.send_room = send.saturating_mul(2).clamp(LEAST, 16 << 20);
        }
    }

    /// Two ends without names.
    pub(super) fn pair(net: &Network, unix: bool) -> (Self, Self) {
        let end = || Self::new(State::Open, unix, Addr::Unix(None), Addr::Unix(None), net);
        (end(), end())
    }

    /// Bytes that wait to be read.
    pub(crate) fn unread(&self) -> usize {
        self.inbox.ready.len()
    }

    /// Whether a receive that has just come to the last byte would find something: of TCP, the end too.
    pub(super) fn has_more(&self) -> bool {
        self.unread() > 0 || self.ended && !self.unix
    }

    /// Whether bytes may still be sent to this end.
    pub(super) fn has_peer(&self) -> bool {
        self.peer.is_some() || self.inbox.transit_bytes > 0
    }

    /// In how many parts it was sent that wait to be read, at a Unix socket.
    pub(super) fn pieces(&self) -> usize {
        self.inbox.pieces.len()
    }

    /// What waits on its way to this end, and so takes the sender's room.
    fn held(&self) -> usize {
        self.inbox.transit_bytes + self.inbox.pieces.iter().map(|(all, _)| all).sum::<usize>()
    }
}

impl Kernel {
    pub(super) fn stream(&mut self, id: ObjectId) -> Option<&mut Stream> {
        match self.objects.get_mut(id) {
            Some(Object { kind: Kind::Stream(stream), .. }) => Some(stream),
            _ => None,
        }
    }

    fn stream_of(&mut self, host: HostId, fd: Fd) -> Result<(ObjectId, &mut Stream), Errno> {
        let id = self.lookup(host, fd)?;
        self.stream(id).map(|stream| (id, stream)).ok_or(Errno::NOTSOCK)
    }

    /// How much of its room a sender uses.
    fn used(&self, stream: &Stream) -> usize {
        stream.peer.and_then(|peer| self.objects.get(peer)?.stream().map(Stream::held)).unwrap_or(0)
    }

    fn is_writable(&self, stream: &Stream) -> bool {
        let used = self.used(stream);
        // As Linux: room for a third, and for three quarters of a Unix socket's.
        if stream.unix { used * 4 <= stream.send_room } else { used * 3 <= stream.send_room * 2 }
    }

    pub(super) fn stream_mask(&self, stream: &Stream) -> u32 {
        let mut mask = 0;
        if stream.error.is_some() {
            mask |= bits::ERR;
        }
        if stream.state == State::Connecting {
            return mask;
        }
        if stream.shut_read {
            mask |= bits::IN | bits::RDHUP;
        }
        if stream.state == State::Closed || (stream.shut_read && stream.shut_write) {
            mask |= bits::HUP;
        }
        if !stream.inbox.ready.is_empty() {
            mask |= bits::IN;
        }
        // One for TCP that was shut is said to have room, so that a write finds out.
        if (stream.shut_write && !stream.unix) || self.is_writable(stream) {
            mask |= bits::OUT;
        } else {
            // Whoever has looked is told when there is room.
            stream.no_space.set(true);
        }
        mask
    }

    // ---- the calls ----

    pub(crate) fn recv(&mut self, host: HostId, fd: Fd, into: &mut [u8]) -> Result<usize, Errno> {
        let id = self.lookup(host, fd)?;
        self.recv_from(id, fd, into)
    }

    /// Receives on an object, which may have lost the number `fd` that it was named by.
    pub(super) fn recv_from(&mut self, id: ObjectId, fd: Fd, into: &mut [u8]) -> Result<usize, Errno> {
        if let Some(Kind::Listener(listener)) = self.objects.get(id).map(|object| &object.kind) {
            return Err(listener.recv_error());
        }
        match self.objects.get(id).map(|object| &object.kind) {
            Some(Kind::Udp(_)) => return Ok(self.udp_recv(id, into)?.0),
            Some(Kind::UnixPacket(_)) => return Ok(self.unix_recv(id, into)?.0),
            _ => {}
        }
        let stream = self.stream(id).ok_or(Errno::NOTSOCK)?;
        if stream.state == State::Connecting {
            return Err(Errno::AGAIN);
        }
        let there = stream.inbox.ready.len();
        if there == 0 {
            // After an orderly end a reset changes nothing for who reads; its error waits for somebody else.
            if stream.ended && !stream.unix {
                return Ok(0);
            }
            if let Some(error) = stream.error.take() {
                return Err(error);
            }
            return match stream.state {
                _ if stream.shut_read => Ok(0),
                State::Closed => Err(Errno::NOTCONN),
                _ => Err(Errno::AGAIN),
            };
        }
        if self.strikes(Fault::WouldBlock) {
            self.notify_soon(id, bits::ARRIVED);
            return Err(Errno::AGAIN);
        }
        let mut most = there.min(into.len());
        if most > 1 && self.strikes(Fault::ShortRead) {
            most = self.faults.dice(Fault::ShortRead).usize(1..most);
            // The rest counts as new to those who hear of changes only.
            self.notify_soon(id, bits::ARRIVED);
        }
        let Some(stream) = self.stream(id) else { return Err(Errno::BADF) };
        copy_out(&mut stream.inbox.ready, &mut into[..most]);
        let emptied = stream.inbox.take_pieces(most);
        self.log(format_args!("recv {fd}: {most} of {there}"));
        self.arrive(id);
        self.sender_may_go_on(id, emptied);
        Ok(most)
    }

    /// Whether anything could be sent from here. The pending error is told, and taken.
    fn may_send(&mut self, host: HostId, fd: Fd) -> Result<(ObjectId, &mut Stream), Errno> {
        if let Kind::Listener(listener) = &self.object(host, fd)?.kind {
            return Err(if listener.is_unix() { Errno::NOTCONN } else { Errno::PIPE });
        }
        let (id, stream) = self.stream_of(host, fd)?;
        if stream.state == State::Connecting {
            return Err(Errno::AGAIN);
        }
        // One end of a Unix socket that is shut says so first, and keeps its error.
        if stream.unix && stream.shut_write {
            return Err(Errno::PIPE);
        }
        if let Some(error) = stream.error.take() {
            return Err(error);
        }
        if stream.shut_write || stream.state == State::Closed {
            return Err(Errno::PIPE);
        }
        Ok((id, stream))
    }

    pub(crate) fn send(&mut self, host: HostId, fd: Fd, from: &[&[u8]]) -> Result<usize, Errno> {
        let (id, stream) = self.may_send(host, fd)?;
        let (peer, room, unix) = (stream.peer, stream.send_room, stream.unix);
        let wanted: usize = from.iter().map(|part| part.len()).sum();
        let open = peer.filter(|peer| self.objects.get(*peer).is_some());
        let Some(peer) = open else {
            return if unix { Err(Errno::PIPE) } else { self.sent_to_nobody(id, wanted) };
        };
        if wanted == 0 {
            return Ok(0);
        }
        if unix && self.stream(peer).is_some_and(|peer| peer.shut_read) {
            return Err(Errno::PIPE);
        }
        let used = self.stream(peer).map_or(0, |peer| peer.held());
        let mut most = room.saturating_sub(used).min(wanted);
        if most > 0 && self.strikes(Fault::WouldBlock) {
            most = 0;
            self.notify_soon(id, bits::OUT);
        } else if most > 1 && self.strikes(Fault::ShortWrite) {
            most = self.faults.dice(Fault::ShortWrite).usize(1..most);
            self.notify_soon(id, bits::OUT);
        }
        if most < wanted
            && let Some(stream) = self.stream(id)
        {
            stream.no_space.set(true);
        }
        if most == 0 {
            return Err(Errno::AGAIN);
        }
        self.log(format_args!("send {fd}: {most} of {wanted}"));
        let mut bytes = Vec::with_capacity(most);
        for part in from {
            bytes.extend_from_slice(&part[..part.len().min(most - bytes.len())]);
        }
        self.transmit(id, peer, &bytes);
        self.network_faults(id, peer);
        Ok(most)
    }

    /// The other end has been closed: what comes for it is answered with a reset.
    fn sent_to_nobody(&mut self, id: ObjectId, bytes: usize) -> Result<usize, Errno> {
        // The first write finds out, and the second one says so.
        if bytes > 0 {
            if let Some(stream) = self.stream(id) {
                // What waited at the other end for room goes with its connection.
                let room = stream.inbox.room.saturating_sub(stream.inbox.ready.len());
                stream.inbox.keep_only(room);
            }
            self.push_to(id, Load::Reset);
        }
        Ok(bytes)
    }

    pub(crate) fn shutdown(&mut self, host: HostId, fd: Fd, read: bool, write: bool) -> Result<(), Errno> {
        let id = self.lookup(host, fd)?;
        if let Kind::UnixPacket(_) = self.object(host, fd)?.kind {
            return self.unix_shutdown(id, read, write);
        }
        if self.listener(id).is_some() {
            self.shut_listener(id, read, write);
            return Ok(());
        }
        let (id, stream) = self.stream_of(host, fd)?;
        if stream.state == State::Connecting {
            // It is given up, as if it had never begun.
            (stream.state, stream.error) = (State::Closed, Some(Errno::CONNRESET));
            if let Addr::Ip(local) = &mut stream.local {
                local.set_ip(if local.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                });
            }
            self.disconnected(id);
            return Ok(());
        }
        let (had_write, peer, unix) = (stream.shut_write, stream.peer, stream.unix);
        let was_open = stream.state == State::Open;
        stream.shut_read |= read;
        stream.shut_write |= write;
        if unix {
            self.notify(id, bits::STATE);
            self.shut_other_end(peer, read, write);
            return Ok(());
        }
        if was_open && write && !had_write {
            match peer {
                Some(_) => self.push(peer, Load::Fin, id),
                None => self.end_was_heard(id),
            }
        }
        self.notify(id, bits::STATE);
        if was_open { Ok(()) } else { Err(Errno::NOTCONN) }
    }

    /// A socket for TCP was shut that has no other end: it tells of an error, and then that its state is new.
    pub(super) fn disconnected(&mut self, id: ObjectId) {
        self.notify(id, bits::ERR);
        self.notify(id, bits::STATE);
    }

    /// One end of a Unix socket was shut: the other one is as well, the other way round, and hears of it.
    fn shut_other_end(&mut self, peer: Option<ObjectId>, read: bool, write: bool) {
        if let Some(peer) = peer
            && let Some(stream) = self.stream(peer)
        {
            stream.shut_write |= read;
            stream.shut_read |= write;
            self.notify(peer, bits::STATE);
        }
    }

    /// The end that this one sent has reached the other side. If that has ended too, the connection is over.
    fn end_was_heard(&mut self, id: ObjectId) {
        let Some(stream) = self.stream(id) else { return };
        if stream.state == State::Open {
            if stream.ended {
                stream.state = State::Closed;
                stream.shut_read = true;
            }
            self.notify(id, bits::STATE);
        }
    }

    /// What the running kernel says is left to be read: of a socket for packets the next one's bytes. None if it says nothing.
    pub(crate) fn unread(&self, host: HostId, fd: Fd) -> Option<usize> {
        match &self.object(host, fd).ok()?.kind {
            Kind::Stream(stream) => Some(stream.unread()),
            Kind::Udp(udp) => Some(udp.unread()),
            Kind::UnixPacket(socket) => Some(socket.unread()),
            Kind::Pipe(pipe) => Some(self.pipe_unread(pipe)),
            _ => None,
        }
    }

    /// The pending error, which is taken by being asked for.
    pub(crate) fn take_error(&mut self, host: HostId, fd: Fd) -> Result<Option<Errno>, Errno> {
        let id = self.lookup(host, fd)?;
        match self.objects.get_mut(id).map(|object| &mut object.kind) {
            Some(Kind::Stream(stream)) => Ok(stream.error.take()),
            Some(Kind::Udp(udp)) => Ok(udp.take_error()),
            Some(Kind::UnixPacket(socket)) => Ok(socket.take_error()),
            Some(Kind::Listener(_)) => Ok(None),
            _ => Err(Errno::NOTSOCK),
        }
    }

    pub(crate) fn set_option(&mut self, host: HostId, fd: Fd, option: SocketOption) -> Result<(), Errno> {
        let id = self.lookup(host, fd)?;
        if let Some(listener) = self.listener(id) {
            return listener.set_option(option);
        }
        let (_, stream) = self.stream_of(host, fd)?;
        match option {
            SocketOption::NoDelay(_) | SocketOption::KeepAlive(Some(_)) if stream.unix => {
                return Err(Errno::OPNOTSUPP);
            }
            // How segments are cut, and whether a silent peer is asked, changes nothing that the model has.
            SocketOption::NoDelay(_) | SocketOption::KeepAlive(_) => {}
            SocketOption::SendBuffer(size) => stream.set_buffers(None, Some(size)),
            SocketOption::RecvBuffer(size) => stream.set_buffers(Some(size), None),
            SocketOption::ResetOnClose => stream.reset_on_close = true,
        }
        Ok(())
    }

    /// The address of an end, or of the other one.
    pub(crate) fn address(&self, host: HostId, fd: Fd, peer: bool) -> Result<Addr, Errno> {
        match &self.object(host, fd)?.kind {
            Kind::Listener(listener) if !peer => Ok(listener.addr.clone()),
            Kind::Stream(stream) if !peer => Ok(stream.local.clone()),
            Kind::Stream(stream) if stream.state == State::Open || stream.unix => Ok(stream.remote.clone()),
            Kind::Stream(_) | Kind::Listener(_) => Err(Errno::NOTCONN),
            _ => Err(Errno::NOTSOCK),
        }
    }

    // ---- the way ----

    /// How long something takes from one host to another.
    pub(super) fn delay_between(&mut self, a: HostId, b: HostId) -> u64 {
        let range = if a == b { self.net.local_delay.clone() } else { self.net.delay.clone() };
        if range.is_empty() {
            return range.start;
        }
        let mut delay = self.dice.u64(range);
        if self.strikes(Fault::Delay) {
            let tail = self.net.tail.clone();
            delay += self.faults.dice(Fault::Delay).u64(tail);
        }
        delay
    }

    /// Sends bytes on their way, in one piece or in several.
    ///
    /// Each piece owns just its bytes: one that keeps the room of all that follow makes a small segment's write
    /// cost its length squared.
    fn transmit(&mut self, from: ObjectId, to: ObjectId, bytes: &[u8]) {
        for piece in bytes.chunks(self.net.segment) {
            self.push(Some(to), Load::Bytes(VecDeque::from(piece.to_vec())), from);
        }
    }

    /// Puts something on the way to an end; nothing overtakes what was sent before.
    fn push(&mut self, to: Option<ObjectId>, load: Load, from: ObjectId) {
        let Some(to) = to.filter(|to| self.objects.get(*to).is_some()) else { return };
        let hosts = (self.objects.get(from).map(|o| o.host), self.objects.get(to).map(|o| o.host));
        let (from, host) = match hosts {
            (Some(from), Some(host)) => (from, host),
            // The sender is being closed; its host is that of the receiver or any other.
            (None, Some(host)) => (host, host),
            _ => return,
        };
        let unix = self.stream(to).is_some_and(|stream| stream.unix);
        let delay = if unix { 0 } else { self.delay_between(from, host) };
        let now = self.now;
        let Some(stream) = self.stream(to) else { return };
        let inbox = &mut stream.inbox;
        let last = inbox.transit.back().map_or(0, |segment| segment.at);
        let at = (now + delay).max(last);
        if let Load::Bytes(bytes) = &load {
            inbox.transit_bytes += bytes.len();
        }
        inbox.transit.push_back(Segment { at, load });
        if at <= now {
            self.arrive(to);
        } else {
            self.at(at, Event::Arrive(to));
        }
    }

    /// Until when the network keeps back what is for an end, if it does.
    fn kept_back_until(&self, id: ObjectId) -> Option<u64> {
        let object = self.objects.get(id)?;
        let stream = object.stream()?;
        let peer = stream.peer.and_then(|peer| self.objects.get(peer));
        let cut = peer.and_then(|peer| self.net.is_cut(object.host, peer.host, self.now));
        cut.or(Some(stream.inbox.clogged_until).filter(|until| *until > self.now))
    }

    /// Lets what has reached an end be found there, as far as there is room.
    pub(super) fn arrive(&mut self, id: ObjectId) {
        let (now, every) = (self.now, self.net.every_arrival);
        if self.stream(id).is_none_or(|stream| stream.state == State::Connecting) {
            return;
        }
        if let Some(until) = self.kept_back_until(id) {
            return self.at(until, Event::Arrive(id));
        }
        let Some(stream) = self.stream(id) else { return };
        let (mut news, mut half_closed, mut ended) = (None, false, false);
        loop {
            let abandoned = stream.shut_read && stream.shut_write && !stream.unix;
            let inbox = &mut stream.inbox;
            let Some(segment) = inbox.transit.front_mut().filter(|segment| segment.at <= now) else { break };
            match &mut segment.load {
                Load::Bytes(_) if abandoned => return self.abort(id),
                Load::Bytes(bytes) => {
                    let free = inbox.room.saturating_sub(inbox.ready.len());
                    // A window opens when a good part of it is free.
                    if free < bytes.len() && free < inbox.room / 2 {
                        break;
                    }
                    let fits = free.min(bytes.len());
                    if every || inbox.ready.is_empty() {
                        news = news.or(Some(bits::ARRIVED));
                    }
                    if stream.unix {
                        inbox.pieces.push_back((fits, fits));
                    }
                    move_bytes(bytes, &mut inbox.ready, fits);
                    half_closed |= stream.shut_write && fits > 0;
                    inbox.transit_bytes -= fits;
                    if !bytes.is_empty() {
                        break;
                    }
                }
                Load::Fin => {
                    stream.shut_read = true;
                    // A connection that both ends have ended is over, and nothing resets it any more.
                    ended = !stream.inbox.ready.is_empty() && !stream.shut_write;
                    stream.ended = true;
                    if stream.shut_write {
                        stream.state = State::Closed;
                    }
                    news = Some(bits::STATE);
                }
                Load::Reset => return self.arrived_reset(id, news),
            }
            stream.inbox.transit.pop_front();
        }
        let sender = stream.peer;
        if half_closed {
            self.faults.hit(Fault::HalfClose);
        }
        if ended && self.strikes(Fault::ResetAfterEnd) {
            return self.cut_off(id);
        }
        let Some(news) = news else { return };
        self.notify(id, news);
        if news == bits::STATE
            && let Some(peer) = sender
        {
            self.end_was_heard(peer);
        }
        self.sender_may_go_on(id, 0);
    }

    /// A reset is next, after what is `news`.
    fn arrived_reset(&mut self, id: ObjectId, news: Option<u32>) {
        let Some(stream) = self.stream(id) else { return };
        let only_ended = stream.ended && !stream.shut_write;
        let error = if only_ended { Errno::PIPE } else { Errno::CONNRESET };
        if stream.ended && !stream.inbox.ready.is_empty() {
            self.faults.hit(Fault::ResetAfterEnd);
        }
        self.reset(id, error);
        // Of one that had ended already it tells nobody; what came with it is told all the same.
        if let Some(news) = news {
            self.notify(id, news);
        }
    }

    /// Resets both ends of a connection, the other one first.
    fn cut_off(&mut self, id: ObjectId) {
        if let Some(peer) = self.stream(id).and_then(|stream| stream.peer) {
            self.reset(peer, Errno::CONNRESET);
        }
        self.reset(id, Errno::CONNRESET);
    }

    /// Bytes have come for an end that neither reads nor writes any more: both ends are reset.
    fn abort(&mut self, id: ObjectId) {
        let Some(peer) = self.stream(id).and_then(|stream| stream.peer) else { return };
        self.reset(id, Errno::CONNRESET);
        self.push_to(peer, Load::Reset);
    }

    /// Room has come free on the way to an end: its sender hears of it, if it had found none. That of a Unix socket always hears
    /// of each piece of its that has been read.
    fn sender_may_go_on(&mut self, id: ObjectId, emptied: usize) {
        let Some(peer) = self.stream(id).and_then(|stream| stream.peer) else { return };
        let Some(stream) = self.objects.get(peer).and_then(Object::stream) else { return };
        let told = if stream.unix { emptied } else { usize::from(stream.no_space.get()) };
        if told == 0 || !self.is_writable(stream) {
            return;
        }
        stream.no_space.set(false);
        for _ in 0..told {
            self.notify(peer, bits::OUT);
        }
    }

    /// What a network does to a connection while it is used.
    fn network_faults(&mut self, id: ObjectId, peer: ObjectId) {
        if self.stream(id).is_none_or(|stream| stream.unix) {
            return;
        }
        if self.strikes(Fault::Reset) {
            return self.cut_off(id);
        }
        if self.strikes(Fault::EarlyEnd) {
            // To each end it looks as if the other one had closed, after any byte.
            for (end, other) in [(id, peer), (peer, id)] {
                self.push(Some(end), Load::Fin, other);
            }
            for end in [id, peer] {
                if let Some(stream) = self.stream(end) {
                    stream.peer = None;
                }
            }
            return;
        }
        if self.strikes(Fault::Clog) {
            let time = self.faults.dice(Fault::Clog).u64(1_000_000..5_000_000_000);
            let until = self.now + time;
            if let Some(stream) = self.stream(peer) {
                stream.inbox.clogged_until = until;
            }
        }
    }

    // ---- the end ----

    /// An end is over, with an error for whoever uses it next. What has arrived can still be read.
    pub(crate) fn reset(&mut self, id: ObjectId, error: Errno) {
        let Some(stream) = self.stream(id) else { return };
        if stream.state == State::Closed {
            return;
        }
        stream.state = State::Closed;
        stream.error = Some(error);
        (stream.shut_read, stream.shut_write) = (true, true);
        stream.inbox.transit.clear();
        stream.inbox.transit_bytes = 0;
        // It refers to nothing that could be sent to.
        stream.peer = None;
        self.log(format_args!("reset: {error}"));
        self.notify(id, bits::STATE);
    }

    /// Resets the other end of what is about to be thrown away.
    pub(super) fn abort_stream(&mut self, id: ObjectId) {
        match self.objects.get_mut(id).map(|object| &mut object.kind) {
            Some(Kind::Stream(stream)) => (stream.reset_on_close, stream.refused) = (true, true),
            Some(Kind::UnixPacket(socket)) => socket.refused = true,
            _ => {}
        }
    }

    /// The last descriptor of an end is gone.
    pub(super) fn end_stream(&mut self, _id: ObjectId, stream: Stream) {
        let Some(peer) = stream.peer else { return };
        let Some(other) = self.stream(peer) else { return };
        let unread = !stream.inbox.ready.is_empty();
        if stream.unix {
            // Bytes that were sent are there already: nothing takes time within a host.
            other.shut_read = true;
            other.shut_write = true;
            other.peer = None;
            if unread || stream.refused {
                other.error = Some(Errno::CONNRESET);
            }
            return self.notify(peer, bits::STATE);
        }
        if stream.state == State::Closed {
            return;
        }
        let unsent = other.inbox.transit.iter().any(|segment| matches!(segment.load, Load::Bytes(_)));
        if unread || stream.reset_on_close {
            if unsent {
                // What the other end has no room for has never left.
                let room = other.inbox.room.saturating_sub(other.inbox.ready.len());
                other.inbox.keep_only(room);
            }
            other.peer = None;
            return self.push_to(peer, Load::Reset);
        }
        if !stream.shut_write {
            self.push_to(peer, Load::Fin);
        }
        // What is still on its way here finds nobody, which is answered with a reset.
        let coming = stream.inbox.transit.iter().any(|segment| matches!(segment.load, Load::Bytes(_)));
        if coming {
            self.push_to(peer, Load::Reset);
        }
        if let Some(other) = self.stream(peer) {
            other.peer = None;
        }
    }

    fn push_to(&mut self, to: ObjectId, load: Load) {
        self.push(Some(to), load, to);
    }
}

impl Inbox {
    /// Notes that so much was read, and returns how many pieces are read to their ends.
    fn take_pieces(&mut self, mut bytes: usize) -> usize {
        let mut emptied = 0;
        while bytes > 0
            && let Some((_, left)) = self.pieces.front_mut()
        {
            let read = bytes.min(*left);
            (*left, bytes) = (*left - read, bytes - read);
            if *left == 0 {
                self.pieces.pop_front();
                emptied += 1;
            }
        }
        emptied
    }

    /// Forgets what is beyond the next `room` bytes on the way, and then the end behind it: a reset comes in its place.
    fn keep_only(&mut self, mut room: usize) {
        let before = self.transit_bytes;
        for segment in &mut self.transit {
            if let Load::Bytes(bytes) = &mut segment.load {
                let kept = bytes.len().min(room);
                self.transit_bytes -= bytes.len() - kept;
                bytes.truncate(kept);
                room -= kept;
            }
        }
        if self.transit_bytes < before {
            self.transit.retain(|segment| !matches!(segment.load, Load::Fin));
        }
    }
}

/// By whole slices: byte by byte, a world spends most of its time here.
fn move_bytes(from: &mut VecDeque<u8>, into: &mut VecDeque<u8>, n: usize) {
    let (front, back) = from.as_slices();
    let split = front.len().min(n);
    into.extend(&front[..split]);
    into.extend(&back[..n - split]);
    from.drain(..n);
}

fn copy_out(from: &mut VecDeque<u8>, into: &mut [u8]) {
    let n = into.len();
    let (front, back) = from.as_slices();
    let split = front.len().min(n);
    into[..split].copy_from_slice(&front[..split]);
    into[split..].copy_from_slice(&back[..n - split]);
    from.drain(..n);
}
