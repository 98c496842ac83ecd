//! Sockets that listen, and the connections that wait in their queues.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::bind::{Binding, Protocol};
use super::{HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::net::{Addr, ListenOptions};
use crate::sim::fault::Fault;
use crate::sys::Fd;

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) addr: Addr,
    pub(crate) reuse_port: bool,
    /// Established, and not accepted.
    pub(super) queue: VecDeque<ObjectId>,
    backlog: usize,
    pub(super) recv_buffer: Option<usize>,
    pub(super) send_buffer: Option<usize>,
}

impl Listener {
    pub(super) fn mask(&self) -> u32 {
        if self.queue.is_empty() { 0 } else { bits::IN }
    }

    /// As Linux counts: one more than asked for.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() > self.backlog
    }
}

impl Kernel {
    pub(crate) fn listen(&mut self, host: HostId, at: &Addr, options: &ListenOptions) -> Result<Fd, Errno> {
        self.has_number(host)?;
        let addr = match at {
            Addr::Ip(ip) => {
                let shared = options.reuse_port;
                Addr::Ip(self.bind(host, Protocol::Tcp, *ip, shared)?)
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
            queue: VecDeque::new(),
            backlog: options.backlog.clamp(1, 4096) as usize,
            recv_buffer: options.recv_buffer,
            send_buffer: options.send_buffer,
        };
        let id = self.objects.insert(host, Kind::Listener(listener));
        match &addr {
            Addr::Ip(ip) => {
                let binding =
                    Binding { addr: *ip, protocol: Protocol::Tcp, object: id, shared: options.reuse_port };
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

    pub(super) fn listener(&mut self, id: ObjectId) -> Option<&mut Listener> {
        match self.objects.get_mut(id) {
            Some(Object { kind: Kind::Listener(listener), .. }) => Some(listener),
            _ => None,
        }
    }

    /// Takes a connection from the queue. A number is found first, as Linux does it.
    pub(crate) fn accept(&mut self, host: HostId, fd: Fd) -> Result<(Fd, Addr), Errno> {
        let id = self.lookup(host, fd)?;
        self.has_number(host)?;
        if self.listener(id).ok_or(Errno::INVAL)?.queue.is_empty() {
            return Err(Errno::AGAIN);
        }
        if self.strikes(Fault::WouldBlock) {
            self.notify_soon(id, bits::IN);
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
        let remote = self.objects.get(connection).and_then(Object::stream).map(|s| s.remote.clone());
        let fd = self.assign(host, connection)?;
        Ok((fd, remote.unwrap_or(Addr::Unix(None))))
    }

    pub(super) fn end_listener(&mut self, host: HostId, id: ObjectId, listener: Listener) {
        self.remove_binding(host, id);
        for file in self.host(host).socket_files.values_mut() {
            if file.1 == Some(id) {
                file.1 = None;
            }
        }
        // Nobody will accept them.
        for connection in listener.queue {
            self.abort_stream(connection);
            self.end(connection);
        }
    }
}
