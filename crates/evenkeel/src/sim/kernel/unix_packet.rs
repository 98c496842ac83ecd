//! Unix sockets that carry messages: datagrams, and sequenced packets. Nothing is lost, nothing overtakes, and who sends more
//! than is taken must wait.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::listener::Listener;
use super::{HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::net::Addr;
use crate::sim::fault::Fault;
use crate::sys::Fd;

/// Messages that wait at a socket at most, less one, for those who are not connected to it both ways.
const BACKLOG: usize = 10;
/// What those messages of one sender take at most that were not read.
const BUFFER: usize = 212_992;
/// What a message takes beside its bytes.
const OVERHEAD: usize = 768;

/// A name: a path, or one of the abstract namespace, which begins with a zero byte.
pub(crate) type Name = PathBuf;

#[derive(Debug)]
struct Message {
    /// Of a sender that was closed, how it was named then. Of others it is how they are named when it is read.
    from: Option<Name>,
    /// Whose buffer it takes room of.
    sender: ObjectId,
    bytes: Vec<u8>,
}

/// A socket.
#[derive(Debug)]
pub(crate) struct UnixPacket {
    /// Of sequenced packets: connected like a stream.
    pub(crate) sequenced: bool,
    pub(super) local: Option<Name>,
    peer: Option<ObjectId>,
    peer_name: Option<Name>,
    queue: VecDeque<Message>,
    /// Bytes of what it has sent that wait to be read.
    unread: usize,
    shut_read: bool,
    shut_write: bool,
    error: Option<Errno>,
    /// Its listener has ended before it was accepted.
    pub(super) refused: bool,
    /// A send or a look found this other socket's queue full: what is read there is told here, once.
    waits_for: Cell<Option<ObjectId>>,
}

impl UnixPacket {
    pub(crate) fn new(sequenced: bool) -> Self {
        UnixPacket {
            sequenced,
            local: None,
            peer: None,
            peer_name: None,
            queue: VecDeque::new(),
            unread: 0,
            shut_read: false,
            shut_write: false,
            error: None,
            refused: false,
            waits_for: Cell::new(None),
        }
    }

    /// Bytes of the next datagram, or of all sequenced packets.
    pub(super) fn unread(&self) -> usize {
        let most = if self.sequenced { usize::MAX } else { 1 };
        self.queue.iter().take(most).map(|message| message.bytes.len()).sum()
    }

    fn has_room(&self) -> bool {
        self.unread * 4 <= BUFFER
    }

    pub(super) fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }
}

impl Kernel {
    fn unix(&mut self, id: ObjectId) -> Result<&mut UnixPacket, Errno> {
        match self.objects.get_mut(id) {
            Some(Object { kind: Kind::UnixPacket(socket), .. }) => Ok(socket),
            _ => Err(Errno::NOTSOCK),
        }
    }

    fn unix_at(&self, id: ObjectId) -> Option<&UnixPacket> {
        match &self.objects.get(id)?.kind {
            Kind::UnixPacket(socket) => Some(socket),
            _ => None,
        }
    }

    /// Whether a socket may send to another one without waiting for it.
    fn unix_takes(&self, from: ObjectId, to: ObjectId) -> bool {
        self.unix_at(to).is_none_or(|socket| {
            socket.sequenced || socket.peer == Some(from) || socket.queue.len() <= BACKLOG
        })
    }

    pub(super) fn unix_mask(&self, id: ObjectId, socket: &UnixPacket) -> u32 {
        let mut mask = 0;
        if !socket.queue.is_empty() || socket.shut_read {
            mask |= bits::IN;
        }
        if socket.shut_read {
            mask |= bits::RDHUP;
        }
        if socket.error.is_some() {
            mask |= bits::ERR;
        }
        let unconnected = socket.sequenced && socket.peer.is_none();
        if (socket.shut_read && socket.shut_write) || unconnected {
            mask |= bits::HUP;
        }
        if socket.has_room() {
            match socket.peer.filter(|peer| !self.unix_takes(id, *peer)) {
                None => mask |= bits::OUT,
                full => socket.waits_for.set(full),
            }
        }
        mask
    }

    pub(crate) fn unix_pair(&mut self, host: HostId, sequenced: bool) -> Result<(Fd, Fd), Errno> {
        self.has_number(host)?;
        let ends = [(); 2].map(|()| self.objects.insert(host, Kind::UnixPacket(UnixPacket::new(sequenced))));
        for (end, other) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            self.unix(end)?.peer = Some(other);
        }
        let a = self.assign(host, ends[0])?;
        match self.assign(host, ends[1]) {
            Ok(b) => Ok((a, b)),
            Err(e) => {
                self.end(ends[1]);
                self.close(host, a)?;
                Err(e)
            }
        }
    }

    pub(crate) fn unix_bind(&mut self, host: HostId, id: ObjectId, name: Name) -> Result<(), Errno> {
        let there = self.objects.get(id).map(|object| &object.kind);
        let (sequenced, bound) = match there {
            Some(Kind::UnixPacket(socket)) => (socket.sequenced, socket.local.is_some()),
            Some(Kind::Listener(listener)) if listener.of_packets => (true, true),
            _ => return Err(Errno::NOTSOCK),
        };
        let key = key(&name, sequenced);
        let host = self.host(host);
        let taken = host.socket_files.contains_key(&key);
        // A file is made before it is looked whether the socket has a name.
        if bound && (is_abstract(&name) || !taken) {
            return Err(Errno::INVAL);
        }
        if taken {
            return Err(Errno::ADDRINUSE);
        }
        let inode = host.next_inode;
        host.next_inode += 1;
        host.socket_files.insert(key, (inode, Some(id)));
        self.unix(id)?.local = Some(name);
        Ok(())
    }

    /// The open socket that a socket for sequenced packets or for datagrams finds by a name.
    fn unix_named(&mut self, host: HostId, name: &Path, sequenced: bool) -> Result<ObjectId, Errno> {
        let nobody = if is_abstract(name) { Errno::CONNREFUSED } else { Errno::NOENT };
        let (_, id) = *self.host(host).socket_files.get(&key(name, sequenced)).ok_or(nobody)?;
        id.filter(|id| self.objects.get(*id).is_some()).ok_or(Errno::CONNREFUSED)
    }

    pub(crate) fn unix_listen(&mut self, id: ObjectId, backlog: i32) -> Result<(), Errno> {
        if let Some(listener) = self.listener(id).filter(|listener| listener.of_packets) {
            listener.set_backlog(backlog);
            return Ok(());
        }
        let socket = self.unix(id)?;
        if !socket.sequenced {
            return Err(Errno::OPNOTSUPP);
        }
        let name = socket.local.clone().ok_or(Errno::INVAL)?;
        if socket.peer.is_some() {
            return Err(Errno::INVAL);
        }
        let shut = (socket.shut_read, socket.shut_write);
        if let Some(object) = self.objects.get_mut(id) {
            object.kind = Kind::Listener(Listener::of_packets(Addr::Unix(Some(name)), backlog, shut));
        }
        Ok(())
    }

    pub(crate) fn unix_connect(&mut self, host: HostId, id: ObjectId, name: &Path) -> Result<(), Errno> {
        if self.unix_at(id).is_some_and(|socket| !socket.sequenced) {
            return self.unix_connect_datagrams(host, id, name);
        }
        let at = self.unix_named(host, name, true)?;
        if self.unix_at(at).is_some() {
            // It does not listen, or never will.
            let wrong = self.unix_at(at).is_some_and(|there| !there.sequenced);
            return Err(if wrong { Errno::PROTOTYPE } else { Errno::CONNREFUSED });
        }
        let listener = self.listener(at).ok_or(Errno::PROTOTYPE)?;
        if !listener.of_packets {
            return Err(Errno::PROTOTYPE);
        }
        if listener.shut_read {
            return Err(Errno::CONNREFUSED);
        }
        if listener.is_full() {
            self.faults.hit(Fault::BacklogFull);
            return Err(Errno::AGAIN);
        }
        // Only then it looks at itself.
        let socket = match self.objects.get(id).map(|object| &object.kind) {
            Some(Kind::Listener(_)) => return Err(Errno::INVAL),
            _ => self.unix(id)?,
        };
        if socket.peer.is_some() {
            return Err(Errno::ISCONN);
        }
        let local = socket.local.clone();
        let mut server = UnixPacket::new(true);
        (server.peer, server.local, server.peer_name) = (Some(id), Some(name.to_owned()), local);
        let server = self.objects.insert(host, Kind::UnixPacket(server));
        let socket = self.unix(id)?;
        (socket.peer, socket.peer_name) = (Some(server), Some(name.to_owned()));
        if let Some(listener) = self.listener(at) {
            listener.queue.push_back(server);
        }
        self.notify(at, bits::ARRIVED);
        Ok(())
    }

    fn unix_connect_datagrams(&mut self, host: HostId, id: ObjectId, name: &Path) -> Result<(), Errno> {
        let to = self.unix_named(host, name, false)?;
        let there = self.unix_at(to).filter(|there| !there.sequenced).ok_or(Errno::PROTOTYPE)?;
        if there.peer.is_some_and(|peer| peer != id) {
            return Err(Errno::PERM);
        }
        let socket = self.unix(id)?;
        let before = socket.peer.replace(to);
        socket.peer_name = Some(name.to_owned());
        if let Some(before) = before {
            self.unix_waits_no_more(id);
            if before != to {
                self.unix_disconnected(id, before);
            }
        }
        Ok(())
    }

    /// One that has lost its peer waits for its queue no more, and is told to look.
    fn unix_waits_no_more(&mut self, id: ObjectId) {
        if let Ok(socket) = self.unix(id) {
            socket.waits_for.set(None);
            self.notify(id, bits::OUT);
        }
    }

    /// A datagram socket is not connected to another one any more: what it has not read is lost, and then
    /// the other one is told if it was connected back.
    fn unix_disconnected(&mut self, id: ObjectId, from: ObjectId) {
        let lost = self.unix(id).map(|socket| std::mem::take(&mut socket.queue)).unwrap_or_default();
        if lost.is_empty() {
            return;
        }
        for message in &lost {
            self.unix_was_read(message);
        }
        if let Ok(other) = self.unix(from)
            && other.peer == Some(id)
        {
            other.error = Some(Errno::CONNRESET);
            self.notify(from, bits::ERR);
        }
    }

    /// The name of a socket, or of the one that it is connected to. None: it has none.
    pub(crate) fn unix_name(&mut self, id: ObjectId, peer: bool) -> Result<Option<Name>, Errno> {
        if let Some(listener) = self.listener(id) {
            return match &listener.addr {
                Addr::Unix(name) if !peer => Ok(name.clone()),
                _ => Err(Errno::NOTCONN),
            };
        }
        let socket = self.unix(id)?;
        match (peer, socket.peer) {
            (false, _) => Ok(socket.local.clone()),
            (true, None) => Err(Errno::NOTCONN),
            (true, Some(other)) => {
                let own = socket.peer_name.clone();
                Ok(self.unix_at(other).and_then(|other| other.local.clone()).or(own))
            }
        }
    }

    pub(crate) fn unix_send(
        &mut self,
        host: HostId,
        id: ObjectId,
        bytes: &[u8],
        to: Option<&Path>,
    ) -> Result<usize, Errno> {
        if self.listener(id).is_some() {
            return Err(Errno::NOTCONN);
        }
        let socket = self.unix(id)?;
        if bytes.len() > BUFFER - 32 && (!socket.sequenced || socket.peer.is_some()) {
            return Err(Errno::MSGSIZE);
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.sequenced && socket.peer.is_none() {
            return Err(Errno::NOTCONN);
        }
        if socket.shut_write {
            return Err(Errno::PIPE);
        }
        if socket.unread + bytes.len() + OVERHEAD > BUFFER && socket.unread > 0 {
            return Err(Errno::AGAIN);
        }
        let sent = self.unix_deliver(host, id, bytes, to);
        if sent.is_err() && self.unix(id)?.has_room() {
            // The room that the message had taken is free again, which is news.
            self.notify(id, bits::OUT);
        }
        sent
    }

    fn unix_deliver(
        &mut self,
        host: HostId,
        id: ObjectId,
        bytes: &[u8],
        to: Option<&Path>,
    ) -> Result<usize, Errno> {
        let socket = self.unix(id)?;
        let (sequenced, peer) = (socket.sequenced, socket.peer);
        let to = match to.filter(|_| !sequenced) {
            Some(name) => self.unix_named(host, name, sequenced)?,
            None => peer.ok_or(Errno::NOTCONN)?,
        };
        let Some(there) = self.unix_at(to) else {
            if self.objects.get(to).is_some() {
                return Err(Errno::PROTOTYPE);
            }
            // The other one has been closed.
            if !sequenced && let Ok(socket) = self.unix(id) {
                (socket.peer, socket.peer_name) = (None, None);
                self.unix_waits_no_more(id);
                self.unix_disconnected(id, to);
            }
            return Err(if sequenced { Errno::PIPE } else { Errno::CONNREFUSED });
        };
        if there.sequenced != sequenced {
            return Err(Errno::PROTOTYPE);
        }
        if !sequenced && there.peer.is_some_and(|peer| peer != id) {
            return Err(Errno::PERM);
        }
        if there.shut_read {
            return Err(Errno::PIPE);
        }
        if to != id && !self.unix_takes(id, to) {
            if peer == Some(to) {
                self.unix(id)?.waits_for.set(peer);
            }
            return Err(Errno::AGAIN);
        }
        if self.strikes(Fault::WouldBlock) {
            self.notify_soon(id, bits::OUT);
            return Err(Errno::AGAIN);
        }
        let socket = self.unix(id)?;
        socket.unread += bytes.len() + OVERHEAD;
        let message = Message { from: None, sender: id, bytes: bytes.to_vec() };
        self.unix(to)?.queue.push_back(message);
        self.log(format_args!("message of {}", bytes.len()));
        self.notify(to, bits::ARRIVED);
        Ok(bytes.len())
    }

    /// Takes a message: how many bytes fitted, how many there were, and its sender's name.
    pub(crate) fn unix_recv(
        &mut self,
        id: ObjectId,
        into: &mut [u8],
    ) -> Result<(usize, usize, Option<Name>), Errno> {
        if let Some(listener) = self.listener(id) {
            return Err(listener.recv_error());
        }
        let socket = self.unix(id)?;
        if socket.sequenced && socket.peer.is_none() {
            return Err(Errno::NOTCONN);
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.queue.is_empty() {
            let ended = socket.shut_read && socket.sequenced;
            return if ended { Ok((0, 0, None)) } else { Err(Errno::AGAIN) };
        }
        if self.strikes(Fault::WouldBlock) {
            self.notify_soon(id, bits::IN);
            return Err(Errno::AGAIN);
        }
        let message = self.unix(id)?.queue.pop_front().ok_or(Errno::AGAIN)?;
        let n = message.bytes.len().min(into.len());
        into[..n].copy_from_slice(&message.bytes[..n]);
        self.log(format_args!("message of {n} is read"));
        self.unix_tell_waiting(id, bits::OUT);
        self.unix_was_read(&message);
        let from = self.unix_at(message.sender).map_or(message.from, |sender| sender.local.clone());
        Ok((n, message.bytes.len(), from))
    }

    /// A message takes no room of its sender any more.
    fn unix_was_read(&mut self, message: &Message) {
        if let Ok(sender) = self.unix(message.sender) {
            sender.unread = sender.unread.saturating_sub(message.bytes.len() + OVERHEAD);
            if sender.has_room() {
                self.notify(message.sender, bits::OUT);
            }
        }
    }

    /// Tells those who wait for a socket's queue.
    fn unix_tell_waiting(&mut self, id: ObjectId, mask: u32) {
        let waits = |(at, object): (ObjectId, &Object)| match &object.kind {
            Kind::UnixPacket(socket) if socket.waits_for.get() == Some(id) => {
                socket.waits_for.set(None);
                Some(at)
            }
            _ => None,
        };
        let waiting: Vec<ObjectId> = self.objects.iter().filter_map(waits).collect();
        for other in waiting {
            self.notify(other, mask);
        }
    }

    pub(super) fn unix_shutdown(&mut self, id: ObjectId, read: bool, write: bool) -> Result<(), Errno> {
        let socket = self.unix(id)?;
        let peer = socket.peer.filter(|_| socket.sequenced);
        socket.shut_read |= read;
        socket.shut_write |= write;
        if let Some(Ok(other)) = peer.map(|peer| self.unix(peer)) {
            other.shut_read |= write;
            other.shut_write |= read;
        }
        self.notify(id, bits::STATE);
        if let Some(peer) = peer {
            self.notify(peer, bits::STATE);
        }
        Ok(())
    }

    /// The last descriptor of a socket is gone.
    pub(super) fn end_unix(&mut self, host: HostId, id: ObjectId, socket: UnixPacket) {
        self.unix_forget(host, id);
        if socket.sequenced
            && let Some(peer) = socket.peer
            && let Ok(other) = self.unix(peer)
        {
            (other.shut_read, other.shut_write) = (true, true);
            // As Linux: a first message of no bytes does not count, and a second one does.
            let empty = socket.queue.front().is_some_and(|message| message.bytes.is_empty());
            if socket.queue.len() > usize::from(empty) || socket.refused {
                other.error = Some(Errno::CONNRESET);
            }
            self.notify(peer, bits::STATE);
        }
        for object in self.objects.iter_mut() {
            if let Kind::UnixPacket(other) = &mut object.kind {
                // It is known by its name for longer than it is open.
                if other.peer == Some(id) {
                    other.peer_name = socket.local.clone();
                }
                let sent = other.queue.iter_mut().filter(|message| message.sender == id);
                sent.for_each(|message| message.from = socket.local.clone());
            }
        }
        self.unix_tell_waiting(id, bits::STATE);
        // What it had not read takes no room of others any more.
        for message in &socket.queue {
            self.unix_was_read(message);
        }
    }

    /// Names that an object had: a file stays, and nobody is there.
    pub(super) fn unix_forget(&mut self, host: HostId, id: ObjectId) {
        let files = &mut self.host(host).socket_files;
        files.retain(|name, (_, socket)| *socket != Some(id) || !is_abstract(name));
        for (_, socket) in files.values_mut() {
            *socket = socket.filter(|socket| *socket != id);
        }
    }
}

/// What a name is found by: each kind of sockets has an abstract namespace of its own.
fn key(name: &Path, sequenced: bool) -> PathBuf {
    let bytes = name.as_os_str().as_bytes();
    match bytes {
        [0, rest @ ..] => {
            let kind = if sequenced { b's' } else { b'd' };
            PathBuf::from(OsStr::from_bytes(&[&[0, kind], rest].concat()))
        }
        _ => name.to_owned(),
    }
}

pub(super) fn is_abstract(name: &Path) -> bool {
    name.as_os_str().as_encoded_bytes().first() == Some(&0)
}
