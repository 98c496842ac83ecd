//! From `connect` to a connection that both ends have.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::io::Errno;

use super::bind::Protocol;
use super::stream::{State, Stream};
use super::{Event, HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::net::{Addr, ConnectOptions};
use crate::sim::fault::Fault;
use crate::sys::Fd;

/// How long a client waits before it tries again, by attempts made. After the last one it gives up.
const RETRY: [u64; 6] =
    [1_000_000_000, 2_000_000_000, 4_000_000_000, 8_000_000_000, 16_000_000_000, 32_000_000_000];

impl Kernel {
    /// Begins to connect. True: it is connected already.
    pub(crate) fn connect(
        &mut self,
        host: HostId,
        to: &Addr,
        options: &ConnectOptions,
    ) -> Result<(Fd, bool), Errno> {
        self.has_number(host)?;
        match to {
            Addr::Ip(to) => self.connect_tcp(host, *to, options).map(|fd| (fd, false)),
            Addr::Unix(Some(path)) => self.connect_unix(host, path).map(|fd| (fd, true)),
            Addr::Unix(None) => Err(Errno::INVAL),
        }
    }

    fn connect_tcp(
        &mut self,
        host: HostId,
        mut to: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<Fd, Errno> {
        // There are no connections to a group, or to everybody.
        if to.ip().is_multicast() || to.ip() == Ipv4Addr::BROADCAST {
            return Err(Errno::NETUNREACH);
        }
        if to.ip().is_unspecified() {
            to.set_ip(if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let local = match options.bind {
            Some(from) => {
                let mut local = self.bind(host, Protocol::Tcp, from, false, false)?;
                if local.ip().is_unspecified() {
                    local.set_ip(self.source_address(host, to.ip()));
                }
                local
            }
            None => {
                let port = self.ephemeral_port(host, Protocol::Tcp)?;
                SocketAddr::new(self.source_address(host, to.ip()), port)
            }
        };
        let stream = Stream::connecting(Addr::Ip(local), Addr::Ip(to), &self.net);
        let client = self.objects.insert(host, Kind::Stream(stream));
        self.log(format_args!("connect {local} to {to}"));
        let delay = self.delay_between(host, self.host_at(host, to.ip()).unwrap_or(host));
        self.after(delay, Event::Connecting { client, attempt: 0 });
        self.assign(host, client)
    }

    fn connect_unix(&mut self, host: HostId, path: &Path) -> Result<Fd, Errno> {
        let (_, listener) = *self.host(host).socket_files.get(path).ok_or(Errno::NOENT)?;
        let listener = listener.ok_or(Errno::CONNREFUSED)?;
        let accepting = self.listener(listener).filter(|l| !l.of_packets).ok_or(Errno::PROTOTYPE)?;
        if accepting.shut_read {
            return Err(Errno::CONNREFUSED);
        }
        if accepting.is_full() {
            self.faults.hit(Fault::BacklogFull);
            return Err(Errno::AGAIN);
        }
        let here = Addr::Unix(Some(path.to_owned()));
        let (mut near, mut far) = Stream::pair(&self.net, true);
        (near.remote, far.local) = (here.clone(), here);
        let (client, server) = self.join(host, near, host, far);
        if let Some(listener) = self.listener(listener) {
            listener.queue.push_back(server);
        }
        self.notify(listener, bits::ARRIVED);
        self.assign(host, client)
    }

    /// Two ends that are connected to each other.
    pub(super) fn join(&mut self, a: HostId, near: Stream, b: HostId, far: Stream) -> (ObjectId, ObjectId) {
        let near = self.objects.insert(a, Kind::Stream(near));
        let far = self.objects.insert(b, Kind::Stream(far));
        for (this, other) in [(near, far), (far, near)] {
            if let Some(stream) = self.stream(this) {
                stream.peer = Some(other);
            }
        }
        (near, far)
    }

    pub(crate) fn socket_pair(&mut self, host: HostId) -> Result<(Fd, Fd), Errno> {
        self.has_number(host)?;
        let (near, far) = Stream::pair(&self.net, true);
        let (near, far) = self.join(host, near, host, far);
        let a = self.assign(host, near)?;
        match self.assign(host, far) {
            Ok(b) => Ok((a, b)),
            Err(e) => {
                self.end(far);
                let _ = self.close(host, a);
                Err(e)
            }
        }
    }

    /// The first packet of a client reaches the other host.
    pub(super) fn connecting(&mut self, client: ObjectId, attempt: u32) {
        let Some(Object { host: from, kind: Kind::Stream(stream), .. }) = self.objects.get(client) else {
            return;
        };
        let (from, local, to) = (*from, stream.local.clone(), stream.remote.clone());
        if stream.state != State::Connecting {
            return;
        }
        let Some(to) = to.socket_addr() else { return };
        let Some(host) = self.host_at(from, to.ip()) else { return self.nobody_answers(client, attempt) };
        if self.strikes(Fault::ConnectFails) {
            let fates = [Some(Errno::CONNREFUSED), Some(Errno::HOSTUNREACH), Some(Errno::NETUNREACH), None];
            match fates[self.faults.dice(Fault::ConnectFails).usize(..fates.len())] {
                Some(error) => self.answer(client, from, host, Err(error)),
                None => self.nobody_answers(client, attempt),
            }
            return;
        }
        if self.net.is_cut(from, host, self.now).is_some() {
            return self.nobody_answers(client, attempt);
        }
        let Some(id) = self.bound_to(host, Protocol::Tcp, to) else {
            return self.answer(client, from, host, Err(Errno::CONNREFUSED));
        };
        let dropped = self.strikes(Fault::BacklogFull);
        let Some(listener) = self.listener(id) else { return };
        if dropped || listener.is_full() {
            self.faults.hit(Fault::BacklogFull);
            return self.nobody_answers(client, attempt);
        }
        let (recv, send) = (listener.recv_buffer, listener.send_buffer);
        let reset_on_close = listener.reset_on_close;
        let mut server = Stream::connecting(Addr::Ip(to), local, &self.net);
        server.accepted(recv, send);
        server.peer = Some(client);
        server.reset_on_close = reset_on_close;
        let server = self.objects.insert(host, Kind::Stream(server));
        self.answer(client, from, host, Ok(server));
        if let Some(listener) = self.listener(id) {
            listener.queue.push_back(server);
        }
        self.notify(id, bits::ARRIVED);
    }

    fn answer(&mut self, client: ObjectId, from: HostId, host: HostId, answer: Result<ObjectId, Errno>) {
        let delay = self.delay_between(host, from);
        if delay == 0 {
            self.connected(client, answer);
        } else {
            self.after(delay, Event::Connected { client, answer });
        }
    }

    /// The packet is lost; the client sends another one after a while, some times.
    fn nobody_answers(&mut self, client: ObjectId, attempt: u32) {
        match RETRY.get(attempt as usize) {
            Some(wait) => self.after(*wait, Event::Connecting { client, attempt: attempt + 1 }),
            None => self.connected(client, Err(Errno::TIMEDOUT)),
        }
    }

    pub(super) fn connected(&mut self, client: ObjectId, answer: Result<ObjectId, Errno>) {
        let gone = self.stream(client).is_none_or(|stream| stream.state != State::Connecting);
        if gone {
            // The client has closed meanwhile: what the other side has is no connection.
            if let Ok(server) = answer {
                self.reset(server, Errno::CONNRESET);
            }
            return;
        }
        let Some(stream) = self.stream(client) else { return };
        match answer {
            Ok(server) => {
                stream.state = State::Open;
                stream.peer = Some(server);
                self.log(format_args!("connected"));
                self.notify(client, bits::STATE);
                // The other side may be gone already; what it sent before, and its end, are found here.
                self.arrive(client);
            }
            Err(error) => {
                self.log(format_args!("not connected: {error}"));
                self.reset(client, error);
            }
        }
    }
}
