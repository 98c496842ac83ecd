//! Sockets that listen, and the connections that wait in their queues.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::bind::{Binding, Protocol};
use super::unix_packet::is_abstract;
use super::{HostId, Kernel, Kind, Object, ObjectId, Stream, bits};
use crate::net::{Addr, ListenOptions, SocketOption};
use crate::sim::fault::Fault;
use crate::sys::Fd;

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) addr: Addr,
    pub(crate) reuse_port: bool,
    /// Of sequenced packets, and not of bytes.
    pub(crate) of_packets: bool,
    /// Established, and not accepted.
    pub(super) queue: VecDeque<ObjectId>,
    backlog: usize,
    pub(super) recv_buffer: Option<usize>,
    pub(super) send_buffer: Option<usize>,
    /// What is accepted resets when it is closed.
    pub(super) reset_on_close: bool,
    /// Of a Unix socket that was shut down. One for TCP listens no more.
    pub(super) shut_read: bool,
    pub(super) shut_write: bool,
}

impl Listener {
    /// One of a socket that may have been shut before.
    pub(super) fn of_packets(addr: Addr, backlog: i32, (shut_read, shut_write): (bool, bool)) -> Self {
        let mut listener = Listener {
            addr,
            reuse_port: false,
            of_packets: true,
            queue: VecDeque::new(),
            backlog: 0,
            recv_buffer: None,
            send_buffer: None,
            reset_on_close: false,
            shut_read,
            shut_write,
        };
        listener.set_backlog(backlog);
        listener
    }

    pub(super) fn set_backlog(&mut self, backlog: i32) {
        self.backlog = usize::try_from(backlog).map_or(4096, |backlog| backlog.min(4096));
    }

    pub(super) fn mask(&self) -> u32 {
        let mut mask = if self.queue.is_empty() { 0 } else { bits::IN };
        if self.shut_read {
            mask |= bits::IN | bits::RDHUP;
        }
        if self.shut_read && self.shut_write {
            mask |= bits::HUP;
        }
        mask
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self.addr, Addr::Unix(_))
    }

    /// What receiving from it says.
    pub(super) fn recv_error(&self) -> Errno {
        if self.is_unix() && !self.of_packets { Errno::INVAL } else { Errno::NOTCONN }
    }

    /// What accepted connections inherit.
    pub(super) fn set_option(&mut self, option: SocketOption) -> Result<(), Errno> {
        match option {
            SocketOption::NoDelay(_) | SocketOption::KeepAlive(Some(_)) if self.is_unix() => {
                return Err(Errno::OPNOTSUPP);
            }
            SocketOption::NoDelay(_) | SocketOption::KeepAlive(_) => {}
            SocketOption::SendBuffer(size) => self.send_buffer = Some(size),
            SocketOption::RecvBuffer(size) => self.recv_buffer = Some(size),
            SocketOption::ResetOnClose => self.reset_on_close = true,
        }
        Ok(())
    }

    /// As Linux counts: one more than asked for.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() > self.backlog
    }
}

impl Kernel {
    pub(crate) fn listen(&mut self, host: HostId, at: &Addr, options: &ListenOptions) -> Result<Fd, Errno> {
        self.has_number(host)?;
        let only_v6 = !options.dual_stack && matches!(at, Addr::Ip(ip) if ip.is_ipv6());
        let addr = match at {
            Addr::Ip(ip) => {
                let shared = options.reuse_port;
                Addr::Ip(self.bind(host, Protocol::Tcp, *ip, shared, only_v6)?)
            }
            Addr::Unix(Some(path)) => {
                if self.host(host).socket_files.contains_key(path) {
                    return Err(Errno::ADDRINUSE);
                }
                Addr::Unix(Some(path.clone()))
            }
            Addr::Unix(None) => return Err(Errno::INVAL),
        };
        let listener = Listener {
            addr: addr.clone(),
            reuse_port: options.reuse_port,
            of_packets: false,
            queue: VecDeque::new(),
            backlog: options.backlog.clamp(1, 4096) as usize,
            recv_buffer: options.recv_buffer,
            send_buffer: options.send_buffer,
            reset_on_close: false,
            shut_read: false,
            shut_write: false,
        };
        let id = self.objects.insert(host, Kind::Listener(listener));
        match &addr {
            Addr::Ip(ip) => {
                let binding = Binding {
                    addr: *ip,
                    protocol: Protocol::Tcp,
                    object: id,
                    shared: options.reuse_port,
                    only_v6,
                };
                self.add_binding(host, binding);
            }
            Addr::Unix(path) => {
                let host = self.host(host);
                let inode = host.next_inode;
                host.next_inode += 1;
                let path = path.clone().unwrap_or_default();
                host.socket_files.insert(path, (inode, Some(id)));
            }
        }
        self.log(format_args!("listen at {addr}"));
        self.assign(host, id)
    }

    /// How many may wait to be accepted, from now on. As Linux has it, one more does.
    pub(crate) fn set_backlog(&mut self, host: HostId, fd: Fd, backlog: usize) -> Result<(), Errno> {
        let id = self.lookup(host, fd)?;
        self.listener(id).ok_or(Errno::OPNOTSUPP)?.backlog = backlog;
        Ok(())
    }

    pub(super) fn listener(&mut self, id: ObjectId) -> Option<&mut Listener> {
        match self.objects.get_mut(id) {
            Some(Object { kind: Kind::Listener(listener), .. }) => Some(listener),
            _ => None,
        }
    }

    /// Takes a connection from the queue. A number is found first, as Linux does it.
    pub(crate) fn accept(&mut self, host: HostId, fd: Fd) -> Result<(Fd, Addr), Errno> {
        let id = self.lookup(host, fd)?;
        self.accept_from(host, id)
    }

    pub(super) fn accept_from(&mut self, host: HostId, id: ObjectId) -> Result<(Fd, Addr), Errno> {
        self.has_number(host)?;
        match self.objects.get(id).map(|object| &object.kind) {
            Some(Kind::Listener(listener)) if !listener.queue.is_empty() => {}
            Some(Kind::Listener(_)) => return Err(Errno::AGAIN),
            Some(Kind::Stream(_)) => return Err(Errno::INVAL),
            Some(Kind::UnixPacket(socket)) if socket.sequenced => return Err(Errno::INVAL),
            Some(Kind::UnixPacket(_) | Kind::Udp(_)) => return Err(Errno::OPNOTSUPP),
            _ => return Err(Errno::NOTSOCK),
        }
        if self.strikes(Fault::WouldBlock) {
            self.notify_soon(id, bits::ARRIVED);
            return Err(Errno::AGAIN);
        }
        if self.strikes(Fault::NoBuffers) {
            let errors = [Errno::NOBUFS, Errno::NOMEM];
            return Err(errors[self.faults.dice(Fault::NoBuffers).usize(..2)]);
        }
        let aborted = self.strikes(Fault::AcceptAborted);
        let Some(connection) = self.listener(id).and_then(|listener| listener.queue.pop_front()) else {
            return Err(Errno::AGAIN);
        };
        if aborted {
            self.abort_stream(connection);
            self.end(connection);
            return Err(Errno::CONNABORTED);
        }
        let remote = match self.objects.get(connection).and_then(Object::stream) {
            Some(stream) => stream.remote.clone(),
            None => {
                Addr::Unix(self.unix_name(connection, true).ok().flatten().filter(|name| !is_abstract(name)))
            }
        };
        let fd = self.assign(host, connection)?;
        Ok((fd, remote))
    }

    pub(super) fn end_listener(&mut self, host: HostId, id: ObjectId, listener: Listener) {
        self.remove_binding(host, id);
        self.unix_forget(host, id);
        // Nobody will accept them.
        for connection in listener.queue {
            self.abort_stream(connection);
            self.end(connection);
        }
    }

    /// Shuts a listener down. One for TCP that is not to receive any more becomes a plain socket; one for Unix still accepts.
    pub(super) fn shut_listener(&mut self, id: ObjectId, read: bool, write: bool) {
        let Some(listener) = self.listener(id) else { return };
        let Addr::Ip(addr) = listener.addr else {
            listener.shut_read |= read;
            listener.shut_write |= write;
            return self.notify(id, bits::STATE);
        };
        if read {
            let closed = Kind::Stream(Stream::closed(Addr::Ip(addr), &self.net));
            if let Some(object) = self.objects.get_mut(id)
                && let Kind::Listener(listener) = std::mem::replace(&mut object.kind, closed)
            {
                let host = object.host;
                self.end_listener(host, id, listener);
            }
            return self.disconnected(id);
        }
        self.notify(id, bits::STATE);
    }
}
